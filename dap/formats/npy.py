"""NumPy's own format: float32 (H, W), metres along the ray, NaN where not valid (NEP 1, format 1.0)."""

from io import BytesIO

import numpy as np

from dap.depth import DepthMap
from dap.errors import BrokenImage, UnsupportedMediaType
from dap.formats.base import Format


def encode(depth_map: DepthMap) -> bytes:
    """The depth as .npy."""
    metres = np.where(depth_map.valid, depth_map.depth, np.float32(np.nan)).astype("<f4", copy=False)
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(metres))
    return header.getvalue() + metres.tobytes()


def decode(data: bytes) -> DepthMap:
    """A depth map from .npy: floats (H, W) in metres, valid where finite and above zero. No model or range is known.

    Raises:
        UnsupportedMediaType: not .npy, or not a two-dimensional array of floats.
        BrokenImage: truncated or corrupt.
    """
    stream = BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read_header(stream)
    except ValueError as error:
        raise UnsupportedMediaType(
            "a depth map was expected as .npy; this file has no header of that format"
        ) from error
    if dtype.kind != "f" or len(shape) != 2:
        raise UnsupportedMediaType(f"a depth map is floats of shape (H, W); this .npy holds {dtype} of shape {shape}")
    # Not `np.load`: it would allocate whatever size the header claims before it looks for the numbers.
    numbers = data[stream.tell() :]
    if len(numbers) != shape[0] * shape[1] * dtype.itemsize:
        raise BrokenImage(f"the .npy is truncated or corrupt: its header says {shape[0]}x{shape[1]} numbers")
    metres = np.frombuffer(numbers, dtype).reshape(shape, order="F" if fortran_order else "C").astype(np.float32)
    valid = np.isfinite(metres) & (metres > 0)
    return DepthMap(np.where(valid, metres, np.float32(0)), valid, range=None, range_mask="none", model="")


FORMAT = Format(
    name="npy",
    media_type="application/x-npy",
    extension=".npy",
    description="NumPy array, float32 metres, NaN = not valid",
    encode=encode,
    decode=decode,
)
