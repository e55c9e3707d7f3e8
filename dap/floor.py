"""How far the floor is below the camera: with the true height of the camera it fixes the metric scale."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dap import sphere
from dap.errors import FloorNotFound

ROWS = 128
FLATTEST_DEG = 20  # nearer the horizon a small error of depth is a large one of height
STEEPEST_TILT_DEG = 25
TOLERANCE = 0.15
LEAST_IN_SIGHT = 0.05  # share of what is that far below the horizon
LEAST_SHARE = 0.15  # of what is in sight: a floor has more than 0.2 of it, even in a stairwell
SHARE_OF_LARGEST = 0.3
FITS = 6
BINS_PER_DOUBLING = 32

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Level:
    """A plane below the camera.

    Attributes:
        plane: (3,), what has the scalar product 1 with each of its points.
        solid_angle: steradians in which it is seen.
    """

    plane: Floats
    solid_angle: float

    @property
    def distance(self) -> float:
        return float(1 / np.linalg.norm(self.plane))

    @property
    def is_level(self) -> bool:
        return bool(-self.plane[2] * self.distance > np.cos(np.radians(STEEPEST_TILT_DEG)))


def floor_distance(depth: npt.NDArray[np.float32], usable: npt.NDArray[np.bool_]) -> float:
    """Metres from the camera to the floor, which may be tilted against the camera by up to 25 degrees.

    Each surface below the horizon has a height below the camera, depth x sin(-latitude). Levels (a floor, a table)
    gather much solid angle at one height, walls spread theirs over all. To each such height a plane is fitted by
    weighted least squares, over and over among the points that are within 15 percent of it. The floor is the lowest
    of those that are seen in at least 0.3 of the solid angle of the largest: a table right below the camera may be
    larger.

    Args:
        depth: float32 (H, W), metres along the ray.
        usable: bool (H, W), what may be looked at: covered, in range, not under a nadir mask.

    Raises:
        FloorNotFound: too little of what is more than 20 degrees below the horizon is usable, or lies on one level.
    """
    points, weights = _points_below(depth, usable)
    in_sight = weights.sum()
    if in_sight < LEAST_IN_SIGHT * 2 * np.pi * (1 - np.sin(np.radians(FLATTEST_DEG))):
        raise FloorNotFound("camera_height expects a floor in sight below the camera; hardly anything is valid there")
    levels = [_fit(points, weights, height) for height in _frequent(-points[:, 2], weights)]
    levels = [level for level in levels if level.is_level and level.solid_angle > LEAST_SHARE * in_sight]
    if not levels:
        raise FloorNotFound("camera_height expects a level floor in sight below the camera; nothing there is level")
    enough = SHARE_OF_LARGEST * max(level.solid_angle for level in levels)
    return max(level.distance for level in levels if level.solid_angle >= enough)


def _points_below(depth: npt.NDArray[np.float32], usable: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Points (N, 3), metres, frame ros, and the solid angle that each stands for; of a large map a part suffices."""
    step = max(1, depth.shape[0] // ROWS)
    start = step // 2
    height, width = depth.shape
    rows = np.nonzero(sphere.latitudes(height) < -np.radians(FLATTEST_DEG))[0][start::step]
    metres = depth[rows, start::step].astype(np.float64)
    seen = usable[rows, start::step] & (metres > 0)
    rays = sphere.directions(sphere.longitudes(width)[start::step], sphere.latitudes(height)[rows, None])
    angles = np.broadcast_to(sphere.solid_angles(height, width)[rows, None] * step**2, metres.shape)
    return rays[seen] * metres[seen, None], angles[seen]


def _frequent(heights: Floats, weights: Floats) -> list[float]:
    """Heights, metres, about which more solid angle lies than about those 15 percent above and below."""
    bins = np.floor(np.log2(heights) * BINS_PER_DOUBLING).astype(np.intp)
    lowest = bins.min()
    smooth = np.convolve(np.bincount(bins - lowest, weights), [1, 2, 3, 4, 3, 2, 1], mode="same")
    around = np.lib.stride_tricks.sliding_window_view(np.pad(smooth, 6), 13).max(axis=1)
    peaks = np.nonzero((smooth == around) & (smooth > smooth.max() * SHARE_OF_LARGEST / 2))[0]
    return [float(2 ** ((peak + lowest + 0.5) / BINS_PER_DOUBLING)) for peak in peaks]


def _fit(points: Floats, weights: Floats, height: float) -> _Level:
    """The plane through the points about that height. A point counts the less the farther off the plane it is."""
    plane = np.array([0, 0, -1 / height])
    for _ in range(FITS):
        off = np.clip((points @ plane - 1) / TOLERANCE, -1, 1)
        weighted = points.T * (weights * np.square(1 - np.square(off)))
        # A little of the last plane keeps a few points, or points in a row, from having none.
        moments = weighted @ points
        ridge = 1e-6 * np.trace(moments) * np.eye(3)
        plane = np.linalg.solve(moments + ridge, weighted.sum(axis=1) + ridge @ plane)
    near = np.abs(points @ plane - 1) < TOLERANCE
    return _Level(plane, float(weights[near].sum()))
