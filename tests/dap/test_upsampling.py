"""Larger depth: the photo's edges, the circle of longitude, and never valid with invalid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dap.upsampling import bilinear, enlarge, guided, nearest

FINE = (64, 128)
NEAR_M, FAR_M = 2.0, 8.0
RED, BLUE = (200, 60, 50), (40, 70, 190)


def disc(size: tuple[int, int] = FINE) -> np.ndarray:
    """bool (H, W): a disc over the left and right border, whose edge falls on the pixels of no coarser map."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    across = (columns + 0.5) / size[1]
    across = np.minimum(across, 1 - across) * size[1]
    return (rows + 0.5 - size[0] * 0.47) ** 2 + across**2 < (size[0] * 0.29) ** 2


def colours(shown: np.ndarray, noise: float = 4.0) -> np.ndarray:
    """uint8 (H, W, 3): red where shown, blue elsewhere, with the noise of a camera."""
    clean = np.where(shown[..., None], RED, BLUE)
    return np.clip(clean + np.random.default_rng(1).normal(0, noise, clean.shape), 0, 255).astype(np.uint8)


def coarse(values: np.ndarray, factor: int) -> np.ndarray:
    """Means over squares of `factor` pixels, as a network's soft edges are."""
    height, width = values.shape
    return values.reshape(height // factor, factor, width // factor, factor).mean(axis=(1, 3)).astype(np.float32)


def near_edges(shown: np.ndarray, factor: int) -> np.ndarray:
    """Pixels less than `factor` from the edge of the disc."""
    turns = [np.roll(shown, (down, across), (0, 1)) for down in (-factor, 0, factor) for across in (-factor, 0, factor)]
    return np.any(turns, axis=0) & ~np.all(turns, axis=0)


@pytest.mark.parametrize("factor", [2, 4])
def test_guided_depth_has_less_than_half_the_error_of_bilinear_near_edges(factor: int) -> None:
    shown = disc()
    truth = np.where(shown, NEAR_M, FAR_M).astype(np.float32)
    depth, valid = coarse(truth, factor), np.ones((FINE[0] // factor, FINE[1] // factor), np.bool_)
    edge = near_edges(shown, factor)
    found, voted = guided(depth, valid, colours(shown), FINE)
    assert voted.all()
    assert np.abs(found - truth)[edge].mean() < 0.5 * np.abs(bilinear(depth, valid, FINE) - truth)[edge].mean()
    np.testing.assert_allclose(found[~near_edges(shown, 3 * factor)], truth[~near_edges(shown, 3 * factor)], rtol=1e-4)


@pytest.mark.parametrize("factor", [2, 4])
def test_the_outline_against_the_sky_follows_the_colours(factor: int) -> None:
    shown = disc()
    valid = coarse(shown, factor) > 0.5
    depth = np.where(valid, np.float32(NEAR_M), np.float32(np.nan))
    found, voted = guided(depth, valid, colours(shown), FINE)
    assert (voted != shown).sum() < 0.5 * (nearest(valid, FINE) != shown).sum()
    np.testing.assert_allclose(found[voted], NEAR_M, rtol=1e-5)


def test_colours_that_say_nothing_leave_a_smooth_mean() -> None:
    grey = np.full((*FINE, 3), 128, np.uint8)
    # The quadratic B-spline keeps what is linear: here the rows, but for the first and the last.
    ramp = np.broadcast_to(np.arange(16, dtype=np.float32)[:, None], (16, 32))
    found, _ = guided(ramp, np.ones((16, 32), np.bool_), grey, FINE)
    expected = (np.arange(FINE[0]) + 0.5) / 4 - 0.5
    np.testing.assert_allclose(found[8:-8], np.broadcast_to(expected[8:-8, None], found[8:-8].shape), rtol=1e-5)


def test_a_colour_like_none_around_it_still_has_a_depth_between_theirs() -> None:
    guide = np.zeros((8, 16, 3), np.uint8)
    guide[3, 5] = 255
    depth = np.random.default_rng(0).uniform(1, 3, (4, 8)).astype(np.float32)
    found, voted = guided(depth, np.ones((4, 8), np.bool_), guide, (8, 16))
    assert voted[3, 5]
    assert 1 <= found[3, 5] <= 3


def test_a_guide_of_another_size_is_taken() -> None:
    shown = disc()
    depth = coarse(np.where(shown, NEAR_M, FAR_M), 4)
    valid = np.ones(depth.shape, np.bool_)
    large = guided(depth, valid, np.repeat(np.repeat(colours(shown, 0), 2, 0), 2, 1), FINE)[0]
    np.testing.assert_allclose(large, guided(depth, valid, colours(shown, 0), FINE)[0], rtol=1e-5)


@settings(max_examples=25)
@given(st.integers(1, 6), st.integers(2, 9), st.integers(1, 4), st.integers(0, 20))
def test_guided_commutes_with_turning_the_camera(height: int, width: int, factor: int, turn: int) -> None:
    random = np.random.default_rng(height * 100 + width)
    depth = random.uniform(0.5, 50, (height, width)).astype(np.float32)
    valid = random.random((height, width)) < 0.7
    size = height * factor, width * factor
    guide = random.integers(0, 255, (*size, 3), np.uint8)
    found, voted = guided(depth, valid, guide, size)
    turned = guided(np.roll(depth, turn, 1), np.roll(valid, turn, 1), np.roll(guide, turn * factor, 1), size)
    np.testing.assert_array_equal(turned[1], np.roll(voted, turn * factor, 1))
    np.testing.assert_allclose(turned[0], np.roll(found, turn * factor, 1), rtol=1e-4, atol=1e-6)


@settings(max_examples=25)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_no_way_mixes_valid_depth_with_what_is_not(seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    valid = random.random((5, 10)) < share
    depth = np.where(valid, random.uniform(3, 4, (5, 10)), np.nan).astype(np.float32)
    guide = random.integers(0, 255, (10, 20, 3), np.uint8)
    found, voted = guided(depth, valid, guide, (10, 20))
    for metres, kept in ((found, voted), (bilinear(depth, valid, (10, 20)), nearest(valid, (10, 20)))):
        assert np.isfinite(metres).all()
        assert (metres[kept] >= 3 - 1e-5).all()
        assert (metres[kept] <= 4 + 1e-5).all()


def test_bilinear_weighs_the_valid_neighbours_alone() -> None:
    # The new pixel has its neighbours at 9, 3, 3 and 1 sixteenths; the nearest, of 9, and one of 3 are valid.
    depth, valid = np.array([[4, 100], [8, 100]], np.float32), np.array([[True, False], [True, False]])
    assert bilinear(depth, valid, (4, 4))[1, 1] == pytest.approx((9 * 4 + 3 * 8) / 12)


def test_enlarging_gives_the_points_between() -> None:
    np.testing.assert_array_equal(enlarge(np.array([[0], [2]], np.float32), (4, 1))[:, 0], [0, 0.5, 1.5, 2])


@pytest.mark.parametrize(("size", "expected"), [((1, 2), [[1, 3]]), ((2, 5), [[0, 1, 2, 3, 4]] * 2)])
def test_nearest_takes_the_pixel_that_the_new_centre_lies_in(size: tuple[int, int], expected: object) -> None:
    np.testing.assert_array_equal(nearest(np.arange(5)[None], size), expected)
