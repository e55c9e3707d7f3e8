"""What a depth map can be written as. The first is the default, and the first of a media type is what it gets."""

from dap.depth import DepthMap
from dap.formats import exr, npy, npz, png16, preview, statistics, tiff
from dap.formats.base import Format, registry

DEPTH_FORMATS: dict[str, Format[DepthMap]] = registry(
    png16.FORMAT,
    npy.FORMAT,
    preview.JPEG,
    statistics.FORMAT,
    exr.EXR,
    exr.EXR_HALF,
    tiff.FORMAT,
    npz.FORMAT,
    preview.PNG,
)
