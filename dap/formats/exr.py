"""OpenEXR: channels `Z` and `valid`, ZIP-compressed scanlines; float or half.

`Z` is depth to every reader: Nuke's depth.Z, Blender's depth pass, OpenImageIO, and what OpenCV reads where a file has
neither RGB nor Y. That ours is the distance along the ray, not along an axis, is what renderers too write for a
panorama, which has no axis (Blender's Cycles does). `valid` is 1 or 0, half in both formats. The header says `unit`,
`invalid` (what Z holds where nothing is valid), `range` (metres, not there if none was asked for), `rangeMask`, `model`
and `scaleFactor`, and OpenEXR's own `envmap`: a latitude-longitude map.

ZIP, because every reader has it: ZSTD, half the time and two thirds of the size, is new in OpenEXR 3.5. Measured with
noise of 3 mm, on one core: at 1024x512 float 25 ms and 2 MB, half 17 ms and 0.5 MB; at 4096x2048 440 ms and 31 MB, 280
ms and 9 MB. Half keeps 11 bits: what is read is within 1/2048 of the depth.

Sources: "Technical Introduction to OpenEXR" (channel names), ASWF, "Standard OpenEXR Attributes".
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
# The rest is lossy beyond 24 bits, no way to keep a true depth, and the decoders least proven on hostile bytes.
_COMPRESSIONS = (
    OpenEXR.NO_COMPRESSION,
    OpenEXR.RLE_COMPRESSION,
    OpenEXR.ZIPS_COMPRESSION,
    OpenEXR.ZIP_COMPRESSION,
    OpenEXR.PIZ_COMPRESSION,
    OpenEXR.PXR24_COMPRESSION,
    OpenEXR.ZSTD_COMPRESSION,
)
# The decoder makes room for a whole tile, however small the picture.
_MAX_TILE_PIXELS = 2048 * 2048
# The decoder takes quadratic time for both, with the interpreter lock held. Honest files have some tens of attributes,
# and a channel takes twenty bytes.
_MAX_ATTRIBUTES = 1024
_MAX_CHANNEL_LIST_BYTES = 65536
_PARTS_FLAG = 0x10  # of the second byte of the version field
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
    header = _read_header(data, limits)
    name = header.depth_name()
    pixels = _read_pixels(data)
    if any(channel.shape != header.size for channel in pixels.values()) or name not in pixels:
        raise BrokenImage("the OpenEXR file is truncated or corrupt: it has not the pixels that its header says")
    metres = pixels[name].astype(np.float32)
    valid = np.isfinite(metres) & (metres > 0)
    if VALID in pixels:
        valid &= pixels[VALID] > 0.5
    said = header.attributes
    model, mask = said.get("model"), said.get("rangeMask")
    return DepthMap(
        depth=np.where(valid, metres, np.float32(0)),
        valid=valid,
        range=_positive(said.get("range")),
        range_mask=RANGE_MASKS.get(mask, "none") if isinstance(mask, str) else "none",
        model=model if isinstance(model, str) else "",
        scale_factor=_positive(said.get("scaleFactor")) or 1.0,
    )


def read_size(data: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """(H, W) of an OpenEXR file. No pixel is decoded.

    Raises:
        InputError: as `decode` says.
    """
    return _read_header(data, limits).size


@dataclass(frozen=True)
class _Header:
    size: tuple[int, int]
    channels: tuple[str, ...]
    attributes: Mapping[str, object]

    def depth_name(self) -> str:
        """The channel that holds depth."""
        only = self.channels[0] if len(self.channels) == 1 else None
        found = next((name for name in _DEPTH_NAMES if name in self.channels), only)
        if found is None:
            raise UnsupportedMediaType(
                "depth was expected in a channel of the OpenEXR file called Z, depth, V or Y, or in the only one; "
                f"this has {', '.join(self.channels)[:100] or 'none'}"
            )
        return found


def _read_header(data: bytes, limits: Limits) -> _Header:
    if not data.startswith(MAGIC):
        raise UnsupportedMediaType("a depth map was expected as OpenEXR; by its first bytes this is none")
    _refuse_header_bomb(data)
    with _failures_mean_broken():
        file = _opened(data, header_only=True)
        said = file.header()
        _check_kind(said, len(file.parts))
        low, high = said["dataWindow"]
        width, height = (int(last) - int(first) + 1 for first, last in zip(low, high, strict=True))
        channels = tuple(str(channel.name) for channel in said["channels"])
    if min(width, height) < 1:
        raise BrokenImage(f"the OpenEXR file says that it has {width}x{height} pixels")
    # All channels are decoded, so they count: two of them are free.
    if width * height * max(2, len(channels)) > 2 * limits.max_pixels:
        raise TooManyPixels(
            f"at most {limits.max_pixels} pixels are taken, with two channels; this has {width}x{height}"
            f" with {len(channels)}"
        )
    return _Header((height, width), channels, said)


def _refuse_header_bomb(data: bytes) -> None:
    """Walk over the attributes: name, type, size, value. An empty name ends a header, an empty header all."""
    position, is_empty = len(MAGIC) + 4, True
    for _ in range(_MAX_ATTRIBUTES):
        if data[position : position + 1] == b"\0":
            if is_empty or not data[5] & _PARTS_FLAG:
                return
            position, is_empty = position + 1, True
            continue
        kind = data.find(b"\0", position) + 1
        size = data.find(b"\0", kind) + 1
        length = int.from_bytes(data[size : size + 4], "little")
        if not position < kind < size or size + 4 + length > len(data):
            raise BrokenImage("the OpenEXR file is truncated or corrupt: its header has no end")
        if data[kind : size - 1] == b"chlist" and length > _MAX_CHANNEL_LIST_BYTES:
            raise UnsupportedMediaType(f"an OpenEXR file lists its channels in {_MAX_CHANNEL_LIST_BYTES} bytes at most")
        position, is_empty = size + 4 + length, False
    raise UnsupportedMediaType(f"an OpenEXR file has at most {_MAX_ATTRIBUTES} attributes; this one has more")


def _check_kind(said: Mapping[str, Any], parts: int) -> None:
    if parts > 1:
        raise UnsupportedMediaType(f"an OpenEXR file of one part was expected; this has {parts}")
    whole = all(channel.xSampling == channel.ySampling == 1 for channel in said["channels"])
    if not whole or said["type"] not in (OpenEXR.scanlineimage, OpenEXR.tiledimage):
        raise UnsupportedMediaType("an OpenEXR file with one sample of each channel a pixel was expected; this has not")
    if said["compression"] not in _COMPRESSIONS:
        raise UnsupportedMediaType("an OpenEXR file compressed with RLE, ZIP, PIZ, PXR24 or ZSTD, or not, was expected")
    if "tiles" in said and int(said["tiles"].xSize) * int(said["tiles"].ySize) > _MAX_TILE_PIXELS:
        raise TooManyPixels(f"a tile of an OpenEXR file has at most {_MAX_TILE_PIXELS} pixels; here it has more")


def _read_pixels(data: bytes) -> dict[str, npt.NDArray[Any]]:
    with _failures_mean_broken():
        return {name: channel.pixels for name, channel in _opened(data, header_only=False).channels().items()}


def _opened(data: bytes, header_only: bool) -> Any:
    # Not for use as a context: on its exit the header is emptied.
    return OpenEXR.File(BytesIO(data), separate_channels=True, header_only=header_only, num_threads=0)


@contextmanager
def _failures_mean_broken() -> Iterator[None]:
    try:
        yield
    except _FAILURES:
        raise BrokenImage("the OpenEXR file is truncated or corrupt") from None


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
