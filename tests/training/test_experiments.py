import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dap.errors import TrainingError
from training.distributed import Process
from training.experiments import (
    EXPERIMENTS,
    Experiment,
    LabelError,
    label_error,
    markdown,
    rank_correlation,
    run_experiment,
    selection_rows,
)
from training.pipeline_config import PIPELINES
from training.scoring import Score
from training.stages import Place

SMOKE = PIPELINES["smoke"]
TABLE = Experiment("A title", "smoke", lambda base: {"": base}, (), lambda *_: {})


def depths(*values: float) -> npt.NDArray[np.float32]:
    return np.array([values], np.float32)


def test_the_error_of_a_label_counts_surfaces_that_both_have() -> None:
    # Too far by a half, right, sky in the label, unknown truth, sky in the truth, beyond 100 m in the truth.
    label = depths(3.0, 2.0, np.inf, 5.0, 50.0, 90.0)
    truth = depths(2.0, 2.0, 9.0, 0.0, np.inf, 400.0)
    error = label_error(label, truth)
    assert error is not None
    assert error.absrel == pytest.approx(0.25)
    assert error.delta1 == pytest.approx(0.5)
    assert error.not_there == pytest.approx(0.5), "two of the four surfaces where the truth is known are none"


def test_a_label_without_a_surface_has_no_error() -> None:
    assert label_error(depths(np.inf, 5.0), depths(1.0, np.inf)) is None


def test_ranks_correlate_whatever_the_values() -> None:
    values = [0.1, 3.0, 20.0, 21.0]
    assert rank_correlation(values, [math.exp(value) for value in values]) == pytest.approx(1)
    assert rank_correlation(values, [-value for value in values]) == pytest.approx(-1)
    # Ranks 1 2 3 4 5 and 2 1 4 3 5: 1 - 6 * 4 / (5 * 24).
    assert rank_correlation([1, 2, 3, 4, 5], [20, 10, 40, 30, 50]) == pytest.approx(0.8)


def test_equal_values_share_their_ranks() -> None:
    # Ranks 1.5 1.5 3 and 1 2 3: the correlation of these is sqrt(3) / 2.
    assert rank_correlation([7, 7, 9], [1, 2, 3]) == pytest.approx(math.sqrt(3) / 2)
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


def test_the_selection_is_held_against_as_many_of_each_place_at_random() -> None:
    absrel = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.6, "e": 1.0}
    places = {"a": "indoor", "b": "indoor", "c": "indoor", "d": "outdoor", "e": "outdoor"}
    scores = [Score(name, "shard", places[name], -error) for name, error in absrel.items()]
    errors = {name: LabelError(error, 1 - error, 0.0) for name, error in absrel.items()}
    rows = selection_rows(scores, {"b", "c", "d"}, errors)
    assert rows["selected by the discriminator"]["AbsRel"] == pytest.approx((0.2 + 0.3 + 0.6) / 3)
    assert rows["as many at random"]["AbsRel"] == pytest.approx((2 * 0.2 + 0.8) / 3)
    assert rows["the truly best"]["AbsRel"] == pytest.approx((0.1 + 0.2 + 0.6) / 3)
    assert rows["selected / random - 1"]["AbsRel"] == pytest.approx(1.1 / 1.2 - 1)
    assert rows["rank correlation of score and error"]["AbsRel"] == pytest.approx(-1)


def test_a_table_has_the_mean_and_the_spread_over_seeds() -> None:
    seeds = [{"stage 1": {"AbsRel": value, "delta1": 0.5}, "only": {"AbsRel": math.nan}} for value in (0.1, 0.2, 0.3)]
    lines = markdown(TABLE, seeds).splitlines()
    assert lines[0] == "**A title** (3 seeds)"
    assert lines[2:4] == ["| | AbsRel | delta1 |", "|---|---:|---:|"]
    assert lines[4:] == ["| stage 1 | 0.2000 ± 0.1000 | 0.5000 ± 0.0000 |", "| only | - | - |"]


