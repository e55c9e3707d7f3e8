"""What a depth map can be written as. The first is the default."""

from dap.depth import DepthMap
from dap.formats import npy, png16, preview, statistics
from dap.formats.base import Format, registry

DEPTH_FORMATS: dict[str, Format[DepthMap]] = registry(png16.FORMAT, npy.FORMAT, preview.FORMAT, statistics.FORMAT)
