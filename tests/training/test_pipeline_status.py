import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from training.datasets.packing import alone_in
from training.distributed import Process
from training.pipeline_config import PIPELINES, PipelineConfig
from training.pipeline_state import RunState
from training.pipeline_status import StageStatus, as_json, statuses, table
from training.stages import STAGES, Place, Run

SMOKE = PIPELINES["smoke"]


@pytest.fixture
def folder(smoke_runs: Path, tmp_path: Path) -> Path:
    shutil.copytree(smoke_runs / "smoke-seed-0", tmp_path / "run")
    return tmp_path / "run"


def of(folder: Path, smoke_runs: Path, config: PipelineConfig = SMOKE) -> dict[str, StageStatus]:
    found = statuses(Run(config, Place(folder, smoke_runs / "data", Process())))
    return {one.stage: one for one in found}


def test_a_finished_run_is_done_to_the_last_step_and_shard(folder: Path, smoke_runs: Path) -> None:
    found = of(folder, smoke_runs)
    assert [(name, one.state) for name, one in found.items()] == [(name, "done") for name in STAGES]
    counted = {name: (one.done, one.of) for name, one in found.items() if one.of is not None}
    assert counted == {
        "stage-1-labeler": (4, 4),
        "discriminator": (4, 4),
        "labels-1": (2, 2),
        "stage-2-labeler": (4, 4),
        "labels-2": (2, 2),
        "stage-3-dap": (4, 4),
    }


def test_a_run_that_was_not_begun_waits(tmp_path: Path, smoke_runs: Path) -> None:
    found = of(tmp_path, smoke_runs)
    assert {one.state for one in found.values()} == {"waiting"}
    assert found["labels-1"].of == 2
    assert of(tmp_path, tmp_path)["labels-1"].of is None, "nobody knows how many shards there will be"


def test_a_stage_runs_while_a_process_is_at_it_and_is_stopped_otherwise(folder: Path, smoke_runs: Path) -> None:
    RunState(folder).begin("labels-2", {})
    with alone_in(folder):
        running = of(folder, smoke_runs)["labels-2"]
    assert (running.state, of(folder, smoke_runs)["labels-2"].state) == ("running", "stopped")
    assert running.seconds is not None
    assert 0 <= running.seconds < 60


def test_what_would_be_done_again_is_outdated(folder: Path, smoke_runs: Path) -> None:
    changed = replace(SMOKE, pseudo_share_3=0.1)
    found = of(folder, smoke_runs, changed)
    assert [name for name, one in found.items() if one.state == "outdated"] == ["stage-3-dap"]


def test_people_see_a_line_a_stage_with_what_it_found(folder: Path, smoke_runs: Path) -> None:
    found = of(folder, smoke_runs)
    lines = table(folder, list(found.values())).splitlines()
    assert len(lines) == 2 + len(STAGES)
    by_stage = {line.split()[0]: line for line in lines[2:]}
    assert "4 of 4" in by_stage["stage-1-labeler"]
    assert "smoke-test-real-like: AbsRel" in by_stage["stage-3-dap"]
    assert "2 indoor, 1 outdoor" in by_stage["selection"]
    assert "8 smoke-real-like" in by_stage["labels-1"]
    assert "8 smoke-labelled" in by_stage["data"]


def test_scripts_see_the_same(folder: Path, smoke_runs: Path) -> None:
    told = as_json(folder, list(of(folder, smoke_runs).values()))
    assert told["run"] == "run"
    assert [stage["stage"] for stage in told["stages"]] == list(STAGES)
    assert told["stages"][-1]["result"]["scores"]["smoke-test-standard"]["absrel"] > 0
