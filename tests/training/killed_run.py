"""A run in a process of its own, for `test_trainer` to kill: `python -m tests.training.killed_run FOLDER`."""

import sys
from pathlib import Path

import torch

from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork
from tests.training.drawn import DrawnSource
from training import trainer
from training.batches import Share
from training.config import OptimizerConfig, Phase, ReportConfig, TrainingConfig
from training.distributed import Process

CONFIG = TrainingConfig(
    network=NetworkConfig(encoder="hybrid-xs"),
    phases=(Phase(height=16, steps=20, batch=1),),
    optimizer=OptimizerConfig(warmup_steps=2, cooldown_steps=2),
    report=ReportConfig(log=1, checkpoint=3),
)


def run(folder: Path) -> DapNetwork:
    torch.set_num_threads(1)
    return trainer.train(CONFIG, folder, DrawnSource(CONFIG, Share()), Process(), {})


if __name__ == "__main__":
    run(Path(sys.argv[1]))
