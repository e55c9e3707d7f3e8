"""Two real processes, started by torchrun and joined by Gloo, against one."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed.run import parse_args

from dap.model.checkpoints import load_network
from tests.training.drawn import DrawnSource
from tests.training.two_processes import CONFIG, RUNS
from training import trainer
from training.batches import Share
from training.config import Phase, TrainingConfig
from training.distributed import Process, this_process

ROOT = Path(__file__).parents[2]
# The order of float32 sums, through four steps of Adam; the parameters moved by 2e-3.
ROUNDING = 5e-6


def parameters(model: Path) -> dict[str, Tensor]:
    return load_network(model).state_dict()


def farthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes did what `two_processes` says."""
    folder = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    # Neither needs a network, or a machine whose name can be looked up.
    torchrun += ["--local-addr", "127.0.0.1"]
    run = subprocess.run(
        [*torchrun, "-m", "tests.training.two_processes", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return folder


def alone(config: TrainingConfig, folder: Path) -> Path:
    """The model of one process."""
    trainer.train(config, folder, DrawnSource(config, Share()), Process(), {})
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which one process made what it makes of the same batches, all at once."""
    return alone(CONFIG, tmp_path_factory.mktemp("one")).parent


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_give_the_parameters_that_one_gives(two: Path, one: Path, name: str) -> None:
    """Whoever has the images without labels, however the batch is cut and the network is spread."""
    trained, expected = (parameters(folder / "model.safetensors") for folder in (two / name, one))
    assert farthest(trained, expected) < ROUNDING
    earlier = parameters(two / name / "checkpoints/step-0000002/average.safetensors")
    assert farthest(expected, earlier) > 100 * ROUNDING


def test_they_give_bit_for_bit_what_one_gives_that_takes_their_shares_one_after_the_other(
    two: Path, tmp_path: Path
) -> None:
    trained = parameters(two / "replicated" / "model.safetensors")
    expected = parameters(alone(replace(CONFIG, accumulate=2), tmp_path))
    assert all(torch.equal(trained[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", RUNS)
def test_the_log_speaks_of_the_whole_batch(two: Path, one: Path, name: str) -> None:
    """And the norm of the gradient is that of the whole batch, which Adam's parameters would not tell."""
    logs = [(folder / "log.jsonl").read_text().splitlines() for folder in (two / name, one)]
    assert [len(log) for log in logs] == [4, 4], "one of the processes speaks for both"
    for ours, theirs in zip(*(map(json.loads, log) for log in logs), strict=True):
        for value in ("loss", "silog", "range_dice", "gradient_norm"):
            assert ours[value] == pytest.approx(theirs[value], rel=1e-5)


def test_what_two_wrote_in_shards_one_goes_on_with(two: Path, tmp_path: Path) -> None:
    longer = replace(CONFIG, phases=(Phase(height=16, steps=6, batch=4),))
    unbroken = parameters(alone(longer, tmp_path))
    (two / "sharded" / "latest").write_text("step-0000002")
    resumed = parameters(alone(longer, two / "sharded"))
    assert farthest(resumed, unbroken) < ROUNDING


def test_a_loss_that_is_no_number_in_one_process_moves_no_process(two: Path) -> None:
    events = map(json.loads, (two / "spoilt" / "log.jsonl").read_text().splitlines())
    assert [event["bad_steps"] for event in events] == [1, 2, 2, 2]
    leader, other = (parameters(two / f"spoilt-{index}.safetensors") for index in range(2))
    assert all(torch.equal(leader[name], other[name]) for name in leader)
    assert all(tensor.isfinite().all() for tensor in leader.values())


def test_processes_that_do_not_share_the_folder_all_refuse(two: Path) -> None:
    for index, step in enumerate((4, 0)):
        complaint = json.loads((two / f"refusal-{index}.json").read_text())
        assert "every process needs the same folder" in complaint
        assert f"is at step {step} here" in complaint


def test_torchrun_leaves_the_options_of_the_documented_commands_alone() -> None:
    """Without `--` it takes `--run` for one of its own."""
    lines = [line for line in (ROOT / "docs" / "training.md").read_text().splitlines() if line.startswith("torchrun ")]
    assert lines
    for line in lines:
        given = parse_args(shlex.split(line)[1:])
        assert (given.module, given.training_script) == (True, "dap")
        assert given.training_script_args[0] == "train"
        assert "--run" in given.training_script_args


def test_a_process_that_nobody_started_with_others_is_alone() -> None:
    with this_process(torch.device("cpu")) as process:
        assert process == Process(torch.device("cpu"), Share(0, 1))
        assert process.leads
        assert process.alone
