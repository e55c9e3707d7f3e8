"""LAS 1.2, and the same compressed (LAZ): whole millimetres, colours of 16 bits, in point format 2.

Coordinates are those of the cloud's own frame, the camera at the origin: there is no place on the earth to them, and no
coordinate system is claimed. A text record (LASF_Spec 3) says unit, frame and model. Normals are extra bytes of the
names that PDAL and CloudCompare know, NormalX, NormalY and NormalZ, float32. Source: ASPRS LAS 1.2 and 1.4 (extra
bytes).
"""

from functools import partial
from io import BytesIO

import laspy
import numpy as np

from dap.cloud import PointCloud
from dap.formats.base import DEFAULT_OPTIONS, EncodeOptions, Format

STEPS_PER_METRE = 1000

_POINT_FORMAT_WITH_COLORS = 2
_NORMALS = ("NormalX", "NormalY", "NormalZ")
# 255 becomes 65535.
_TO_16_BITS = 257


def encode(cloud: PointCloud, _options: EncodeOptions = DEFAULT_OPTIONS, *, compressed: bool = False) -> bytes:
    """The cloud as LAS, or LAZ."""
    header = _header(cloud)
    points = laspy.ScaleAwarePointRecord.zeros(len(cloud.points), header=header)
    steps = np.rint(cloud.points * np.float32(STEPS_PER_METRE)).astype(np.int32)
    for i, axis in enumerate("XYZ"):
        points[axis] = steps[:, i]
    for i, name in enumerate(("red", "green", "blue")):
        points[name] = cloud.colors[:, i] * np.uint16(_TO_16_BITS)
    points["return_number"] = points["number_of_returns"] = np.ones(len(cloud.points), np.uint8)
    if cloud.normals is not None:
        for i, name in enumerate(_NORMALS):
            points[name] = cloud.normals[:, i]
    stream = BytesIO()
    # One thread: the others are for other requests.
    backend = laspy.LazBackend.Lazrs if compressed else None
    with laspy.open(stream, "w", header=header, laz_backend=backend, closefd=False) as writer:
        writer.write_points(points)
    return stream.getvalue()


def _header(cloud: PointCloud) -> laspy.LasHeader:
    header = laspy.LasHeader(version="1.2", point_format=_POINT_FORMAT_WITH_COLORS)
    header.scales, header.offsets = np.full(3, 1 / STEPS_PER_METRE), np.zeros(3)
    header.system_identifier = "depth from a panorama"
    header.generating_software = "Depth Any Panoramas"
    notes = "\n".join(cloud.notes).encode() + b"\0"
    header.vlrs.append(laspy.VLR("LASF_Spec", 3, "text area description", notes))
    if cloud.normals is not None:
        header.add_extra_dims([laspy.ExtraBytesParams(name, np.dtype("<f4")) for name in _NORMALS])
    return header


LAS = Format(
    name="las",
    media_type="application/vnd.las",
    extension=".las",
    description="LAS 1.2, coloured points in millimetres",
    write=encode,
)
LAZ = Format(
    name="laz",
    media_type="application/vnd.laszip",
    extension=".laz",
    description="LAZ, the same compressed",
    write=partial(encode, compressed=True),
)
