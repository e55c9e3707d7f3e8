import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dap.errors import TrainingError
from dap.model.checkpoints import load_network
from training.commands import train
from training.config import TrainingConfig

PHASES = ("--phase", "16:3:2", "--phase", "32:2:2:0.5", "--workers", "0", "--threads", "1")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(train, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def trained(tmp_path: Path, scenes: Path) -> Path:
    """The folder of a run of five steps, in a folder of runs."""
    options = ("--cache", scenes, "--runs", tmp_path, "--device", "cpu")
    run("dap-s", "--preset", "smoke", "--run", "a", *PHASES, "--activation", "linear", "--cooldown", "1", *options)
    return tmp_path / "a"


def labelled_folder(path: Path) -> Path:
    path.mkdir()
    Image.fromarray(np.full((16, 32, 3), 90, np.uint8)).save(path / "room.rgb.png")
    np.save(path / "room.depth_m.npy", np.full((16, 32), 2.0, np.float32))
    return path


def test_a_run_is_what_its_options_say_and_leaves_a_model(trained: Path) -> None:
    config = TrainingConfig.from_json((trained / "config.json").read_text())
    assert [(p.height, p.steps, p.batch, p.lr_scale) for p in config.phases] == [(16, 3, 2, 1.0), (32, 2, 2, 0.5)]
    assert config.network.depth_activation == "linear"
    assert config.optimizer.cooldown_steps == 1
    assert load_network(trained / "model.safetensors").config == config.network


def test_a_run_may_trade_time_for_memory(tmp_path: Path, scenes: Path) -> None:
    options = ("--cache", scenes, "--runs", tmp_path, "--device", "cpu", "--threads", "1", "--workers", "0")
    thrift = ("--accumulate", "2", "--checkpoint-activations", "--sharded")
    run("dap-s", "--preset", "smoke", "--run", "thrifty", "--phase", "16:1:2", *thrift, *options)
    config = TrainingConfig.from_json((tmp_path / "thrifty" / "config.json").read_text())
    assert (config.accumulate, config.checkpoint_activations, config.sharded) == (2, True, True)


def test_a_run_goes_on_only_when_told_to(trained: Path, scenes: Path) -> None:
    again = ("dap-s", "--run", "a", "--runs", trained.parent, "--cache", scenes, "--device", "cpu", "--threads", "1")
    with pytest.raises(TrainingError, match="run a has a checkpoint: give --resume"):
        run(*again)
    run(*again, "--resume", "--finish-now")
    assert (trained / "latest").read_text() == "step-0000006", "one more step of cool-down"


@pytest.mark.parametrize(
    ("flag", "complaint"), [("--resume", "no checkpoint to resume"), ("--finish-now", "goes with --resume")]
)
def test_what_has_not_begun_cannot_be_resumed(tmp_path: Path, flag: str, complaint: str) -> None:
    with pytest.raises(TrainingError, match=complaint):
        run("dap-s", "--preset", "smoke", "--run", "b", "--runs", tmp_path, flag)


@pytest.mark.parametrize("phase", ["128", "128:10", "128:ten:2", "128:10:2:1:1"])
def test_a_phase_that_is_none_is_a_usage_error(phase: str) -> None:
    result = run("dap-s", "--run", "c", "--phase", phase)
    assert result.exit_code == 2
    assert f"'{phase}' is not HEIGHT:STEPS:BATCH" in result.output


def test_prerendering_writes_the_shards_that_the_run_then_finds(tmp_path: Path) -> None:
    run("prerender", "--preset", "smoke", "--phase", "16:4:2", "--shards", "1", "--cache", tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert sorted(path.parent.name.split("-", 1)[1] for path in written) == [
        "mixed-16x32-training-4",
        "mixed-16x32-validation-4",
    ]
    options = ("--phase", "16:2:2", "--workers", "0", "--device", "cpu", "--threads", "1")
    run("dap-s", "--preset", "smoke", "--run", "d", "--runs", tmp_path / "runs", *options, "--cache", tmp_path)
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_evaluation_prints_scores_as_json(trained: Path, tmp_path: Path) -> None:
    folder = labelled_folder(tmp_path / "labelled")
    result = run("evaluate", trained / "model.safetensors", folder, "--height", "16", "--threads", "1")
    scores = json.loads(result.stdout)
    assert scores["panoramas"] == 1
    assert scores["constant_absrel"] == 0
    assert scores["absrel"] > 0
    assert scores["out_of_range_iou_100"] is None, "nothing is out of range, so no number, and none that JSON lacks"
