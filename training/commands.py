"""`dap train`: renders scenes ahead, trains, evaluates."""

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import get_args

import click
import torch

from dap.depth import RANGES
from dap.engines.cores import available_cores
from dap.errors import InvalidParameter, TrainingError
from dap.model.checkpoints import load_network
from dap.model.dap import DapNetwork
from dap.models import find_model
from dap.options import option, threads_option
from dap.progress import log_to_stderr, progress
from training import mask_head
from training.batches import Source
from training.config import LOSS_PRESETS, PRESETS, Initial, Phase, ScenesIn, TrainingConfig
from training.datasets.shards import ShardReader
from training.distributed import Process, this_process
from training.draws import shards_needed
from training.evaluate import LabelledPanorama, evaluate, read_folder
from training.mixture import Mixture, Part, RenderedPart, ShardPart
from training.pipeline_commands import experiments, pipeline, status, torch_device, use_threads
from training.plan_commands import plan
from training.range_mask_table import range_mask
from training.run_log import strict_json
from training.run_record import CONFIG_FILE
from training.shards import RenderAhead, ShardFolder
from training.synthetic_stream import SampleStream
from training.trainer import latest_checkpoint, read_progress
from training.trainer import train as run_training
from training.worker_options import torch_device_option

_PHASE_HELP = (
    "A stretch of the run, HEIGHT:STEPS:BATCH or HEIGHT:STEPS:BATCH:LR_SCALE; give each, in order. "
    "They replace the preset's."
)


class PhaseType(click.ParamType[Phase]):
    """HEIGHT:STEPS:BATCH[:LR_SCALE]."""

    name = "phase"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Phase:
        if isinstance(value, Phase):
            return value
        parts = str(value).split(":")
        try:
            height, steps, batch = (int(part) for part in parts[:3])
            (scale,) = [float(part) for part in parts[3:]] or [1.0]
        except ValueError:
            self.fail(f"{value!r} is not HEIGHT:STEPS:BATCH or HEIGHT:STEPS:BATCH:LR_SCALE", param, ctx)
        return Phase(height, steps, batch, scale)


@click.group()
def train() -> None:
    """Train models of our own: the bundled one, the three stages of DAP, range mask heads."""
    log_to_stderr()


for command in (pipeline, plan, status, experiments, range_mask):
    train.add_command(command)


def _network_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say what is trained; they override the preset."""
    for decorate in reversed(
        [
            option(
                "--preset",
                type=click.Choice(sorted(PRESETS)),
                default="dap-s",
                help="What the run is but for the options that are given.",
            ),
            option("--activation", type=click.Choice(["linear", "log"]), help="Of the depth head."),
            option("--initial", type=click.Choice(get_args(Initial)), help="What the network starts from."),
            option("--weights", help="File that --initial dinov3 or --initial model starts from."),
            option("--encoder", help="Of the network, as dap.model.config names them."),
        ]
    ):
        command = decorate(command)
    return command


def _schedule_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say how it is trained; they override the preset."""
    for decorate in reversed(
        [
            option("--phase", type=PhaseType(), multiple=True, help=_PHASE_HELP),
            option("--learning-rate", type=float, help="Of the optimizer, at its plateau."),
            option("--cooldown", type=int, help="Steps over which the learning rate falls to zero at the end."),
            option("--strength", type=float, help="Of the photometric augmentation; 0 turns it off."),
            option("--passes", type=int, help="How often each scene is seen."),
            option(
                "--scenes-in",
                type=click.Choice(get_args(ScenesIn)),
                help="disk: rendered into --cache by processes on the CPU; memory: on the device that trains, without "
                "a file; auto: memory on a GPU, disk on a CPU.",
            ),
            option(
                "--workers", type=int, help="Processes that render into --cache; 0 renders in the training process."
            ),
            option("--seed", type=int, help="Of parameters, order and augmentation."),
            option(
                "--precision",
                type=click.Choice(["auto", "float32", "bf16"]),
                help="auto: bf16 on a GPU, float32 on a CPU.",
            ),
            option("--channels-last/--contiguous", default=None, help="Memory layout of the network."),
            option("--compile/--eager", default=None, help="Run the network through torch.compile."),
            option("--accumulate", type=int, help="Parts of a batch that run one after the other, for less memory."),
            option(
                "--checkpoint-activations/--keep-activations",
                default=None,
                help="Compute activations again in the backward pass: less memory, a third more time.",
            ),
            option(
                "--sharded/--replicated",
                default=None,
                help="Under torchrun: spread the network over the processes (FSDP2), or give each all of it (DDP).",
            ),
            option(
                "--cache",
                type=click.Path(path_type=Path, file_okay=False),
                default=Path("runs/scenes"),
                help="Folder of rendered scenes; runs may share it.",
            ),
        ]
    ):
        command = decorate(command)
    return command


