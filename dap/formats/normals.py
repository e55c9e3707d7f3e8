"""Normals: a PNG for the eye and for engines of games, a NumPy array to compute with.

Eight bits for each axis are what normal maps have everywhere; they turn a normal by 0.4 degrees at most. Who needs
more takes the array.
"""

from io import BytesIO

import numpy as np

from dap import sphere
from dap.formats import png
from dap.formats.base import DEFAULT_OPTIONS, EncodeOptions, Format, registry
from dap.normals import NormalMap

# Where a unit vector cannot be: every axis at -1.
INVALID_RGB = (0, 0, 0)


def encode_png(normal_map: NormalMap, _options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """RGB PNG of 8 bits: (normal + 1) / 2 * 255, x as red; 0 0 0 where not valid. Text chunks say so, and the frame."""
    steps = np.rint((normal_map.normals + 1) * np.float32(127.5)).astype(np.uint8)
    steps[~normal_map.valid] = INVALID_RGB
    text = {
        "Normal": "(value / 255) * 2 - 1",
        "Invalid": "0 0 0",
        "Frame": f"{normal_map.frame}: {sphere.AXES[normal_map.frame]}",
        "Model": normal_map.model,
    }
    return png.encode(steps, text)


def encode_npy(normal_map: NormalMap, _options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """.npy, float32 (H, W, 3), NaN where not valid (NEP 1, format 1.0)."""
    stream = BytesIO()
    unit = np.where(normal_map.valid[..., None], normal_map.normals, np.float32(np.nan))
    np.save(stream, unit.astype("<f4", copy=False), allow_pickle=False)
    return stream.getvalue()


NORMAL_FORMATS: dict[str, Format[NormalMap]] = registry(
    Format(
        name="png",
        media_type="image/png",
        extension=".png",
        description="RGB PNG, normal = value / 255 * 2 - 1, 0 0 0 = not valid",
        write=encode_png,
    ),
    Format(
        name="npy",
        media_type="application/x-npy",
        extension=".npy",
        description="NumPy array, float32 unit vectors, NaN = not valid",
        write=encode_npy,
    ),
)
