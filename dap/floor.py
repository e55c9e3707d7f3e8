"""How far the floor is below the camera: with the true height of the camera it fixes the metric scale."""

import numpy as np
import numpy.typing as npt

from dap import sphere
from dap.errors import FloorNotFound

STEEPEST_DEG = 80
FLATTEST_DEG = 20
BINS_PER_DOUBLING = 32
LEAST_SHARE = 0.05


def floor_distance(depth: npt.NDArray[np.float32], usable: npt.NDArray[np.bool_]) -> float:
    """Metres from the camera straight down to the level that most of what is seen below the horizon lies on.

    Every ray below the horizon gives a height below the camera, depth x sin(-latitude). A floor gives the same
    height from every side; walls and furniture spread theirs out. The answer is the mode of the heights, weighted by
    solid angle, in steps of 2 percent, then the weighted median of what is within 10 percent of it.

    Args:
        depth: float32 (H, W), metres along the ray.
        usable: bool (H, W), what may be looked at: covered, in range, not under a nadir mask.

    Raises:
        FloorNotFound: too little of what is below the horizon is usable, or lies on one level.
    """
    height, width = depth.shape
    down = -sphere.latitudes(height)
    rows = np.nonzero((down > np.radians(FLATTEST_DEG)) & (down < np.radians(STEEPEST_DEG)))[0]
    heights = depth[rows] * np.sin(down[rows])[:, None]
    angles = np.broadcast_to(sphere.solid_angles(height, width)[rows, None], heights.shape)
    looked_at = angles.sum()
    kept = usable[rows] & (heights > 0)
    heights, angles = heights[kept], angles[kept]
    if angles.sum() < LEAST_SHARE * looked_at:
        raise FloorNotFound("camera_height expects a floor in sight below the camera; hardly anything is valid there")
    bins = np.floor(np.log2(heights) * BINS_PER_DOUBLING).astype(np.intp)
    histogram = np.bincount(bins - bins.min(), angles)
    smooth = np.convolve(histogram, [1, 2, 3, 2, 1], mode="same")
    mode = 2 ** ((np.argmax(smooth) + bins.min() + 0.5) / BINS_PER_DOUBLING)
    near = np.abs(heights / mode - 1) < 0.1
    if angles[near].sum() < LEAST_SHARE * looked_at:
        raise FloorNotFound("camera_height expects a level floor in sight below the camera; nothing there is level")
    order = np.argsort(heights[near])
    reached = np.cumsum(angles[near][order])
    return float(heights[near][order][np.searchsorted(reached, reached[-1] / 2)])
