"""Depth of panoramas in a few lines of Python.

>>> from dap.predictor import Predictor
>>> predictor = Predictor("dap-s")
>>> depth_map = predictor.predict("pano.jpg", range=20)
>>> depth_map.depth[depth_map.valid].mean()  # metres
"""

import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from dap.depth import DepthMap, apply_range
from dap.engines import EngineName, Precision, create_engine
from dap.errors import NotAPanorama
from dap.models import DEFAULT_MODEL, Model, find_model
from dap.panorama import DEFAULT_LIMITS, Limits, Panorama, decode, resize_pixels

Size = tuple[int, int] | Literal["input", "model"]


class Predictor:
    """A model, loaded and ready.

    Threads may share one: they decode and resize side by side, and take turns at the engine.

    Attributes:
        model: what the registry says of it.
        engine: what runs it.
    """

    def __init__(
        self,
        model: str | Path | Model = DEFAULT_MODEL,
        engine: EngineName = "auto",
        *,
        device: str = "auto",
        threads: int | None = None,
        precision: Precision = "fp32",
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Load a model.

        Args:
            model: a name that `dap models` lists, or the path of a model's file.
            engine: see `dap.engines.create_engine`, as for device, threads and precision.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            threads: that work on one panorama on the CPU.
            precision: of the torch engine.
            limits: what is refused of an image file.

        Raises:
            ModelError: there is no such model, its file is not here, or it is not what it should be.
            EngineUnavailable: the engine or the device is not here.
        """
        self.model = model if isinstance(model, Model) else find_model(model)
        self.engine = create_engine(self.model, engine, device=device, threads=threads, precision=precision)
        self._limits = limits
        self._turn = threading.Lock()

    def predict(
        self,
        panorama: str | Path | bytes | npt.NDArray[np.uint8] | Panorama,
        range: float | None = 100,
        size: Size = "input",
    ) -> DepthMap:
        """Metric depth of one panorama.

        Args:
            panorama: the path or the bytes of an image file; or uint8 (H, 2 H, 3) RGB pixels of the full sphere.
            range: metres of the range mask, 10, 20, 50 or 100; None: no mask.
            size: pixels of the result: `input` as many as the panorama has, `model` as many as the network gives, or
                (h, w).

        Raises:
            InputError: the panorama cannot be used, or a parameter has no such value.
            EngineError: the engine failed.
            OSError: the file cannot be read.
        """
        seen = self._as_seen(panorama)
        with self._turn:
            inference = self.engine.infer(seen.pixels[None])
        depth_map = apply_range(
            inference.depth[0], inference.in_range[0], self.engine.thresholds, range, self.model.name, seen.covered
        )
        sizes = {"input": seen.source_size, "model": self.engine.input_size}
        return depth_map.resize(sizes[size] if isinstance(size, str) else size)

    def close(self) -> None:
        """Give the engine's memory back. The predictor is not used after."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _as_seen(self, panorama: str | Path | bytes | npt.NDArray[np.uint8] | Panorama) -> Panorama:
        """The panorama at the size of the network's input."""
        if isinstance(panorama, str | Path):
            panorama = Path(panorama).read_bytes()
        if isinstance(panorama, bytes):
            return decode(panorama, self._limits, self.engine.input_size)
        if not isinstance(panorama, Panorama):
            panorama = Panorama(_checked(panorama), source_size=panorama.shape[:2])
        return _resized(panorama, self.engine.input_size)


def _checked(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[1:] != (2 * pixels.shape[0], 3):
        raise NotAPanorama(f"Expected uint8 pixels of shape (H, 2 H, 3); got {pixels.dtype} {pixels.shape}.")
    return pixels


def _resized(panorama: Panorama, size: tuple[int, int]) -> Panorama:
    height, width = panorama.pixels.shape[:2]
    if (height, width) == size:
        return panorama
    covered = panorama.covered
    if covered is not None:
        rows, columns = (np.arange(new) * old // new for new, old in zip(size, (height, width), strict=True))
        covered = covered[rows[:, None], columns]
    return Panorama(resize_pixels(panorama.pixels, size), panorama.source_size, covered)
