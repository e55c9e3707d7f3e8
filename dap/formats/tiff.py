"""TIFF: float32 metres, Zstandard with the floating-point predictor; GIS tools, ImageJ and MATLAB read it.

The description is JSON: unit, invalid, range, range_mask, model, scale_factor. GDAL's tag for no data says what stands
where nothing is valid, so that QGIS and rasterio mask it. Measured with noise of 3 mm, on one core: 34 ms and 1.3 MB at
1024x512, 580 ms and 21 MB at 4096x2048; libtiff compresses at level 9 and Pillow lets nobody choose, yet deflate takes
longer for the same size, and LZW half the time for a third more.

Sources: TIFF 6.0; Adobe Photoshop TIFF technical note 3 (floating-point predictor); GDAL's GeoTIFF driver (tag 42113).
"""

import json
from io import BytesIO

from PIL import Image
from PIL.TiffImagePlugin import IMAGEDESCRIPTION, PREDICTOR

from dap.depth import DepthMap
from dap.formats.base import DEFAULT_OPTIONS, EncodeOptions, Format, Numbers

_GDAL_NODATA = 42113
_FLOATING_POINT_PREDICTOR = 3
_NUMBERS = Numbers()


def encode(depth_map: DepthMap, options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The depth as TIFF."""
    invalid = _NUMBERS.invalid_text(options.fill, depth_map.range)
    description = {
        "unit": "metre",
        "invalid": invalid,
        "range": depth_map.range,
        "range_mask": depth_map.range_mask,
        "model": depth_map.model,
        "scale_factor": depth_map.scale_factor,
    }
    tags = {
        PREDICTOR: _FLOATING_POINT_PREDICTOR,
        IMAGEDESCRIPTION: json.dumps(description),
        _GDAL_NODATA: invalid.lower(),
    }
    stream = BytesIO()
    Image.fromarray(depth_map.filled(options.fill)).save(stream, "TIFF", compression="zstd", tiffinfo=tags)
    return stream.getvalue()


FORMAT = Format(
    name="tiff",
    media_type="image/tiff",
    extension=".tiff",
    description="TIFF, float32 metres, Zstandard",
    write=encode,
    numbers=_NUMBERS,
)
