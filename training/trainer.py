"""The one training loop: it reads from top to bottom in `train`; the rest of the module is what it calls."""

import copy
import json
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dap.errors import TrainingError
from dap.model.checkpoints import load_network, save_network
from dap.model.dap import DapNetwork
from training.augmentation import augment, step_generator
from training.config import TrainingConfig
from training.evaluate import LabelledPanorama, evaluate
from training.losses import training_loss
from training.pretrained import pretrained_parameters, start_from_imagenet
from training.preview import write_preview
from training.run_log import RunLog
from training.synthetic_stream import SampleStream

NETWORK_FILE = "network.safetensors"
AVERAGE_FILE = "average.safetensors"
OPTIMIZER_FILE = "optimizer.pt"
STATE_FILE = "state.json"
CONFIG_FILE = "config.json"
ENVIRONMENT_FILE = "environment.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: steps done, skipped ones included.
        bad_steps: steps skipped because the loss or the gradient was not finite.
    """

    step: int = 0
    bad_steps: int = 0


@dataclass(frozen=True)
class Learner:
    """What a step changes, and what a checkpoint holds.

    Attributes:
        network: the parameters that are trained.
        average: their running mean, which is evaluated and exported.
        optimizer: AdamW over the network's parameters.
    """

    network: DapNetwork
    average: DapNetwork
    optimizer: torch.optim.Optimizer


def train(
    config: TrainingConfig,
    folder: Path,
    cache: Path,
    device: torch.device,
    sets: dict[str, list[LabelledPanorama]],
    on_step: Callable[[], None] = lambda: None,
) -> DapNetwork:
    """Train until the configuration's last step, from the folder's latest checkpoint if there is one.

    Args:
        config: of the run.
        folder: the run's: configuration, log, checkpoints, previews, and at the end `model.safetensors`.
        cache: of rendered shards; may be shared by runs.
        device: where the network runs.
        sets: named panoramas that are evaluated on from time to time.
        on_step: called after each step.

    Returns:
        The running mean of the parameters, in evaluation mode.

    Raises:
        TrainingError: too many steps were not finite, or a checkpoint or shard cannot be used.
    """
    learner, progress = start(config, folder, device)
    record_run(folder, config)
    forward = torch.compile(learner.network, dynamic=False) if config.compile else learner.network
    log = RunLog(folder / "log.jsonl", config.report.log)

    with SampleStream(config, cache) as stream:
        while progress.step < config.steps:
            step = progress.step
            torch.manual_seed(config.seed * 1_000_003 + step)
            with log.waiting():
                batch = stream.batch(step).to(device)
            example = augment(batch, config.augmentation, step_generator(config.seed, step))
            with torch.autocast(device.type, torch.bfloat16, enabled=config.uses_bf16(device.type)):
                output = forward(example.images)
            loss, terms = training_loss(output, example.truth, config.network.thresholds, config.loss)
            rate = config.learning_rate_at(step)
            norm, moved = update(learner, loss, config.optimizer.clip, rate, config.average_decay_at(step))

            progress = Progress(step + 1, progress.bad_steps + (not moved))
            if progress.bad_steps > config.optimizer.bad_steps:
                raise TrainingError(f"{progress.bad_steps} steps had no finite loss and gradient, the last at {step}")
            facts = {"gradient_norm": norm, "learning_rate": rate, "bad_steps": progress.bad_steps}
            log.step(progress.step, len(batch.rgb), {"loss": loss.detach(), **terms}, facts)
            if due(progress.step, config.report.evaluate, config.steps):
                report(config, folder, log, learner.average, progress.step, sets)
            if due(progress.step, config.report.checkpoint, config.steps):
                save_checkpoint(folder, learner, progress, config.report.keep)
            on_step()

    size = (config.phases[-1].height, 2 * config.phases[-1].height)
    described = {"dap.name": folder.name, "dap.input_size": json.dumps(size), "dap.training_steps": str(progress.step)}
    save_network(learner.average, folder / "model.safetensors", described)
    return learner.average.eval()


def start(config: TrainingConfig, folder: Path, device: torch.device) -> tuple[Learner, Progress]:
    """The latest checkpoint of the folder, or fresh parameters drawn from the configuration's seed."""
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        torch.manual_seed(config.seed)
        network = DapNetwork(config.network)
        if config.initial == "imagenet":
            start_from_imagenet(network)
        average = copy.deepcopy(network)
    else:
        network, average = load_network(checkpoint / NETWORK_FILE), load_network(checkpoint / AVERAGE_FILE)
        if network.config != config.network:
            raise TrainingError(f"{checkpoint} holds {network.config}; the run asks for {config.network}")
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    for module in (network, average):
        module.to(device).to(memory_format=layout)  # type: ignore[call-overload]
    network.train()
    average.eval().requires_grad_(requires_grad=False)
    learner = Learner(network, average, make_optimizer(network, config))
    if checkpoint is None:
        return learner, Progress()
    learner.optimizer.load_state_dict(torch.load(checkpoint / OPTIMIZER_FILE, map_location=device, weights_only=True))
    progress = read_progress(checkpoint)
    _log.info("resumed %s at step %d of %d", folder.name, progress.step, config.steps)
    return learner, progress


