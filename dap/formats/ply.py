"""PLY, binary little-endian: float32 x y z, then nx ny nz where there are normals, then uint8 red green blue.

Comments in the header say unit, frame and model. Source: Greg Turk, "The PLY Polygon File Format" (1994).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from dap.cloud import PointCloud
from dap.formats.base import DEFAULT_OPTIONS, EncodeOptions, Format

_PLY_TYPES = {"<f4": "float", "u1": "uchar"}


def encode(cloud: PointCloud, _options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The cloud as PLY."""
    parts: list[tuple[str, npt.NDArray[Any], tuple[str, ...]]] = [("<f4", cloud.points, ("x", "y", "z"))]
    if cloud.normals is not None:
        parts.append(("<f4", cloud.normals, ("nx", "ny", "nz")))
    parts.append(("u1", cloud.colors, ("red", "green", "blue")))
    properties = [(name, kind) for kind, _, names in parts for name in names]
    vertices = np.empty(len(cloud.points), properties)
    for _, values, names in parts:
        for i, name in enumerate(names):
            vertices[name] = values[:, i]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        *(f"comment {note}" for note in cloud.notes),
        f"element vertex {len(vertices)}",
        *(f"property {_PLY_TYPES[kind]} {name}" for name, kind in properties),
        "end_header",
    ]
    return "\n".join([*header, ""]).encode() + vertices.tobytes()


FORMAT = Format(
    name="ply",
    media_type="application/x-ply",
    extension=".ply",
    description="PLY, binary little-endian, coloured points in metres",
    write=encode,
)
