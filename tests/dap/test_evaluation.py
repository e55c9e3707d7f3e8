"""Metrics and protocols, on examples small enough to compute by hand."""

import dataclasses
from math import cos, log, log10, pi, sqrt

import numpy as np
import pytest

from dap.depth import DepthMap
from dap.errors import InvalidParameter
from dap.evaluation import METRICS, PROTOCOLS, Comparison, evaluate, find_protocol, mean

RAW, DAP = PROTOCOLS["raw"], PROTOCOLS["dap"]


def metres(*rows: object) -> np.ndarray:
    return np.array(rows, np.float32)


def test_each_metric_by_hand() -> None:
    # Errors of +1 on 2, -1 on 4, 0 on 5 and +4 on 4.
    found = evaluate(metres([3, 3], [5, 8]), metres([2, 4], [5, 4]), RAW)
    assert found.scores == pytest.approx(
        {
            "absrel": (1 / 2 + 1 / 4 + 0 + 1) / 4,
            "sqrel": (1 / 2 + 1 / 4 + 0 + 4) / 4,
            "rmse": sqrt((1 + 1 + 0 + 16) / 4),
            "rmselog": sqrt((log(3 / 2) ** 2 + log(4 / 3) ** 2 + log(2) ** 2) / 4),
            "log10": (log10(3 / 2) + log10(4 / 3) + log10(2)) / 4,
            "mae": 6 / 4,
            # Ratios 1.5, 1.333, 1 and 2 against 1.25, 1.5625 and 1.953.
            "delta1": 1 / 4,
            "delta2": 3 / 4,
            "delta3": 3 / 4,
        }
    )
    assert (found.images, found.pixels, found.compared_share) == (1, 4, pytest.approx(1))


def test_a_perfect_prediction_has_no_error_and_all_deltas() -> None:
    truth = np.random.default_rng(0).uniform(0.5, 20, (8, 16)).astype(np.float32)
    found = evaluate(truth, truth, RAW)
    for scores in (found.scores, found.weighted, found.aligned, found.aligned_weighted):
        best = {metric.name: 0 if metric.lower_is_better else 1 for metric in METRICS}
        assert scores == pytest.approx(best, abs=1e-6)


def test_weighted_scores_weigh_by_solid_angle() -> None:
    # The two rows within 30 degrees of the equator are half of the sphere.
    truth = np.full((6, 2), 2, np.float32)
    prediction = truth.copy()
    prediction[2:4] = 3
    found = evaluate(prediction, truth, RAW)
    assert found.scores["absrel"] == pytest.approx(1 / 3 * 0.5)
    assert found.weighted["absrel"] == pytest.approx(1 / 2 * 0.5)
    assert found.weighted["rmse"] == pytest.approx(sqrt(1 / 2))
    assert found.weighted["delta1"] == pytest.approx(1 / 2)


def test_pixels_without_truth_are_not_compared() -> None:
    truth = metres([2, 0, np.nan, np.inf, -1, 2])
    found = evaluate(metres([3, 9, 9, 9, 9, 3]), truth, RAW)
    assert (found.pixels, found.compared_share) == (2, pytest.approx(1 / 3))
    assert found.scores["absrel"] == pytest.approx(0.5)


def test_alignment_takes_one_factor_away() -> None:
    truth = np.random.default_rng(1).uniform(0.5, 20, (8, 16)).astype(np.float32)
    found = evaluate(truth / 4, truth, RAW)
    assert found.scale == pytest.approx(4)
    assert found.scores["absrel"] == pytest.approx(0.75)
    assert found.aligned["absrel"] == pytest.approx(0, abs=1e-6)
    assert found.aligned_weighted["delta1"] == 1


def test_alignment_is_of_the_medians() -> None:
    # Medians 2 and 4: the prediction doubles to 2, 4, 18 against 2, 4, 9.
    found = evaluate(metres([1, 2, 9]), metres([2, 4, 9]), RAW)
    assert found.scale == 2
    assert found.aligned["absrel"] == pytest.approx((0 + 0 + 1) / 3)


def masked(depth: np.ndarray, valid: np.ndarray) -> DepthMap:
    return DepthMap(depth, valid, range=100.0, range_mask="head", model="test")


