"""Distances and normals against closed forms in float64."""

import random

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dap.sphere import rays
from training.synthetic.builder import SceneBuilder
from training.synthetic.raycaster import tiling
from training.synthetic.render import Rendered, render
from training.synthetic.scene import WORLD, Faults, Frame, Scene, Sky

Array = npt.NDArray[np.float64]
HEIGHT, WIDTH = 48, 96


def empty(camera: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> SceneBuilder:
    builder = SceneBuilder(random.Random(1))
    builder.camera = camera
    return builder


def finished(builder: SceneBuilder, heading: float = 0.0, tilt: float = 0.0) -> Scene:
    return builder.scene(
        0,
        "test",
        ambient=((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
        occlusion_reach=1.0,
        heading=heading,
        tilt=tilt,
        tilt_towards=0.4,
        sky=Sky(),
        faults=Faults(),
    )


def gray(builder: SceneBuilder) -> int:
    return builder.material("plain", 1.0, (0.5, 0.5, 0.5))


def room(builder: SceneBuilder, low: Array, high: Array) -> None:
    """Six slabs round an empty box."""
    paint = gray(builder)
    for axis in range(3):
        for side in range(2):
            a, b = low - 1.0, high + 1.0
            (b if side == 0 else a)[axis] = low[axis] if side == 0 else high[axis]
            builder.slab(WORLD, tuple(a), tuple(b), paint)


def distance_inside_box(origin: Array, direction: Array, low: Array, high: Array) -> Array:
    """The slab formula from the inside: the nearest of the three planes that each ray goes to."""
    with np.errstate(divide="ignore"):
        return np.where(direction > 0, (high - origin) / direction, (low - origin) / direction).min(-1)


def distance_to_sphere(origin: Array, direction: Array, center: Array, radius: float) -> Array:
    along = direction @ (center - origin)
    across = ((center - origin) ** 2).sum() - along**2
    half = np.sqrt(np.where(across < radius**2, radius**2 - across, np.nan))
    return np.where((across < radius**2) & (along > 0), along - half, np.inf)


def view(scene: Scene) -> tuple[Rendered, Array]:
    """The rendered scene and its rays in the world, float64."""
    turned = rays(HEIGHT, WIDTH).astype(np.float64) @ scene.camera_rotation.astype(np.float64).T
    return render([scene], HEIGHT, WIDTH), turned


def test_a_box_room_is_as_deep_as_the_slab_formula_says() -> None:
    camera, low, high = np.array([0.3, -0.7, 1.6]), np.array([-2.0, -3.0, 0.0]), np.array([1.5, 2.5, 2.7])
    builder = empty(tuple(camera))
    room(builder, low, high)
    rendered, directions = view(finished(builder, heading=0.7, tilt=0.2))
    expected = distance_inside_box(camera, directions, low, high)
    np.testing.assert_allclose(rendered.depth[0].numpy(), expected, rtol=2e-5)
    assert not rendered.sky.any()


def test_a_sphere_is_met_where_geometry_says_and_missed_elsewhere() -> None:
    center = np.array([2.0, 1.0, 0.5])
    builder = empty()
    builder.ellipsoid(WORLD, tuple(center), (0.8, 0.8, 0.8), gray(builder))
    rendered, directions = view(finished(builder))
    expected = distance_to_sphere(np.zeros(3), directions, center, 0.8)
    np.testing.assert_array_equal(rendered.sky[0].numpy(), np.isinf(expected))
    np.testing.assert_allclose(rendered.depth[0].numpy(), expected, rtol=1e-5)
    hit = np.isfinite(expected)
    outward = (directions * np.where(hit, expected, 0)[..., None] - center) / 0.8
    np.testing.assert_allclose(rendered.normals[0].numpy()[hit], outward[hit], atol=1e-4)


def test_an_ellipsoid_is_a_squashed_sphere() -> None:
    builder = empty()
    builder.ellipsoid(Frame(3.0, 0.0, 0.0, 0.6), (0, 0, 0), (1.0, 0.5, 0.25), gray(builder))
    rendered, directions = view(finished(builder))
    c, s = np.cos(0.6), np.sin(0.6)
    to_unit = np.diag([1 / 1.0, 1 / 0.5, 1 / 0.25]) @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    o, d = -to_unit @ np.array([3.0, 0, 0]), directions @ to_unit.T
    a, b = (d**2).sum(-1), d @ o
    root = b**2 - a * (o @ o - 1)
    expected = np.where((root > 0) & (b < 0), (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    np.testing.assert_array_equal(rendered.sky[0].numpy(), np.isinf(expected))
    np.testing.assert_allclose(rendered.depth[0].numpy(), expected, rtol=2e-4)


def test_a_cylinder_has_a_round_side_and_a_flat_top() -> None:
    builder = empty((0.0, 0.0, 2.0))
    builder.cylinder(Frame(1.5, 0.0, 0.0), 0, 0, 0.5, 0.0, 1.0, gray(builder))
    rendered, d = view(finished(builder))
    flat = d[..., 0] ** 2 + d[..., 1] ** 2
    root = (1.5 * d[..., 0]) ** 2 - flat * (1.5**2 - 0.25)
    side = (1.5 * d[..., 0] - np.sqrt(np.maximum(root, 0))) / flat
    height = 2.0 + side * d[..., 2]
    side = np.where((root > 0) & (side > 0) & (height > 0) & (height < 1), side, np.inf)
    top = np.where(d[..., 2] < 0, -1.0 / np.minimum(d[..., 2], -1e-9), np.inf)
    off_axis = np.hypot(np.where(np.isinf(top), 9, top * d[..., 0] - 1.5), np.where(np.isinf(top), 9, top * d[..., 1]))
    expected = np.minimum(side, np.where(off_axis < 0.5, top, np.inf))
    np.testing.assert_array_equal(rendered.sky[0].numpy(), np.isinf(expected))
    np.testing.assert_allclose(rendered.depth[0].numpy(), expected, rtol=1e-4)
    on_top = np.isfinite(expected) & (expected == top)
    assert on_top.any()
    np.testing.assert_allclose(rendered.normals[0].numpy()[on_top], [[0, 0, 1]] * on_top.sum(), atol=1e-6)


def test_the_ground_is_nearer_the_steeper_one_looks_down() -> None:
    builder = empty((0.0, 0.0, 1.65))
    builder.slab(WORLD, (-5000, -5000, -2), (5000, 5000, 0), gray(builder))
    rendered, directions = view(finished(builder))
    below = directions[..., 2] < 0
    np.testing.assert_array_equal(rendered.sky[0].numpy(), ~below)
    expected = -1.65 / directions[..., 2]
    np.testing.assert_allclose(rendered.depth[0].numpy()[below], expected[below], rtol=2e-5)


def test_a_leaning_box_is_met_in_its_own_frame() -> None:
    builder = empty()
    builder.box(Frame(2.0, -0.5, 0.3, 0.4), (0, 0, 0), (0.5, 0.7, 0.3), gray(builder), pitch=0.5, roll=-0.3)
    scene = finished(builder)
    rendered, directions = view(scene)
    turn = scene.rotations[0].astype(np.float64)
    o, d = -turn.T @ np.array([2.0, -0.5, 0.3]), directions @ turn
    half = np.array([0.5, 0.7, 0.3])
    first, second = (-half - o) / d, (half - o) / d
    near, far = np.minimum(first, second).max(-1), np.maximum(first, second).min(-1)
    expected = np.where((near < far) & (near > 0), near, np.inf)
    np.testing.assert_array_equal(rendered.sky[0].numpy(), np.isinf(expected))
    np.testing.assert_allclose(rendered.depth[0].numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(8, 16), (31, 62), (48, 96), (65, 130)])
def test_tiles_hold_every_pixel_once_at_its_slot(height: int, width: int) -> None:
    tiles = tiling(height, width, 8, 16, torch.device("cpu"))
    flat = tiles.pixels.reshape(-1)
    assert torch.equal(flat[tiles.slots], torch.arange(height * width))


@pytest.mark.parametrize(("height", "width"), [(8, 16), (31, 62), (64, 128)])
def test_the_rays_of_a_tile_lie_within_its_planes(height: int, width: int) -> None:
    tiles = tiling(height, width, 8, 16, torch.device("cpu"))
    directions = torch.from_numpy(rays(height, width)).reshape(-1, 3)[tiles.pixels]
    assert torch.einsum("tsi,tpi->tsp", directions, tiles.planes).min() > -1e-6


def test_no_solid_is_lost_by_the_culling() -> None:
    """A hundred small things all round: as many are seen as a search over all of them finds."""
    rng = np.random.default_rng(3)
    centers = rng.normal(size=(100, 3)) * 3
    centers = centers[np.linalg.norm(centers, axis=1) > 1.0]
    builder = empty()
    for center in centers:
        builder.ellipsoid(WORLD, tuple(center), (0.2, 0.2, 0.2), gray(builder))
    rendered, directions = view(finished(builder, tilt=0.3))
    expected = np.min([distance_to_sphere(np.zeros(3), directions, c, 0.2) for c in centers], axis=0)
    np.testing.assert_array_equal(rendered.sky[0].numpy(), np.isinf(expected))
    np.testing.assert_allclose(rendered.depth[0].numpy(), expected, rtol=1e-4)
