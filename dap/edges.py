"""Depth edges: where one surface ends before another, and a network leaves points that hang between the two.

A threshold on how far the depth of neighbours differs, as in MoGe's `depth_edge` (3x3 maximum less minimum, relative),
finds every floor too, far enough away: seen at a grazing angle it recedes as fast as an edge does. What tells them
apart is that the inverse depth of a plane hardly bends: it is n . ray / h, a sine of the angle. So an edge is where
depth changes fast AND inverse depth bends.
"""

import numpy as np
import numpy.typing as npt

from dap import sphere
from dap.depth import DepthMap
from dap.errors import InvalidParameter

NEIGHBOUR_DEG = 180 / 256
_BEND_REACH = 3
_LINE = range(-_BEND_REACH - 1, _BEND_REACH + 2)

_Floats = npt.NDArray[np.float32]
_Bools = npt.NDArray[np.bool_]


def depth_edges(depth_map: DepthMap, max_edge: float) -> npt.NDArray[np.bool_]:
    """Which valid pixels are at a depth edge, bool (H, W).

    A neighbour is what lies 0.7 degrees away along the row or the meridian, as a pixel of 512x256 does: an angle, so
    that a map has the same edges when it is enlarged. A pixel is at an edge if along one of the two lines

    - its depth and a neighbour's differ by more than `max_edge`, as a share of the nearer, and
    - at the pixel or at either neighbour inverse depth bends: over three times that angle it changes to one side by
      what it does not change back to the other, but for the share `max_edge` of it; or invalid depth lies there.

    So a step is found if it is larger than `max_edge`, with all that lies between its sides, and a surface is not,
    at whatever angle it is seen. Where two surfaces meet that are both seen at a flat angle, a few pixels are lost.

    Args:
        depth_map: any size; longitude is a circle and a meridian goes on beyond its pole.
        max_edge: share of the depth, above zero. At 0.1 the first condition finds a floor 1.6 m below the camera from
            13 m on, which the second spares.

    Raises:
        InvalidParameter: `max_edge` is not above zero.
    """
    if not max_edge > 0:
        raise InvalidParameter(f"max_edge is a share of the depth above zero; got {max_edge:g}")
    height, width = depth_map.size
    step = max(1, round(height * NEIGHBOUR_DEG / 180))
    margin = _LINE[-1] * step
    edges = np.zeros(depth_map.size, np.bool_)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(depth_map.valid, 1 / depth_map.depth, np.float32(np.nan))
        inverse = sphere.beyond_poles(inverse, margin)
        for rows, columns in sphere.row_bands(height, width, step):
            meridian = [inverse[margin + n * step :][rows] for n in _LINE]
            row = [np.roll(inverse[margin:][rows], -n * columns, axis=1) for n in _LINE]
            edges[rows] = _at_edge(meridian, max_edge) | _at_edge(row, max_edge)
    return edges & depth_map.valid


def _at_edge(line: list[_Floats], max_edge: float) -> _Bools:
    """Where the middle of `line` is at an edge: inverse depth at each of `_LINE`, not a number where not valid."""
    middle = len(line) // 2
    here = line[middle]
    jumps = np.zeros(here.shape, np.bool_)
    bends = np.zeros(here.shape, np.bool_)
    for beside in (line[middle - 1], line[middle + 1]):
        jumps |= np.abs(beside - here) > max_edge * np.minimum(beside, here)
    for n in (middle - 1, middle, middle + 1):
        bend = line[n - _BEND_REACH] + line[n + _BEND_REACH] - 2 * line[n]
        bends |= ~(np.abs(bend) <= max_edge * line[n])
    return jumps & bends
