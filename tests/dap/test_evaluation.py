"""Metrics and protocols, on examples small enough to compute by hand."""

import dataclasses
from math import log, log10, sqrt

import numpy as np
import pytest

from dap.depth import DepthMap
from dap.errors import InvalidParameter
from dap.evaluation import METRICS, PROTOCOLS, evaluate, find_protocol, mean

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
    with pytest.raises(InvalidParameter, match="one of dap, raw; got 'pano4d'"):
        find_protocol("pano4d")
