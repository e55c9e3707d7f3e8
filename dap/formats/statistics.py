"""JSON: what a depth map holds, in a few numbers."""

import json

from dap.depth import DepthMap
from dap.formats.base import DEFAULT_OPTIONS, EncodeOptions, Format
from dap.resolutions import resolution_text


def describe(depth_map: DepthMap) -> dict[str, object]:
    """The statistics as JSON takes them: metres, weighted by solid angle, null where nothing is valid."""
    found = depth_map.statistics()
    height, width = depth_map.size
    return {
        "model": depth_map.model,
        "resolution": None if depth_map.resolution is None else resolution_text(depth_map.resolution),
        "range": depth_map.range,
        "range_mask": depth_map.range_mask,
        "unit": "metre",
        "scale_factor": round(depth_map.scale_factor, 6),
        "width": width,
        "height": height,
        "valid_share": round(found.valid_share, 6),
        "min": _rounded(found.minimum),
        "max": _rounded(found.maximum),
        "mean": _rounded(found.mean),
        "median": _rounded(found.median),
        "percentiles": {str(percent): _rounded(value) for percent, value in found.percentiles.items()},
        "bands": [
            {
                "top_deg": band.top_deg,
                "bottom_deg": band.bottom_deg,
                "valid_share": round(band.valid_share, 6),
                "median": _rounded(band.median),
            }
            for band in found.bands
        ],
    }


def encode(depth_map: DepthMap, _options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The statistics as JSON."""
    return json.dumps(describe(depth_map), allow_nan=False).encode()


def _rounded(metres: float | None) -> float | None:
    return None if metres is None else round(metres, 4)


FORMAT = Format(
    name="json",
    media_type="application/json",
    extension=".json",
    description="statistics: valid share, extremes, percentiles, latitude bands",
    write=encode,
)
