"""Surface normals of depth maps.

The normal of a pixel is the cross product of two tangents of its surface, one along its row and one along its
meridian. A tangent is a mean of the differences to the neighbours on both sides, each weighted by the inverse fourth
power of its length: the mean of both on a smooth surface, the nearer neighbour alone at a depth edge. The difference
of two points of a plane lies in the plane, so the normals of planes are exact.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dap import sphere
from dap.depth import DepthMap
from dap.sphere import Frame

_Floats = npt.NDArray[np.float32]
_Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class NormalMap:
    """Which way the surfaces of a panorama face.

    Attributes:
        normals: float32 (H, W, 3), unit length, on the side of the surface that the camera sees; zero where not valid.
        valid: bool (H, W): the depth is valid here and in neighbours enough to span a surface.
        frame: axes of the normals.
        model: name of the model that the depth comes from.
    """

    normals: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    frame: Frame
    model: str

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        height, width = self.valid.shape
        return height, width


def normals(depth_map: DepthMap, frame: Frame = "ros") -> NormalMap:
    """The normals of a depth map.

    Longitude is a circle, a meridian goes on beyond its pole, and invalid depth is no neighbour. Towards the poles,
    where columns crowd, the neighbours in a row are taken from further away: about as far on the sphere as those in
    the meridian.

    Args:
        depth_map: any size.
        frame: axes of the normals.
    """
    height, width = depth_map.size
    metres = sphere.beyond_poles(np.where(depth_map.valid, depth_map.depth, np.float32(0)), 1)
    known = sphere.beyond_poles(depth_map.valid, 1)
    found = np.empty((height, width, 3), np.float32)
    valid = np.empty((height, width), np.bool_)
    for rows, step in sphere.row_bands(height, width):
        around = slice(rows.start, rows.stop + 2)
        latitudes = (0.5 - (np.arange(rows.start - 1, rows.stop + 1) + 0.5) / height) * np.pi
        normal = _facing(_points(metres[around], latitudes), known[around], step)
        valid[rows] = normal.any(axis=0)
        found[rows] = sphere.to_frame(np.moveaxis(normal, 0, -1), frame)
    return NormalMap(found, valid, frame, depth_map.model)


def _points(metres: _Floats, latitudes: npt.NDArray[np.float64]) -> _Floats:
    """Depth times ray, float32 (3, rows, W), frame ros; a latitude beyond a pole is one of the other side."""
    horizon = sphere.directions(sphere.longitudes(metres.shape[1]), 0.0).astype(np.float32)
    horizontal = metres * np.cos(latitudes).astype(np.float32)[:, None]
    vertical = metres * np.sin(latitudes).astype(np.float32)[:, None]
    return np.stack([horizontal * horizon[:, 0], horizontal * horizon[:, 1], vertical])


def _facing(points: _Floats, known: _Bools, step: int) -> _Floats:
    """Unit normals, float32 (3, R, W), of all rows but the first and the last; zero where there is none."""
    here, here_known = points[:, 1:-1], known[1:-1]
    along_row = _tangent(
        here,
        (np.roll(here, -step, axis=2), np.roll(here_known, -step, axis=1)),
        (np.roll(here, step, axis=2), np.roll(here_known, step, axis=1)),
    )
    along_meridian = _tangent(here, (points[:, :-2], known[:-2]), (points[:, 2:], known[2:]))
    normal = np.cross(along_row, along_meridian, axis=0)
    length = np.sqrt(_dot(normal, normal))
    away = _dot(normal, here) > 0
    scale = np.divide(np.where(away, -1, 1), length, out=np.zeros_like(length), where=here_known & (length > 0))
    return np.asarray(normal * scale, np.float32)


def _tangent(here: _Floats, after: tuple[_Floats, _Bools], before: tuple[_Floats, _Bools]) -> _Floats:
    """Direction in which the surface goes on, float32 (3, R, W); zero where neither neighbour is known."""
    forward, backward = after[0] - here, here - before[0]
    # Weights of 1 / length^4, both multiplied by both lengths: nothing is divided by a length of zero.
    forward_weight = np.square(_dot(backward, backward)) * after[1]
    backward_weight = np.square(_dot(forward, forward)) * before[1]
    total = forward_weight + backward_weight
    share = np.divide(forward_weight, total, out=np.zeros_like(total), where=total > 0)
    tangent: _Floats = forward * share + backward * np.where(total > 0, 1 - share, np.float32(0))
    return tangent


def _dot(a: _Floats, b: _Floats) -> _Floats:
    product: _Floats = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return product
