"""PNG, written fast: grey or RGB, 8 or 16 bits (ISO/IEC 15948)."""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from dap import headers

_GREY, _RGB = 0, 2
_SUB_FILTER = 1


def encode(pixels: npt.NDArray[Any], text: Mapping[str, str] | None = None) -> bytes:
    """A PNG file.

    Args:
        pixels: uint8 or uint16, (H, W) for grey or (H, W, 3) for RGB.
        text: text chunks by keyword; what Latin-1 has not is written as a question mark.
    """
    height, width = pixels.shape[:2]
    kind = _GREY if pixels.ndim == 2 else _RGB
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, kind, 0, 0, 0)
    said = [f"{key}\0{value}".encode("latin-1", "replace") for key, value in (text or {}).items()]
    chunks = [(b"IHDR", header), *((b"tEXt", entry) for entry in said), (b"IDAT", _compressed(pixels)), (b"IEND", b"")]
    return headers.PNG_MAGIC + b"".join(headers.png_chunk(name, payload) for name, payload in chunks)


def _compressed(pixels: npt.NDArray[Any]) -> bytes:
    """Filtered and deflated rows.

    Pillow would do, but tries all five filters on each row. Depth is smooth, so the difference to the left neighbour
    (Sub) is as good, and ISA-L deflates it in a quarter of zlib's time. Measured at 4096x2048, on one core: depth in
    16 bits ISA-L level 1 15 ms and 1.5 MB; zlib level 1 58 ms and 1.7 MB, level 6 308 ms and 1.1 MB; Pillow at level
    1, filters included, 179 ms and 1.9 MB; a noisy picture in RGB 78 ms and 12.4 MB, by Pillow 590 ms and 12.5 MB.
    """
    height = len(pixels)
    raw = pixels.astype(pixels.dtype.newbyteorder(">"), copy=False).reshape(height, -1).view(np.uint8)
    one = raw.shape[1] // pixels.shape[1]
    rows = np.empty((height, 1 + raw.shape[1]), np.uint8)
    rows[:, 0] = _SUB_FILTER
    rows[:, 1 : 1 + one] = raw[:, :one]
    np.subtract(raw[:, one:], raw[:, :-one], out=rows[:, 1 + one :])
    return isal_zlib.compress(rows.data, 1)
