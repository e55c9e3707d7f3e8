"""The engine `torch`: checkpoints in eager torch, on the CPU or on a CUDA device; what exports are held against."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from dap.engines import Precision
from dap.engines.base import Inference, check_finite, check_panoramas, parse_device
from dap.engines.cores import available_cores
from dap.engines.failures import as_engine_error
from dap.errors import EngineError, EngineUnavailable, ModelFileInvalid
from dap.model.checkpoints import load_network
from dap.model.dap import PixelNetwork
from dap.models import Model
from dap.resolutions import Size

_log = logging.getLogger(__name__)


class TorchEngine:
    """Runs a checkpoint, in the official layout or ours. See `dap.engines.base.Engine`."""

    name = "torch"
    lanes = 1

    def __init__(
        self,
        path: Path,
        model: Model,
        *,
        device: str = "auto",
        threads: int | None = None,
        precision: Precision = "fp32",
    ) -> None:
        """Load the checkpoint.

        Args:
            path: the checkpoint.
            model: what the registry says of it.
            device: `auto`, `cpu`, `cuda` or `cuda:N`; `cuda,cpu` as `dap.engines.create_engine` says.
            threads: torch's, which are the whole process's.
            precision: `bf16` runs under autocast, the weights stay float32.

        Raises:
            ModelFileInvalid: the file is not the model it should be.
            EngineUnavailable: the device asked for cannot be had.
        """
        self._device = _choose_device(device)
        if self._device.type == "cpu":
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
        self._network: PixelNetwork | None = PixelNetwork(network).eval().to(self._device)
        self._precision = precision

    def infer(self, panoramas: npt.NDArray[np.uint8], *, in_range: bool = True) -> Inference:
        """See `dap.engines.base.Engine.infer`; any batch size, panoramas of any of the model's sizes."""
        if self._network is None:
            raise EngineError("The engine is closed.")
        check_panoramas(panoramas, self.sizes)
        try:
            with torch.inference_mode(), self._autocast():
                pixels = torch.from_numpy(np.require(panoramas, requirements=["C", "W"])).to(self._device)
                depth, probabilities = self._network(pixels, in_range=in_range)
                return check_finite(Inference(depth.float().cpu().numpy(), probabilities.float().cpu().numpy()))
        except (RuntimeError, MemoryError) as error:
            raise as_engine_error(error, "torch", self.device, len(panoramas)) from error

    def warm_up(self, batch_sizes: Sequence[int], size: Size | None = None) -> None:
        """Run each batch size once."""
        for batch_size in batch_sizes:
            self.infer(np.zeros((batch_size, *(size or self.input_size), 3), np.uint8))

    def close(self) -> None:
        """Drop the network, and give the memory of a CUDA device back."""
        self._network = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _autocast(self) -> AbstractContextManager[object]:
        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.type, torch.bfloat16)


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
    level = logging.WARNING if kind == "cuda" else logging.INFO
    _log.log(level, "torch engine: cpu: torch finds %d CUDA devices here, and %s was asked for", count, device)
    return torch.device("cpu")
