"""OpenEXR: channels `Z` and `valid`, ZIP-compressed scanlines; float or half.

`Z` is depth to every reader: Nuke's depth.Z, Blender's depth pass, OpenImageIO, and what OpenCV reads where a file has
neither RGB nor Y. That ours is the distance along the ray, not along an axis, is what renderers too write for a
panorama, which has no axis (Blender's Cycles does). `valid` is 1 or 0, half in both formats. The header says `unit`,
`invalid` (what Z holds where nothing is valid), `range` (metres, not there if none was asked for), `rangeMask`, `model`
and `scaleFactor`, and OpenEXR's own `envmap`: a latitude-longitude map.

ZIP, because every reader has it: ZSTD, half the time and two thirds of the size, is new in OpenEXR 3.5. Measured at
4096x2048, on one core: float 430 ms and 33 MB, half 220 ms and 9 MB. Half keeps 11 bits: a step is 1/2048 of the depth.

Sources: "Technical Introduction to OpenEXR" (channel names), ASWF, "Standard OpenEXR Attributes".
"""

from functools import partial
from io import BytesIO
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import OpenEXR

from dap.depth import DepthMap
from dap.errors import BrokenImage, TooManyPixels, UnsupportedMediaType
from dap.formats.base import DEFAULT_OPTIONS, EncodeOptions, Format, Numbers
from dap.formats.png16 import RANGE_MASKS
from dap.panorama import DEFAULT_LIMITS, Limits

MAGIC = b"\x76\x2f\x31\x01"
DEPTH, VALID = "Z", "valid"

_NUMBERS = Numbers()
# What depth is called by others: layers of renderers, Blender's single-channel files (V), OpenCV's (Y).
_DEPTH_NAMES = (DEPTH, "depth", "Depth", "depth.Z", "Depth.Z", "depth.V", "Depth.V", "V", "Y")
_LARGEST_HALF = np.float32(65504)
# What the package raises on corrupt files; UnicodeDecodeError, on names that are no text, is a ValueError.
_FAILURES = (RuntimeError, ValueError, TypeError, LookupError, OSError, MemoryError)


def encode(
    depth_map: DepthMap, options: EncodeOptions = DEFAULT_OPTIONS, precision: Literal["float", "half"] = "float"
) -> bytes:
    """The depth as OpenEXR; half ends at 65504 m."""
    metres = depth_map.filled(options.fill)
    if precision == "half":
        metres = np.minimum(metres, _LARGEST_HALF).astype(np.float16)
    header: dict[str, object] = {
        "type": OpenEXR.scanlineimage,
        "compression": OpenEXR.ZIP_COMPRESSION,
        "envmap": OpenEXR.ENVMAP_LATLONG,
        "unit": "metre",
        "invalid": _NUMBERS.invalid_text(options.fill, depth_map.range),
        "rangeMask": depth_map.range_mask,
        "model": depth_map.model,
        "scaleFactor": depth_map.scale_factor,
    }
    if depth_map.range is not None:
        header["range"] = depth_map.range
    stream = BytesIO()
    # No threads of its own: who encodes decides how many there are.
    OpenEXR.File(header, {DEPTH: metres, VALID: depth_map.valid.astype(np.float16)}, num_threads=0).write(stream)
    return stream.getvalue()


