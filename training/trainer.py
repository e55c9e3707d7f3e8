"""The one training loop: it reads from top to bottom in `train`; the rest of the module is what it calls."""

import copy
import functools
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from dap.errors import TrainingError
from dap.model.checkpoints import load_network, save_network
from dap.model.dap import DapNetwork
from training.augmentation import augment_each
from training.batches import Batch, Source
from training.config import TrainingConfig
from training.distributed import (
    Process,
    gathered,
    gathered_state,
    gradients,
    load_optimizer,
    local,
    same_everywhere,
    spread,
    total,
    whole,
)
from training.evaluate import LabelledPanorama, evaluate
from training.losses import training_loss
from training.optimizer import freeze, make_optimizer
from training.pretrained import initial_network
from training.preview import preview
from training.run_log import RunLog
from training.run_record import RECORDS, record_run

NETWORK_FILE = "network.safetensors"
AVERAGE_FILE = "average.safetensors"
OPTIMIZER_FILE = "optimizer.pt"
STATE_FILE = "state.json"
MODEL_FILE = "model.safetensors"

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
        replica: what runs the network: it itself, or what joins its gradients with those of other processes.
    """

    network: DapNetwork
    average: DapNetwork
    optimizer: torch.optim.Optimizer
    replica: nn.Module


def train(
    config: TrainingConfig,
    folder: Path,
    source: Source,
    process: Process,
    sets: dict[str, list[LabelledPanorama]],
    on_step: Callable[[], None] = lambda: None,
) -> DapNetwork:
    """Train until the configuration's last step, from the folder's latest checkpoint if there is one.

    Args:
        config: of the run.
        folder: the run's: configuration, log, checkpoints, previews, and at the end `model.safetensors`. Several
            processes read the same one; the leader writes.
        source: of this process's share of the batches.
        process: this one.
        sets: named panoramas that the leader evaluates on from time to time.
        on_step: called after each step.

    Returns:
        The running mean of the parameters, in evaluation mode; of a sharded network only the leader has all of it.

    Raises:
        TrainingError: too many steps were not finite, or a checkpoint or a batch cannot be used.
    """
    learner, progress = start(config, folder, process)
    if process.leads:
        weights = Path(config.weights)
        record_run(folder, config.to_json(), source.manifest(), process.device, process.share.of, weights)
    with open_log(config, folder, process, progress.step) as log:
        while progress.step < config.steps:
            step = progress.step
            torch.manual_seed(config.seed * 1_000_003 + step)
            with log.waiting():
                batch = source.batch(step)
            losses = descend(config, learner, batch, step, process)
            rate = config.learning_rate_at(step)
            norm, moved = update(learner, losses["loss"], config.optimizer.clip, rate, config.average_decay_at(step))

            progress = Progress(step + 1, progress.bad_steps + (not moved))
            if progress.bad_steps > config.optimizer.bad_steps:
                raise TrainingError(f"{progress.bad_steps} steps had no finite loss and gradient, the last at {step}")
            facts = {"gradient_norm": norm, "learning_rate": rate, "bad_steps": progress.bad_steps}
            log.step(progress.step, config.phase_at(step)[1].batch, losses, facts)
            if due(progress.step, config.report.evaluate, config.steps):
                report(config, folder, log, learner.average, progress.step, sets, process)
            if due(progress.step, config.report.checkpoint, config.steps):
                save_checkpoint(folder, learner, progress, config.report.keep, process)
            on_step()

    average = gathered(learner.average, process).eval()
    if process.leads:
        size = (config.phases[-1].height, 2 * config.phases[-1].height)
        described = {"dap.name": folder.name, "dap.input_size": json.dumps(size)}
        steps = {"dap.training_steps": str(progress.step)}
        unfinished = folder / f".{MODEL_FILE}"
        save_network(average, unfinished, described | steps)
        _flush(unfinished)
        unfinished.replace(folder / MODEL_FILE)
    return average


def start(config: TrainingConfig, folder: Path, process: Process) -> tuple[Learner, Progress]:
    """The latest checkpoint of the folder, or what the configuration says to start from.

    Raises:
        TrainingError: the checkpoint is of another network, or the processes do not see the same one.
    """
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        network = initial_network(config)
        average = copy.deepcopy(network)
    else:
        network, average = load_network(checkpoint / NETWORK_FILE), load_network(checkpoint / AVERAGE_FILE)
        if network.config != config.network:
            raise TrainingError(f"{checkpoint} holds {network.config}; the run asks for {config.network}")
    progress = Progress() if checkpoint is None else read_progress(checkpoint)
    if not same_everywhere(progress.step, process):
        raise TrainingError(f"every process needs the same folder; {folder} is at step {progress.step} here")

    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    for module in (network, average):
        module.to(process.device).to(memory_format=layout)  # type: ignore[call-overload]
    freeze(network, config)
    network.train()
    average.eval().requires_grad_(requires_grad=False)
    if config.checkpoint_activations:
        recompute_blocks(network)
    replica = spread(network, process, sharded=config.sharded)
    if config.sharded:
        spread(average, process, sharded=True)
    if config.compile:
        replica.compile(dynamic=False)
    learner = Learner(network, average, make_optimizer(network, config), replica)
    if checkpoint is not None:
        state = torch.load(checkpoint / OPTIMIZER_FILE, map_location=process.device, weights_only=True)
        load_optimizer(learner.optimizer, state)
        _log.info("resumed %s at step %d of %d", folder.name, progress.step, config.steps)
    return learner, progress


def recompute_blocks(network: DapNetwork) -> None:
    """Have the encoder's transformer blocks keep their input only, and run again in the backward pass."""
    for block in network.encoder.blocks:
        block.forward = functools.partial(recomputed, block.forward, use_reentrant=False)


