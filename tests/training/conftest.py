from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from dap.model.config import NetworkConfig
from training.commands import train
from training.config import OptimizerConfig, Phase, ReportConfig, StreamConfig, TrainingConfig


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Bit-for-bit comparisons need a fixed number of threads, and the tiny tensors here gain nothing from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of rendered scenes that all tests share."""
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="session")
def tiny() -> TrainingConfig:
    """A run of eight steps at 16x32 and 32x64 that renders its few scenes in the training process."""
    return TrainingConfig(
        network=NetworkConfig(encoder="hybrid-xs"),
        phases=(Phase(height=16, steps=4, batch=2), Phase(height=32, steps=4, batch=2, lr_scale=0.5)),
        stream=StreamConfig(shard_size=2, window=2, passes=2, workers=0, ahead=0),
        optimizer=OptimizerConfig(warmup_steps=2, cooldown_steps=2),
        report=ReportConfig(log=1, evaluate=4, checkpoint=4, keep=2, validation_scenes=2),
    )


@pytest.fixture(scope="session")
def smoke_runs(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A folder of runs in which `make pipeline-smoke` was: the finished run `smoke-seed-0`, and its data."""
    runs = tmp_path_factory.mktemp("runs")
    options = ("--runs", str(runs), "--device", "cpu", "--threads", "1")
    command = ["pipeline", "--preset", "smoke", "--run", "smoke-seed-0", *options]
    CliRunner().invoke(train, command, catch_exceptions=False)
    return runs