def test_under_dap_what_the_mask_leaves_out_counts_as_100_metres() -> None:
    prediction = masked(metres([5, 5]), np.array([[True, False]]))
    assert evaluate(prediction, metres([5, 80]), DAP).scores["mae"] == pytest.approx((0 + 20) / 2)
    # The factor is of the pixels that are not masked, and does not move the masked ones.
    aligned = evaluate(prediction, metres([10, 80]), DAP)
    assert (aligned.scale, aligned.aligned["mae"]) == (2, pytest.approx((0 + 20) / 2))


def test_under_raw_the_mask_is_not_looked_at() -> None:
    prediction = masked(metres([5, 5]), np.array([[True, False]]))
    assert evaluate(prediction, metres([5, 80]), RAW).scores["mae"] == pytest.approx(75 / 2)


def test_under_dap_truth_beyond_100_metres_is_not_compared() -> None:
    truth = metres([5, 100, 100.5])
    assert evaluate(truth, truth, DAP).pixels == 2
    assert evaluate(truth, truth, RAW).pixels == 3


def test_a_prediction_at_the_camera_counts_as_a_millimetre() -> None:
    assert evaluate(metres([0, 2]), metres([1, 2]), RAW).scores["log10"] == pytest.approx(3 / 2)


class TestDapOfficial:
    """Lengths are in units of 100 m, and the root is taken of each pixel's square, which leaves its absolute error."""

    def test_its_rmse_is_the_mean_absolute_error_in_units_of_100_m(self) -> None:
        # Errors of 1, 1 and 4 m: the honest RMSE would be sqrt(18 / 3) = 2.45 m.
        found = evaluate(metres([3, 5, 8]), metres([2, 4, 4]), PROTOCOLS["dap-official"]).own
        assert found["rmse"] == found["mae"] == pytest.approx(2 / 100)
        assert found["sqrel"] == pytest.approx((1 / 2 + 1 / 4 + 16 / 4) / 3 / 100)
        assert found["absrel"] == pytest.approx((1 / 2 + 1 / 4 + 1) / 3)

    def test_its_rmselog_is_to_base_10(self) -> None:
        found = evaluate(metres([20, 20]), metres([2, 20]), PROTOCOLS["dap-official"])
        assert found.own["rmselog"] == pytest.approx(sqrt(1 / 2))

    def test_truth_is_clipped_and_compared_where_dap_leaves_it_out(self) -> None:
        prediction, truth = metres([100, 0.1, 5]), metres([5000, 0.05, 5])
        assert evaluate(prediction, truth, PROTOCOLS["dap-official"]).own["mae"] == pytest.approx(0, abs=1e-9)
        assert evaluate(prediction, truth, PROTOCOLS["dap-official"]).pixels == 3
        assert evaluate(prediction, truth, DAP).pixels == 2

    def test_truth_out_of_every_range_counts_as_100_metres(self) -> None:
        prediction, truth = metres([50, 50, 50, 50, 50]), metres([50, np.inf, 0, np.nan, -np.inf])
        found = evaluate(prediction, truth, PROTOCOLS["dap-official"])
        assert (found.pixels, found.own["absrel"], found.own["mae"]) == (2, 0.25, 0.25)
        error = Comparison(masked(prediction, np.ones((1, 5), np.bool_)), truth, PROTOCOLS["dap-official"])
        np.testing.assert_allclose(error.relative_error(), metres([0, -0.5, np.nan, np.nan, np.nan]))

    def test_what_the_mask_leaves_out_counts_as_100_metres(self) -> None:
        prediction = masked(metres([5, 5]), np.array([[True, False]]))
        found = evaluate(prediction, metres([5, 80]), PROTOCOLS["dap-official"])
        assert found.own["mae"] == pytest.approx(0.2 / 2)

    def test_the_limit_of_stanford_is_101_m_unless_another_is_given(self) -> None:
        truth, protocol = metres([5, 100.5, 127.9]), PROTOCOLS["dap-official"]
        assert evaluate(truth, truth, protocol.on_dataset("stanford2d3d")).pixels == 2
        assert protocol.capped(50).on_dataset("stanford2d3d").max_truth == 50
        assert protocol.on_dataset("deep360") == protocol


def test_panda_takes_predictions_for_a_decimetre_at_least_and_truth_up_to_10_m() -> None:
    found = evaluate(metres([0.01, 8, 8]), metres([0.2, 10, 10.5]), PROTOCOLS["panda"])
    assert found.pixels == 2
    assert found.own["absrel"] == pytest.approx((0.1 / 0.2 + 2 / 10) / 2)


