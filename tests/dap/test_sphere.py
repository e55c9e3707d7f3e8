"""Geometry of the sphere: conventions, closed forms, and what comes back from where it went."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dap import sphere

SIZES = st.tuples(st.integers(1, 24), st.integers(1, 48))


def pixel_at(longitude_deg: float, latitude_deg: float, height: int, width: int) -> tuple[int, int]:
    return int((0.5 - latitude_deg / 180) * height), int((longitude_deg / 360 + 0.5) * width)


@pytest.mark.parametrize(
    ("longitude_deg", "latitude_deg", "direction"),
    [(0, 0, (1, 0, 0)), (90, 0, (0, -1, 0)), (-90, 0, (0, 1, 0)), (179.9, 0, (-1, 0, 0)), (0, 89.9, (0, 0, 1))],
)
def test_the_middle_looks_forward_and_longitude_grows_to_the_right(
    longitude_deg: float, latitude_deg: float, direction: tuple[float, ...]
) -> None:
    rays = sphere.rays(360, 720)
    np.testing.assert_allclose(rays[pixel_at(longitude_deg, latitude_deg, 360, 720)], direction, atol=0.01)


@given(SIZES)
def test_every_ray_has_unit_length_and_comes_back_to_the_centre_of_its_pixel(size: tuple[int, int]) -> None:
    height, width = size
    rays = sphere.rays(height, width)
    assert rays.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1, atol=1e-6)
    x, y = sphere.pixel_coordinates(rays * 7.5, height, width)
    np.testing.assert_allclose(x, np.broadcast_to(np.arange(width) + 0.5, (height, width)), atol=1e-4)
    np.testing.assert_allclose(y, np.broadcast_to(np.arange(height)[:, None] + 0.5, (height, width)), atol=1e-4)


@given(SIZES, st.lists(st.floats(-100, 100), min_size=3, max_size=3))
def test_a_direction_comes_back_from_where_it_falls_in_a_panorama(size: tuple[int, int], point: list[float]) -> None:
    length = np.linalg.norm(point)
    assume(length > 1e-3)
    height, width = size
    x, y = sphere.pixel_coordinates(point, height, width)
    assert 0 <= x <= width
    assert 0 <= y <= height
    back = sphere.directions((x / width - 0.5) * 2 * np.pi, (0.5 - y / height) * np.pi)
    np.testing.assert_allclose(back, np.array(point) / length, atol=1e-9)


@given(st.floats(-170, 170), st.floats(-80, 80), st.floats(-180, 180))
def test_turning_a_direction_about_the_vertical_moves_it_along_its_row(
    longitude_deg: float, latitude_deg: float, turn_deg: float
) -> None:
    width, turn = 360, np.radians(turn_deg)
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    direction = sphere.directions(np.radians(longitude_deg), np.radians(latitude_deg))
    (before, row), (after, same_row) = (
        sphere.pixel_coordinates(seen, 180, width) for seen in (direction, about_z @ direction)
    )
    # To the left is against longitude: the image moves to the left by the turn.
    assert np.cos(np.radians(after - before + turn_deg)) == pytest.approx(1, abs=1e-9)
    assert same_row == pytest.approx(row, abs=1e-9)


@settings(max_examples=30)
@given(st.lists(st.tuples(*[st.floats(-50, 50, width=32)] * 3), min_size=1, max_size=8), st.sampled_from(sphere.FRAMES))
def test_points_come_back_from_any_frame_with_their_lengths(
    points: list[tuple[float, ...]], frame: sphere.Frame
) -> None:
    ros = np.array(points, np.float32)
    there = sphere.to_frame(ros, frame)
    assert there.dtype == np.float32
    np.testing.assert_array_equal(there @ sphere.frame_rotation(frame).astype(np.float32), ros)
    np.testing.assert_allclose(np.linalg.norm(there, axis=1), np.linalg.norm(ros, axis=1), rtol=1e-6)


@settings(max_examples=30)
@given(st.floats(-180, 180), st.floats(-85, 85))
def test_a_camera_that_looks_somewhere_is_a_level_rotation(longitude_deg: float, latitude_deg: float) -> None:
    forward = sphere.directions(np.radians(longitude_deg), np.radians(latitude_deg))
    camera = sphere.look_at(5 * forward)
    np.testing.assert_allclose(camera @ camera.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(camera) == pytest.approx(1)
    np.testing.assert_allclose(camera[:, 0], forward, atol=1e-9)
    assert camera[2, 1] == pytest.approx(0, abs=1e-12)
    assert camera[2, 2] > 0


@given(SIZES)
def test_the_pixels_share_the_whole_sphere(size: tuple[int, int]) -> None:
    height, width = size
    angles = sphere.solid_angles(height, width)
    assert angles.sum() * width == pytest.approx(4 * np.pi, rel=1e-12)
    np.testing.assert_allclose(angles, angles[::-1], rtol=1e-9)


def test_a_row_between_the_equator_and_30_degrees_has_a_quarter_of_the_sphere() -> None:
    # Archimedes: the area of a zone is 2 pi times its height, and sin 30 degrees is a half.
    assert sphere.solid_angles(6, 1)[2] == pytest.approx(np.pi)


def test_rows_beyond_50_degrees_are_44_percent_of_the_pixels_and_23_percent_of_the_sphere() -> None:
    beyond = np.abs(sphere.latitudes(1800)) > np.radians(50)
    assert beyond.mean() == pytest.approx(0.444, abs=1e-3)
    assert sphere.solid_angles(1800, 1)[beyond].sum() / (4 * np.pi) == pytest.approx(0.234, abs=1e-3)


@given(SIZES, st.integers(-100, 100))
def test_rolling_a_panorama_turns_its_rays_about_the_vertical(size: tuple[int, int], columns: int) -> None:
    height, width = size
    turn = 2 * np.pi * columns / width
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    rolled = sphere.roll_yaw(sphere.rays(height, width), columns)
    np.testing.assert_allclose(rolled, sphere.rays(height, width) @ about_z.T, atol=1e-5)


def test_rolling_by_one_moves_the_content_one_column_to_the_right() -> None:
    np.testing.assert_array_equal(sphere.roll_yaw(np.array([[1, 2, 3, 4]]), 1), [[4, 1, 2, 3]])


@pytest.mark.parametrize(
    ("frame", "forward", "left", "up"),
    [
        ("ros", (1, 0, 0), (0, 1, 0), (0, 0, 1)),
        ("opengl", (0, 0, -1), (-1, 0, 0), (0, 1, 0)),
        ("opencv", (0, 0, 1), (-1, 0, 0), (0, -1, 0)),
    ],
)
def test_the_axes_of_each_frame(
    frame: sphere.Frame, forward: tuple[int, ...], left: tuple[int, ...], up: tuple[int, ...]
) -> None:
    np.testing.assert_array_equal(sphere.to_frame(np.eye(3), frame), [forward, left, up])


@pytest.mark.parametrize("frame", sphere.FRAMES)
def test_a_change_of_frame_is_a_rotation(frame: sphere.Frame) -> None:
    rotation = sphere.frame_rotation(frame)
    np.testing.assert_array_equal(rotation @ rotation.T, np.eye(3))
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_the_icosahedral_cameras_are_rotations_as_far_apart_as_the_vertices_of_an_icosahedron() -> None:
    cameras = sphere.icosahedral_cameras()
    assert cameras.shape == (12, 3, 3)
    np.testing.assert_allclose(cameras @ cameras.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (12, 3, 3)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(cameras), 1)
    cosines = cameras[:, :, 0] @ cameras[:, :, 0].T
    # Each vertex: itself, five neighbours at arctan 2, five at its supplement, one opposite.
    for row in cosines:
        np.testing.assert_allclose(np.sort(row), [-1, *[-(5**-0.5)] * 5, *[5**-0.5] * 5, 1], atol=1e-12)


def test_the_icosahedral_cameras_stand_level() -> None:
    cameras = sphere.icosahedral_cameras()
    np.testing.assert_allclose(cameras[:, 2, 1], 0, atol=1e-12)
    assert (cameras[:, 2, 2] > 0).all()


@given(st.floats(20, 140), st.floats(-180, 180), st.floats(-80, 80))
def test_the_middle_of_a_view_is_where_its_camera_looks(
    fov_deg: float, longitude_deg: float, latitude_deg: float
) -> None:
    forward = sphere.directions(np.radians(longitude_deg), np.radians(latitude_deg))
    x, y = sphere.perspective_grid(sphere.look_at(forward), fov_deg, (5, 7))[2, 3]
    assert np.cos((x - longitude_deg / 180) * np.pi) == pytest.approx(1, abs=1e-5)
    assert y == pytest.approx(-latitude_deg / 90, abs=1e-5)


def test_the_outer_columns_of_a_view_are_half_its_field_of_view_away() -> None:
    grid = sphere.perspective_grid(np.eye(3), 90, (1, 2000))
    assert grid.shape == (1, 2000, 2)
    assert grid.dtype == np.float32
    # 90 degrees are a quarter of the turn: from -1/4 to 1/4 of the half width, less half a pixel.
    np.testing.assert_allclose(grid[0, [0, -1]], [(-0.25, 0), (0.25, 0)], atol=1e-3)


def test_columns_are_counted_as_far_apart_as_rows_wherever_they_are() -> None:
    height, width = 180, 360
    steps = sphere.column_steps(height, width, rows=4)
    apart = np.cos(sphere.latitudes(height)) * steps
    # At most half a column off, but for the last rows before the poles, where it would be more than a quarter turn.
    assert (np.abs(apart - 4)[4:-4] <= 0.5).all()
    assert (steps[0], steps[90], steps[-1]) == (90, 4, 90)


@given(SIZES, st.integers(1, 4), st.integers(1, 200))
def test_bands_are_all_rows_once_and_each_has_the_step_of_its_rows(
    size: tuple[int, int], rows: int, pixels: int
) -> None:
    height, width = size
    bands = list(sphere.row_bands(height, width, rows, pixels))
    assert [row for band, _ in bands for row in range(height)[band]] == list(range(height))
    steps = sphere.column_steps(height, width, rows)
    for band, step in bands:
        assert (steps[band] == step).all()
        assert band.stop - band.start == 1 or (band.stop - band.start) * width <= pixels


def test_a_meridian_goes_on_beyond_its_pole_on_the_other_side_of_the_sphere() -> None:
    height, width = 8, 16
    rays = sphere.rays(height, width)
    forward, left, up = (sphere.beyond_poles(rays[..., i], 3) for i in range(3))
    latitude = (0.5 - (np.arange(-3, height + 3) + 0.5) / height) * np.pi
    expected = sphere.directions(sphere.longitudes(width), latitude[:, None])
    np.testing.assert_allclose(np.stack([forward, left, up], axis=-1), expected, atol=1e-6)


@given(SIZES, st.integers(0, 60))
def test_a_meridian_may_go_round_more_than_once(size: tuple[int, int], rows: int) -> None:
    array = np.arange(size[0] * size[1]).reshape(size)
    around = sphere.beyond_poles(array, rows)
    assert around.shape == (size[0] + 2 * rows, size[1])
    np.testing.assert_array_equal(around[rows : rows + size[0]], array)
