"""True depth that comes as a file: 16-bit PNG with a scale, .npy or OpenEXR; untrusted like every upload.

Metres are the file's number / scale. What is not finite, zero or less is not known; nor is 65535 in a PNG, which is
where 16 bits end: Stanford2D3D writes it for a hole, and what was farther has lost how far.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from dap import headers
from dap.depth import MAX_STEPS
from dap.errors import EmptyInput, InputTooLarge, InvalidParameter, NotAPanorama, TooManyPixels, UnsupportedMediaType
from dap.formats import exr, npy, png16
from dap.panorama import DEFAULT_LIMITS, Limits


@dataclass(frozen=True)
class TruthFile:
    """A true depth, not yet decoded.

    Attributes:
        kind: `png`, `npy` or `exr`.
        size: (h, w) in pixels, w = 2 h.
        scale: numbers of the file in a metre.
        data: the file.
    """

    kind: Literal["png", "npy", "exr"]
    size: tuple[int, int]
    scale: float
    data: bytes


def read_header(data: bytes, scale: float | None = None, limits: Limits = DEFAULT_LIMITS) -> TruthFile:
    """Kind, size and scale of a true depth, checked against the limits. No pixel is decoded.

    Args:
        data: the whole file.
        scale: numbers of the file in a metre. Otherwise a PNG says it itself, in a text chunk `Scale`; the other two
            hold metres.
        limits: what is refused.

    Raises:
        EmptyInput: no bytes.
        InputTooLarge: more bytes than the limit.
        UnsupportedMediaType: none of the three.
        BrokenImage: truncated or corrupt.
        InvalidParameter: a scale that is not above zero; a PNG without a scale.
        TooManyPixels: more pixels than the limit.
        NotAPanorama: not twice as wide as high.
    """
    if not data:
        raise EmptyInput("a true depth was expected; there are no bytes")
    if len(data) > limits.max_bytes:
        raise InputTooLarge(f"a true depth has at most {limits.max_bytes} bytes; this one has {len(data)}")
    if scale is not None and not 0 < scale < np.inf:
        raise InvalidParameter(f"truth_scale is the file's numbers in a metre, above 0; got {scale:g}")
    file = _read(data, scale, limits)
    height, width = file.size
    if height * width > limits.max_pixels:
        raise TooManyPixels(f"at most {limits.max_pixels} pixels are taken; the true depth has {width}x{height}")
    if width != 2 * height or height == 0:
        raise NotAPanorama(f"a true depth is a panorama, twice as wide as high; this one has {width}x{height}")
    return file


def decode(file: TruthFile) -> npt.NDArray[np.float32]:
    """Metres along the ray, float32 (H, W), 0 where not known.

    Raises:
        UnsupportedMediaType: a PNG that is not 16-bit grey.
        BrokenImage: truncated or corrupt.
    """
    if file.kind == "png":
        steps = png16.read_numbers(headers.read(file.data))
        numbers = np.where(steps == MAX_STEPS, 0, steps).astype(np.float32)
    else:
        numbers = (npy.decode(file.data) if file.kind == "npy" else exr.decode(file.data)).filled("zero")
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        metres: npt.NDArray[np.float32] = numbers / np.float32(file.scale)
    return np.where(np.isfinite(metres), metres, np.float32(0))  # of a scale that float32 does not hold all is unknown


def _read(data: bytes, scale: float | None, limits: Limits) -> TruthFile:
    if data.startswith(headers.PNG_MAGIC):
        return TruthFile("png", headers.read(data).stored_size, scale or _scale_of_png(data), data)
    if data.startswith(npy.MAGIC):
        return TruthFile("npy", npy.read_size(data), scale or 1.0, data)
    if data.startswith(exr.MAGIC):
        return TruthFile("exr", exr.read_size(data, limits), scale or 1.0, data)
    raise UnsupportedMediaType(
        "a true depth is taken as 16-bit grey PNG, .npy of floats or OpenEXR; by its first bytes this is none of them"
    )


def _scale_of_png(data: bytes) -> float:
    said = png16.read_text(data).get("Scale")
    if said is None:
        raise InvalidParameter(
            "the true depth is a PNG that does not say its scale: give the numbers in a metre as truth_scale "
            "(Stanford2D3D 512, Matterport3D 4000, millimetres 1000)"
        )
    return png16.positive("Scale", said)
