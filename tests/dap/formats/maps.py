"""A depth map to write: every step of depth that a 16-bit PNG has a neighbour of, with holes."""

import numpy as np

from dap.depth import DepthMap


def some_depth(height: int = 40, width: int = 80) -> DepthMap:
    """Valid depth from 0.1 to 100 m; what is not valid is not a number."""
    depth = np.geomspace(0.1, 100, height * width, dtype=np.float32).reshape(height, width)
    valid = np.random.default_rng(0).random((height, width)) < 0.8
    depth[~valid] = np.nan
    return DepthMap(depth, valid, range=100.0, range_mask="head", model="dap-s")
