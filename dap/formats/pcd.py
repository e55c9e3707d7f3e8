"""PCD 0.7, binary: float32 x y z, rgb, then normal_x normal_y normal_z where there are normals.

rgb is one number, 0x00RRGGBB, whose bits the header calls a float: what PCL matches with its own point types. Comments
in the header say unit, frame and model; the viewpoint is the camera, at the origin. Source: PCL, "The PCD (Point Cloud
Data) file format".
"""

import numpy as np

from dap.cloud import PointCloud
from dap.formats.base import DEFAULT_OPTIONS, EncodeOptions, Format


def encode(cloud: PointCloud, _options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The cloud as PCD."""
    fields = ["x", "y", "z", "rgb"]
    if cloud.normals is not None:
        fields += ["normal_x", "normal_y", "normal_z"]
    numbers = np.empty((len(cloud.points), len(fields)), "<f4")
    numbers[:, :3] = cloud.points
    red, green, blue = cloud.colors.T.astype(np.uint32)
    numbers.view("<u4")[:, 3] = red << 16 | green << 8 | blue
    if cloud.normals is not None:
        numbers[:, 4:] = cloud.normals
    header = [
        "# .PCD v0.7 - Point Cloud Data file format",
        *(f"# {note}" for note in cloud.notes),
        "VERSION 0.7",
        f"FIELDS {' '.join(fields)}",
        f"SIZE{' 4' * len(fields)}",
        f"TYPE{' F' * len(fields)}",
        f"COUNT{' 1' * len(fields)}",
        f"WIDTH {len(numbers)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(numbers)}",
        "DATA binary",
    ]
    return "\n".join([*header, ""]).encode() + numbers.tobytes()


FORMAT = Format(
    name="pcd",
    media_type="application/x-pcd",
    extension=".pcd",
    description="PCD 0.7, binary, coloured points in metres, for PCL and ROS",
    write=encode,
)
