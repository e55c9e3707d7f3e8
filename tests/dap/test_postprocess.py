"""From what an engine says to the depth map that was asked for."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dap.depth import SEAMS, UPSAMPLES, DepthMap, Seam, Upsample
from dap.errors import FloorNotFound, InvalidParameter
from dap.postprocess import DepthOptions, engine_inputs, finish
from dap.sphere import latitudes

SIZE = (16, 32)
THRESHOLDS = (10.0, 20.0, 50.0, 100.0)


def output(metres: object) -> tuple[np.ndarray, np.ndarray]:
    """Depth, and for each threshold whether it is nearer."""
    depth = np.broadcast_to(np.asarray(metres, np.float32), SIZE).copy()
    return depth, np.stack([depth < threshold for threshold in THRESHOLDS]).astype(np.float32)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"range": 30}, "range is one of 10, 20, 50 or 100 metres or none; got 30"),
        ({"seam": "sew"}, "seam is one of none, blend; got sew"),
        ({"upsample": "cubic"}, "upsample is one of nearest, bilinear, guided; got cubic"),
        ({"nadir_mask": 91}, "nadir_mask is 0 to 90 degrees; got 91"),
        ({"nadir_mask": float("nan")}, "nadir_mask"),
        ({"camera_height": 0}, "camera_height is above 0 and at most 1000 metres; got 0"),
        ({"camera_height": float("inf")}, "camera_height"),
        ({"camera_height": float("nan")}, "camera_height"),
    ],
)
def test_options_say_what_they_expect(wrong: dict, expected: str) -> None:
    with pytest.raises(InvalidParameter, match=expected):
        DepthOptions(**wrong)


def test_a_panorama_is_seen_once_and_for_a_blend_once_more_from_behind() -> None:
    pixels = np.arange(16 * 32 * 3, dtype=np.uint8).reshape(16, 32, 3)
    (only,) = engine_inputs(pixels, DepthOptions(), spherical=False)
    assert only is pixels
    straight, turned = engine_inputs(pixels, DepthOptions(seam="blend"), spherical=False)
    assert straight is pixels
    np.testing.assert_array_equal(turned, np.concatenate([pixels[:, 16:], pixels[:, :16]], axis=1))


@pytest.mark.parametrize(("columns", "looks"), [(32, 1), (64, 1), (48, 2)])
def test_what_goes_round_the_circle_has_no_seam_to_blend_unless_half_a_turn_splits_a_patch(
    columns: int, looks: int
) -> None:
    pixels = np.zeros((16, columns, 3), np.uint8)
    assert len(engine_inputs(pixels, DepthOptions(seam="blend"), spherical=True)) == looks
    np.testing.assert_array_equal(
        finish([output(4)], THRESHOLDS, DepthOptions(seam="blend"), "m", None, SIZE).depth,
        finish([output(4)], THRESHOLDS, DepthOptions(), "m", None, SIZE).depth,
    )


def test_without_options_the_depth_is_what_the_engine_said() -> None:
    found = finish([output(15)], THRESHOLDS, DepthOptions(range=20), "m", None, SIZE)
    np.testing.assert_array_equal(found.depth, 15)
    assert found.valid.all()
    assert (found.range, found.range_mask, found.model, found.scale_factor) == (20, "head", "m", 1)
    assert found.in_range is None
    assert found.thresholds == ()


def floor(below_m: float) -> np.ndarray:
    """Depth (H, W): a level floor below a dome of 30 m."""
    return np.minimum(below_m / np.maximum(np.sin(-latitudes(SIZE[0])), 1e-6), 30)[:, None]


def test_a_known_camera_height_scales_depth_and_thresholds() -> None:
    options = DepthOptions(range=20, camera_height=1.0, keep_in_range=True)
    found = finish([output(floor(2.0))], THRESHOLDS, options, "m", None, SIZE)
    assert found.scale_factor == pytest.approx(0.5, rel=1e-3)
    np.testing.assert_allclose(found.depth, np.broadcast_to(floor(2.0), SIZE) * found.scale_factor, rtol=1e-5)
    assert found.thresholds == pytest.approx((5, 10, 25, 50), rel=1e-3)
    assert found.in_range is not None
    np.testing.assert_array_equal(found.in_range, output(floor(2.0))[1])
    # The dome is 15 m away now, its own threshold of 50 m lies at 25 m.
    assert found.valid.all()
    assert found.range_mask == "depth"


def test_what_the_model_holds_for_too_far_stays_so_when_the_scale_shrinks() -> None:
    depth, in_range = output(floor(2.0))
    in_range[:, : SIZE[0] // 2] = 0  # the sky
    found = finish([(depth, in_range)], THRESHOLDS, DepthOptions(camera_height=1.0), "m", None, SIZE)
    assert not found.valid[: SIZE[0] // 2].any()
    assert found.valid[SIZE[0] // 2 :].all()


def test_no_floor_is_looked_for_in_the_sky_outside_the_picture_or_under_the_nadir_mask() -> None:
    depth, in_range = output(floor(2.0))
    below = np.arange(SIZE[0])[:, None] >= np.full(SIZE, SIZE[0] // 2)
    options = DepthOptions(camera_height=1.0)
    with pytest.raises(FloorNotFound):
        finish([(depth, in_range * ~below)], THRESHOLDS, options, "m", None, SIZE)
    with pytest.raises(FloorNotFound):
        finish([(depth, in_range)], THRESHOLDS, options, "m", ~below, SIZE)
    with pytest.raises(FloorNotFound):
        finish([(depth, in_range)], THRESHOLDS, replace(options, nadir_mask=80), "m", None, SIZE)


def test_a_blend_takes_the_border_from_the_turned_output() -> None:
    found = finish([output(4), output(6)], THRESHOLDS, DepthOptions(seam="blend"), "m", None, SIZE)
    np.testing.assert_allclose(found.depth[:, [0, -1]], 6, rtol=1e-5)
    np.testing.assert_allclose(found.depth[:, [15, 16]], 4, rtol=1e-5)


def test_the_scale_is_measured_on_the_blend() -> None:
    options = DepthOptions(seam="blend", camera_height=3.0)
    outputs = [output(floor(2.0)), output(np.roll(floor(2.0), 16, axis=1))]
    assert finish(outputs, THRESHOLDS, options, "m", None, SIZE).scale_factor == pytest.approx(1.5, rel=1e-3)


@pytest.mark.parametrize("size", [(8, 16), SIZE, (64, 128)])
@pytest.mark.parametrize("degrees", [0, 10, 45, 90])
def test_the_nadir_mask_is_a_cone_around_straight_down(size: tuple[int, int], degrees: float) -> None:
    found = finish([output(5)], THRESHOLDS, DepthOptions(nadir_mask=degrees), "m", None, size)
    from_nadir = 90 + np.degrees(latitudes(size[0]))
    row = 180 / min(size[0], SIZE[0])
    assert not found.valid[from_nadir < degrees].any()
    assert found.valid[from_nadir >= degrees + row / 2].all()


def test_nothing_of_the_tripod_mixes_into_what_is_beside_it() -> None:
    depth = np.full(SIZE, 8, np.float32)
    depth[-4:] = 0.3
    guide = np.full((64, 128, 3), 90, np.uint8)
    for upsample in UPSAMPLES:
        options = DepthOptions(nadir_mask=45, upsample=upsample)
        found = finish([output(depth)], THRESHOLDS, options, "m", None, (64, 128), guide)
        np.testing.assert_allclose(found.depth[found.valid], 8, rtol=1e-5)


def test_what_the_picture_does_not_show_stays_invalid_whatever_its_colours() -> None:
    covered = np.ones(SIZE, np.bool_)
    covered[:, 20:] = False
    black = np.zeros((64, 128, 3), np.uint8)
    options = DepthOptions(upsample="guided", range=None)
    found = finish([output(5)], THRESHOLDS, options, "m", covered, (64, 128), black)
    assert not found.valid[:, 80:].any()
    assert found.valid[:, 2:76].all()


def test_guided_depth_without_colours_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="guided"):
        finish([output(5)], THRESHOLDS, DepthOptions(upsample="guided"), "m", None, (64, 128))


@settings(max_examples=25)
@given(
    st.sampled_from(UPSAMPLES),
    st.sampled_from(SEAMS),
    st.sampled_from([0.0, 30.0]),
    st.sampled_from([None, 1.2]),
    st.sampled_from([None, 20.0]),
    st.integers(0, 31),
)
def test_turning_the_camera_turns_the_depth_map(
    upsample: Upsample, seam: Seam, nadir_mask: float, camera_height: float | None, range_m: float | None, turn: int
) -> None:
    random = np.random.default_rng(5)
    scene = np.minimum(floor(2.0) * np.ones(SIZE), random.uniform(3, 30, (1, SIZE[1])))
    guide = random.integers(0, 255, (32, 64, 3), np.uint8)
    options = DepthOptions(range_m, seam, upsample, nadir_mask, camera_height)

    def predict(columns: int) -> DepthMap:
        """By a model that says the same of a place wherever it is in the picture."""
        seen = [np.roll(scene, columns + half, axis=1) for half in (0, SIZE[1] // 2)]
        colours = np.roll(guide, 2 * columns, axis=1)
        return finish([output(depth) for depth in seen], THRESHOLDS, options, "m", None, (32, 64), colours)

    straight, turned = predict(0), predict(turn)
    assert turned.scale_factor == pytest.approx(straight.scale_factor, rel=1e-3)
    np.testing.assert_array_equal(turned.valid, np.roll(straight.valid, 2 * turn, axis=1))
    expected = np.roll(straight.depth, 2 * turn, axis=1)
    np.testing.assert_allclose(turned.depth[turned.valid], expected[turned.valid], rtol=2e-3)
