"""Depth maps of rooms whose surfaces have a formula."""

import numpy as np
import numpy.typing as npt

from dap import sphere
from dap.depth import DepthMap

Vector = tuple[float, float, float]


def depth_map(depth: npt.ArrayLike, valid: npt.ArrayLike | None = None) -> DepthMap:
    metres = np.array(depth, np.float32)
    mask = np.ones(metres.shape, np.bool_) if valid is None else np.array(valid, np.bool_)
    return DepthMap(metres, mask, range=None, range_mask="none", model="test")


def ball(height: int = 64, radius: float = 3.0) -> DepthMap:
    """A sphere around the camera."""
    return depth_map(np.full((height, 2 * height), radius))


def box(height: int = 64, low: Vector = (-3, -2, -1.5), high: Vector = (4, 2.5, 1.2)) -> DepthMap:
    """A room between two corners, frame ros, the camera at the origin."""
    return depth_map(distance_to_box(sphere.rays(height, 2 * height), low, high))


def distance_to_box(rays: npt.NDArray[np.floating], low: Vector, high: Vector) -> npt.NDArray[np.float64]:
    """Metres from the origin along unit rays (..., 3) to the nearest wall."""
    with np.errstate(divide="ignore"):
        return (np.where(rays > 0, high, low) / np.asarray(rays, np.float64)).min(axis=-1)


def facing_of_box(rays: npt.NDArray[np.floating], low: Vector, high: Vector) -> npt.NDArray[np.float64]:
    """Normal of the wall that each ray meets, (..., 3): into the room."""
    with np.errstate(divide="ignore"):
        axis = (np.where(rays > 0, high, low) / np.asarray(rays, np.float64)).argmin(axis=-1)
    return np.eye(3)[axis] * -np.sign(np.take_along_axis(rays, axis[..., None], axis=-1))


def floor(height: int, camera_height: float, range: float) -> DepthMap:
    """A floor below the camera, seen as far as `range`; nothing else is valid."""
    up = sphere.rays(height, 2 * height)[..., 2].astype(np.float64)
    with np.errstate(divide="ignore"):
        depth = np.where(up < 0, -camera_height / up, np.inf)
    return depth_map(np.where(depth <= range, depth, np.nan), depth <= range)
