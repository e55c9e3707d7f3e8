"""Geometry of the sphere of an equirectangular panorama (ERP), in numpy.

Conventions, everywhere in the project:

- A panorama of H rows and W columns covers the whole sphere. Column x has its centre at longitude
  ((x + 0.5) / W - 0.5) * 2 pi, which grows to the RIGHT in the image; row y at latitude (0.5 - (y + 0.5) / H) * pi,
  which grows upwards. The middle of the image looks forward.
- Directions and points are in the frame `ros` (REP 103: x forward, y left, z up) unless a name says otherwise.
- Angles are in radians, lengths in metres.
"""

from collections.abc import Iterator
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

Frame = Literal["ros", "opengl", "opencv"]
FRAMES: tuple[Frame, ...] = get_args(Frame)
AXES: dict[Frame, str] = {
    "ros": "x forward, y left, z up",
    "opengl": "x right, y up, looking along -z",
    "opencv": "x right, y down, z forward",
}

Scalar = TypeVar("Scalar", bound=np.generic)


def longitudes(width: int) -> npt.NDArray[np.float64]:
    """Longitude of the centre of each column, float64 (W,), ascending within (-pi, pi), positive to the right."""
    return ((np.arange(width) + 0.5) / width - 0.5) * (2 * np.pi)


def latitudes(height: int) -> npt.NDArray[np.float64]:
    """Latitude of the centre of each row, float64 (H,), descending within (pi/2, -pi/2)."""
    return (0.5 - (np.arange(height) + 0.5) / height) * np.pi


