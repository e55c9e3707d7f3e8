"""The engine `onnx`: exported graphs in ONNX Runtime, on the CPU, or on a GPU by CUDA or by TensorRT."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from dap.engines import Provider
from dap.engines.base import Inference, check_finite, check_panoramas, in_parts, joined, read_metadata
from dap.engines.bindings import Bindings
from dap.engines.cores import available_cores
from dap.engines.failures import as_engine_error
from dap.engines.lanes import Crowd, Lanes
from dap.engines.sessions import FAILURES, open_session
from dap.errors import EngineError, ModelFileInvalid
from dap.graph import SWITCH, GraphMetadata
from dap.models import Model
from dap.resolutions import Size


class OnnxEngine:
    """Runs a file that `dap export` wrote. See `dap.engines.base.Engine`, and `dap.engines.lanes` for the CPU.

    Before ONNX Runtime opens the file it is checked to be whole in itself (external data could name any file of the
    machine) and to carry our metadata. ONNX Runtime runs no code from a file, and no library of custom operators is
    ever registered, so a graph that asks for one does not load.
    """

    name = "onnx"

    def __init__(
        self,
        path: Path,
        model: Model,
        *,
        device: str = "auto",
        threads: int | None = None,
        crowd: Crowd | None = None,
        gpu_arena_gb: float | None = None,
        provider: Provider = "auto",
        max_batch_size: int = 4,
    ) -> None:
        """Load the graph.

        Args:
            path: the ONNX file.
            model: what the registry says of it.
            device: as `dap.engines.sessions.open_session` has it.
            threads: that work on one batch on the CPU.
            crowd: of the engines that share the cores of the CPU with this one, such as those of the same model for
                other input sizes.
            gpu_arena_gb: of a GPU's memory, that each of the two sessions there, with range masks and without, takes at
                most for weights and for what it computes; as `dap.engines.sessions.open_session` has it.
            provider: on a GPU, of ONNX Runtime; as `dap.engines.sessions.open_session` has it.
            max_batch_size: panoramas that the provider `tensorrt` runs together at most; larger batches run in parts.

        Raises:
            ModelFileInvalid: the file is no ONNX file of ours, or not the one that the registry describes.
            EngineUnavailable: the device or the provider asked for cannot be had.
        """
        metadata = read_metadata(path, model)
        self.input_size = metadata.input_size
        self.sizes: tuple[Size, ...] = (self.input_size,)
        self.thresholds = metadata.thresholds
        cores = threads or available_cores()
        opened = open_session(
            *(path, device, cores), gpu_arena_gb=gpu_arena_gb, provider=provider, max_batch_size=max_batch_size
        )
        _check_signature(opened.session, metadata, path)
        self._largest_batch: int | None = None
        self._runs: Lanes | Bindings | None
        if opened.gpu is None:
            self.device = "cpu"
            self._runs = Lanes(path, opened.session, len(self.thresholds), cores, crowd or Crowd())
        else:
            self.device = f"cuda:{opened.gpu.device.number}"
            self._largest_batch = opened.gpu.largest_batch
            self._runs = Bindings(
                *(opened.gpu.another, opened.session, opened.gpu.device), self.input_size, len(self.thresholds)
            )
        self.lanes = self._runs.count

    def infer(self, panoramas: npt.NDArray[np.uint8], *, in_range: bool = True) -> Inference:
        """See `dap.engines.base.Engine.infer`; any batch size, panoramas of the model's input size."""
        if self._runs is None:
            raise EngineError("The engine is closed.")
        check_panoramas(panoramas, self.sizes)
        parts = in_parts(np.ascontiguousarray(panoramas), self._largest_batch)
        try:
            inference = joined([self._runs.run(part, in_range=in_range) for part in parts])
        except (*FAILURES, MemoryError) as error:
            raise as_engine_error(error, "ONNX Runtime", self.device, len(panoramas)) from error
        return check_finite(inference)

    def warm_up(self, batch_sizes: Sequence[int], size: Size | None = None) -> None:
        """Run each batch size once; on a GPU, where each has buffers and graphs of its own, without range masks too."""
        forms = (True,) if self.device == "cpu" else (True, False)
        for batch_size in batch_sizes:
            for in_range in forms:
                self.infer(np.zeros((batch_size, *(size or self.input_size), 3), np.uint8), in_range=in_range)

    def close(self) -> None:
        """Drop the sessions and their memory."""
        runs, self._runs = self._runs, None
        if isinstance(runs, Bindings):
            runs.close()


def _check_signature(session: ort.InferenceSession, metadata: GraphMetadata, path: Path) -> None:
    """The inputs and outputs by name, type and shape; the batch is open. The switch is not the file's."""
    height, width = metadata.input_size
    expected = {
        "panorama": ("tensor(uint8)", [height, width, 3]),
        "depth": ("tensor(float)", [height, width]),
        "in_range": ("tensor(float)", [len(metadata.thresholds), height, width]),
    }
    found = {value.name: (value.type, value.shape[1:]) for value in (*session.get_inputs(), *session.get_outputs())}
    found.pop(SWITCH, None)
    if found != expected:
        raise ModelFileInvalid(f"{path.name} has the inputs and outputs {found}: expected {expected}.")
