"""16-bit grey PNG: metres = value / 512, 0 = not valid.

A step is 2 mm. The ceiling is 128 m; valid depth beyond it is 65535, valid depth under a step is 1. The file says so
itself, in text chunks: Unit, Scale, Invalid, Model, Range and Range-Mask.
"""

import re

import numpy as np
import numpy.typing as npt

from dap import headers, panorama
from dap.depth import STEPS_PER_METRE, DepthMap, RangeMask
from dap.errors import BrokenImage, TooManyPixels, UnsupportedMediaType
from dap.formats import png
from dap.formats.base import DEFAULT_OPTIONS, EncodeOptions, Format, Numbers
from dap.headers import ImageHeader

INVALID = 0

RANGE_MASKS: dict[str, RangeMask] = {"head": "head", "depth": "depth", "none": "none"}

_NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?")


def encode(depth_map: DepthMap, _options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The depth as PNG."""
    text = {
        "Unit": "metre",
        "Scale": str(STEPS_PER_METRE),
        "Invalid": str(INVALID),
        "Model": depth_map.model,
        "Range": "none" if depth_map.range is None else f"{depth_map.range:g}",
        "Range-Mask": depth_map.range_mask,
    }
    return png.encode(depth_map.quantised(), text)


def decode(data: bytes) -> DepthMap:
    """A depth map from a 16-bit grey PNG whose Scale (512 if it has none) is the number of steps in a metre.

    Raises:
        UnsupportedMediaType: not a 16-bit grey PNG.
        BrokenImage: truncated or corrupt.
        TooManyPixels: more than a panorama may have.
    """
    header = headers.read(data)
    height, width = header.stored_size
    if height * width > panorama.DEFAULT_LIMITS.max_pixels:
        raise TooManyPixels(f"at most {panorama.DEFAULT_LIMITS.max_pixels} pixels are taken; this has {width}x{height}")
    values = read_numbers(header)
    text = read_text(data)
    scale = positive("Scale", text.get("Scale", str(STEPS_PER_METRE)))
    known = text.get("Range", "none")
    return DepthMap(
        depth=(values / scale).astype(np.float32),
        valid=values != INVALID,
        range=None if known == "none" else positive("Range", known),
        range_mask=RANGE_MASKS.get(text.get("Range-Mask", ""), "none"),
        model=text.get("Model", ""),
    )


def read_numbers(header: ImageHeader) -> npt.NDArray[np.uint16]:
    """The numbers of a 16-bit grey PNG, uint16 (H, W).

    Raises:
        UnsupportedMediaType: not a 16-bit grey PNG.
        BrokenImage: truncated or corrupt.
    """
    with panorama.opened(header) as image:
        if header.format != "PNG" or not image.mode.startswith("I"):
            raise UnsupportedMediaType(
                f"a depth map was expected as 16-bit grey PNG; this is {header.format} {image.mode}"
            )
        return np.array(image, np.uint16)


def read_text(data: bytes) -> dict[str, str]:
    """The text chunks of a PNG by their keywords.

    Raises:
        BrokenImage: truncated or corrupt.
    """
    chunks = (bytes(payload).decode("latin-1") for kind, payload in headers.png_chunks(data) if kind == b"tEXt")
    return {key: value for key, separator, value in (chunk.partition("\0") for chunk in chunks) if separator}


def positive(key: str, value: str) -> float:
    """The number that a text chunk holds.

    Raises:
        BrokenImage: it is no number above zero.
    """
    number = float(value) if _NUMBER.fullmatch(value) else 0.0
    if number <= 0:
        raise BrokenImage(f"the {key} of a depth PNG is a number above zero; this one says {value[:40]!r}")
    return number


FORMAT = Format(
    name="png",
    media_type="image/png",
    extension=".png",
    description="16-bit PNG, metres = value / 512, 0 = not valid",
    write=encode,
    decode=decode,
    numbers=Numbers(scale=STEPS_PER_METRE, invalid=INVALID),
)
