"""No seam at the border: two predictions, half a turn apart, as one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dap.depth import DepthMap
from dap.seam import blend, half_turn, seam_error, weights
from dap.sphere import latitudes, longitudes

SIZE = (32, 64)


def whole(depth: np.ndarray, valid: np.ndarray | None = None) -> DepthMap:
    everywhere = np.ones(depth.shape, np.bool_)
    return DepthMap(depth.astype(np.float32), everywhere if valid is None else valid, None, "none", "test")


def room() -> np.ndarray:
    """Depth (H, W), float32: inside a sphere of 5 m, 3 m off its centre, seen at an angle to the border."""
    cosine = np.cos(latitudes(SIZE[0]))[:, None] * np.cos(longitudes(SIZE[1]) - 1)
    return (3 * cosine + np.sqrt(25 - 9 * (1 - cosine**2))).astype(np.float32)


def blind(depth: np.ndarray, scale_across: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """What a network says that does not know that the borders meet: its scale grows from left to right."""
    grows = np.linspace(scale_across**-0.5, scale_across**0.5, depth.shape[1])
    said = (depth * grows).astype(np.float32)
    return said, np.stack([said < 10]).astype(np.float32)


def test_twice_half_a_turn_is_none() -> None:
    pixels = np.arange(2 * 8 * 3, dtype=np.uint8).reshape(2, 8, 3)
    np.testing.assert_array_equal(half_turn(pixels)[:, 0], pixels[:, 4])
    np.testing.assert_array_equal(half_turn(half_turn(pixels)), pixels)


@pytest.mark.parametrize("width", [4, 32, 512, 1024])
def test_each_prediction_counts_for_nothing_at_its_own_border_and_both_add_up_to_one(width: int) -> None:
    straight = weights(width)
    turned = np.roll(straight, width // 2)
    np.testing.assert_allclose(straight + turned, 1, atol=1e-6)
    assert straight[0] == straight[-1] == 0
    assert turned[width // 2 - 1] == turned[width // 2] == 0
    # Smooth: no step between columns is larger than the steepest of a sine that goes once up and down.
    assert np.abs(np.diff(straight)).max() <= np.pi / (width - 2) + 1e-6


def test_the_border_is_what_the_turned_prediction_says_in_its_middle() -> None:
    straight, turned = blind(room()), blind(half_turn(room()))
    depth, in_range = blend(straight, turned)
    middle = SIZE[1] // 2
    np.testing.assert_allclose(depth[:, [-1, 0]], turned[0][:, [middle - 1, middle]], rtol=1e-6)
    np.testing.assert_allclose(depth[:, [middle - 1, middle]], straight[0][:, [middle - 1, middle]], rtol=1e-6)
    np.testing.assert_array_equal(in_range[:, :, [-1, 0]], turned[1][:, :, [middle - 1, middle]])


def test_a_seam_of_any_size_is_exactly_gone_where_the_turned_prediction_has_no_step() -> None:
    straight, turned = np.full(SIZE, 3, np.float32), np.full(SIZE, 4, np.float32)
    straight[:, : SIZE[1] // 2] = 30
    none = np.zeros((1, *SIZE), np.float32)
    depth, _ = blend((straight, none), (turned, none))
    np.testing.assert_array_equal(depth[:, 0], depth[:, -1])


def test_a_blend_has_no_seam_where_each_prediction_has_one() -> None:
    straight, turned = blind(room()), blind(half_turn(room()))
    before, after = seam_error(whole(straight[0])), seam_error(whole(blend(straight, turned)[0]))
    assert before is not None
    assert after is not None
    assert before == pytest.approx(np.log(1.5), rel=0.05)
    assert after < 0.01


def test_two_predictions_that_differ_in_scale_blend_evenly_near_and_far() -> None:
    none = np.zeros((1, *SIZE), np.float32)
    scales = [
        blend((np.full(SIZE, m, np.float32), none), (np.full(SIZE, 2 * m, np.float32), none))[0] / m for m in (1, 50)
    ]
    np.testing.assert_allclose(scales[0], scales[1], rtol=1e-5)
    assert (scales[0] >= 1 - 1e-6).all()
    assert (scales[0] <= 2 + 1e-6).all()


def test_probabilities_blend_as_they_are() -> None:
    depth = np.ones(SIZE, np.float32)
    _, in_range = blend((depth, np.zeros((2, *SIZE), np.float32)), (depth, np.ones((2, *SIZE), np.float32)))
    np.testing.assert_allclose(in_range, np.broadcast_to(1 - weights(SIZE[1]), (2, *SIZE)), atol=1e-6)


def test_a_depth_of_zero_has_a_blend() -> None:
    zero, none = np.zeros(SIZE, np.float32), np.zeros((1, *SIZE), np.float32)
    assert np.isfinite(blend((zero, none), (zero, none))[0]).all()


@settings(max_examples=25)
@given(st.integers(2, 8), st.integers(0, 1000))
def test_a_blend_of_a_panorama_from_behind_is_the_blend_from_behind(half_width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = 3, 2 * half_width
    straight, turned = (
        (random.uniform(1, 9, shape).astype(np.float32), random.random((2, *shape), np.float32)) for _ in "ab"
    )
    front, back = blend(straight, turned), blend(turned, straight)
    np.testing.assert_allclose(half_turn(back[0]), front[0], rtol=1e-5)
    np.testing.assert_allclose(np.roll(back[1], half_width, axis=2), front[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_the_seam_error_is_the_step_at_the_border(share: float) -> None:
    said, _ = blind(room(), np.exp(share))
    assert seam_error(whole(said)) == pytest.approx(share, rel=0.1)


def test_a_surface_that_goes_on_across_the_border_has_no_seam() -> None:
    error = seam_error(whole(room()))
    assert error is not None
    assert error < 0.005


def test_an_object_that_ends_at_the_border_is_no_seam() -> None:
    depth = room()
    depth[12:20, :8] /= 3
    error = seam_error(whole(depth))
    assert error is not None
    assert error < 0.005


def test_the_seam_error_looks_at_valid_depth_alone() -> None:
    depth, valid = room(), np.ones(SIZE, np.bool_)
    valid[:20, 0] = False
    depth[:20, 0] = np.nan
    assert seam_error(whole(depth, valid)) == pytest.approx(0, abs=0.005)
    valid[:, -1] = False
    assert seam_error(whole(depth, valid)) is None
