"""Runs in processes of their own, for tests to kill: `python -m tests.training.killed_run NAME FOLDER`."""

import sys
from pathlib import Path

import torch

from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork
from tests.training.drawn import DrawnSource
from training import trainer
from training.batches import Share
from training.config import DiscriminatorConfig, OptimizerConfig, Phase, ReportConfig, TrainingConfig
from training.discriminator import DepthPairs, Discriminator, train_discriminator
from training.distributed import Process

CONFIG = TrainingConfig(
    network=NetworkConfig(encoder="hybrid-xs"),
    phases=(Phase(height=16, steps=20, batch=1),),
    optimizer=OptimizerConfig(warmup_steps=2, cooldown_steps=2),
    report=ReportConfig(log=1, checkpoint=3),
)
DISCRIMINATOR = DiscriminatorConfig(
    height=16, channels=(8, 8, 16, 16), picture="none", sky=False, target="zero", steps=120, checkpoint=3, log=1
)


def run(folder: Path) -> DapNetwork:
    """Train a network."""
    torch.set_num_threads(1)
    return trainer.train(CONFIG, folder, DrawnSource(CONFIG, Share()), Process(), {})


def discriminate(folder: Path) -> Discriminator:
    """Train a discriminator to tell truth from what is 30% too far in places."""
    torch.set_num_threads(1)

    def pairs(step: int) -> DepthPairs:
        generator = torch.Generator().manual_seed(step)
        true = 1 + 9 * torch.rand(2, 16, 32, generator=generator)
        return DepthPairs(true, true * (1 + 0.3 * torch.rand(true.shape, generator=generator)))

    return train_discriminator(pairs, DISCRIMINATOR, torch.device("cpu"), folder, {"source": "random numbers"})


if __name__ == "__main__":
    {"network": run, "discriminator": discriminate}[sys.argv[1]](Path(sys.argv[2]))
