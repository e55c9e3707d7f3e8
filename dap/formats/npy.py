"""NumPy's own format: float32 (H, W), metres along the ray, NaN or another fill where not valid (NEP 1, format 1.0)."""

import re
from io import BytesIO

import numpy as np

from dap.depth import DepthMap
from dap.errors import BrokenImage, UnsupportedMediaType
from dap.formats.base import DEFAULT_OPTIONS, EncodeOptions, Format, Numbers

MAGIC = b"\x93NUMPY"

# Not numpy's own reader: it takes Python literals, which fail in many ways, and allocates whatever size they claim.
_HEADER = re.compile(
    rb"\x93NUMPY(?:\x01\x00..|[\x02\x03]\x00....)"
    rb"\{'descr': '(?P<dtype>[<>]f[248])', 'fortran_order': (?P<fortran_order>True|False), "
    rb"'shape': \((?P<height>\d{1,9}), (?P<width>\d{1,9})\), \} *\n",
    re.DOTALL,
)


def encode(depth_map: DepthMap, options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The depth as .npy."""
    metres = depth_map.filled(options.fill).astype("<f4", copy=False)
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(metres))
    return b"".join((header.getvalue(), metres.data))


def decode(data: bytes) -> DepthMap:
    """A depth map from .npy: floats (H, W) in metres, valid where finite and above zero. No model or range is known.

    Raises:
        UnsupportedMediaType: not .npy as numpy writes it, or not a two-dimensional array of floats.
        BrokenImage: truncated or corrupt.
    """
    header = _header(data)
    dtype = np.dtype(header["dtype"].decode())
    shape = int(header["height"]), int(header["width"])
    numbers = data[header.end() :]
    if len(numbers) != shape[0] * shape[1] * dtype.itemsize:
        raise BrokenImage(f"the .npy is truncated or corrupt: its header says {shape[0]}x{shape[1]} numbers")
    fortran_order = header["fortran_order"] == b"True"
    with np.errstate(over="ignore"):  # a double that no float32 holds becomes infinite, and so not valid
        metres = np.frombuffer(numbers, dtype).reshape(shape, order="F" if fortran_order else "C").astype(np.float32)
    valid = np.isfinite(metres) & (metres > 0)
    return DepthMap(np.where(valid, metres, np.float32(0)), valid, range=None, range_mask="none", model="")


def read_size(data: bytes) -> tuple[int, int]:
    """(H, W) as the header of a .npy file claims them; no more than that.

    Raises:
        UnsupportedMediaType: as `decode` says.
    """
    header = _header(data)
    return int(header["height"]), int(header["width"])


def _header(data: bytes) -> re.Match[bytes]:
    header = _HEADER.match(data)
    if header is None:
        raise UnsupportedMediaType("a depth map was expected as .npy that holds floats of shape (H, W); this is none")
    return header


FORMAT = Format(
    name="npy",
    media_type="application/x-npy",
    extension=".npy",
    description="NumPy array, float32 metres, NaN = not valid",
    write=encode,
    decode=decode,
    numbers=Numbers(),
)
