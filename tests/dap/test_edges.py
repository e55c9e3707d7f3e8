"""Depth edges: steps and what hangs between their sides are found, surfaces at any angle are not."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dap import sphere
from dap.depth import DepthMap
from dap.edges import depth_edges
from dap.errors import InvalidParameter
from tests.dap.rooms import ball, box, depth_map, floor


def pillar(height: int = 256, near: float = 2.0, far: float = 4.0, blur: int = 0) -> DepthMap:
    """A quarter of the sphere, the first columns, nearer than the rest; `blur` columns lie between at either side."""
    width = 2 * height
    profile = np.full(width, far)
    profile[: width // 4] = near
    between = np.linspace(near, far, blur + 2)[1:-1]
    profile[width // 4 : width // 4 + blur] = between
    profile[width - blur :] = between[::-1]
    return depth_map(np.tile(profile, (height, 1)))


def distinct_depths(found: DepthMap, edges: npt.NDArray[np.bool_], row: int) -> set[float]:
    return set(found.depth[row, ~edges[row]].tolist())


def test_both_sides_of_a_step_are_an_edge_also_where_the_map_closes() -> None:
    edges = depth_edges(pillar(), 0.1)
    # A neighbour to each side of columns 127 | 128 and 511 | 0.
    assert np.flatnonzero(edges[128]).tolist() == [0, 127, 128, 511]


@pytest.mark.parametrize("blur", [1, 2, 3, 4, 5])
def test_no_point_is_left_between_the_sides_of_a_step(blur: int) -> None:
    blurred = pillar(blur=blur)
    assert len(set(blurred.depth[128].tolist())) == 2 + blur
    assert distinct_depths(blurred, depth_edges(blurred, 0.05), 128) == {2.0, 4.0}


def test_an_edge_has_the_width_that_it_has_in_the_map_no_more() -> None:
    # The rest of the pillar and of the room stays: 4 to 14 columns of 512 at each of two steps are lost.
    assert depth_edges(pillar(blur=4), 0.05)[64:192].mean() < 2 * 14 / 512


def test_a_step_smaller_than_asked_for_is_no_edge() -> None:
    step = pillar(near=2.0, far=2.3)
    assert np.flatnonzero(depth_edges(step, 0.14)[128]).tolist() == [0, 127, 128, 511]
    assert not depth_edges(step, 0.16).any()


def test_a_floor_is_no_edge_however_flat_the_angle() -> None:
    ground = floor(256, camera_height=1.6, range=60)
    # A criterion of the depth's change alone, at 0.05 in a 3x3 window, would leave the floor to 3.3 m.
    beyond = ground.valid & (ground.depth > 13)
    below, above = ground.depth[:-1][beyond[:-1] & beyond[1:]], ground.depth[1:][beyond[:-1] & beyond[1:]]
    assert (below / above).min() > 1.1
    # Beside what is not valid nothing says whether the floor goes on: three rows are lost to that.
    edges = depth_edges(ground, 0.1)
    assert np.flatnonzero(edges.any(axis=1)).max() - np.flatnonzero(ground.valid.any(axis=1)).min() < 5
    assert not edges[ground.valid & (ground.depth < 20)].any()


@pytest.mark.parametrize("height", [256, 1024])
def test_the_walls_of_a_long_corridor_are_no_edge(height: int) -> None:
    corridor = box(height, low=(-30, -1, -1.5), high=(30, 1, 1.5))
    wall = np.abs(sphere.rays(height, 2 * height) * corridor.depth[..., None])[..., 1] > 0.999
    receding = np.abs(np.diff(np.log(corridor.depth[height // 2]))).max() * height / 256
    assert receding > 0.1
    edges = depth_edges(corridor, 0.1)
    assert not edges[wall & (corridor.depth < 7)].any()
    # Farther, where wall and ceiling meet at a flat angle, some of the corner is lost.
    assert edges[wall].mean() < 0.01


def test_corners_of_a_room_are_no_edges() -> None:
    assert not depth_edges(box(256), 0.05).any()


def test_a_map_that_is_enlarged_has_its_edges_where_they_were() -> None:
    small = pillar(blur=3)
    large = small.resize((1024, 2048))
    edges = depth_edges(small, 0.1)
    of_large = depth_edges(large, 0.1)
    assert of_large.mean() == pytest.approx(edges.mean(), rel=0.2)
    hanging = (large.depth > 2.1) & (large.depth < 3.9)
    assert hanging.mean() > 0.01
    assert not (hanging & ~of_large)[128:-128].any()


def test_a_step_at_a_pole_is_an_edge() -> None:
    depth = np.full((256, 512), 4.0)
    depth[0, :256] = 2.0
    edges = depth_edges(depth_map(depth), 0.1)
    assert edges[0].all()
    assert not edges[3:].any()


def test_what_is_not_valid_is_neither_an_edge_nor_makes_one() -> None:
    source = ball(64)
    valid = np.random.default_rng(0).random((64, 128)) < 0.7
    depth = np.where(valid, source.depth, np.nan)
    assert not depth_edges(depth_map(depth, valid), 0.01).any()
    assert not depth_edges(depth_map(pillar(64).depth, np.zeros((64, 128))), 0.1).any()


@given(st.integers(1, 30), st.integers(0, 2**32 - 1), st.integers(-99, 99))
def test_turning_the_camera_turns_the_edges_with_it(height: int, seed: int, columns: int) -> None:
    random = np.random.default_rng(seed)
    depth = random.uniform(1, 2, (height, 2 * height)).astype(np.float32)
    valid = random.random(depth.shape) < 0.9
    edges = depth_edges(depth_map(depth, valid), 0.3)
    rolled = depth_map(np.roll(depth, columns, axis=1), np.roll(valid, columns, axis=1))
    np.testing.assert_array_equal(depth_edges(rolled, 0.3), np.roll(edges, columns, axis=1))
    upside_down = depth_map(depth[::-1], valid[::-1])
    np.testing.assert_array_equal(depth_edges(upside_down, 0.3), edges[::-1])


@pytest.mark.parametrize("max_edge", [0.0, -0.1, float("nan")])
def test_a_share_that_is_not_above_zero_is_refused(max_edge: float) -> None:
    with pytest.raises(InvalidParameter, match=f"above zero; got {max_edge:g}"):
        depth_edges(ball(), max_edge)
