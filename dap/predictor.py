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

from dap.depth import DepthMap, Seam, Upsample
from dap.engines import EngineName, Precision, create_engine
from dap.errors import NotAPanorama
from dap.models import DEFAULT_MODEL, Model, find_model
from dap.panorama import DEFAULT_LIMITS, Header, Limits, Panorama, decode, read_header, resize_pixels
from dap.postprocess import DepthOptions, engine_inputs, finish
from dap.resolutions import choose_resolution
from dap.upsampling import nearest

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
        *,
        seam: Seam = "none",
        upsample: Upsample = "bilinear",
        nadir_mask: float = 0.0,
        camera_height: float | None = None,
        keep_in_range: bool = False,
        resolution: tuple[int, int] | None = None,
    ) -> DepthMap:
        """Metric depth of one panorama.

        Args:
            panorama: the path or the bytes of an image file; or uint8 (H, 2 H, 3) RGB pixels of the full sphere.
            range: metres of the range mask, 10, 20, 50 or 100; None: no mask.
            size: pixels of the result: `input` as many as the panorama has, `model` as many as the network gives, or
                (h, w).
            seam: this and the rest as `dap.postprocess.DepthOptions` says.
            upsample: how the network's depth becomes larger; `guided` by the panorama's own colours.
            nadir_mask: degrees around straight down that are not valid.
            camera_height: metres of the camera above the floor, which then fix the scale.
            keep_in_range: whether the result has the in-range probabilities too.
            resolution: (h, w) at which the model sees the panorama, one of `engine.sizes`, or else the first of them.

        Raises:
            ResolutionNotOffered: the model has no such resolution; the message lists those that it has.
            InputError: the panorama cannot be used, or a parameter has no such value.
            FloorNotFound: a camera height was given, and there is no floor to measure from.
            EngineError: the engine failed.
            OSError: the file cannot be read.
        """
        options = DepthOptions(range, seam, upsample, nadir_mask, camera_height, keep_in_range)
        input_size = choose_resolution(resolution, self.engine.sizes, self.model.name)
        source = self._opened(panorama)
        seen = self._at_size(source, input_size)
        with self._turn:
            inferences = [
                self.engine.infer(pixels[None], in_range=options.needs_in_range)
                for pixels in engine_inputs(seen.pixels, options, spherical=self.model.spherical)
            ]
        sizes = {"input": seen.source_size, "model": input_size}
        wanted = sizes[size] if isinstance(size, str) else size
        return finish(
            [(inference.depth[0], inference.in_range[0]) for inference in inferences],
            self.engine.thresholds,
            options,
            self.model.name,
            seen.covered,
            wanted,
            self._at_size(source, wanted).pixels if options.needs_colours else None,
        )

    def close(self) -> None:
        """Give the engine's memory back. The predictor is not used after."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self, panorama: str | Path | bytes | npt.NDArray[np.uint8] | Panorama) -> Header | Panorama:
        if isinstance(panorama, str | Path):
            panorama = Path(panorama).read_bytes()
        if isinstance(panorama, bytes):
            return read_header(panorama, self._limits)
        if isinstance(panorama, Panorama):
            return panorama
        return Panorama(_checked(panorama), source_size=panorama.shape[:2])

    def _at_size(self, source: Header | Panorama, size: tuple[int, int]) -> Panorama:
        return decode(source, self._limits, size) if isinstance(source, Header) else _resized(source, size)


def _checked(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[1:] != (2 * pixels.shape[0], 3):
        raise NotAPanorama(f"Expected uint8 pixels of shape (H, 2 H, 3); got {pixels.dtype} {pixels.shape}.")
    return pixels


def _resized(panorama: Panorama, size: tuple[int, int]) -> Panorama:
    if panorama.pixels.shape[:2] == size:
        return panorama
    covered = None if panorama.covered is None else nearest(panorama.covered, size)
    return Panorama(resize_pixels(panorama.pixels, size), panorama.source_size, covered)
