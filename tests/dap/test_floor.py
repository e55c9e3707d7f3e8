"""How far the floor is below the camera, in rooms that are told by their walls."""

import numpy as np
import pytest

from dap.errors import FloorNotFound
from dap.floor import floor_distance
from dap.sphere import rays

SIZE = (64, 128)
HEIGHT_M = 1.6


def room(below_m: float = HEIGHT_M, *, tilt_deg: float = 0.0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Depth (H, W), float32, in a room of 6 x 5 x 2.6 m, by a camera that leans forward."""
    turn = np.radians(tilt_deg)
    about_left = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    directions = rays(*size).astype(np.float64) @ about_left.T
    far = np.where(directions > 0, [3.5, 2, 2.6 - below_m], [2.5, 3, below_m])
    return (far / np.maximum(np.abs(directions), 1e-9)).min(axis=-1).astype(np.float32)


def with_slab(depth: np.ndarray, below_m: float, corners: tuple[float, float, float, float]) -> np.ndarray:
    """With the top of a piece of furniture between back, front, right and left, metres from the camera."""
    directions = rays(*depth.shape)
    at = np.where(directions[..., 2] < 0, below_m / np.maximum(-directions[..., 2], 1e-6), np.inf)
    x, y = at * directions[..., 0], at * directions[..., 1]
    back, front, right, left = corners
    hit = (back < x) & (x < front) & (right < y) & (y < left)
    return np.where(hit & (at < depth), at, depth).astype(np.float32)


def everything(depth: np.ndarray) -> np.ndarray:
    return np.ones(depth.shape, np.bool_)


@pytest.mark.parametrize("below_m", [0.3, 1.6, 2.3])
@pytest.mark.parametrize("size", [(16, 32), (64, 128), (512, 1024)])
def test_the_floor_of_a_room_is_found_at_any_size(below_m: float, size: tuple[int, int]) -> None:
    depth = room(below_m, size=size)
    assert floor_distance(depth, everything(depth)) == pytest.approx(below_m, rel=0.01)


@pytest.mark.parametrize("scale", [0.01, 100])
def test_it_scales_with_the_depth(scale: float) -> None:
    depth = room() * np.float32(scale)
    assert floor_distance(depth, everything(depth)) == pytest.approx(HEIGHT_M * scale, rel=0.01)


@pytest.mark.parametrize("tilt_deg", [-15, 3, 15])
def test_a_camera_that_leans_has_the_same_floor(tilt_deg: float) -> None:
    depth = room(tilt_deg=tilt_deg)
    assert floor_distance(depth, everything(depth)) == pytest.approx(HEIGHT_M, rel=0.02)


def test_furniture_around_is_not_the_floor() -> None:
    depth = room()
    for below_m, corners in ((0.85, (0.8, 2.4, -1, 1.2)), (1.15, (-2.2, -0.9, -1.5, 0.5)), (0.6, (-1, 1, 1.2, 2.8))):
        depth = with_slab(depth, below_m, corners)
    assert floor_distance(depth, everything(depth)) == pytest.approx(HEIGHT_M, rel=0.02)


def test_a_table_right_below_the_camera_is_not_the_floor() -> None:
    depth = with_slab(room(), 0.85, (-0.8, 0.8, -0.8, 0.8))
    assert floor_distance(depth, everything(depth)) == pytest.approx(HEIGHT_M, rel=0.02)


def test_a_tripod_and_noise_do_not_move_it() -> None:
    random = np.random.default_rng(0)
    depth = room() * np.exp(random.normal(0, 0.05, SIZE)).astype(np.float32)
    depth[-5:] = random.uniform(0.2, 0.6, (5, SIZE[1]))
    assert floor_distance(depth, everything(depth)) == pytest.approx(HEIGHT_M, rel=0.03)


def test_what_is_not_usable_is_not_looked_at() -> None:
    depth, usable = room(), everything(room())
    depth[:, :90] = np.nan
    usable[:, :90] = False
    assert floor_distance(depth, usable) == pytest.approx(HEIGHT_M, rel=0.02)


def test_without_anything_usable_below_there_is_no_floor() -> None:
    depth, usable = room(), everything(room())
    usable[SIZE[0] // 2 :] = False
    with pytest.raises(FloorNotFound, match="hardly anything is valid there"):
        floor_distance(depth, usable)


def pipe() -> np.ndarray:
    """The inside of a pipe that stands upright, up to 20 m: every height is as frequent as any other."""
    horizontal = np.hypot(rays(*SIZE)[..., 0], rays(*SIZE)[..., 1])
    return np.minimum(2 / np.maximum(horizontal, 0.1), 20).astype(np.float32)


def noise() -> np.ndarray:
    return np.exp(np.random.default_rng(0).uniform(np.log(0.5), np.log(19), SIZE)).astype(np.float32)


@pytest.mark.parametrize("depth", [pipe(), noise()], ids=["pipe", "noise"])
def test_where_nothing_is_level_there_is_no_floor(depth: np.ndarray) -> None:
    with pytest.raises(FloorNotFound, match="nothing there is level"):
        floor_distance(depth, depth < 20)
