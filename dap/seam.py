"""No seam at the left and right border: two predictions, half a turn apart, blended by longitude.

A network without circular padding, such as DAP's own, does not know that the borders of a panorama meet. Of the
panorama turned by half a turn it sees the same place in the middle of the picture. A network that goes round the
circle, such as dap-s, says the same both times: it has no seam to begin with, and is asked once.
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

    The width is even and at least 4.
    Those of the turned one are the same, half a turn on, and the two add up to 1.
    """
    columns = np.arange(width)
    from_border = np.minimum(columns, width - 1 - columns) / (width // 2 - 1)
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
    """By what share of the depth the two sides of the left/right border disagree: 0 is no seam, 0.05 one of 5 percent.

    On either side the log of depth is continued from the two outermost columns to the border itself, half a column
    further, where both sides must meet on any surface. The median over the rows, weighted by solid angle, is blind to
    the rows in which one surface ends there before another. None where no row is valid.
    """
    columns = [-2, -1, 0, 1]
    rows = depth_map.valid[:, columns].all(axis=1)
    if not rows.any():
        return None
    beyond, left, right, further = np.log(np.maximum(depth_map.depth[:, columns][rows], NEAREST_M)).T
    steps = np.abs((left + (left - beyond) / 2) - (right + (right - further) / 2))
    order = np.argsort(steps)
    reached = np.cumsum(sphere.solid_angles(*depth_map.size)[rows][order])
    return float(steps[order][np.searchsorted(reached, reached[-1] / 2)])