def make_optimizer(network: DapNetwork, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW in groups: what is at least a matrix decays, biases, norms, scales and what was learnt before do not.

    Each group has a `scale`, the factor on its learning rate.
    """
    optimizer = config.optimizer
    learnt = [] if config.initial == "random" else pretrained_parameters(network)
    known = {id(parameter) for parameter in learnt}
    fresh = [p for p in network.parameters() if p.requires_grad and id(p) not in known]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in fresh if p.ndim >= 2], "weight_decay": optimizer.weight_decay, "scale": 1.0},
        {"params": [p for p in fresh if p.ndim < 2], "weight_decay": 0.0, "scale": 1.0},
    ]
    if learnt:
        groups.append({"params": learnt, "weight_decay": 0.0, "scale": optimizer.pretrained_lr_scale})
    return torch.optim.AdamW(groups, lr=optimizer.learning_rate, betas=optimizer.betas, fused=True)


def update(
    learner: Learner, loss: Tensor, clip: float, learning_rate: float, average_decay: float
) -> tuple[float, bool]:
    """One step down the gradient of the loss, and of the running mean behind the parameters.

    Returns:
        The gradient's norm before clipping, and whether it and the loss were finite: if not, nothing moved.
    """
    parameters = [p for group in learner.optimizer.param_groups for p in group["params"]]
    learner.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    moved = bool(torch.isfinite(loss)) and bool(torch.isfinite(norm))
    if moved:
        for group in learner.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        learner.optimizer.step()
        follow(learner.average, learner.network, average_decay)
    return float(norm), moved


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the running mean of parameters and buffers: average = decay average + (1 - decay) network."""
    mean, new = list(average.state_dict().values()), list(network.state_dict().values())
    floating = [m.is_floating_point() for m in mean]
    torch._foreach_lerp_(
        [m for m, f in zip(mean, floating, strict=True) if f],
        [n for n, f in zip(new, floating, strict=True) if f],
        1 - decay,
    )
    for m, n, f in zip(mean, new, floating, strict=True):
        if not f:
            m.copy_(n)


def due(step: int, every: int, last: int) -> bool:
    """Whether something that happens every so many steps, and at the end, happens after this one."""
    return step % every == 0 or step == last


def report(
    config: TrainingConfig,
    folder: Path,
    log: RunLog,
    network: DapNetwork,
    step: int,
    sets: dict[str, list[LabelledPanorama]],
) -> None:
    """Evaluate on every set at the resolution of the phase, and draw a preview of some panoramas of each."""
    _, phase = config.phase_at(step - 1)
    size = (phase.height, 2 * phase.height)
    for name, panoramas in sets.items():
        scores = evaluate(network, panoramas, size)
        log.event("evaluation", f"{name}: {scores}", step=step, set=name, **scores.flat())
        write_preview(folder / "previews" / f"{name}-{step:07d}.png", network, panoramas, size)


def save_checkpoint(folder: Path, learner: Learner, progress: Progress, keep: int) -> None:
    """Write all that a resume needs, whole or not at all, and point `latest` to it; the `keep` newest stay."""
    checkpoints = folder / "checkpoints"
    final = checkpoints / f"step-{progress.step:07d}"
    unfinished = checkpoints / f".{final.name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    save_network(learner.network, unfinished / NETWORK_FILE)
    save_network(learner.average, unfinished / AVERAGE_FILE)
    torch.save(learner.optimizer.state_dict(), unfinished / OPTIMIZER_FILE)
    (unfinished / STATE_FILE).write_text(json.dumps(asdict(progress)))
    for record in (CONFIG_FILE, ENVIRONMENT_FILE):
        shutil.copy(folder / record, unfinished)
    _flush(unfinished)
    shutil.rmtree(final, ignore_errors=True)
    unfinished.rename(final)
    write_whole(folder / "latest", final.name)
    for old in sorted(checkpoints.glob("step-*"))[:-keep]:
        if old != final:
            shutil.rmtree(old)


def latest_checkpoint(folder: Path) -> Path | None:
    """Where the folder's `latest` points to; None in a fresh folder.

    Raises:
        TrainingError: it points to nothing.
    """
    pointer = folder / "latest"
    if not pointer.exists():
        return None
    checkpoint = folder / "checkpoints" / pointer.read_text().strip()
    if not (checkpoint / STATE_FILE).is_file():
        raise TrainingError(f"{pointer} names {checkpoint.name}, which is not a checkpoint in {checkpoint.parent}")
    return checkpoint


def read_progress(checkpoint: Path) -> Progress:
    """Where the run stood."""
    return Progress(**json.loads((checkpoint / STATE_FILE).read_text()))


def write_whole(path: Path, text: str) -> None:
    """Replace a file by another in one go."""
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(text)
    unfinished.replace(path)


def _flush(folder: Path) -> None:
    """Have a folder's files on disk before it gets its final name: a crash of the machine leaves no empty files."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def record_run(folder: Path, config: TrainingConfig) -> None:
    """Write the configuration, the git revision and the environment into the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CONFIG_FILE, config.to_json())
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"],  # noqa: S607
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    environment = {
        "revision": git.stdout.strip() or None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    write_whole(folder / ENVIRONMENT_FILE, json.dumps(environment, indent=2))