class TestUnik3d:
    def test_leaves_15_percent_of_the_rows_out_at_each_pole(self) -> None:
        truth = np.full((20, 2), 2, np.float32)
        prediction = truth.copy()
        prediction[[0, 2, 17, 19]] = 100
        prediction[3] = 3
        found = evaluate(prediction, truth, PROTOCOLS["unik3d"])
        assert found.pixels == 14 * 2
        assert found.own["absrel"] == pytest.approx(0.5 / 14)
        assert found.compared_share == pytest.approx(cos(0.15 * pi))

    def test_takes_the_limit_of_the_data_set(self) -> None:
        truth = np.repeat(metres([5, 30]), 4, axis=0)
        found = evaluate(truth, truth, PROTOCOLS["unik3d"].capped(20))
        assert (found.pixels, found.max_truth) == (4, 20)


class TestDac:
    def test_compares_truth_from_a_centimetre_to_80_metres(self) -> None:
        truth = metres([0.009, 0.01, 80, 80.1])
        assert evaluate(truth, truth, PROTOCOLS["dac"]).pixels == 2

    def test_pools_delta1_over_the_pixels_of_all_images_and_nothing_else(self) -> None:
        # One of four pixels is good in the first image, the only one in the second.
        first = evaluate(metres([2, 3, 3, 3]), metres([2, 2, 2, 2]), PROTOCOLS["dac"])
        second = evaluate(metres([2, 9, 9, 9]), metres([2, 0, 0, 0]), PROTOCOLS["dac"])
        found = mean([first, second])
        assert found.own["delta1"] == pytest.approx(2 / 5)
        assert found.own["absrel"] == pytest.approx((3 / 8 + 0) / 2)
        assert mean([found, second]).own["delta1"] == pytest.approx(3 / 6)

    def test_pools_the_weighted_delta1_by_solid_angle(self) -> None:
        # Of two images of two rows the one has truth in both, the other above alone.
        truth = np.full((2, 2), 2, np.float32)
        half = truth.copy()
        half[1] = 0
        good, bad = evaluate(truth, truth, PROTOCOLS["dac"]), evaluate(2 * truth, half, PROTOCOLS["dac"])
        assert mean([good, bad]).weighted["delta1"] == pytest.approx(1 / 1.5)


def test_da2_aligns_the_medians_of_truth_up_to_5_m() -> None:
    # Medians 2 and 1 of what is compared: twice the prediction is 1, 2, 5 against 1, 2, 4.
    found = evaluate(metres([0.5, 1, 2.5, 70]), metres([1, 2, 4, 6]), PROTOCOLS["da2"])
    assert (found.scale, found.pixels) == (2, 3)
    assert found.own["absrel"] == pytest.approx(1 / 4 / 3)
    assert found.own["rmse"] == pytest.approx(sqrt(1 / 3))


def test_pano3d_weighs_by_the_cosine_of_the_latitude_up_to_8_m() -> None:
    # Four rows, at latitudes of 67.5 and 22.5 degrees; the upper one is 2 m too far.
    truth = np.array([[4, 9], [4, 8], [4, 4], [4, 4]], np.float32)
    prediction = truth.copy()
    prediction[0] = 6
    pole, equator = cos(3 * pi / 8), cos(pi / 8)
    found = evaluate(prediction, truth, PROTOCOLS["pano3d"])
    assert found.pixels == 7
    assert found.own["absrel"] == pytest.approx(0.5 * pole / (3 * pole + 4 * equator))
    assert found.own["rmse"] == pytest.approx(sqrt(4 * pole / (3 * pole + 4 * equator)))
    assert found.scores["absrel"] == pytest.approx(0.5 / 7)


@pytest.mark.parametrize("name", ["panda", "unik3d", "dac", "da2", "pano3d"])
def test_other_protocols_know_no_range_mask(name: str) -> None:
    prediction = masked(metres([3, 3], [3, 3]), np.zeros((2, 2), np.bool_))
    assert evaluate(prediction, metres([3, 3], [3, 3]), PROTOCOLS[name]).own["mae"] == pytest.approx(0)


