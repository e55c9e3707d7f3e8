"""`dap train plan`: what a run of the pipeline would take, and a dry run of its steps on the device at hand."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import click
import torch

from dap.errors import InvalidParameter
from dap.model.flop import Shape
from dap.options import json_option, option, threads_option
from training.config import TrainingConfig
from training.datasets.shards import ShardReader
from training.pipeline_commands import torch_device, use_threads
from training.pipeline_config import PIPELINES, PipelineConfig
from training.plan import ASSUMED_SIZE, Fit, Means, PackedSize, Plan, fits_of, make_plan, packed_size
from training.step_timing import StepTiming, time_steps
from training.step_trace import StepTrace, trace_step
from training.worker_options import torch_device_option

_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_TRAININGS = {"stage-1-labeler": "stage_1", "stage-2-labeler": "stage_2", "stage-3-dap": "stage_3"}


@click.command("plan")
@option("--preset", type=click.Choice([*PIPELINES]), default="paper", help="What the run is.")
@option("--devices", type=click.IntRange(1), default=8, help="GPUs that share a training, and that label.")
@option("--memory-gb", type=click.FloatRange(0, min_open=True), default=80.0, help="Of a device, 10^9 bytes.")
@option(
    "--tflops",
    type=click.FloatRange(0, min_open=True),
    help="10^12 FLOP a second that a device achieves: your assumption. Without it, and without --measure, no hours.",
)
@option("--price-per-hour", type=click.FloatRange(0), help="Of a device, in any currency.")
@option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the folders of shards: those that are there are counted; otherwise counts are as published.",
)
@option(
    "--shards", type=_FOLDER, multiple=True, help="Pack on which sizes are measured instead of assumed; with --labels."
)
@option("--labels", type=_FOLDER, multiple=True, help="Folder of pseudo-labels, likewise.")
@option("--measure", is_flag=True, help="Run a few real steps on --device: seconds and memory of one.")
@option("--stage", type=click.Choice([*_TRAININGS]), default="stage-1-labeler", help="Which --measure runs.")
@option(
    "--height",
    type=click.IntRange(16),
    help="Of the panoramas of --measure; by default that of the stage's last phase.",
)
@option("--batch", type=click.IntRange(1), help="Samples a step of --measure; by default one device's share.")
@torch_device_option
@threads_option
@json_option
def plan(
    *,
    preset: str,
    devices: int,
    memory_gb: float,
    tflops: float | None,
    price_per_hour: float | None,
    data: Path | None,
    shards: tuple[Path, ...],
    labels: tuple[Path, ...],
    measure: bool,
    stage: str,
    height: int | None,
    batch: int | None,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """What a run of the pipeline would take: FLOP, memory, hours and storage of each stage.

    All of it is computed without a GPU, from a pass of tensors that hold no data. With --measure, real steps are run as
    well, and hours are at the rate that they had.
    """
    if (measure is False and (height or batch)) or bool(shards) != bool(labels):
        raise InvalidParameter("--height and --batch go with --measure, --shards with --labels")
    on = torch_device(device)
    config = PIPELINES[preset]
    size = _size(shards, labels)
    made = make_plan(config, Means(devices, memory_gb, size, data))
    timing = None
    if measure:
        use_threads(threads)
        timing = _measured(getattr(config, _TRAININGS[stage]), on, height, batch, devices, memory_gb)
        if tflops is None:
            made = made.at(timing.tflops, f"as --measure found on {timing.device}", price_per_hour)
    if tflops is not None:
        made = made.at(tflops, "given, not measured", price_per_hour)
    if as_json:
        totals = {"flop": made.flop, "storage": made.storage, "hours": made.hours, "cost": made.cost}
        measured = None if timing is None else asdict(timing)
        click.echo(json.dumps({"preset": preset, **asdict(made), **totals, "measured": measured}, indent=2))
    else:
        click.echo("\n\n".join(_told(made, config, size, timing)))


def _size(shards: tuple[Path, ...], labels: tuple[Path, ...]) -> PackedSize:
    if not shards:
        return ASSUMED_SIZE
    return packed_size([ShardReader(folder) for folder in shards], [ShardReader(folder) for folder in labels])


def _measured(
    config: TrainingConfig,
    device: torch.device,
    height: int | None,
    batch: int | None,
    devices: int,
    memory_gb: float,
) -> StepTiming:
    """A few steps of a device's share of a batch, in as many parts as its memory needs."""
    height = height or config.phases[-1].height
    samples = batch or -(-config.phases[-1].batch // devices)
    if device.type == "cuda":
        memory_gb = torch.cuda.get_device_properties(device).total_memory / 1e9
    fit = _as_configured(fits_of(trace_step(config, height, device.type), samples, memory_gb), config)
    if fit.accumulate is None:
        raise InvalidParameter(f"not one panorama of {height}x{2 * height} fits into {memory_gb:g} GB")
    return time_steps(replace(config, accumulate=fit.accumulate), height, samples, fit.step_flop, device)


def _as_configured(fits: Sequence[Fit], config: TrainingConfig) -> Fit:
    return fits[-1] if config.checkpoint_activations else fits[0]


def _told(plan: Plan, config: PipelineConfig, size: PackedSize, timing: StepTiming | None) -> list[str]:
    """For people: tables."""
    told = []
    for names, trace in _distinct(plan.traces):
        told += [f"Network of {', '.join(names)}", _network_table(trace), _shape_table(trace.shapes)]
    told += ["Memory of one device", _memory_table(plan, config), "Stages", _stage_table(plan)]
    told.append(_rate_told(plan, config, size))
    if timing is not None:
        told += ["Measured", _timing_told(timing)]
    return [*told, "Assumptions\n" + "\n".join(f"- {one}" for one in plan.assumptions)]


def _distinct(traces: dict[str, StepTrace]) -> list[tuple[list[str], StepTrace]]:
    found: list[tuple[list[str], StepTrace]] = []
    for name, trace in traces.items():
        same = next((names for names, other in found if other is trace), None)
        if same is None:
            found.append(([name], trace))
        else:
            same.append(name)
    return found


def _network_table(trace: StepTrace) -> str:
    rows = [
        (part, f"{numbers.all / 1e6:.2f}", f"{numbers.trained / 1e6:.2f}", f"{trace.forward_flop[part] / 1e9:,.1f}")
        for part, numbers in trace.parameters.items()
    ]
    total = [sum(getattr(numbers, kind) for numbers in trace.parameters.values()) / 1e6 for kind in ("all", "trained")]
    forward = sum(trace.forward_flop.values()) / 1e9
    rows.append(("all", f"{total[0]:.2f}", f"{total[1]:.2f}", f"{forward:,.1f}"))
    steps = f"forward, losses and backward {trace.step_flop / 1e9:,.1f} GFLOP"
    if trace.recomputed_flop is not None:
        steps += f"; {trace.recomputed_flop / 1e9:,.1f} with activations computed again"
    table = _table(("part", "parameters, M", "trained, M", "forward, GFLOP a panorama"), rows)
    return f"{table}\n\n{steps}"


def _shape_table(shapes: Iterable[tuple[str, tuple[Shape, ...]]]) -> str:
    return _table(
        ("layer", "comes out, channels x rows x columns"),
        [(name, ", ".join("x".join(map(str, shape)) for shape in each)) for name, each in shapes],
    )


def _memory_table(plan: Plan, config: PipelineConfig) -> str:
    header = (
        "stage", "height", "share of a batch", "activations", "held, GB", "step, GB", "a panorama, GB",
        "fit at a time", "accumulate", "then in use, GB",
    )  # fmt: skip
    rows = []
    for stage in plan.stages:
        for phase in stage.phases:
            for fit in phase.fits:
                chosen = fit == _as_configured(phase.fits, getattr(config, _TRAININGS[stage.name]))
                rows.append(
                    (
                        stage.name,
                        str(phase.height),
                        f"{phase.share} of {phase.batch}",
                        ("computed again" if fit.checkpoint_activations else "kept") + (" (preset)" if chosen else ""),
                        _gb(stage.held_bytes),
                        _gb(fit.once),
                        _gb(fit.per_sample),
                        str(fit.most),
                        "does not fit" if fit.accumulate is None else str(fit.accumulate),
                        _gb(fit.bytes),
                    )
                )
    return _table(header, rows)


def _stage_table(plan: Plan) -> str:
    rows = []
    for stage in plan.stages:
        cells = (stage.name, f"{stage.panoramas:,}", f"{stage.steps:,}" if stage.steps else "", _flop(stage.flop))
        rows.append((*cells, _number(stage.hours), str(stage.devices), _number(stage.cost), _gb(stage.storage)))
    rows.append(("all", "", "", _flop(plan.flop), _number(plan.hours), "", _number(plan.cost), _gb(plan.storage)))
    return _table(("stage", "panoramas", "steps", "FLOP", "hours", "devices", "cost", "storage, GB"), rows)


def _rate_told(plan: Plan, config: PipelineConfig, size: PackedSize) -> str:
    """What the devices would have to be fed with."""
    last = plan.stages[-1]
    if last.hours is None or not last.hours:
        return f"Labelling: {plan.label_flop / 1e9:,.1f} GFLOP a panorama"
    rate = last.panoramas / last.hours / 3600
    height = config.stage_3.phases[-1].height
    told = (
        f"Stage 3 reads {rate:,.0f} panoramas a second, {rate * size.of(1, height, 'picture', 'label') / 1e6:,.0f} MB"
    )
    if size.decoding is not None:
        cores = rate * size.decoding * 2 * height**2 / 1e6
        told += f", and keeps {cores:,.1f} cores like this one busy with decoding"
    return told


def _timing_told(timing: StepTiming) -> str:
    activations = "computed again" if timing.checkpoint_activations else "kept"
    return (
        f"{timing.seconds:.3f} s a step of {timing.samples} x {timing.height}x{2 * timing.height} in "
        f"{timing.accumulate} parts, {timing.precision}, activations {activations}: median of {timing.steps}\n"
        f"{timing.tflops:.3g} TFLOP/s, {timing.samples / timing.seconds:.3g} panoramas a second, peak memory "
        f"{_gb(timing.peak_bytes)} GB\n"
        f"{timing.device}, torch {timing.torch}, {timing.threads} threads"
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _gb(size: int | None) -> str:
    return "" if size is None else f"{size / 1e9:,.3g}" if size < 1e11 else f"{size / 1e9:,.0f}"


def _flop(count: int) -> str:
    return f"{count:.2e}" if count else ""


def _number(value: float | None) -> str:
    return "" if not value else f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
