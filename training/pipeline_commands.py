"""`dap train pipeline` and `dap train status`: the three stages, and how they stand."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from dap.engines.cores import available_cores
from dap.errors import TrainingError
from dap.options import json_option, option, threads_option
from training.distributed import Process, this_process
from training.experiments import EXPERIMENTS, markdown, run_experiment
from training.pipeline_config import PIPELINES, PipelineConfig
from training.pipeline_state import STATE_FILE
from training.pipeline_status import as_json as status_json
from training.pipeline_status import statuses, table
from training.shard_pipeline import Workers
from training.stages import CONFIG_FILE, PAPER_STAGES, STAGES, Place, Run, begun_with, run_pipeline
from training.trainer import write_whole
from training.worker_options import torch_device_option, workers_options

runs_option = option(
    "--runs", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"), help="Folder of runs."
)
data_option = option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the folders of shards, and of weights to start from; runs may share it; by default RUNS/data.",
)


@click.command("pipeline")
@option("--preset", type=click.Choice([*PIPELINES]), help="What the run is. A run that was begun knows it.")
@option(
    "--run",
    "name",
    default="pipeline",
    envvar="DAP_TRAIN_PIPELINE_RUN",
    help="Name of the run: its folder is RUNS/NAME.",
)
@option(
    "--stage",
    type=click.Choice([*PAPER_STAGES, *STAGES]),
    help="This one alone: 1, 2 or 3 as in the paper, or a name; by default all that are not done.",
)
@option("--seed", type=int, help="Of everything but the data; by default the preset's.")
@option("--reconfigure", is_flag=True, help="Let --preset and --seed change a run that was begun.")
@runs_option
@data_option
@threads_option
@workers_options
def pipeline(
    *,
    preset: str | None,
    name: str,
    stage: str | None,
    seed: int | None,
    reconfigure: bool,
    runs: Path,
    data: Path | None,
    threads: int | None,
    workers: int | None,
    device: str,
    address: str | None,
) -> None:
    """Run the three stages, or go on with them: labeler, discriminator, selection, labeler, DAP.

    It can be stopped at any moment and run again. A stage that is done is not done again unless its settings, its data
    or what it was made from changed; what it had made is then moved aside.

    Under torchrun several processes share a stage that trains: give --stage.
    """
    folder = runs / name
    config = _config(folder, preset, seed, reconfigure)
    threads = use_threads(threads)
    stages = [*STAGES] if stage is None else PAPER_STAGES.get(stage, (stage,))
    with this_process(torch_device(device)) as process:
        place = Place(folder, data or runs / "data", process, threads, Workers(workers, device, address))
        run = Run(config, place)
        run_pipeline(run, stages)
    if process.leads:
        click.echo(table(folder, statuses(run)))


def _config(folder: Path, preset: str | None, seed: int | None, reconfigure: bool) -> PipelineConfig:
    """What the run is, by the preset or by what it was begun with.

    Raises:
        TrainingError: neither, or both and they differ.
    """
    begun = begun_with(folder)
    if begun is None and preset is None:
        raise TrainingError(
            f"there is no run {folder.name} to go on with: give --preset, one of {', '.join(PIPELINES)}"
        )
    base = begun if begun is not None and preset is None else PIPELINES[preset or ""]
    asked = base if seed is None else base.with_seed(seed)
    if begun is not None and asked != begun and not reconfigure:
        raise TrainingError(
            f"run {folder.name} was begun with another configuration: leave --preset and --seed away to go on with it, "
            "or give --reconfigure, and what depends on it is done again"
        )
    return asked


def torch_device(name: str) -> torch.device:
    """`auto` is a GPU where there is one."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(automatic if name == "auto" else name)


def use_threads(threads: int | None) -> int:
    """Let torch have so many threads; by default the cores that this process may use, shared with torchrun's others."""
    count = threads or max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    torch.set_num_threads(count)
    return count


@click.command("experiments")
@click.argument("name", type=click.Choice([*EXPERIMENTS]))
@option("--preset", type=click.Choice([*PIPELINES]), help="What the runs are variants of; by default the experiment's.")
@option("--seeds", type=click.IntRange(1), default=3, help="Runs of each variant, with seeds from 0 on.")
@option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File for the table as well.")
@runs_option
@data_option
@torch_device_option
@option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    help="Cores to work with on the CPU; the same number gives the same results.",
)
def experiments(
    *,
    name: str,
    preset: str | None,
    seeds: int,
    output: Path | None,
    runs: Path,
    data: Path | None,
    device: str,
    threads: int,
) -> None:
    """Show whether it works: a table of what runs of the pipeline over several seeds come to.

    It can be stopped at any moment and run again. The runs are RUNS/PRESET-VARIANT-seed-N.
    """
    use_threads(threads)
    process = Process(torch_device(device))

    def place(run: str) -> Place:
        return Place(runs / run, data or runs / "data", process, threads)

    experiment = EXPERIMENTS[name]
    preset = preset or experiment.preset
    told = markdown(experiment, run_experiment(experiment, preset, PIPELINES[preset], seeds, place))
    if output is not None:
        write_whole(output, told + "\n")
    click.echo(told)


@click.command("status")
@click.argument("names", metavar="[RUN]...", nargs=-1)
@runs_option
@data_option
@json_option
def status(*, names: Sequence[str], runs: Path, data: Path | None, as_json: bool) -> None:
    """How each stage of runs of the pipeline stands; of all in the folder of runs, if none is named."""
    folders = [runs / name for name in names] or sorted(path.parent for path in runs.glob(f"*/{STATE_FILE}"))
    found = []
    for folder in folders:
        config = begun_with(folder)
        if config is None:
            raise TrainingError(f"{folder} is no run of the pipeline: it has no {CONFIG_FILE}")
        run = Run(config, Place(folder, data or runs / "data", Process()))
        found.append((folder, statuses(run)))
    if as_json:
        click.echo(json.dumps([status_json(*each) for each in found], indent=2))
    else:
        click.echo("\n".join(table(*each) for each in found) or f"there is no run of the pipeline in {runs}")
