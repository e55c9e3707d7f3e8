"""Untrusted bytes to panoramas."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Limits:
    """What is taken at most.

    Attributes:
        max_bytes: of the file.
        max_pixels: of the file's picture and of the sphere that it is padded to, told from the header.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 16384 * 8192


@dataclass(frozen=True)
class Panorama:
    """A picture of the full sphere.

    Attributes:
        pixels: uint8 (H, W, 3), RGB, equirectangular.
        source_size: (h, w) of the sphere that was sent, after orientation and padding, before any reduction.
        covered: bool (H, W), what of the sphere the picture shows; None for all of it.
    """

    pixels: npt.NDArray[np.uint8]
    source_size: tuple[int, int]
    covered: npt.NDArray[np.bool_] | None = None


def decode(data: bytes, limits: Limits = Limits(), size: tuple[int, int] | None = None) -> Panorama:
    raise NotImplementedError


def resize_pixels(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    raise NotImplementedError