def test_without_a_range_mask_what_the_picture_does_not_show_is_not_compared() -> None:
    prediction = DepthMap(metres([5, 0]), np.array([[True, False]]), range=None, range_mask="none", model="test")
    assert evaluate(prediction, metres([5, 5]), DAP).pixels == 1
    assert evaluate(prediction, metres([5, 5]), RAW).scores["mae"] == 0


class TestLimitOfTheTruth:
    def test_of_a_protocol_that_has_one_stays(self) -> None:
        assert DAP.capped(None) is DAP
        with pytest.raises(InvalidParameter, match="dap compares truth up to 100 m"):
            DAP.capped(50)

    def test_is_above_zero(self) -> None:
        with pytest.raises(InvalidParameter, match="above 0 m; got -1"):
            RAW.capped(-1)


class TestRelativeError:
    def test_is_signed_and_not_a_number_where_nothing_is_compared(self) -> None:
        prediction = masked(metres([3, 1, 9, 5]), np.array([[True, True, True, False]]))
        error = Comparison(prediction, metres([2, 2, 0, 50]), DAP).relative_error()
        assert error.dtype == np.float32
        np.testing.assert_allclose(error, metres([0.5, -0.5, np.nan, 1]))

    def test_is_of_the_aligned_prediction_where_the_protocol_aligns(self) -> None:
        prediction = DepthMap(metres([1, 2, 2]), np.ones((1, 3), np.bool_), None, "none", "test")
        error = Comparison(prediction, metres([1, 1, 1]), PROTOCOLS["da2"]).relative_error()
        np.testing.assert_allclose(error, metres([-0.5, 0, 0]))


def test_a_panorama_of_many_blocks_has_the_scores_of_one() -> None:
    truth = np.random.default_rng(2).uniform(1, 5, (512, 1024)).astype(np.float32)
    found = evaluate(1.5 * truth, truth, RAW)
    assert found.pixels == truth.size
    assert found.compared_share == pytest.approx(1)
    assert found.scores["absrel"] == pytest.approx(0.5)
    assert found.weighted["absrel"] == pytest.approx(0.5)
    assert found.scores["rmse"] == pytest.approx(0.5 * sqrt(np.mean(np.square(truth, dtype=np.float64))))


def test_a_mean_counts_each_image_once() -> None:
    first = evaluate(metres([3, 3, 3, 3]), metres([2, 2, 2, 2]), RAW)
    second = evaluate(metres([2, 2, 2, 2]), metres([2, 0, 0, 0]), RAW)
    found = mean([first, second])
    assert (found.images, found.pixels, found.compared_share) == (2, 5, pytest.approx(5 / 8))
    assert found.scores["absrel"] == pytest.approx((0.5 + 0) / 2)
    # A mean of means is the mean over all images.
    assert mean([found, second]).scores["absrel"] == pytest.approx((0.5 + 0 + 0) / 3)


def test_a_mean_is_of_one_protocol() -> None:
    image = evaluate(metres([2]), metres([2]), RAW)
    with pytest.raises(InvalidParameter, match=r"one protocol; got \['dap', 'raw'\]"):
        mean([image, dataclasses.replace(image, protocol="dap")])
    with pytest.raises(InvalidParameter, match=r"one limit of the truth; got \['5', 'None'\]"):
        mean([image, dataclasses.replace(image, max_truth=5)])
    with pytest.raises(InvalidParameter, match="no image"):
        mean([])


def test_metrics_know_which_way_is_better() -> None:
    by_name = {metric.name: metric for metric in METRICS}
    assert by_name["absrel"].is_better(0.1, than=0.2)
    assert by_name["delta1"].is_better(0.9, than=0.8)
    assert not by_name["delta1"].is_better(0.8, than=0.8)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InvalidParameter, match=r"same size; got \(1, 2\) and \(1, 3\)"):
        evaluate(metres([1, 1]), metres([1, 1, 1]), RAW)
    with pytest.raises(InvalidParameter, match="no pixel of the truth"):
        evaluate(metres([1, 1]), metres([0, np.nan]), RAW)
    with pytest.raises(InvalidParameter, match="finite wherever it is compared"):
        evaluate(metres([1, np.nan]), metres([1, 1]), RAW)


def test_protocols_are_found_by_name() -> None:
    assert find_protocol("dap") is DAP
    with pytest.raises(InvalidParameter, match=r"one of dap, raw, .*pano3d; got 'pano4d'"):
        find_protocol("pano4d")