def test_one_seed_has_no_spread() -> None:
    assert markdown(TABLE, [{"stage 1": {"AbsRel": 0.25}}]).splitlines()[-1] == "| stage 1 | 0.2500 |"


def test_losses_are_added_as_in_the_table_of_the_paper() -> None:
    losses = {name: config.stage_1.loss for name, config in EXPERIMENTS["losses"].variants(SMOKE).items()}
    added = ("distortion_map", "normal", "points", "dense_fidelity", "sobel")
    used = {name: [field for field in added if getattr(loss, field)] for name, loss in losses.items()}
    assert list(used.values()) == [[], ["distortion_map"], ["distortion_map", "normal", "points"], list(added)]
    assert {loss.silog for loss in losses.values()} == {1.0}


def test_what_more_steps_do_alone_is_measured_with_the_labels_and_steps_of_stage_3() -> None:
    small = PIPELINES["small"]
    alone, perturbed = EXPERIMENTS["labels-alone"].variants(small).values()
    assert alone.stage_1.steps == small.stage_1.steps + small.stage_2.steps + small.stage_3.steps
    assert alone.stage_1.optimizer.cooldown_steps == small.stage_3.optimizer.cooldown_steps
    assert alone.held_out < small.held_out, "stage 3 learns from what was held out, too"
    assert small.perturbation is not None
    assert perturbed.stage_1.augmentation == small.perturbation.augmentation != alone.stage_1.augmentation
    assert replace(perturbed.stage_1, augmentation=alone.stage_1.augmentation) == alone.stage_1
    fewer, _ = EXPERIMENTS["labels-alone"].variants(replace(small, stage_3_sees_held_out=False)).values()
    assert fewer.held_out == small.held_out


def test_each_range_mask_is_alone_and_none_is_not_taught() -> None:
    variants = {name: config.stage_1 for name, config in EXPERIMENTS["thresholds"].variants(SMOKE).items()}
    thresholds = {name: stage.network.thresholds for name, stage in variants.items()}
    assert thresholds == {"10m": (10.0,), "20m": (20.0,), "50m": (50.0,), "100m": (100.0,), "no-mask": (100.0,)}
    loss = variants["no-mask"].loss
    assert loss.range_cross_entropy == loss.range_dice == loss.range_squared == 0


def test_the_selection_is_measured_on_runs_that_are_there(smoke_runs: Path) -> None:
    rows = run_experiment(
        EXPERIMENTS["selection"],
        "smoke",
        SMOKE,
        1,
        lambda name: Place(smoke_runs / name, smoke_runs / "data", Process()),
    )
    assert rows[0]["the truly best"]["AbsRel"] <= rows[0]["as many at random"]["AbsRel"]
    assert rows[0]["the truly best"]["AbsRel"] <= rows[0]["selected by the discriminator"]["AbsRel"]


def test_a_range_mask_is_measured_at_its_own_threshold(smoke_runs: Path) -> None:
    variants = {"20m": EXPERIMENTS["thresholds"].variants(SMOKE)["20m"]}
    alone = replace(EXPERIMENTS["thresholds"], variants=lambda _: variants)
    rows = run_experiment(
        alone, "smoke", SMOKE, 1, lambda name: Place(smoke_runs / "more" / name, smoke_runs / "data", Process())
    )
    assert rows[0]["20m"]["smoke-test-standard: AbsRel"] > 0
    assert 0 <= rows[0]["20m"]["smoke-test-standard: IoU out of range"] <= 1
    assert 0 <= rows[0]["20m"]["smoke-test-standard: lost in range"] <= 1


def test_a_run_of_another_configuration_is_left_alone(smoke_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(smoke_runs / "smoke-seed-0", tmp_path / "smoke-seed-0")
    changed = EXPERIMENTS["losses"].variants(SMOKE)["silog"]
    with pytest.raises(TrainingError, match="smoke-seed-0 was begun with another configuration"):
        run_experiment(
            EXPERIMENTS["domain-gap"], "smoke", changed, 1, lambda name: Place(tmp_path / name, tmp_path, Process())
        )
