"""Coloured point clouds of depth maps.

Every point is a pixel of the depth map, at the depth the model gave it and on that pixel's own ray. Nothing is
interpolated, so the sampling leaves no point hanging between two surfaces.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from dap import sphere
from dap.depth import DepthMap
from dap.edges import depth_edges
from dap.errors import InvalidParameter
from dap.normals import normals as normals_of
from dap.sphere import Frame

Sampling = Literal["equal-area", "erp"]
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)
Pixels = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]


@dataclass(frozen=True)
class PointCloud:
    """Points with colours, and normals if they were asked for.

    Attributes:
        points: float32 (N, 3), metres, the camera at the origin.
        colors: uint8 (N, 3), RGB.
        frame: axes of the points.
        normals: float32 (N, 3), unit length, in the same frame; None where there are none.
        model: name of the model that the depth comes from.
    """

    points: npt.NDArray[np.float32]
    colors: npt.NDArray[np.uint8]
    frame: Frame
    normals: npt.NDArray[np.float32] | None = None
    model: str = ""

    @property
    def notes(self) -> tuple[str, str, str]:
        """What the header of a file says: the unit, the frame and the model, a line of ASCII each."""
        model = " ".join(self.model.encode("ascii", "replace").decode().split())
        return "unit metre", f"frame {self.frame}: {sphere.AXES[self.frame]}", f"model {model}"


def point_cloud(
    depth_map: DepthMap,
    pixels: npt.NDArray[np.uint8],
    frame: Frame = "ros",
    max_points: int | None = None,
    sampling: Sampling = "equal-area",
    normals: bool = False,
    max_edge: float | None = None,
) -> PointCloud:
    """The valid pixels of a depth map as points. The same input gives the same points in the same order.

    Args:
        depth_map: any size.
        pixels: uint8 (h, w, 3), the panorama at any size; a point takes the colour of the pixel that its ray meets.
        frame: axes of the points.
        max_points: never more than these; None for as many as the sampling gives.
        sampling: `equal-area`, every point stands for the same solid angle: rings of constant latitude with as many
            points each as their length allows, at most as dense as the depth map at its equator. `erp`, every valid
            pixel, so that points crowd towards the poles; if these are too many, every n-th.
        normals: with normals. A pixel whose neighbours are too few to span a surface is then no point.
        max_edge: pixels at a depth edge are no points, see `dap.edges.depth_edges`; None: all are.

    Raises:
        InvalidParameter: `max_points` is less than one, or `max_edge` is not above zero.
    """
    if max_points is not None and max_points < 1:
        raise InvalidParameter(f"max_points is at least 1; got {max_points}")
    if max_edge is not None:
        depth_map = replace(depth_map, valid=depth_map.valid & ~depth_edges(depth_map, max_edge))
    facing = normals_of(depth_map, frame) if normals else None
    choose = _equal_area_pixels if sampling == "equal-area" else _erp_pixels
    rows, columns = choose(facing.valid if facing else depth_map.valid, max_points)
    points = _points(depth_map, rows, columns)
    height, width = depth_map.size
    colors = pixels[_same_place(rows, height, pixels.shape[0]), _same_place(columns, width, pixels.shape[1])]
    return PointCloud(
        points=sphere.to_frame(points, frame),
        colors=colors,
        frame=frame,
        normals=facing.normals[rows, columns] if facing else None,
        model=depth_map.model,
    )


def _points(depth_map: DepthMap, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """Depth times ray, frame ros. The ray of a pixel is looked up by row and by column: far fewer sines than points."""
    height, width = depth_map.size
    horizon = sphere.directions(sphere.longitudes(width), 0.0).astype(np.float32)
    meridian = sphere.directions(0.0, sphere.latitudes(height)).astype(np.float32)
    depth = depth_map.depth[rows, columns]
    horizontal = depth * meridian[rows, 0]
    points = np.empty((len(rows), 3), np.float32)
    np.multiply(horizontal, horizon[columns, 0], out=points[:, 0])
    np.multiply(horizontal, horizon[columns, 1], out=points[:, 1])
    np.multiply(depth, meridian[rows, 2], out=points[:, 2])
    return points


def _erp_pixels(valid: npt.NDArray[np.bool_], max_points: int | None) -> Pixels:
    rows, columns = np.nonzero(valid)
    if max_points is None or len(rows) <= max_points:
        return rows, columns
    kept = np.arange(max_points) * len(rows) // max_points
    return rows[kept], columns[kept]


def _equal_area_pixels(valid: npt.NDArray[np.bool_], max_points: int | None) -> Pixels:
    """The valid pixels of the densest equal-area grid that has at most `max_points` of them."""
    height, width = valid.shape
    if max_points is None:
        return _on_rings(valid, height)
    expected = valid.mean(axis=1) @ _points_on_rings(height, width, height)
    rings = min(height, 1 + round(height * (max_points / max(expected, 1)) ** 0.5))
    rows, columns = _on_rings(valid, rings)
    while len(rows) > max_points and rings > 1:
        rings -= 1
        rows, columns = _on_rings(valid, rings)
    return rows[:max_points], columns[:max_points]


def _on_rings(valid: npt.NDArray[np.bool_], rings: int) -> Pixels:
    height, width = valid.shape
    counts = _points_on_rings(height, width, rings)
    rows = np.repeat((2 * np.arange(rings) + 1) * height // (2 * rings), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    columns = (2 * (np.arange(len(rows)) - first) + 1) * width // (2 * np.repeat(counts, counts))
    kept = valid[rows, columns]
    return rows[kept], columns[kept]


def _points_on_rings(height: int, width: int, rings: int) -> npt.NDArray[np.intp]:
    """How many points each of the rings has: as far apart along it as the rings are from each other, for a 2:1 map."""
    return np.maximum(1, np.rint(width * rings / height * np.cos(sphere.latitudes(rings)))).astype(np.intp)


def _same_place(index: npt.NDArray[np.intp], source: int, target: int) -> npt.NDArray[np.intp]:
    """The index, of `target`, whose pixel holds the centre of pixel `index` of `source`."""
    return (2 * index + 1) * target // (2 * source)
