"""ONNX Runtime's TensorRT execution provider: its options, and the plans that it builds and keeps by itself."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnxruntime as ort

from dap.checksums import sha256_of
from dap.engines.assignment import Assignment
from dap.engines.cuda import CudaDevice
from dap.engines.plans import PlanFolder, PlanKey
from dap.engines.tensorrt_builder import FLOAT_INPUT, INPUT
from dap.engines.tensorrt_library import require_precision, tensorrt_version
from dap.errors import EngineUnavailable
from dap.graph import read_graph_metadata
from dap.models import cache_folder

_log = logging.getLogger(__name__)

TENSORRT = "TensorrtExecutionProvider"
NOT_FOUND = "Please install TensorRT libraries"
"""What ONNX Runtime's Python package says where the libraries that its provider is linked with are not to be found."""


class ProviderPlans:
    """Plans of one ONNX file for one GPU: one optimisation profile, from one panorama to the largest batch.

    They are kept under the rules of `dap.engines.plans`, in a folder of their own for each model, GPU and largest
    batch. What another driver, TensorRT or ONNX Runtime has built is removed.

    Attributes:
        largest_batch: panoramas. A larger batch would not run.
    """

    def __init__(self, path: Path, gpu: CudaDevice, largest_batch: int) -> None:
        """Load TensorRT, where ONNX Runtime then finds it: pip installs it where the linker does not look.

        Args:
            path: an ONNX file that `dap.engines.base.read_metadata` has found sound.
            gpu: that builds them, and runs them.
            largest_batch: panoramas.

        Raises:
            EngineUnavailable: TensorRT is not installed, the GPU has no arithmetic in the precision of the file, or the
                folder of plans is not to be trusted.
        """
        metadata = read_graph_metadata(path)
        require_precision(metadata.precision, gpu.identity)
        # What the file says is float32 is computed in float32, as by every engine. Of the process, before TensorRT is
        # loaded, which looks then: the provider has no option for it (1.31; onnxruntime #26029).
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
        self.largest_batch = largest_batch
        version = tensorrt_version()
        key = PlanKey(path.stem, sha256_of(path), ((1, largest_batch),), gpu.identity, version)
        self._slot = key.onnxruntime(ort.__version__)
        self._folder = PlanFolder(cache_folder() / "tensorrt")
        self._gpu = gpu.number
        self._input_size = metadata.input_size

    @contextmanager
    def options(self) -> Iterator[dict[str, object]]:
        """What the provider is asked for, while a session is opened; what it builds meanwhile is kept.

        Numbers keep the types that the file gives them: the provider builds strongly typed networks where none of
        `trt_fp16_enable`, `trt_bf16_enable` and `trt_int8_enable` is set. CUDA graphs are off: it records a run only
        where no node is left to another provider. See "TensorRT Execution Provider, configurations" of ONNX Runtime's
        documentation.

        Raises:
            EngineUnavailable: the folder is not to be trusted, or cannot be written to.
        """
        with self._folder.opened(self._slot) as folder:
            yield {
                "device_id": self._gpu,
                "trt_engine_cache_enable": "True",
                "trt_engine_cache_path": str(folder),
                "trt_timing_cache_enable": "True",
                "trt_timing_cache_path": str(folder),
                "trt_profile_min_shapes": self._shapes(1),
                "trt_profile_opt_shapes": self._shapes(self.largest_batch),
                "trt_profile_max_shapes": self._shapes(self.largest_batch),
            }

    def _shapes(self, count: int) -> str:
        """Of the pixels, and of what they are cast to where the cast is left to CUDA."""
        height, width = self._input_size
        return ",".join(f"{name}:{count}x{height}x{width}x3" for name in (INPUT, FLOAT_INPUT))


def require_tensorrt(session: ort.InferenceSession, path: Path) -> None:
    """Refuse a session that ONNX Runtime has opened without the provider, or with all nodes left to others.

    Raises:
        EngineUnavailable: it has.
    """
    if TENSORRT not in session.get_providers():
        raise not_found()
    found = Assignment.of(session)
    if found is None:
        return
    plans = [name for name, _ in found.parts].count(TENSORRT)
    if not plans:
        raise EngineUnavailable(f"TensorRT takes no node of {path.name}: expected the provider cuda for it.")
    _log.info("onnx engine: %s in %d plans of TensorRT", path.name, plans)


def not_found() -> EngineUnavailable:
    """The error for a TensorRT that is not the one which ONNX Runtime's provider is linked with."""
    return EngineUnavailable(
        f"ONNX Runtime {ort.__version__} cannot load its TensorRT provider with TensorRT {tensorrt_version()}: "
        "expected the major version that it is built for, 10 of 1.31 (pip install 'tensorrt>=10,<11'). Or ask for the "
        "provider cuda, or for the engine tensorrt."
    )