def directions(longitude: npt.ArrayLike, latitude: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Unit vectors, float64 (..., 3), frame ros, of angles in radians that broadcast against each other."""
    horizontal = np.cos(latitude)
    axes = horizontal * np.cos(longitude), -horizontal * np.sin(longitude), np.sin(latitude)
    return np.stack(np.broadcast_arrays(*axes), axis=-1)


def rays(height: int, width: int) -> npt.NDArray[np.float32]:
    """Unit ray through the centre of each pixel, float32 (H, W, 3), frame ros."""
    return directions(longitudes(width), latitudes(height)[:, None]).astype(np.float32)


def pixel_coordinates(
    points: npt.ArrayLike, height: int, width: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Where points (..., 3) in frame ros, or directions of any length, fall in a panorama: the inverse of `rays`.

    Returns:
        x in [0, W] and y in [0, H], float64 (...): continuous image coordinates, the centre of pixel (0, 0) at
        (0.5, 0.5).
    """
    forward, left, up = np.moveaxis(np.asarray(points, np.float64), -1, 0)
    longitude = np.arctan2(-left, forward)
    latitude = np.arctan2(up, np.hypot(forward, left))
    return (longitude / (2 * np.pi) + 0.5) * width, (0.5 - latitude / np.pi) * height


def solid_angles(height: int, width: int) -> npt.NDArray[np.float64]:
    """Solid angle of one pixel of each row, float64 (H,), steradians.

    Exact: a row between latitudes a and b is a zone of area 2 pi (sin a - sin b). The sum over all pixels is 4 pi.
    """
    edges = np.sin((0.5 - np.arange(height + 1) / height) * np.pi)
    return (edges[:-1] - edges[1:]) * (2 * np.pi / width)


def column_steps(height: int, width: int, rows: int = 1) -> npt.NDArray[np.intp]:
    """How many columns are, in each row, about as far apart on the sphere as `rows` rows, int (H,).

    As many at the equator of a 2:1 map and more towards the poles, where columns crowd; at least one and at most a
    quarter of a turn.
    """
    steps = np.rint(rows * width / (2 * height) / np.cos(latitudes(height)))
    return np.clip(steps, 1, max(1, width // 4)).astype(np.intp)


def row_bands(height: int, width: int, rows: int = 1, pixels: int = 1 << 17) -> Iterator[tuple[slice, int]]:
    """All rows of a map in bands, each with the one `column_steps` of its rows; none has many more than `pixels`."""
    steps = column_steps(height, width, rows)
    tallest = max(1, pixels // width)
    start = 0
    while start < height:
        same = np.flatnonzero(steps[start : start + tallest] != steps[start])
        stop = start + int(same[0]) if len(same) else min(start + tallest, height)
        yield slice(start, stop), int(steps[start])
        start = stop


def beyond_poles(array: npt.NDArray[Scalar], rows: int) -> npt.NDArray[Scalar]:
    """A map (H, W) with what follows when its meridians go on over both poles, (rows + H + rows, W).

    Beyond a pole lies the other side of the sphere: the same rows in reverse, half a turn away.
    """
    height, width = array.shape
    circle = np.concatenate([array, np.roll(array[::-1], width // 2, axis=1)])
    around: npt.NDArray[Scalar] = circle[np.arange(-rows, height + rows) % (2 * height)]
    return around


def roll_yaw(array: npt.NDArray[Scalar], columns: int) -> npt.NDArray[Scalar]:
    """A panorama (H, W, ...) moved right by whole columns: the camera turned left by `columns` / W of a turn."""
    return np.roll(array, columns, axis=1)


def frame_rotation(frame: Frame) -> npt.NDArray[np.float64]:
    """Rotation matrix, float64 (3, 3), that takes coordinates in frame ros to coordinates in `frame`.

    opengl: x right, y up, looking along -z. opencv: x right, y down, z forward.
    """
    rows: dict[Frame, list[list[int]]] = {
        "ros": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "opengl": [[0, -1, 0], [0, 0, 1], [-1, 0, 0]],
        "opencv": [[0, -1, 0], [0, 0, -1], [1, 0, 0]],
    }
    return np.array(rows[frame], np.float64)


def to_frame(points_ros: npt.NDArray[Any], frame: Frame) -> npt.NDArray[np.float32]:
    """Points or directions (..., 3) of frame ros as float32 (..., 3) in `frame`."""
    if frame == "ros":
        return np.asarray(points_ros, np.float32)
    return np.asarray(points_ros, np.float32) @ frame_rotation(frame).T.astype(np.float32)


def look_at(forward: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Level camera, float64 (3, 3): columns are its forward, left and up in frame ros, so that world = camera @ local.

    Args:
        forward: (3,) where it looks, of any length but zero; straight up or down has no level and is not taken.
    """
    x = np.asarray(forward, np.float64) / np.linalg.norm(forward)
    y = np.cross([0.0, 0.0, 1.0], x)
    y /= np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def icosahedral_cameras() -> npt.NDArray[np.float64]:
    """Level cameras that look at the 12 vertices of an icosahedron, float64 (12, 3, 3), as `look_at` gives them.

    The views of DAP's dense-fidelity loss. The icosahedron stands on an edge: no camera looks straight up or down.
    """
    golden = (1 + 5**0.5) / 2
    corners = [(a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    vertices = [np.roll((0.0, a, b), shift) for shift in range(3) for a, b in corners]
    return np.stack([look_at(vertex) for vertex in vertices])


def perspective_grid(camera: npt.ArrayLike, fov_deg: float, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Where the pixels of a perspective view fall in a panorama of any size.

    Args:
        camera: (3, 3), columns forward, left and up of the view in frame ros.
        fov_deg: horizontal field of view in degrees, between 0 and 180; pixels are square.
        size: (h, w) of the view in pixels.

    Returns:
        float32 (h, w, 2): x and y, -1 and 1 at the outer edges of the panorama, as torch's `grid_sample` with
        `align_corners=False` takes them.
    """
    height, width = size
    focal = width / 2 / np.tan(np.radians(fov_deg) / 2)
    left = (width / 2 - (np.arange(width) + 0.5)) / focal
    up = (height / 2 - (np.arange(height) + 0.5)) / focal
    local = np.stack(np.broadcast_arrays(1.0, left, up[:, None]), axis=-1)
    x, y = pixel_coordinates(local @ np.asarray(camera, np.float64).T, 1, 1)
    return np.stack([2 * x - 1, 2 * y - 1], axis=-1).astype(np.float32)
