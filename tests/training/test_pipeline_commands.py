import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dap.errors import TrainingError
from training.commands import train
from training.stages import STAGES


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(train, [str(argument) for argument in arguments], catch_exceptions=False)


def test_status_tells_of_all_runs_or_of_one(smoke_runs: Path) -> None:
    every = json.loads(run("status", "--runs", smoke_runs, "--json").stdout)
    assert [told["run"] for told in every] == ["smoke-seed-0"]
    assert [stage["state"] for stage in every[0]["stages"]] == ["done"] * len(STAGES)
    assert run("status", "smoke-seed-0", "--runs", smoke_runs).stdout.startswith("smoke-seed-0\n")


def test_where_there_is_no_run_status_says_so(tmp_path: Path) -> None:
    assert f"there is no run of the pipeline in {tmp_path}" in run("status", "--runs", tmp_path).stdout
    with pytest.raises(TrainingError, match="is no run of the pipeline"):
        run("status", "other", "--runs", tmp_path)


def test_a_run_begins_with_a_preset(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError,
        match="no run a to go on with: give --preset, one of paper, dap-s, small, selection, ablation, smoke",
    ):
        run("pipeline", "--run", "a", "--runs", tmp_path)


def test_a_run_goes_on_without_a_preset_and_one_stage_at_a_time(smoke_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(smoke_runs / "smoke-seed-0", tmp_path / "a")
    options = ("--run", "a", "--runs", tmp_path, "--data", smoke_runs / "data", "--threads", "1", "--device", "cpu")
    for stage in ("1", "2", "3", "labels-2"):
        assert "stage-3-dap      done" in run("pipeline", *options, "--stage", stage).stdout


def test_a_run_is_not_changed_by_accident(smoke_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(smoke_runs / "smoke-seed-0", tmp_path / "a")
    options = ("--run", "a", "--runs", tmp_path, "--data", smoke_runs / "data", "--threads", "1", "--device", "cpu")
    with pytest.raises(TrainingError, match="begun with another configuration"):
        run("pipeline", *options, "--seed", "3")
    told = run("pipeline", *options, "--seed", "3", "--reconfigure", "--stage", "data").stdout
    assert "stage-1-labeler  outdated" in told


def test_an_experiment_is_a_table(smoke_runs: Path, tmp_path: Path) -> None:
    options = (
        "--preset",
        "smoke",
        "--seeds",
        "1",
        "--runs",
        smoke_runs,
        "--device",
        "cpu",
        "--output",
        tmp_path / "t.md",
    )
    told = run("experiments", "domain-gap", *options).stdout
    assert (tmp_path / "t.md").read_text() == told
    rows = [line.split(" | ")[0] for line in told.splitlines() if line.startswith("| stage")]
    assert rows == ["| stage 1", "| stage 2", "| stage 3", "| stage 3 / stage 1 - 1"]
