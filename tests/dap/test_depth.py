"""Depth maps: the range mask, sizes, steps and statistics."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dap.depth import UPSAMPLES, DepthMap, Fill, Upsample, apply_range
from dap.errors import InvalidParameter

OWN = (10.0, 20.0, 50.0, 100.0)
OFFICIAL = (100.0,)
DEPTH = np.array([[5, 15], [30, 90]], np.float32)


def depth_map(depth: object, valid: object = None) -> DepthMap:
    metres = np.array(depth, np.float32)
    mask = np.ones(metres.shape, np.bool_) if valid is None else np.array(valid, np.bool_)
    return DepthMap(metres, mask, range=None, range_mask="none", model="test")


def nearer(*thresholds: float) -> np.ndarray:
    return np.stack([(threshold > DEPTH) for threshold in thresholds]).astype(np.float32)


def test_a_channel_of_its_own_decides_alone_what_is_in_range() -> None:
    in_range = np.zeros((4, 2, 2), np.float32)
    in_range[1] = [[0.2, 0.51], [0.5, 0.9]]
    found = apply_range(DEPTH, in_range, OWN, 20, "dap-s")
    np.testing.assert_array_equal(found.valid, [[False, True], [False, True]])
    assert (found.range, found.range_mask, found.model) == (20.0, "head", "dap-s")


def test_without_a_channel_the_next_larger_one_and_the_depth_decide_together() -> None:
    in_range = np.array([[[0.9, 0.1], [0.9, 0.9]]], np.float32)
    found = apply_range(DEPTH, in_range, OFFICIAL, 20, "dap-official-l")
    np.testing.assert_array_equal(found.valid, [[True, False], [False, False]])
    assert (found.range, found.range_mask) == (20.0, "depth")


def test_the_next_larger_channel_is_the_nearest_one() -> None:
    in_range = np.stack([np.zeros((2, 2)), np.ones((2, 2))]).astype(np.float32)
    assert not apply_range(DEPTH, in_range, (50.0, 100.0), 20, "m").valid.any()


def test_without_any_channel_large_enough_the_depth_decides() -> None:
    found = apply_range(DEPTH, nearer(10.0), (10.0,), 50, "m")
    np.testing.assert_array_equal(found.valid, [[True, True], [True, False]])
    assert found.range_mask == "depth"


def test_a_depth_of_exactly_the_range_is_within_it() -> None:
    assert apply_range(np.full((1, 1), 20, np.float32), np.ones((1, 1, 1), np.float32), OFFICIAL, 20, "m").valid.all()


def test_no_range_keeps_all_that_the_picture_covers() -> None:
    nothing = np.zeros((4, 2, 2), np.float32)
    found = apply_range(DEPTH, nothing, OWN, None, "m")
    assert found.valid.all()
    assert (found.range, found.range_mask) == (None, "none")
    covered = np.array([[True, False], [True, True]])
    np.testing.assert_array_equal(apply_range(DEPTH, nothing, OWN, None, "m", covered).valid, covered)


@pytest.mark.parametrize("range_m", [20, 100])
def test_what_the_picture_does_not_cover_is_never_valid(range_m: int) -> None:
    covered = np.array([[True, False], [False, False]])
    found = apply_range(DEPTH, np.ones((1, 2, 2), np.float32), OFFICIAL, range_m, "m", covered)
    np.testing.assert_array_equal(found.valid, covered)


def test_another_range_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidParameter, match="10, 20, 50 or 100 metres or none; got 30"):
        apply_range(DEPTH, nearer(*OWN), OWN, 30, "m")


def test_the_probabilities_are_kept_where_they_are_asked_for() -> None:
    in_range = nearer(*OWN)
    assert apply_range(DEPTH, in_range, OWN, 20, "m").in_range is None
    found = apply_range(DEPTH, in_range, OWN, 20, "m", keep_in_range=True)
    assert found.in_range is in_range
    assert found.thresholds == OWN


def test_a_scale_factor_multiplies_depth_and_thresholds() -> None:
    found = apply_range(DEPTH, nearer(*OWN), OWN, 20, "m", keep_in_range=True, scale_factor=2.0)
    np.testing.assert_array_equal(found.depth, 2 * DEPTH)
    assert found.thresholds == (20, 40, 100, 200)
    assert found.scale_factor == 2
    # The channel of 10 of the model's metres is now that of 20 metres.
    assert (found.range, found.range_mask) == (20, "head")
    np.testing.assert_array_equal(found.valid, [[True, False], [False, False]])


def test_a_scale_factor_leaves_a_range_between_two_channels_to_the_larger_and_the_depth() -> None:
    in_range = nearer(*OWN)
    in_range[2, 0, 0] = 0  # beyond 50 of the model's metres, says the channel; depth says 5
    found = apply_range(DEPTH, in_range, OWN, 20, "m", scale_factor=0.9)
    np.testing.assert_array_equal(found.valid, [[False, True], [False, False]])
    assert found.range_mask == "depth"


def test_a_sky_stays_invalid_where_the_scale_leaves_no_channel_as_large_as_the_range() -> None:
    in_range = np.array([[[1, 1], [1, 0]]], np.float32)
    found = apply_range(DEPTH, in_range, OFFICIAL, 100, "m", scale_factor=0.5)
    np.testing.assert_array_equal(found.valid, [[True, True], [True, False]])
    assert found.range_mask == "depth"


@pytest.mark.parametrize(("fill", "value"), [("nan", np.nan), ("range", 20), ("zero", 0)])
def test_a_filled_map_holds_the_value_where_nothing_is_valid(fill: Fill, value: float) -> None:
    found = apply_range(DEPTH, nearer(*OWN), OWN, 20, "m").filled(fill)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[5, 15], [value, value]])


def test_filled_with_the_range_of_100_it_is_what_the_official_code_gives() -> None:
    # Its infer.py: depth x 100, and 1.0 x 100 where the mask head says too far.
    depth, beyond = np.array([[12, 130]], np.float32), np.array([[0.1, 0.9]], np.float32)
    found = apply_range(depth, 1 - beyond[None], OFFICIAL, 100, "dap-official-l").filled("range")
    np.testing.assert_array_equal(found, [[12, 100]])


def test_a_fill_that_means_nothing_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="fill=range expects a range"):
        depth_map([[1]]).filled("range")
    with pytest.raises(InvalidParameter, match="fill is one of nan, range, zero; got sky"):
        depth_map([[1]]).filled("sky")  # type: ignore[arg-type]


@pytest.mark.parametrize(("degrees", "rows"), [(0, 4), (22, 4), (23, 3), (45, 3), (90, 2)])
def test_the_nadir_is_masked_as_far_as_the_centre_of_a_row_is_in_the_cone(degrees: float, rows: int) -> None:
    # Four rows: their centres are 157.5, 112.5, 67.5 and 22.5 degrees from straight down.
    valid = depth_map(np.ones((4, 8))).without_nadir(degrees).valid
    np.testing.assert_array_equal(valid, np.broadcast_to(np.arange(4)[:, None] < rows, (4, 8)))


def test_the_probabilities_have_the_size_of_the_depth() -> None:
    source = replace(depth_map([[1, 2], [3, 4]]), in_range=np.array([[[0, 1], [0, 1]]], np.float32), thresholds=(10.0,))
    for upsample in UPSAMPLES:
        larger = source.resize((2, 4), upsample, np.zeros((2, 4, 3), np.uint8)).in_range
        expected = [0, 0, 1, 1] if upsample == "nearest" else [0.25, 0.25, 0.75, 0.75]
        assert larger is not None
        np.testing.assert_allclose(larger, [[expected, expected]])
    smaller = source.resize((1, 2)).in_range
    assert smaller is not None
    np.testing.assert_array_equal(smaller, [[[0, 1]]])


def test_nearest_gives_no_depth_that_was_not_there() -> None:
    larger = depth_map([[1, 9]], [[True, False]]).resize((2, 6), "nearest")
    np.testing.assert_array_equal(larger.depth, [[1, 1, 1, 9, 9, 9]] * 2)
    np.testing.assert_array_equal(larger.valid, [[True, True, True, False, False, False]] * 2)


def test_guided_takes_the_side_of_the_edge_whose_colour_it_has() -> None:
    guide = np.zeros((1, 16, 3), np.uint8)
    guide[:, 3:11] = 255
    larger = depth_map([[1, 1, 8, 8, 8, 8, 1, 1]]).resize((1, 16), "guided", guide)
    bilinear = depth_map([[1, 1, 8, 8, 8, 8, 1, 1]]).resize((1, 16))
    assert abs(larger.depth[0, 3] - 8) < abs(bilinear.depth[0, 3] - 8)
    assert abs(larger.depth[0, 2] - 1) < 3


@pytest.mark.parametrize(("upsample", "message"), [("guided", "there are none"), ("cubic", "got cubic")])
def test_an_upsampling_that_cannot_be_is_refused(upsample: Upsample, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        depth_map([[1]]).resize((2, 2), upsample)


def test_enlarging_is_bilinear_around_the_circle() -> None:
    larger = depth_map([[1, 2, 3, 4]]).resize((1, 8))
    # Centres of the new pixels lie a quarter of an old pixel beside the old centres; 4 and 1 are neighbours.
    np.testing.assert_allclose(larger.depth, [[1.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 3.25]])
    assert larger.valid.all()


def test_enlarging_keeps_to_the_first_and_last_row() -> None:
    np.testing.assert_allclose(depth_map([[1], [3]]).resize((4, 1)).depth[:, 0], [1, 1.5, 2.5, 3])


def test_valid_depth_never_mixes_with_invalid() -> None:
    larger = depth_map([[2, 1000, 2, 2]], [[True, False, True, True]]).resize((1, 8))
    np.testing.assert_array_equal(larger.valid, [[True, True, False, False, True, True, True, True]])
    np.testing.assert_allclose(larger.depth[larger.valid], 2, rtol=1e-6)


def test_shrinking_takes_the_nearest_pixel_and_its_validity() -> None:
    smaller = depth_map([[1, 2, 3, 4, 5, 6]], [[True, False, True, True, True, True]]).resize((1, 2))
    np.testing.assert_array_equal(smaller.depth, [[2, 5]])
    np.testing.assert_array_equal(smaller.valid, [[False, True]])


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3), st.integers(0, 20))
def test_enlarging_commutes_with_turning_the_camera(height: int, width: int, down: int, across: int, turn: int) -> None:
    random = np.random.default_rng(height * 100 + width)
    depth, valid = random.uniform(0.5, 50, (height, width)), random.random((height, width)) < 0.7
    size = height * down, width * across
    turned_first = depth_map(np.roll(depth, turn, 1), np.roll(valid, turn, 1)).resize(size)
    turned_last = depth_map(depth, valid).resize(size)
    np.testing.assert_array_equal(turned_first.valid, np.roll(turned_last.valid, turn * across, 1))
    kept = turned_first.valid
    np.testing.assert_allclose(turned_first.depth[kept], np.roll(turned_last.depth, turn * across, 1)[kept], rtol=1e-5)


@given(st.integers(1, 40), st.integers(1, 40))
def test_resized_valid_depth_stays_between_the_extremes(height: int, width: int) -> None:
    random = np.random.default_rng(7)
    source = depth_map(random.uniform(1, 10, (11, 17)), random.random((11, 17)) < 0.5)
    resized = source.resize((height, width))
    assert resized.size == (height, width)
    kept = source.depth[source.valid]
    found = resized.depth[resized.valid]
    assert np.all((found >= kept.min() * (1 - 1e-5)) & (found <= kept.max() * (1 + 1e-5)))


def test_the_same_size_is_the_same_map() -> None:
    source = depth_map([[1, 2]])
    assert source.resize((1, 2)) is source


def test_steps_are_two_millimetres_and_zero_means_not_valid() -> None:
    steps = depth_map([[1, 100, 3]], [[True, True, False]]).quantised()
    assert steps.dtype == np.uint16
    np.testing.assert_array_equal(steps, [[512, 51200, 0]])


def test_valid_depth_is_never_written_as_not_valid_nor_wraps_around() -> None:
    np.testing.assert_array_equal(
        depth_map([[0, 0.0005, 127.998, 128.5, 1e6]]).quantised(), [[1, 1, 65535, 65535, 65535]]
    )


def test_statistics_of_a_constant_are_that_constant() -> None:
    found = depth_map(np.full((18, 36), 2.5)).statistics()
    assert found.valid_share == pytest.approx(1)
    assert (found.minimum, found.maximum, found.median) == (2.5, 2.5, 2.5)
    assert found.mean == pytest.approx(2.5)
    assert found.percentiles == {1: 2.5, 5: 2.5, 25: 2.5, 50: 2.5, 75: 2.5, 95: 2.5, 99: 2.5}
    assert [(band.top_deg, band.bottom_deg) for band in found.bands] == [
        (90, 60), (60, 30), (30, 0), (0, -30), (-30, -60), (-60, -90),
    ]  # fmt: skip
    assert all(band.valid_share == pytest.approx(1) and band.median == 2.5 for band in found.bands)


def test_statistics_weigh_by_solid_angle() -> None:
    # The zones within 30 degrees of the equator are half the sphere, a third of the rows.
    depth, valid = np.full((6, 2), 8.0), np.ones((6, 2))
    depth[2:4] = 2
    found = depth_map(depth, valid).statistics()
    assert found.mean == pytest.approx(5)
    valid[2:4] = 0
    found = depth_map(depth, valid).statistics()
    assert found.valid_share == pytest.approx(0.5)
    assert (found.minimum, found.median) == (8, 8)
    assert [band.valid_share for band in found.bands] == pytest.approx([1, 1, 0, 0, 1, 1])
    assert [band.median for band in found.bands] == [8, 8, None, None, 8, 8]


def test_percentiles_share_the_solid_angle() -> None:
    # All columns have the same solid angle: a hundred of them, a metre apart.
    found = depth_map(np.broadcast_to(np.arange(1, 101), (4, 100))).statistics()
    assert found.percentiles == pytest.approx({1: 1, 5: 5, 25: 25, 50: 50, 75: 75, 95: 95, 99: 99}, abs=1)
    assert (found.minimum, found.maximum) == (1, 100)


def test_statistics_of_nothing_valid_have_no_numbers() -> None:
    found = depth_map(np.ones((6, 12)), np.zeros((6, 12))).statistics()
    assert found.valid_share == 0
    assert (found.minimum, found.maximum, found.mean, found.median, found.percentiles) == (None, None, None, None, {})
    assert all(band.valid_share == 0 and band.median is None for band in found.bands)


def test_what_lies_under_the_mask_does_not_reach_the_statistics() -> None:
    found = depth_map([[1, np.nan], [1, np.inf]], [[True, False], [True, False]]).statistics()
    assert (found.minimum, found.maximum, found.mean) == (1, 1, pytest.approx(1))