def _folder_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say where a run is, and whether it goes on."""
    for decorate in reversed(
        [
            option("--run", "run", required=True, help="Name of the run: its folder is RUNS/NAME."),
            option(
                "--runs",
                type=click.Path(path_type=Path, file_okay=False),
                default=Path("runs"),
                help="Folder of runs.",
            ),
            option(
                "--resume",
                is_flag=True,
                help="Go on from the run's latest checkpoint; options given change the rest of the run.",
            ),
            option(
                "--finish-now",
                is_flag=True,
                help="With --resume: begin the cool-down at the checkpoint and end after it.",
            ),
            option("--evaluate-every", type=int, help="Steps between evaluations."),
            torch_device_option,
            threads_option,
            option(
                "--dev-folder",
                type=click.Path(path_type=Path, exists=True, file_okay=False),
                help="Folder of NAME.rgb.png with NAME.depth_m.npy to evaluate on from time to time; never trained on.",
            ),
        ]
    ):
        command = decorate(command)
    return command


# The field of the configuration that each option sets.
_FIELDS = {
    "activation": ("network", "depth_activation"),
    "cooldown": ("optimizer", "cooldown_steps"),
    "encoder": ("network", "encoder"),
    "evaluate_every": ("report", "evaluate"),
    "learning_rate": ("optimizer", "learning_rate"),
    "passes": ("stream", "passes"),
    "phase": ("phases",),
    "scenes_in": ("stream", "scenes_in"),
    "strength": ("augmentation", "strength"),
    "workers": ("stream", "workers"),
}


def _configured(base: TrainingConfig, options: dict[str, object]) -> TrainingConfig:
    """The base with every option that was given; one without an entry in the table is a field of the same name."""
    values = asdict(base)
    for name, value in options.items():
        if value is None or value == ():
            continue
        *parents, field = _FIELDS.get(name, (name,))
        part = values
        for parent in parents:
            part = part[parent]
        part[field] = [asdict(phase) for phase in value] if isinstance(value, tuple) else value
    return TrainingConfig.from_json(json.dumps(values))


@train.command("dap-s")
@_network_options
@_schedule_options
@_folder_options
def dap_s(
    *,
    run: str,
    runs: Path,
    resume: bool,
    finish_now: bool,
    device: str,
    threads: int | None,
    dev_folder: Path | None,
    preset: str,
    cache: Path,
    **options: object,
) -> None:
    """Train the bundled model from scratch, on rendered scenes only.

    Under torchrun (`torchrun --nproc-per-node 8 -m -- dap train dap-s ...`) the processes share every batch, and the
    model comes out the same.

    The run's folder holds its configuration, log, checkpoints, previews and, at the end, model.safetensors.
    """
    folder = runs / run
    config = _configured(_resumed(folder, resume=resume) or PRESETS[preset], options)
    if finish_now:
        config = _finishing(config, folder)
    _train(config, folder, cache, (), device, threads, dev_folder)


class ValuesCommand(click.Command):
    """A command whose repeatable options take several values after their name: `--thresholds 10 20 50`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        repeatable = {
            name for one in self.params if isinstance(one, click.Option) and one.multiple for name in one.opts
        }
        spelled: list[str] = []
        name, values = "", 0
        for argument in args:
            if argument.startswith("-"):
                name, values = argument, 0
            else:
                values += 1
                if values > 1 and name in repeatable:
                    spelled.append(name)
            spelled.append(argument)
        return super().parse_args(ctx, spelled)


@train.command("mask-head", cls=ValuesCommand)
@option("--model", envvar="DAP_MODEL", help="A name that `dap models` lists, or a checkpoint's file.")
@option(
    "--thresholds",
    type=click.Choice([f"{threshold:g}" for threshold in RANGES]),
    multiple=True,
    help="Metres of the new head, one after the other. One that the model has already is learnt anew.",
)
@option(
    "--loss", type=click.Choice([*LOSS_PRESETS]), help="Whose losses of the range mask; by default paper, BCE and Dice."
)
@option(
    "--shards",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    help="Folder that `dap data pack` wrote, with depth; each counts as much as all rendered scenes.",
)
@_schedule_options
@_folder_options
def mask_head_command(
    *,
    model: str | None,
    thresholds: tuple[str, ...],
    loss: str | None,
    shards: tuple[Path, ...],
    run: str,
    runs: Path,
    resume: bool,
    finish_now: bool,
    device: str,
    threads: int | None,
    dev_folder: Path | None,
    cache: Path,
    **options: object,
) -> None:
    """Add range mask thresholds to a trained model, of which nothing else changes.

    The run's folder holds what a run of `dap train dap-s` does; its model.safetensors is the model with the new head,
    which `dap export` and the service take.
    """
    folder = runs / run
    base = _resumed(folder, resume=resume)
    if (base is None) != bool(thresholds) or (base is None and not model):
        raise InvalidParameter("--model and --thresholds are needed to begin a run; one that is resumed has them")
    if base is None:
        base = mask_head.prepare(find_model(model or ""), tuple(sorted({float(t) for t in thresholds})), folder)
    config = _configured(base, options)
    if loss is not None:
        config = replace(config, loss=mask_head.range_losses(loss))
    if finish_now:
        config = _finishing(config, folder)
    trained = _train(config, folder, cache, shards, device, threads, dev_folder)
    if trained is not None:
        click.echo(mask_head.finish(folder, trained))