def descend(config: TrainingConfig, learner: Learner, batch: Batch, step: int, process: Process) -> dict[str, Tensor]:
    """Leave the gradient of a step's loss in the parameters: of the whole batch, that of the other processes included.

    Every loss is the mean over images of what each image has by itself. So the loss of a batch is the sum of those of
    its parts, each times its share of the images, however it was cut; and so is the gradient.

    Returns:
        `loss` and its terms, each the mean over the whole batch.

    Raises:
        TrainingError: the batch has another size than the configuration says.
    """
    _, phase = config.phase_at(step)
    rows = process.share.rows(phase.batch)
    if len(batch) != len(rows) or len(rows) < config.accumulate:
        raise TrainingError(
            f"process {process.share.index} of {process.share.of} has {len(rows)} of a batch of {phase.batch}, "
            f"to be run in {config.accumulate} parts; it got {len(batch)}"
        )
    learner.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    first = rows.start
    for number, part in enumerate(batch.parts(config.accumulate), start=1):
        example = augment_each(part.to(process.device), config.augmentation, config.seed, step, first)
        share = len(part) / phase.batch
        with gradients(learner.replica, complete=number == config.accumulate):
            with torch.autocast(process.device.type, torch.bfloat16, enabled=config.uses_bf16(process.device.type)):
                output = learner.replica(example.images)
            loss, terms = training_loss(output, example.truth, config.network.thresholds, config.loss)
            # The processes take the mean of their gradients.
            (loss * (share * process.share.of)).backward()  # type: ignore[no-untyped-call]
        for name, value in {"loss": loss.detach(), **terms}.items():
            sums[name] = sums.get(name, 0) + share * value
        first += len(part)
    return total(sums, process)


def update(
    learner: Learner, loss: Tensor, clip: float, learning_rate: float, average_decay: float
) -> tuple[float, bool]:
    """One step down the gradient that the parameters have, and of the running mean behind them.

    Returns:
        The gradient's norm before clipping, and whether it and the loss were finite: if not, nothing moved.
    """
    parameters = [p for group in learner.optimizer.param_groups for p in group["params"]]
    norm = whole(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    moved = bool(torch.isfinite(loss)) and bool(torch.isfinite(norm))
    if moved:
        nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        for group in learner.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        learner.optimizer.step()
        follow(learner.average, learner.network, average_decay)
    return float(norm), moved


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the running mean of parameters and buffers: average = decay average + (1 - decay) network."""
    mean, new = (list(map(local, module.state_dict().values())) for module in (average, network))
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


def open_log(config: TrainingConfig, folder: Path, process: Process, step: int) -> RunLog:
    """The log of a run that goes on after a step; only the leader has something to say."""
    if not process.leads:
        return RunLog(None, config.report.log)
    return RunLog.of_run(folder, config.report.log, step + 1)


def report(
    config: TrainingConfig,
    folder: Path,
    log: RunLog,
    average: DapNetwork,
    step: int,
    sets: dict[str, list[LabelledPanorama]],
    process: Process,
) -> None:
    """Evaluate on every set at the resolution of the phase, and draw a preview of some panoramas of each."""
    network = gathered(average, process)
    if not process.leads:
        return
    _, phase = config.phase_at(step - 1)
    size = (phase.height, 2 * phase.height)
    (folder / "previews").mkdir(exist_ok=True)
    for name, panoramas in sets.items():
        scores = evaluate(network, panoramas, size)
        log.event("evaluation", f"{name}: {scores}", step=step, set=name, **scores.flat())
        picture = preview(network, panoramas, size)
        log.picture(name, picture, step)
        Image.fromarray(picture).save(folder / "previews" / f"{name}-{step:07d}.png")


def save_checkpoint(folder: Path, learner: Learner, progress: Progress, keep: int, process: Process) -> None:
    """Write all that a resume needs, whole or not at all, and point `latest` to it; the `keep` newest stay."""
    network, average = gathered(learner.network, process), gathered(learner.average, process)
    state = gathered_state(learner.optimizer, process)
    if not process.leads:
        return
    checkpoints = folder / "checkpoints"
    final = checkpoints / f"step-{progress.step:07d}"
    unfinished = checkpoints / f".{final.name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    save_network(network, unfinished / NETWORK_FILE)
    save_network(average, unfinished / AVERAGE_FILE)
    torch.save(state, unfinished / OPTIMIZER_FILE)
    (unfinished / STATE_FILE).write_text(json.dumps(asdict(progress)))
    for record in RECORDS:
        shutil.copy(folder / record, unfinished)
    _flush(*unfinished.iterdir(), unfinished)
    shutil.rmtree(final, ignore_errors=True)
    unfinished.rename(final)
    _flush(checkpoints)
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
    _flush(unfinished)
    unfinished.replace(path)


def _flush(*paths: Path) -> None:
    """Have files and folders on disk before others speak of them: a crash of the machine leaves no empty files."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
