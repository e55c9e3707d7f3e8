"""Perspective views of depth maps, with the matrices of their cameras.

Every camera stands where the panorama's does. In its own axes it looks along z, x to the right and y down, as OpenCV
and ROS have it; the centre of its first pixel is (0, 0). With K the intrinsics and (u, v) a pixel of depth z,
z * inv(K) @ (u, v, 1) is the point in the camera's axes, and the camera's pose takes it to the world's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from dap import sphere
from dap.depth import DepthMap, RangeMask
from dap.errors import InvalidParameter
from dap.sphere import Frame

Layout = Literal["cube", "horizon", "icosahedron"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
Measure = Literal["z", "ray"]
MEASURES: tuple[Measure, ...] = get_args(Measure)

FOV_LIMITS_DEG = (10.0, 150.0)
SIDE_LIMITS = (16, 4096)
MAX_COUNT = 36
MAX_PIXELS = 1 << 24

_CUBE = ("front", "right", "back", "left", "up", "down")
_PIXELS_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class Views:
    """N perspective views of one panorama, all with the same intrinsics.

    Attributes:
        depth: float32 (N, h, w), metres; only where `valid` does it mean anything.
        valid: bool (N, h, w).
        colors: uint8 (N, h, w, 3), RGB.
        measure: what `depth` is: `z`, the distance along the optical axis, or `ray`, the distance from the camera.
        intrinsics: K, float64 (3, 3), pixels.
        poses: float64 (N, 4, 4), from the axes of each camera (x right, y down, z forward) to `frame`; metres.
        frame: axes of the world.
        names: of the views; the sides of a cube by where they look, otherwise numbers.
        layout: where the cameras look.
        fov_deg: horizontal field of view.
        range: metres of the range mask, None for none.
        range_mask: what the mask comes from, as in `DepthMap`.
        model: name of the model that the depth comes from.
    """

    depth: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    colors: npt.NDArray[np.uint8]
    measure: Measure
    intrinsics: npt.NDArray[np.float64]
    poses: npt.NDArray[np.float64]
    frame: Frame
    names: tuple[str, ...]
    layout: Layout
    fov_deg: float
    range: float | None
    range_mask: RangeMask
    model: str

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) in pixels of each view."""
        _, height, width = self.depth.shape
        return height, width


def views(
    depth_map: DepthMap,
    pixels: npt.NDArray[np.uint8],
    layout: Layout = "cube",
    *,
    count: int = 8,
    size: tuple[int, int] = (512, 512),
    fov_deg: float = 90.0,
    measure: Measure = "z",
    frame: Frame = "ros",
) -> Views:
    """Views of a depth map and its panorama.

    A pixel of a view has the depth of the one panorama pixel that it falls into, so that no depth is invented between
    two surfaces; colours are bilinear.

    Args:
        depth_map: any size.
        pixels: uint8 (H, W, 3), the panorama at any size.
        layout: `cube`: front, right, back, left, up, down. `horizon`: level, the first to the front, the others evenly
            to the right of it. `icosahedron`: 12 level cameras that look at its vertices.
        count: views of `horizon`, 1 to 36; the other layouts have their own number.
        size: (h, w) of each view, 16 to 4096; all of them have 2^24 pixels at most.
        fov_deg: horizontal field of view in degrees, 10 to 150; pixels are square.
        measure: `z` or `ray`.
        frame: axes of the world that the poses lead to.

    Raises:
        InvalidParameter: a parameter is not within its limits.
    """
    pixel_count(layout, count, size, fov_deg)
    names, cameras = _cameras(layout, count)
    height, width = size
    focal = width / 2 / np.tan(np.radians(fov_deg) / 2)
    depth = np.empty((len(cameras), *size), np.float32)
    valid = np.empty(depth.shape, np.bool_)
    colors = np.empty((*depth.shape, 3), np.uint8)
    for i, camera in enumerate(cameras):
        grid = sphere.perspective_grid(camera, fov_deg, size)
        rows, columns = _nearest(grid, depth_map.size)
        depth[i], valid[i] = depth_map.depth[rows, columns], depth_map.valid[rows, columns]
        for band in _bands(size):
            colors[i, band] = _bilinear(pixels, grid[band])
    if measure == "z":
        depth *= _cosines(focal, size)
    poses = np.tile(np.eye(4), (len(cameras), 1, 1))
    poses[:, :3, :3] = sphere.frame_rotation(frame) @ cameras @ sphere.frame_rotation("opencv").T
    return Views(
        depth=depth,
        valid=valid,
        colors=colors,
        measure=measure,
        intrinsics=np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]),
        poses=poses,
        frame=frame,
        names=names,
        layout=layout,
        fov_deg=fov_deg,
        range=depth_map.range,
        range_mask=depth_map.range_mask,
        model=depth_map.model,
    )


