"""Several NumPy arrays in one file: a point cloud, ready to compute with.

    points       float32 (N, 3)  metres, the camera at the origin
    colors       uint8 (N, 3)    RGB
    normals      float32 (N, 3)  where there are some
    frame, axes, model  text

Nothing is pickled and nothing compressed: `numpy.load(file, allow_pickle=False)` takes it. Source: NEP 1.
"""

from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from dap import sphere
from dap.cloud import PointCloud
from dap.formats.base import DEFAULT_OPTIONS, EncodeOptions, Format


def encode(cloud: PointCloud, _options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The cloud as .npz."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "points": cloud.points,
        "colors": cloud.colors,
        "frame": np.array(cloud.frame),
        "axes": np.array(sphere.AXES[cloud.frame]),
        "model": np.array(cloud.model),
    }
    if cloud.normals is not None:
        arrays["normals"] = cloud.normals
    stream = BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


FORMAT = Format(
    name="npz",
    media_type="application/x-npz",
    extension=".npz",
    description="NumPy arrays: points in metres, colours, normals",
    write=encode,
)
