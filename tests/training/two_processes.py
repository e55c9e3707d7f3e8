"""What each of two processes does for `test_distributed`: `torchrun -m tests.training.two_processes FOLDER`."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dap.errors import TrainingError
from dap.model.checkpoints import save_network
from dap.model.config import NetworkConfig
from dap.model.dap import NetworkOutput
from tests.training.drawn import DrawnSource
from training import trainer
from training.config import LossWeights, OptimizerConfig, Phase, ReportConfig, TrainingConfig
from training.distributed import Process, this_process
from training.losses import Truth, training_loss

CONFIG = TrainingConfig(
    network=NetworkConfig(encoder="hybrid-xs"),
    phases=(Phase(height=16, steps=4, batch=4),),
    # Smooth ones: an absolute error whose sign is at stake magnifies the rounding of another order of sums.
    loss=LossWeights(log_l1=0, gradient=0),
    optimizer=OptimizerConfig(warmup_steps=2, cooldown_steps=1),
    report=ReportConfig(log=1, checkpoint=2),
)
RUNS = {
    "replicated": CONFIG,
    "accumulated": replace(CONFIG, accumulate=2),
    "sharded": replace(CONFIG, sharded=True, accumulate=2, checkpoint_activations=True),
}


def train(config: TrainingConfig, folder: Path, process: Process) -> None:
    trainer.train(config, folder, DrawnSource(config, process.share), process, {})


def spoilt(count: int) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
    """`training_loss`, not a number the first times."""
    left = iter(range(count))

    def loss(
        output: NetworkOutput, truth: Truth, thresholds: tuple[float, ...], weights: LossWeights
    ) -> tuple[Tensor, dict[str, Tensor]]:
        value, terms = training_loss(output, truth, thresholds, weights)
        return (value if next(left, None) is None else value * torch.nan), terms

    return loss


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with this_process(torch.device("cpu")) as process:
        for name, config in RUNS.items():
            train(config, folder / name, process)

        trainer.training_loss = spoilt(0 if process.leads else 2)  # type: ignore[attr-defined]
        average = trainer.train(CONFIG, folder / "spoilt", DrawnSource(CONFIG, process.share), process, {})
        save_network(average, folder / f"spoilt-{process.share.index}.safetensors")

        # One of them does not see the folder of the others.
        elsewhere = folder / "replicated" if process.leads else folder / "empty"
        try:
            trainer.start(CONFIG, elsewhere, process)
        except TrainingError as error:
            (folder / f"refusal-{process.share.index}.json").write_text(json.dumps(str(error)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    # Something of FSDP's keeps the group until the interpreter ends, and there Gloo's threads abort the process now and
    # then (pytorch/pytorch#179291).
    os._exit(0)
