"""The engine `torch`: checkpoints in torch, on the CPU or on a CUDA device; what exports are held against."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from dap.engines import Execution, Precision
from dap.engines.base import Inference, check_finite, check_panoramas, parse_device
from dap.engines.cores import available_cores
from dap.engines.cuda import log_cpu
from dap.engines.failures import as_engine_error
from dap.engines.torch_cuda import CudaLanes
from dap.errors import EngineError, EngineUnavailable, ModelFileInvalid
from dap.model.checkpoints import load_network
from dap.model.dap import DapNetwork, PixelNetwork
from dap.model.precision import lower
from dap.models import Model
from dap.resolutions import Size

_log = logging.getLogger(__name__)

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """Runs a checkpoint, in the official layout or ours. See `dap.engines.base.Engine`, and `torch_cuda` for a GPU."""

    name = "torch"

    def __init__(
        self,
        path: Path,
        model: Model,
        *,
        device: str = "auto",
        threads: int | None = None,
        precision: Precision = "fp32",
        execution: Execution = "auto",
    ) -> None:
        """Load the checkpoint.

        Args:
            path: the checkpoint.
            model: what the registry says of it.
            device: `auto`, `cpu`, `cuda` or `cuda:N`; `cuda,cpu` as `dap.engines.create_engine` says.
            threads: torch's, which are the whole process's.
            precision: as `dap.model.precision` has it; `fp16` on a GPU alone. Convolutions that stay float32 run in
                TF32 there, which costs no depth that could be measured; in `fp32` none do.
            execution: on a GPU, as `dap.engines.torch_cuda.CudaLanes` has it; `auto` is `graphs` there. The CPU has
                `eager` alone, also where it stands in.

        Raises:
            ModelFileInvalid: the file is not the model it should be.
            EngineUnavailable: the device asked for cannot be had, or not so.
        """
        self._device = _choose_device(device)
        on_gpu = self._device.type == "cuda"
        if not on_gpu and execution not in ("auto", "eager") and not device.endswith(",cpu"):
            raise EngineUnavailable(f"The execution {execution} is for GPUs, and the torch engine is on the CPU.")
        if not on_gpu and precision == "fp16":
            raise EngineUnavailable(
                "fp16 is for GPUs: torch's kernels for the CPU take up to a hundred times as long in it."
            )
        if not on_gpu:
            torch.set_num_threads(threads or available_cores())
        network = load_network(path)
        self.thresholds = network.config.thresholds
        if self.thresholds != model.thresholds:
            raise ModelFileInvalid(
                f"{path.name} has the thresholds {self.thresholds}: expected those of {model.name}, {model.thresholds}."
            )
        self.device = str(self._device)
        self.input_size = model.input_size
        self.sizes = model.sizes
        self._network: PixelNetwork | None = _prepared(network, precision).to(self._device)
        self._gpu: CudaLanes | None = None
        if on_gpu:
            way = "graphs" if execution == "auto" else execution
            self._gpu = CudaLanes(self._network, self._device, way, allow_tf32=precision != "fp32")
        self.lanes = self._gpu.count if self._gpu else 1

    def infer(self, panoramas: npt.NDArray[np.uint8], *, in_range: bool = True) -> Inference:
        """See `dap.engines.base.Engine.infer`; any batch size, panoramas of any of the model's sizes."""
        if self._network is None:
            raise EngineError("The engine is closed.")
        check_panoramas(panoramas, self.sizes)
        pixels = np.require(panoramas, requirements=["C", "W"])
        try:
            if self._gpu is not None:
                return check_finite(self._gpu.run(pixels, in_range=in_range))
            with torch.inference_mode():
                depth, probabilities = self._network(torch.from_numpy(pixels), in_range=in_range)
                return check_finite(Inference(depth.numpy(), probabilities.numpy()))
        except (RuntimeError, MemoryError) as error:
            raise as_engine_error(error, "torch", self.device, len(panoramas)) from error

    def warm_up(self, batch_sizes: Sequence[int], size: Size | None = None) -> None:
        """Run each batch size once; on a GPU the largest first, whose memory the others share."""
        for batch_size in sorted(batch_sizes, reverse=True):
            panoramas = np.zeros((batch_size, *(size or self.input_size), 3), np.uint8)
            if self._gpu is not None:
                try:
                    self._gpu.warm_up(panoramas)
                except (RuntimeError, MemoryError) as error:
                    raise as_engine_error(error, "torch", self.device, batch_size) from error
            self.infer(panoramas)

    def close(self) -> None:
        """Drop the network, and give the memory of a CUDA device back."""
        self._network = self._gpu = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _prepared(network: DapNetwork, precision: Precision) -> PixelNetwork:
    """In evaluation mode and in the types that it runs in, on the CPU."""
    if precision != "fp32":
        lower(network, _TYPES[precision])
    # Pixels come with their channels last; weights in the same layout are not turned round in every run.
    return PixelNetwork(network).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _choose_device(device: str) -> torch.device:
    wanted = device.removesuffix(",cpu")
    kind, number = parse_device(wanted)
    if kind == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (number or 0) < count:
        _log.info("torch engine: cuda:%d, %s", number or 0, "as asked for" if kind == "cuda" else "the first GPU found")
        return torch.device("cuda", number or 0)
    if kind == "cuda" and wanted == device:
        raise EngineUnavailable(f"{device} was asked for, and torch finds {count} CUDA devices here.")
    if kind == "cuda":
        _log.warning("torch engine: cpu: torch finds %d CUDA devices here, and %s was asked for", count, device)
    else:
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        log_cpu(_log, f"torch engine: cpu: torch {torch.__version__}, which is built {built}, finds no GPU")
    return torch.device("cpu")
