"""Normals: exact where the surface has a formula, on the camera's side, of valid depth alone."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dap import sphere
from dap.normals import normals
from tests.dap.rooms import ball, box, depth_map, facing_of_box, floor

SIZES = st.tuples(st.integers(1, 24), st.integers(1, 48))


def degrees_between(found: npt.ArrayLike, expected: npt.ArrayLike) -> npt.NDArray[np.float64]:
    difference = np.linalg.norm(np.asarray(found, np.float64) - expected, axis=-1)
    return np.degrees(2 * np.arcsin(np.clip(difference / 2, 0, 1)))


@pytest.mark.parametrize("height", [4, 64, 512])
def test_a_ball_around_the_camera_faces_it_everywhere(height: int) -> None:
    found = normals(ball(height))
    assert found.normals.dtype == np.float32
    assert (found.size, found.frame, found.model) == ((height, 2 * height), "ros", "test")
    assert found.valid.all()
    assert degrees_between(found.normals, -sphere.rays(height, 2 * height)).max() < 0.1


def test_a_floor_faces_up_as_far_as_it_is_seen() -> None:
    ground = floor(256, camera_height=1.6, range=80)
    found = normals(ground)
    np.testing.assert_array_equal(found.valid, ground.valid)
    assert degrees_between(found.normals[found.valid], (0, 0, 1)).max() < 0.1


def test_a_tilted_plane_is_exact_at_the_poles_too() -> None:
    rays = sphere.rays(64, 128)
    facing = np.array([0.48, -0.6, -0.64])
    towards = -(rays @ facing)
    plane = depth_map(2 / np.maximum(towards, 0.05), towards > 0.05)
    found = normals(plane)
    assert found.valid[0].all()
    assert degrees_between(found.normals[found.valid], facing).max() < 0.1


def test_the_walls_of_a_room_face_into_it() -> None:
    low, high = (-3, -2, -1.5), (4, 2.5, 1.2)
    rays = sphere.rays(256, 512)
    expected = facing_of_box(rays, low, high)
    found = normals(box(256, low, high))
    inside = np.ones((256, 512), np.bool_)
    for axis in (0, 1):
        for shift in (-1, 1):
            inside &= (np.roll(expected, shift, axis) == expected).all(axis=-1)
    # The first and the last row are ceiling and floor, whatever `roll` brings to them.
    inside[[0, -1]] = True
    assert found.valid.all()
    assert degrees_between(found.normals, expected)[inside].max() < 0.1
    assert inside.mean() > 0.95


def test_a_surface_faces_as_it_does_right_up_to_a_depth_edge() -> None:
    depth = np.full((128, 256), 2.0)
    depth[40:90, 100:150] = 1.0
    turned = degrees_between(normals(depth_map(depth)).normals, -sphere.rays(128, 256))
    # A neighbour on one side alone is half a pixel off, 0.7 degrees; at a corner in both directions.
    assert turned.max() < 1.5


def test_invalid_depth_is_no_neighbour() -> None:
    valid = np.random.default_rng(0).random((64, 128)) < 0.6
    found = normals(depth_map(np.where(valid, 3.0, np.nan), valid))
    assert not (found.valid & ~valid).any()
    assert (found.normals[~found.valid] == 0).all()
    # With one neighbour in each direction half a pixel of 2.8 degrees off in each; at the poles a bit more.
    assert degrees_between(found.normals, -sphere.rays(64, 128))[found.valid].max() < 3.2
    # As 3 in 5 are valid, 84% have a neighbour in their row, and as many in their column.
    assert found.valid[valid].mean() == pytest.approx(0.84**2, abs=0.03)


def test_a_pixel_alone_has_no_normal() -> None:
    valid = np.zeros((16, 32), np.bool_)
    valid[8, 8] = valid[3, 4:7] = True
    found = normals(depth_map(np.ones((16, 32)), valid))
    assert not found.valid.any()
    assert not found.normals.any()


@given(SIZES, st.integers(0, 2**32 - 1))
def test_a_normal_has_unit_length_and_looks_to_the_camera(size: tuple[int, int], seed: int) -> None:
    random = np.random.default_rng(seed)
    found = normals(depth_map(random.uniform(0.01, 100, size), random.random(size) < 0.8))
    length = np.linalg.norm(found.normals, axis=-1)
    np.testing.assert_allclose(length, found.valid, atol=1e-5)
    assert ((found.normals * sphere.rays(*size)).sum(axis=-1) <= 1e-4).all()


@given(st.integers(2, 24), st.integers(0, 2**32 - 1), st.integers(-99, 99))
def test_turning_the_camera_turns_the_normals_with_it(height: int, seed: int, columns: int) -> None:
    random = np.random.default_rng(seed)
    depth, valid = random.uniform(1, 2, (height, 2 * height)), random.random((height, 2 * height)) < 0.9
    found = normals(depth_map(depth, valid))
    rolled = normals(depth_map(np.roll(depth, columns, axis=1), np.roll(valid, columns, axis=1)))
    # To the right in the image is clockwise from above.
    angle = -2 * np.pi * columns / (2 * height)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    np.testing.assert_array_equal(rolled.valid, np.roll(found.valid, columns, axis=1))
    np.testing.assert_allclose(rolled.normals, np.roll(found.normals, columns, axis=1) @ turn.T, atol=0.01)


@pytest.mark.parametrize("frame", sphere.FRAMES)
def test_a_frame_turns_the_same_normals(frame: sphere.Frame) -> None:
    found, in_ros = normals(box(), frame), normals(box())
    assert found.frame == frame
    np.testing.assert_allclose(found.normals, in_ros.normals @ sphere.frame_rotation(frame).T, atol=1e-6)


def test_a_large_map_is_the_same_as_its_parts_would_be() -> None:
    # More than one band of rows of the same step.
    found = normals(ball(1024))
    assert degrees_between(found.normals, -sphere.rays(1024, 2048)).max() < 0.1