def decode(data: bytes, limits: Limits = DEFAULT_LIMITS) -> DepthMap:
    """A depth map from OpenEXR: metres in a channel that is called Z, depth, V or Y, or in the only one there is.

    Valid is what is finite, above zero and, where there is a channel `valid`, above one half in it.

    Raises:
        UnsupportedMediaType: not OpenEXR, or not one flat picture with such a channel in every pixel.
        BrokenImage: truncated or corrupt.
        TooManyPixels: more than the limit, or more than twice as many samples; told from the header.
    """
    header = _header(data)
    size, name = _checked_size(header, limits), _depth_name(header)
    _, pixels = _read(data, header_only=False)
    if any(channel.shape != size for channel in pixels.values()) or name not in pixels:
        raise BrokenImage("the OpenEXR file is truncated or corrupt: it has not the pixels that its header says")
    metres = pixels[name].astype(np.float32)
    valid = np.isfinite(metres) & (metres > 0)
    if VALID in pixels:
        valid &= pixels[VALID] > 0.5
    model, mask, scale_factor = header.get("model"), header.get("rangeMask"), _positive(header.get("scaleFactor"))
    return DepthMap(
        depth=np.where(valid, metres, np.float32(0)),
        valid=valid,
        range=_positive(header.get("range")),
        range_mask=RANGE_MASKS.get(mask, "none") if isinstance(mask, str) else "none",
        model=model if isinstance(model, str) else "",
        scale_factor=scale_factor or 1.0,
    )


def read_size(data: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """(H, W) of an OpenEXR file. No pixel is decoded.

    Raises:
        InputError: as `decode` says.
    """
    return _checked_size(_header(data), limits)


def _header(data: bytes) -> dict[str, Any]:
    if not data.startswith(MAGIC):
        raise UnsupportedMediaType("a depth map was expected as OpenEXR; by its first bytes this is none")
    return _read(data, header_only=True)[0]


def _read(data: bytes, header_only: bool) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Header and pixels by channel of the one part of the file."""
    try:
        # Not as a context: on its exit the header is emptied.
        file = OpenEXR.File(BytesIO(data), separate_channels=True, header_only=header_only, num_threads=0)
        if len(file.parts) > 1:
            raise UnsupportedMediaType(f"an OpenEXR file of one part was expected; this has {len(file.parts)}")
        return file.header(), {name: channel.pixels for name, channel in file.channels().items()}
    except _FAILURES:
        raise BrokenImage("the OpenEXR file is truncated or corrupt") from None


def _checked_size(header: dict[str, Any], limits: Limits) -> tuple[int, int]:
    """(H, W), checked."""
    low, high = header["dataWindow"]
    width, height = (int(last) - int(first) + 1 for first, last in zip(low, high, strict=True))
    if min(width, height) < 1:
        raise BrokenImage(f"the OpenEXR file says that it has {width}x{height} pixels")
    channels = len(header["channels"])
    if width * height * max(1, channels / 2) > limits.max_pixels:
        raise TooManyPixels(
            f"at most {limits.max_pixels} pixels are taken, with two channels; this has {width}x{height}"
            f" with {channels}"
        )
    return height, width


def _depth_name(header: dict[str, Any]) -> str:
    names = [str(channel.name) for channel in header["channels"]]
    flat = header["type"] in (OpenEXR.scanlineimage, OpenEXR.tiledimage)
    whole = all(channel.xSampling == channel.ySampling == 1 for channel in header["channels"])
    found = next((name for name in _DEPTH_NAMES if name in names), names[0] if len(names) == 1 else None)
    if found is None or not (flat and whole):
        raise UnsupportedMediaType(
            "a flat OpenEXR picture was expected, with depth in a channel called Z, depth, V or Y or in the only one;"
            f" this has {', '.join(names)[:100] or 'none'}"
        )
    return found


def _positive(attribute: object) -> float | None:
    """The attribute, where it is a number above zero; a file of another writer may use its name for anything."""
    return float(attribute) if isinstance(attribute, float) and 0 < attribute < np.inf else None


EXR = Format(
    name="exr",
    media_type="image/x-exr",
    extension=".exr",
    description="OpenEXR, float32 metres in Z and a mask in valid",
    write=encode,
    decode=decode,
    numbers=_NUMBERS,
)

EXR_HALF = Format(
    name="exr-half",
    media_type="image/x-exr",
    extension=".half.exr",
    description="OpenEXR, half-precision metres in Z and a mask in valid",
    write=partial(encode, precision="half"),
    decode=decode,
    numbers=_NUMBERS,
)