def pixel_count(layout: Layout, count: int, size: tuple[int, int], fov_deg: float) -> int:
    """How many pixels all views together have, of parameters that `views` would take.

    Raises:
        InvalidParameter: it would not.
    """
    if layout == "horizon" and not 1 <= count <= MAX_COUNT:
        raise InvalidParameter(f"there are 1 to {MAX_COUNT} views around the horizon; got {count}")
    if not FOV_LIMITS_DEG[0] <= fov_deg <= FOV_LIMITS_DEG[1]:
        raise InvalidParameter("a view sees {:g} to {:g} degrees; got {:g}".format(*FOV_LIMITS_DEG, fov_deg))
    height, width = size
    if not all(SIDE_LIMITS[0] <= side <= SIDE_LIMITS[1] for side in size):
        raise InvalidParameter("a side of a view has {} to {} pixels; got {}x{}".format(*SIDE_LIMITS, width, height))
    cameras = {"cube": 6, "horizon": count, "icosahedron": 12}[layout]
    if cameras * height * width > MAX_PIXELS:
        raise InvalidParameter(
            f"all views together have {MAX_PIXELS} pixels at most; got {cameras} of {width}x{height}"
        )
    return cameras * height * width


def _cameras(layout: Layout, count: int) -> tuple[tuple[str, ...], npt.NDArray[np.float64]]:
    """Names, and float64 (N, 3, 3): columns forward, left and up of each camera in frame ros."""
    if layout == "icosahedron":
        cameras = sphere.icosahedral_cameras()
        return _numbers(len(cameras)), cameras
    if layout == "horizon":
        return _numbers(count), _around(count)
    sides = [sphere.look_at(side) for side in ((1, 0, 0), (0, -1, 0), (-1, 0, 0), (0, 1, 0))]
    # Looking up, the top of the picture is towards the back; looking down, towards the front.
    up = np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]])
    return _CUBE, np.stack([*sides, up, -up * (1, -1, 1)])


def _around(count: int) -> npt.NDArray[np.float64]:
    longitudes = np.arange(count) * (2 * np.pi / count)
    return np.stack([sphere.look_at(sphere.directions(longitude, 0.0)) for longitude in longitudes])


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(f"{i:02d}" for i in range(count))


def _cosines(focal: float, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Of the angle between the ray of each pixel and the optical axis, float32 (h, w)."""
    height, width = size
    right = (np.arange(width) + 0.5 - width / 2) / focal
    down = (np.arange(height) + 0.5 - height / 2) / focal
    return (1 / np.sqrt(1 + right**2 + down[:, None] ** 2)).astype(np.float32)


def _nearest(grid: npt.NDArray[np.float32], size: tuple[int, int]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Row and column of the pixel, of a panorama of `size`, that each place of a grid is in."""
    height, width = size
    columns = ((grid[..., 0] + 1) * (width / 2)).astype(np.intp) % width
    rows = ((grid[..., 1] + 1) * (height / 2)).astype(np.intp)
    return np.minimum(rows, height - 1), columns


def _bands(size: tuple[int, int]) -> Iterator[slice]:
    height, width = size
    rows = max(1, _PIXELS_AT_ONCE // width)
    for start in range(0, height, rows):
        yield slice(start, start + rows)


def _bilinear(pixels: npt.NDArray[np.uint8], grid: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Colours at the places of a grid, uint8 (h, w, 3); longitude is a circle."""
    height, width = pixels.shape[:2]
    x = (grid[..., 0] + 1) * (width / 2) - np.float32(0.5)
    y = np.clip((grid[..., 1] + 1) * (height / 2) - np.float32(0.5), 0, height - 1)
    left, top = np.floor(x).astype(np.intp), y.astype(np.intp)
    right_share, low_share = (x - left)[..., None], (y - top)[..., None]
    left, right, low = left % width, (left + 1) % width, np.minimum(top + 1, height - 1)
    upper = pixels[top, left] * (1 - right_share) + pixels[top, right] * right_share
    lower = pixels[low, left] * (1 - right_share) + pixels[low, right] * right_share
    color: npt.NDArray[np.float32] = upper * (1 - low_share) + lower * low_share
    return np.rint(color).astype(np.uint8)