def _resumed(folder: Path, *, resume: bool) -> TrainingConfig | None:
    """The configuration of the run in a folder; None of one that begins.

    Raises:
        TrainingError: it is to go on and has not begun, or the other way about.
    """
    checkpoint = latest_checkpoint(folder)
    if (checkpoint is not None) != resume:
        state = "has a checkpoint: give --resume, or another name" if checkpoint else "has no checkpoint to resume"
        raise TrainingError(f"run {folder.name} {state}")
    return TrainingConfig.from_json((folder / CONFIG_FILE).read_text()) if checkpoint else None


def _finishing(config: TrainingConfig, folder: Path) -> TrainingConfig:
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        raise TrainingError("--finish-now goes with --resume")
    return config.finishing(read_progress(checkpoint).step)


def _train(
    config: TrainingConfig,
    folder: Path,
    cache: Path,
    shards: tuple[Path, ...],
    device: str,
    threads: int | None,
    dev_folder: Path | None,
) -> DapNetwork | None:
    """What was trained; None in a process that only helps."""
    checkpoint = latest_checkpoint(folder)
    use_threads(threads)
    with ExitStack() as stack:
        process = stack.enter_context(this_process(torch_device(device)))
        source = stack.enter_context(_source(config, cache, shards, process))
        advance = stack.enter_context(_bar(config.steps, process))
        advance(read_progress(checkpoint).step if checkpoint else 0)
        sets = _sets(config, cache, dev_folder) if process.leads else {}
        trained = run_training(config, folder, source, process, sets, on_step=lambda: advance(1))
    return trained if process.leads else None


def _source(
    config: TrainingConfig, cache: Path, shards: tuple[Path, ...], process: Process
) -> AbstractContextManager[Source]:
    """Rendered scenes, and as much again from each folder of shards."""
    if not shards:
        return SampleStream(config, cache, process.share, process.device)
    rendered = RenderedPart(config.stream, config.seed, cache, process.share, process.device)
    parts: dict[str, tuple[float, Part]] = {"rendered": (1.0, rendered)}
    for number, folder in enumerate(shards):
        parts[f"shards-{number}"] = (1.0, ShardPart(ShardReader(folder), config.seed + number))
    return Mixture(config, parts, process.share)


def _bar(steps: int, process: Process) -> AbstractContextManager[Callable[[int], None]]:
    """Without a terminal the run's own log lines say how far it is."""
    return progress("training", steps) if process.leads and sys.stderr.isatty() else nullcontext(lambda _: None)


def _sets(config: TrainingConfig, cache: Path, dev_folder: Path | None) -> dict[str, list[LabelledPanorama]]:
    sets = {"rendered": validation_scenes(config, cache)}
    if dev_folder is not None:
        sets["dev"] = read_folder(dev_folder)
    return sets


def validation_scenes(config: TrainingConfig, cache: Path) -> list[LabelledPanorama]:
    """The rendered scenes of fixed seeds, at the last phase's size; rendered once and kept in the cache."""
    height = config.phases[-1].height
    folder = ShardFolder(cache, config.stream.kind, height, config.report.validation_scenes, validation=True)
    folder.render(0)
    samples = folder.load(0)
    return [
        LabelledPanorama(f"scene-{seed}", rgb, depth.astype("float32"))
        for seed, rgb, depth in zip(folder.seeds(0), samples.rgb, samples.depth, strict=True)
    ]


@train.command()
@_network_options
@_schedule_options
@option("--shards", type=int, help="At most this many of each size; by default all that the run will read.")
def prerender(*, shards: int | None, preset: str, cache: Path, **options: object) -> None:
    """Render a run's scenes, and the validation scenes, into the cache; before the run or beside it.

    It can be stopped at any time: what is rendered stays.
    """
    config = _configured(PRESETS[preset], options)
    validation_scenes(config, cache)
    for height, indices in shards_needed(config).items():
        folder = ShardFolder(cache, config.stream.kind, height, config.stream.shard_size)
        with RenderAhead(folder, max(1, config.stream.workers)) as renderer:
            wanted = indices[:shards]
            renderer.request(wanted)
            with progress(f"scenes {height}x{2 * height}", len(wanted)) as advance:
                for index in wanted:
                    renderer.wait(index)
                    advance(1)


@train.command("evaluate")
@click.argument("weights", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@option(
    "--height",
    type=int,
    default=256,
    help="Of the panoramas the network is fed; the width is twice as much.",
)
@threads_option
def evaluate_command(*, weights: Path, folder: Path, height: int, threads: int | None) -> None:
    """Scores of WEIGHTS (safetensors) on a FOLDER of NAME.rgb.png with NAME.depth_m.npy, as JSON."""
    torch.set_num_threads(threads or available_cores())
    scores = evaluate(load_network(weights), read_folder(folder), (height, 2 * height))
    click.echo(strict_json({"panoramas": scores.panoramas, **scores.flat()}, indent=2))
