"""What a point cloud can be written as. The first is the default."""

from dap.cloud import PointCloud
from dap.formats import cloud_npz, glb, las, pcd, ply
from dap.formats.base import Format, registry

CLOUD_FORMATS: dict[str, Format[PointCloud]] = registry(
    ply.FORMAT, pcd.FORMAT, las.LAS, las.LAZ, glb.FORMAT, cloud_npz.FORMAT
)
