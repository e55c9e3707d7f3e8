"""Files of data sets as their authors write them, 16x32 unless told otherwise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import OpenEXR
from PIL import Image

from tests.dap.images import picture

SIZE = (16, 32)


def depth_of(
    values: Mapping[tuple[int, int], float], elsewhere: float, dtype: Any, size: tuple[int, int] = SIZE
) -> Any:
    """An array that is `elsewhere` everywhere but at some (row, column)."""
    array = np.full(size, elsewhere, dtype)
    for place, value in values.items():
        array[place] = value
    return array


def write_rgb(path: Path, size: tuple[int, int] = SIZE, shift: int = 0) -> npt.NDArray[np.uint8]:
    """A smooth picture, in the format that the name says; `shift` makes it another."""
    pixels = np.roll(picture(*size), shift, axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)
    return pixels


def write_png16(path: Path, numbers: npt.NDArray[np.uint16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbers).save(path)


def write_exr(path: Path, metres: npt.NDArray[np.float32], channel: str = "Y") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {channel: metres}).write(str(path))


def write_npy(path: Path, metres: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, metres)
