"""No seam at the left and right border: two predictions, half a turn apart, blended by longitude.

A network without circular padding does not know that the borders of a panorama meet. What it says there of the
panorama turned by half a turn it says in the middle of the picture.
"""

import numpy as np
import numpy.typing as npt

from dap import sphere
from dap.depth import DepthMap

NEAREST_M = 1e-3

Output = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""What an engine says of one panorama: depth, float32 (H, W), and in-range probabilities, float32 (T, H, W)."""


def half_turn(panorama: npt.NDArray[sphere.Scalar]) -> npt.NDArray[sphere.Scalar]:
    """A panorama (H, W, ...) of even width, seen by a camera that looks the other way; twice is none."""
    return sphere.roll_yaw(panorama, panorama.shape[1] // 2)


def weights(width: int) -> npt.NDArray[np.float32]:
    """Of the straight prediction, float32 (W,): 0 in its outermost columns, 1 in its two middle ones, smooth between.

    Those of the turned one are the same, half a turn on, and the two add up to 1.
    """
    columns = np.arange(width)
    from_border = np.minimum(columns, width - 1 - columns) / max(1, width // 2 - 1)
    return np.square(np.sin(np.pi / 2 * from_border)).astype(np.float32)


def blend(straight: Output, turned: Output) -> Output:
    """One prediction without a seam.

    Depth is blended in the log: what two predictions of a scene differ by is mostly scale, and so the way from one to
    the other is the same share of the depth for near and far. Probabilities are blended as they are.

    Args:
        straight: depth (H, W) and in-range probabilities (T, H, W) of the panorama.
        turned: those of its `half_turn`, not yet turned back.
    """
    weight = weights(straight[0].shape[1])
    logs = [np.log(np.maximum(depth, np.float32(NEAREST_M))) for depth in (straight[0], half_turn(turned[0]))]
    depth = np.exp(logs[0] * weight + logs[1] * (1 - weight))
    back = np.roll(turned[1], turned[1].shape[2] // 2, axis=2)
    return depth, straight[1] * weight + back * (1 - weight)


def seam_error(depth_map: DepthMap) -> float | None:
    """How much larger the step across the left/right border is than between neighbouring columns elsewhere.

    The step is the mean of abs(log depth ratio) over the rows where both columns are valid, weighted by solid angle;
    elsewhere is the median over all other pairs of neighbours. 1: no seam. None: nothing to compare.
    """
    weight = sphere.solid_angles(*depth_map.size)[:, None]
    logs = np.log(np.maximum(depth_map.depth, np.float32(NEAREST_M)))
    both = depth_map.valid & np.roll(depth_map.valid, 1, axis=1)
    steps = np.where(both, np.abs(logs - np.roll(logs, 1, axis=1)), 0)
    seen = (both * weight).sum(axis=0)
    means = np.divide((steps * weight).sum(axis=0), seen, out=np.full(len(seen), np.nan), where=seen > 0)
    elsewhere = means[1:][seen[1:] > 0]
    if seen[0] == 0 or not len(elsewhere) or np.median(elsewhere) == 0:
        return None
    return float(means[0] / np.median(elsewhere))
