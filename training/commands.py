"""`dap train`: renders scenes ahead, trains, evaluates."""

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click
import torch

from dap.errors import TrainingError
from training.config import PRESETS, Phase, TrainingConfig
from training.evaluate import LabelledPanorama, evaluate, read_folder
from training.shards import RenderAhead, ShardFolder
from training.synthetic_stream import shards_needed
from training.trainer import Progress, latest_checkpoint
from training.trainer import train as run_training

_PHASE_HELP = "A stretch of the run as HEIGHT:STEPS:BATCH or HEIGHT:STEPS:BATCH:LR_SCALE; give it once for each, in order. Replaces the preset's phases."


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
    """Train models of our own on rendered scenes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)


def _run_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say what a run is; they override the preset."""
    for option in reversed(
        [
            click.option("--preset", type=click.Choice(sorted(PRESETS)), default="dap-s", show_default=True),
            click.option("--phase", "phases", type=PhaseType(), multiple=True, help=_PHASE_HELP),
            click.option("--activation", type=click.Choice(["linear", "log"]), help="Of depth."),
            click.option("--encoder", help="Of the network, as dap.model.config names them."),
            click.option("--learning-rate", type=float, help="At the plateau."),
            click.option("--cooldown", type=int, help="Steps over which the learning rate falls to zero at the end."),
            click.option("--strength", type=float, help="Of the photometric augmentation; 0 turns it off."),
            click.option("--passes", type=int, help="How often each scene is seen."),
            click.option("--workers", type=int, help="Processes that render ahead; 0 renders in the training process."),
            click.option("--seed", type=int, help="Of parameters, order and augmentation."),
            click.option("--precision", type=click.Choice(["float32", "bf16"])),
            click.option("--channels-last/--contiguous", default=None, help="Memory layout of the network."),
            click.option("--compile/--eager", default=None, help="Run the network through torch.compile."),
            click.option(
                "--cache",
                type=click.Path(path_type=Path, file_okay=False),
                default=Path("runs/scenes"),
                show_default=True,
                help="Folder of rendered scenes; runs may share it.",
            ),
        ]
    ):
        command = option(command)
    return command


# The field of the configuration that each option sets.
_FIELDS = {
    "activation": ("network", "depth_activation"),
    "cooldown": ("optimizer", "cooldown_steps"),
    "encoder": ("network", "encoder"),
    "evaluate_every": ("report", "evaluate"),
    "learning_rate": ("optimizer", "learning_rate"),
    "passes": ("stream", "passes"),
    "strength": ("augmentation", "strength"),
    "workers": ("stream", "workers"),
}


def _configured(base: TrainingConfig, options: dict[str, object]) -> TrainingConfig:
    """The base with every option that was given; an option without an entry in the table is a field of the same name."""
    values = asdict(base)
    for option, value in options.items():
        if value is None or value == ():
            continue
        *parents, field = _FIELDS.get(option, (option,))
        part = values
        for parent in parents:
            part = part[parent]
        part[field] = [asdict(phase) for phase in value] if isinstance(value, tuple) else value
    return TrainingConfig.from_json(json.dumps(values))


@train.command("dap-s")
@_run_options
@click.option("--run", "run", required=True, help="Name of the run: its folder is RUNS/NAME.")
@click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Folder of runs.",
)
@click.option(
    "--resume", is_flag=True, help="Go on from the run's latest checkpoint; options given change the rest of the run."
)
@click.option(
    "--finish-now", is_flag=True, help="With --resume: begin the cool-down at the checkpoint and end after it."
)
@click.option("--evaluate-every", type=int, help="Steps between evaluations.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--threads", type=int, help="Of torch on the CPU. Default: one for each core.")
@click.option(
    "--dev-folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of NAME.rgb.png with NAME.depth_m.npy to evaluate on from time to time; never trained on.",
)
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

    The run's folder holds its configuration, log, checkpoints, previews and, at the end, model.safetensors.
    """
    folder = runs / run
    checkpoint = latest_checkpoint(folder)
    if (checkpoint is not None) != resume:
        state = "has a checkpoint: give --resume, or another name" if checkpoint else "has no checkpoint to resume"
        raise TrainingError(f"run {run} {state}")
    base = TrainingConfig.from_json((folder / "config.json").read_text()) if checkpoint else PRESETS[preset]
    config = _configured(base, options)
    if finish_now:
        if checkpoint is None:
            raise TrainingError("--finish-now goes with --resume")
        config = config.finishing(int(checkpoint.name.removeprefix("step-")))
    if threads is not None:
        torch.set_num_threads(threads)
    sets = {"rendered": validation_scenes(config, cache)}
    if dev_folder is not None:
        sets["dev"] = read_folder(dev_folder)
    _with_progress(config, lambda tick: run_training(config, folder, cache, torch.device(device), sets, tick))


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


def _with_progress(config: TrainingConfig, work: Callable[[Callable[[Progress], None]], object]) -> None:
    """Run with a progress bar on a terminal; the log lines alone elsewhere."""
    if not sys.stderr.isatty():
        work(lambda _: None)
        return
    with click.progressbar(length=config.steps, label="training", file=sys.stderr) as bar:
        work(lambda progress: bar.update(progress.step - bar.pos))


@train.command()
@_run_options
@click.option("--shards", type=int, help="At most this many of each size. Default: all that the run will read.")
def prerender(*, shards: int | None, preset: str, cache: Path, **options: object) -> None:
    """Render the scenes of a run into the cache, and the validation scenes, before the run or beside it. Can be stopped at any time."""
    config = _configured(PRESETS[preset], options)
    validation_scenes(config, cache)
    for height, indices in shards_needed(config).items():
        folder = ShardFolder(cache, config.stream.kind, height, config.stream.shard_size)
        with RenderAhead(folder, max(1, config.stream.workers)) as renderer:
            wanted = indices[:shards]
            renderer.request(wanted)
            with click.progressbar(wanted, label=f"{folder.path.name}", file=sys.stderr) as bar:
                for index in bar:
                    renderer.wait(index)


@train.command("evaluate")
@click.argument("weights", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--height",
    type=int,
    default=256,
    show_default=True,
    help="Of the panoramas the network is fed; the width is twice as much.",
)
@click.option("--threads", type=int, help="Of torch on the CPU.")
def evaluate_command(*, weights: Path, folder: Path, height: int, threads: int | None) -> None:
    """Scores of WEIGHTS (safetensors) on a FOLDER of NAME.rgb.png with NAME.depth_m.npy, as JSON."""
    from dap.model.checkpoints import load_network

    if threads is not None:
        torch.set_num_threads(threads)
    scores = evaluate(load_network(weights), read_folder(folder), (height, 2 * height))
    click.echo(json.dumps({"panoramas": scores.panoramas, **scores.flat()}, indent=2))
