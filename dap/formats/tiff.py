"""TIFF: float32 metres, Zstandard with the floating-point predictor; libtiff reads it from 4.0.10, so GDAL does.

The description is JSON: unit, invalid, range, range_mask, model, scale_factor. GDAL's tag for no data says what stands
where nothing is valid, so that QGIS and rasterio mask it.

Written here: Pillow's libtiff holds the interpreter lock from the first pixel to the last, at Zstandard's level 9, and
tifffile, which takes compressed strips too, takes 0.1 s to import for the few tags below. zstandard gives the lock up
with each strip. Measured at 4096x2048 with noise of 3 mm, best of 5 on a busy machine of 2 cores: 0.45 s and 18.4 MB,
another thread held up 3 ms at a stretch; by Pillow 1.0 s, as many bytes, another thread held up 1.4 s.

Sources: TIFF 6.0; Adobe Photoshop TIFF technical note 3 (floating-point predictor); libtiff's tiff.h (Zstandard is
compression 50000); GDAL's GeoTIFF driver (tag 42113).
"""

import json
import struct
from collections.abc import Mapping
from enum import IntEnum
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import zstandard

from dap.depth import DepthMap
from dap.formats.base import DEFAULT_OPTIONS, EncodeOptions, Format, Numbers

_NUMBERS = Numbers()

# Up to 256 KiB Zstandard has parameters of its own, with which level 2 is as small as level 3 without them.
_STRIP_BYTES = 256 * 1024
_LEVEL = 2

_HEADER = struct.Struct("<2sHI")  # byte order, 42, position of the directory
_ENTRY = struct.Struct("<HHI4s")  # tag, type, number of values, the values or their position
_SHIFTS = np.array([[24], [16], [8], [0]], np.uint32)

_Field = tuple[int, int, bytes]  # type, number of values, values


class _Tag(IntEnum):
    IMAGE_WIDTH = 256
    IMAGE_LENGTH = 257
    BITS_PER_SAMPLE = 258
    COMPRESSION = 259
    PHOTOMETRIC_INTERPRETATION = 262
    IMAGE_DESCRIPTION = 270
    STRIP_OFFSETS = 273
    SAMPLES_PER_PIXEL = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTE_COUNTS = 279
    PREDICTOR = 317
    SAMPLE_FORMAT = 339
    GDAL_NODATA = 42113


def encode(depth_map: DepthMap, options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The depth as TIFF."""
    metres = depth_map.filled(options.fill)
    height, width = metres.shape
    rows = max(1, _STRIP_BYTES // metres[0].nbytes)
    compressor = zstandard.ZstdCompressor(_LEVEL)
    strips = [compressor.compress(_predicted(metres[top : top + rows]).data) for top in range(0, height, rows)]
    invalid = _NUMBERS.invalid_text(options.fill, depth_map.range)
    description = {
        "unit": "metre",
        "invalid": invalid,
        "range": depth_map.range,
        "range_mask": depth_map.range_mask,
        "model": depth_map.model,
        "scale_factor": depth_map.scale_factor,
    }
    fields = {
        _Tag.IMAGE_WIDTH: _long(width),
        _Tag.IMAGE_LENGTH: _long(height),
        _Tag.BITS_PER_SAMPLE: _short(32),
        _Tag.COMPRESSION: _short(50000),  # Zstandard
        _Tag.PHOTOMETRIC_INTERPRETATION: _short(1),  # black is zero
        _Tag.IMAGE_DESCRIPTION: _ascii(json.dumps(description)),
        _Tag.SAMPLES_PER_PIXEL: _short(1),
        _Tag.ROWS_PER_STRIP: _long(rows),
        _Tag.PREDICTOR: _short(3),  # floating point
        _Tag.SAMPLE_FORMAT: _short(3),  # floating point
        _Tag.GDAL_NODATA: _ascii(invalid.lower()),
    }
    return _file(strips, fields)


def _predicted(metres: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Rows of four planes, of the highest bytes to the lowest, each byte less the one before it in the row."""
    bits = metres.view(np.uint32)[:, np.newaxis]
    planes = (bits >> _SHIFTS).astype(np.uint8).reshape(len(metres), -1)
    return np.diff(planes, axis=1, prepend=np.uint8(0))


def _file(strips: list[bytes], fields: Mapping[_Tag, _Field]) -> bytes:
    """Header, strips, and the directory of one page, which is at an even position as TIFF wants it."""
    *offsets, end = accumulate(map(len, strips), initial=_HEADER.size)
    padding = b"\0" * (end % 2)
    where = {_Tag.STRIP_OFFSETS: _long(*offsets), _Tag.STRIP_BYTE_COUNTS: _long(*map(len, strips))}
    position = end + len(padding)
    return b"".join([_HEADER.pack(b"II", 42, position), *strips, padding, _directory({**fields, **where}, position)])


def _directory(fields: Mapping[_Tag, _Field], position: int) -> bytes:
    """The fields in order of their tags; values longer than four bytes come behind all of them."""
    entries, values = b"", b""
    behind = position + 2 + _ENTRY.size * len(fields) + 4
    for tag, (kind, count, value) in sorted(fields.items()):
        if len(value) > 4:
            place = struct.pack("<I", behind + len(values))
            values += value + b"\0" * (len(value) % 2)
        else:
            place = value
        entries += _ENTRY.pack(tag, kind, count, place)
    return struct.pack("<H", len(fields)) + entries + struct.pack("<I", 0) + values


def _ascii(text: str) -> _Field:
    value = text.encode("ascii") + b"\0"
    return 2, len(value), value


def _short(number: int) -> _Field:
    return 3, 1, struct.pack("<H", number)


def _long(*numbers: int) -> _Field:
    return 4, len(numbers), struct.pack(f"<{len(numbers)}I", *numbers)


FORMAT = Format(
    name="tiff",
    media_type="image/tiff",
    extension=".tiff",
    description="TIFF, float32 metres, Zstandard",
    write=encode,
    numbers=_NUMBERS,
)
