"""Point clouds: where the points are, how many, and how they are spread."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dap import sphere
from dap.cloud import SAMPLINGS, Sampling, point_cloud
from dap.errors import InvalidParameter
from tests.dap.images import picture
from tests.dap.rooms import ball, depth_map

BALL = ball(64)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_constant_depth_is_a_ball_around_the_camera(sampling: Sampling) -> None:
    cloud = point_cloud(BALL, picture(), sampling=sampling)
    assert (cloud.points.dtype, cloud.colors.dtype) == (np.float32, np.uint8)
    assert (cloud.frame, cloud.model, cloud.normals) == ("ros", "test", None)
    np.testing.assert_allclose(np.linalg.norm(cloud.points, axis=1), 3, rtol=1e-6)


def test_erp_sampling_is_every_valid_pixel_in_reading_order() -> None:
    random = np.random.default_rng(0)
    source = depth_map(random.uniform(1, 9, (6, 12)), random.random((6, 12)) < 0.5)
    cloud = point_cloud(source, picture(6, 12), sampling="erp")
    expected = (source.depth[..., None] * sphere.rays(6, 12))[source.valid]
    np.testing.assert_allclose(cloud.points, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(cloud.colors, picture(6, 12)[source.valid])


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_only_valid_pixels_become_points(sampling: Sampling) -> None:
    depth, valid = np.full((64, 128), 3.0), np.ones((64, 128), np.bool_)
    depth[:, :64], valid[:, :64] = np.nan, False
    cloud = point_cloud(depth_map(depth, valid), picture(), sampling=sampling)
    # The left half of the picture is where y is positive.
    assert len(cloud.points) > 1000
    assert (cloud.points[:, 1] < 0).all()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_nothing_valid_is_a_cloud_without_points(sampling: Sampling) -> None:
    nothing = depth_map(np.ones((16, 32)), np.zeros((16, 32)))
    cloud = point_cloud(nothing, picture(), sampling=sampling, max_points=10)
    assert (cloud.points.shape, cloud.colors.shape) == ((0, 3), (0, 3))


def test_equal_area_points_each_have_the_same_solid_angle() -> None:
    points = point_cloud(BALL, picture()).points
    # As dense as the map at its equator: 2 / pi of its pixels.
    assert len(points) == pytest.approx(64 * 128 * 2 / np.pi, rel=0.01)
    # Archimedes: points of equal area are uniform in z, so each tenth of the height has a tenth of them.
    shares = np.histogram(points[:, 2] / 3, bins=10, range=(-1, 1))[0] / len(points)
    np.testing.assert_allclose(shares, 0.1, atol=0.01)
    assert np.abs(points.mean(axis=0)).max() < 0.01


def test_erp_points_crowd_at_the_poles() -> None:
    heights = point_cloud(BALL, picture(), sampling="erp").points[:, 2] / 3
    # Beyond 60 degrees of latitude: a third of the rows.
    assert np.mean(np.abs(heights) > np.sin(np.pi / 3)) == pytest.approx(1 / 3, abs=0.02)


@given(st.integers(1, 9000), st.floats(0.05, 1), st.sampled_from(SAMPLINGS))
def test_there_are_never_more_points_than_asked_for(max_points: int, share: float, sampling: Sampling) -> None:
    valid = np.random.default_rng(4).random((64, 128)) < share
    points = point_cloud(depth_map(BALL.depth, valid), picture(), max_points=max_points, sampling=sampling).points
    assert len(points) <= max_points
    assert len(np.unique(points, axis=0)) == len(points)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("max_points", [1, 2, 3])
def test_very_few_points_are_very_few(max_points: int, sampling: Sampling) -> None:
    assert 1 <= len(point_cloud(BALL, picture(), max_points=max_points, sampling=sampling).points) <= max_points


def test_fewer_erp_points_are_spread_over_the_whole_map() -> None:
    points = point_cloud(BALL, picture(), max_points=512, sampling="erp").points
    # Every 16th of 64x128 pixels: eight in each row, the first in the first column.
    every_16th = 3 * sphere.rays(64, 128)[:, ::16].reshape(-1, 3)
    np.testing.assert_allclose(points, every_16th, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("sampling", "at_least"), [("erp", 2000), ("equal-area", 1850)])
def test_a_bound_on_the_points_is_nearly_used_up(sampling: Sampling, at_least: int) -> None:
    assert at_least <= len(point_cloud(BALL, picture(), max_points=2000, sampling=sampling).points) <= 2000


def test_fewer_equal_area_points_are_still_of_equal_area() -> None:
    points = point_cloud(depth_map(np.full((256, 512), 3.0)), picture(), max_points=10_000).points
    heights = np.sort(points[:, 2] / 3)
    below = (np.arange(len(heights)) + 0.5) / len(heights)
    # Uniform in z, to half of the points of a ring: some 88 rings, the longest 176 points.
    np.testing.assert_allclose(below, (1 + heights) / 2, atol=0.012)


@pytest.mark.parametrize("max_points", [0, -5])
def test_no_points_at_all_cannot_be_asked_for(max_points: int) -> None:
    with pytest.raises(InvalidParameter, match=f"at least 1; got {max_points}"):
        point_cloud(BALL, picture(), max_points=max_points)


@pytest.mark.parametrize("size", [(16, 32), (64, 128), (300, 600)])
def test_a_point_has_the_colour_that_its_ray_meets_whatever_the_size_of_the_picture(size: tuple[int, int]) -> None:
    cloud = point_cloud(BALL, picture(*size))
    x, y = sphere.pixel_coordinates(cloud.points, *size)
    # Red grows from 0 to 255 over the columns, green over the rows.
    np.testing.assert_allclose(cloud.colors[:, 0], np.floor(x) / (size[1] - 1) * 255, atol=255 / size[1] + 1)
    np.testing.assert_allclose(cloud.colors[:, 1], np.floor(y) / (size[0] - 1) * 255, atol=255 / size[0] + 1)


@pytest.mark.parametrize("frame", sphere.FRAMES)
def test_a_frame_turns_the_same_cloud(frame: sphere.Frame) -> None:
    cloud, in_ros = point_cloud(BALL, picture(), frame=frame), point_cloud(BALL, picture())
    assert cloud.frame == frame
    np.testing.assert_allclose(cloud.points, in_ros.points @ sphere.frame_rotation(frame).T, atol=1e-6)
    np.testing.assert_array_equal(cloud.colors, in_ros.colors)


@pytest.mark.parametrize("frame", sphere.FRAMES)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_normals_are_those_of_the_points_in_their_frame(sampling: Sampling, frame: sphere.Frame) -> None:
    cloud = point_cloud(BALL, picture(), frame, sampling=sampling, normals=True)
    assert cloud.normals is not None
    assert cloud.normals.dtype == np.float32
    np.testing.assert_allclose(cloud.normals, -cloud.points / 3, atol=1e-3)


def test_with_normals_a_pixel_without_neighbours_is_no_point() -> None:
    valid = np.zeros((64, 128), np.bool_)
    valid[30, 30] = valid[40:50, 40:50] = True
    source = depth_map(BALL.depth, valid)
    assert len(point_cloud(source, picture(), sampling="erp").points) == 101
    cloud = point_cloud(source, picture(), sampling="erp", normals=True)
    assert cloud.normals is not None
    assert len(cloud.points) == len(cloud.normals) == 100


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_points_at_depth_edges_can_be_left_out(sampling: Sampling) -> None:
    depth = np.full((256, 512), 4.0)
    depth[:, :128] = 2.0
    depth[:, 128] = 3.0
    with_all, without = (
        np.linalg.norm(point_cloud(depth_map(depth), picture(), sampling=sampling, max_edge=max_edge).points, axis=1)
        for max_edge in (None, 0.1)
    )
    assert {*np.rint(with_all)} == {2, 3, 4}
    assert {*np.rint(without)} == {2, 4}
    assert len(without) > 0.9 * len(with_all)


def test_normals_do_not_lean_on_points_that_are_left_out() -> None:
    depth = np.full((256, 512), 4.0)
    depth[:, :128] = 2.0
    depth[:, 128] = 3.0
    cloud = point_cloud(depth_map(depth), picture(), sampling="erp", normals=True, max_edge=0.1)
    assert cloud.normals is not None
    facing = -(cloud.normals * cloud.points).sum(axis=1) / np.linalg.norm(cloud.points, axis=1)
    assert facing.min() > np.cos(np.radians(1))


def test_an_edge_of_no_share_at_all_cannot_be_asked_for() -> None:
    with pytest.raises(InvalidParameter, match="max_edge is a share of the depth above zero; got 0"):
        point_cloud(BALL, picture(), max_edge=0)


def test_the_notes_of_a_cloud_are_a_line_of_ascii_each() -> None:
    cloud = replace(point_cloud(BALL, picture(), "opencv"), model="x\nelement face 1\r\u2028ü")
    assert cloud.notes == ("unit metre", "frame opencv: x right, y down, z forward", "model x element face 1 ??")


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_same_input_gives_the_same_cloud(sampling: Sampling) -> None:
    first, second = (point_cloud(BALL, picture(), max_points=777, sampling=sampling) for _ in range(2))
    np.testing.assert_array_equal(first.points, second.points)
