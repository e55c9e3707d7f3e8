"""The command `dap bench`: the programs that measure. docs/performance.md says what they gave."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import click

from benchmarks import overload
from benchmarks.processes import describe_machine
from dap.engines import EngineName, Precision
from dap.engines.base import parse_device
from dap.engines.cores import available_cores
from dap.errors import InvalidParameter
from dap.graph import GraphPrecision
from dap.options import (
    PixelSize,
    device_option,
    engine_option,
    max_batch_size_option,
    option,
    precision_option,
    threads_option,
)
from dap.panorama import decode
from dap.progress import log_to_stderr, progress
from demo.run import SAMPLE

BATCHES = {"cpu": (1,), "cuda": (1, 4, 8, 16)}

Command = TypeVar("Command", bound=Callable[..., Any])


def _panorama(told: str) -> Callable[[Command], Command]:
    return option(
        "--panorama",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        default=SAMPLE,
        show_default="the demo's",
        help=told,
    )


def _batches(envvar: str, more: str = "") -> Callable[[Command], Command]:
    return option(
        "--batch",
        "batches",
        type=click.IntRange(min=1),
        multiple=True,
        envvar=envvar,
        help=f"Panoramas at a time; give it once for each number. By default 1; on a GPU 1, 4, 8, 16.{more}",
    )


def _device(_context: click.Context, _option: click.Parameter, device: str) -> str:
    """One device, of which the tables can tell: neither auto nor a stand-in. It is there, and torch can use it."""
    kind, number = parse_device(device)
    if kind not in BATCHES:
        raise click.BadParameter(f"{device!r} is not cpu, cuda or cuda:N")
    if kind == "cuda":
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (number or 0) >= count:
            raise click.BadParameter(f"{device} was asked for, and torch finds {count} CUDA devices here")
    return device


_SENT = _panorama("JPEG that is sent.")
_RUN = _panorama("Picture that is run.")
_MODEL = option(
    "--model", default="dap-s", envvar="DAP_MODEL", help="A name that `dap models` lists, or a model's file."
)
_SIZE = option("--size", type=PixelSize(), help="WxH of the input; by default the model's own.")
_DEVICE = option("--device", default="cpu", callback=_device, help="cpu, cuda or cuda:N.")
_PRICE = option("--price-per-hour", type=click.FloatRange(min=0, min_open=True), help="Of this machine, in euros.")
_OUTPUT = option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the numbers, JSON; they are printed as tables in any case.",
)


def _runtime_options(command: Command) -> Command:
    """`--engine`, `--device`, `--precision`, `--max-batch-size`: what runs the model, served and alone."""
    for one in (max_batch_size_option, precision_option, device_option, engine_option):
        command = one(command)
    return command


def _network(default: str) -> Callable[[Command], Command]:
    """The option `--model` of commands that can also run a network that nobody trained."""
    told = (
        "A name that `dap models` lists, or a model's file; vit-s, vit-b or vit-l: the official network in that size, "
        "untrained."
    )
    return option("--model", default=default, envvar="DAP_MODEL", help=told)


@click.group()
def bench() -> None:
    """Measure the service and the engines on this machine, which should be quiet."""
    log_to_stderr()
    logging.getLogger("httpx").setLevel(logging.WARNING)


@bench.command()
@_MODEL
@_SENT
@option(
    "--peers",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The python of an environment made by `make bench-peers`; without it LitServe and BentoML are left out.",
)
@_runtime_options
@option("--clients", default=8, help="That send one request after the other.")
@option("--seconds", default=8.0, help="Of each turn.")
@option("--rounds", default=5, help="Turns of each contender.")
@_OUTPUT
def service(
    model: str,
    panorama: Path,
    peers: Path | None,
    engine: EngineName,
    device: str,
    precision: Precision,
    max_batch_size: int,
    clients: int,
    seconds: float,
    rounds: int,
    output: Path | None,
) -> None:
    """Start, latency, memory; throughput and latency under load, beside the bare engine and other servers."""
    from benchmarks.servers import Runtime
    from benchmarks.service import as_markdown, duration, measure

    runtime = Runtime(engine, device, precision, max_batch_size)
    with progress("measuring (s)", duration(peers, seconds, rounds)) as advance:
        result = measure(model, panorama.read_bytes(), peers, clients, seconds, rounds, advance, runtime)
    machine = describe_machine(result.device)
    click.echo(f"{machine}\n\n{as_markdown(result)}")
    _write(output, {"machine": asdict(machine), "measured": asdict(result)})


@bench.command()
@_MODEL
@_SENT
@_runtime_options
@option("--requests", default=40, help="Of each case.")
@option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw where the time goes, and write it here: SVG.",
)
@_OUTPUT
def cost(
    model: str,
    panorama: Path,
    engine: EngineName,
    device: str,
    precision: Precision,
    max_batch_size: int,
    requests: int,
    picture: Path | None,
    output: Path | None,
) -> None:
    """What a request costs beside inference. Ends with 1 if it is more than it may be."""
    from benchmarks.cost import as_list, as_markdown, measure
    from benchmarks.picture import bar_of, draw
    from benchmarks.servers import Runtime

    runtime = Runtime(engine, device, precision, max_batch_size)
    with progress("requests", 4 * requests) as advance:
        ran_on, costs = measure(model, panorama.read_bytes(), requests, advance, runtime)
    machine = describe_machine(ran_on)
    click.echo(f"{machine}\n\n{as_markdown(costs)}")
    if picture:
        runs_on = f"{machine.processor}, {machine.cores} cores"
        if machine.gpu:
            runs_on = f"{machine.gpu.name}, {runs_on}"
        title = f"One request at a time, {Path(model).name}: medians, ms ({runs_on})"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_text(draw([bar_of(cost) for cost in costs], title), encoding="utf-8")
    _write(output, {"machine": asdict(machine), "measured": as_list(costs)})
    if not all(cost.is_met for cost in costs):
        raise SystemExit(1)


@bench.command()
@_MODEL
@_SENT
@option("--requests", default=20_000, help="Of all kinds together.")
@option("--clients", default=8, help="That send them, each one at a time.")
@_OUTPUT
def soak(model: str, panorama: Path, requests: int, clients: int, output: Path | None) -> None:
    """Many mixed requests, good and bad: memory stays, and each gets its due. Ends with 1 if not.

    With a smaller export of the model (`dap export --size`) it is over sooner; what is not the engine sees the same.
    """
    from benchmarks.soak import as_markdown, measure

    with progress("requests", requests) as advance:
        result = measure(model, panorama.read_bytes(), requests, clients, advance)
    machine = describe_machine()
    click.echo(f"{machine}; model {Path(model).name}, {clients} clients\n\n{as_markdown(result)}")
    _write(output, {"machine": asdict(machine), "model": Path(model).name, "measured": result.as_dict()})
    if not result.is_sound:
        raise SystemExit(1)


@bench.command()
@_network("dap-s")
@option("--against", help="The checkpoint of an exported model: a name or a file.")
@option(
    "--file",
    "files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    envvar="DAP_BENCH_ENGINE_FILE",
    help="Another exported file of the same model and size, in int8, say. It is run as it is by each contender in its "
    "precision, or else by onnx; for TensorRT in int8 it must be one that `dap export --to tensorrt` wrote.",
)
@option(
    "--contender",
    "names",
    multiple=True,
    envvar="DAP_BENCH_ENGINE_CONTENDER",
    help="ENGINE:PRECISION, first the one that the others are compared with. By default eager:fp32, which is the plain "
    "network, torch:fp32 and onnx:fp32; on a GPU eager:fp32, eager:bf16 and torch:bf16. Also compiled, which is torch "
    "with --execution compiled, onnx-tensorrt, which is onnx with --provider tensorrt, and tensorrt: they take minutes "
    "to start. Where no file in the precision is given one is exported; for a GPU as by `dap export --to tensorrt "
    "--no-plan`.",
)
@_SIZE
@_batches("DAP_BENCH_ENGINE_BATCH")
@option(
    "--range",
    "ranges",
    type=click.Choice(["masks", "none"]),
    multiple=True,
    default=["masks", "none"],
    envvar="DAP_BENCH_ENGINE_RANGE",
    help="With range masks, or without; give it once for each.",
)
@_DEVICE
@threads_option
@_RUN
@option("--seconds", default=2.0, help="Of each turn; one run takes what it takes.")
@option("--rounds", default=5, help="Turns of each contender.")
@_PRICE
@_OUTPUT
def engine(
    model: str,
    against: str | None,
    files: tuple[Path, ...],
    names: tuple[str, ...],
    size: tuple[int, int] | None,
    batches: tuple[int, ...],
    ranges: tuple[str, ...],
    device: str,
    threads: int | None,
    panorama: Path,
    seconds: float,
    rounds: int,
    price_per_hour: float | None,
    output: Path | None,
) -> None:
    """The engines beside the plain network: time, memory, share of the machine's rate, cost, the same depth."""
    from benchmarks.contenders import choose, find_subject
    from benchmarks.engine import Heat, Setting, as_markdown, measure, turns
    from benchmarks.race import RacerFailed

    kind, _ = parse_device(device)
    setting = Setting(device, threads or available_cores(), seconds, rounds, price_per_hour)
    heats = [Heat(batch, name == "masks") for name in ranges for batch in batches or BATCHES[kind]]
    with TemporaryDirectory(prefix="dap-bench-") as name:
        folder = Path(name)
        subject = find_subject(model, against, files, size, folder)
        contenders, left_out = choose(subject, names, kind, setting.threads, panorama, folder)
        if not contenders:
            raise click.ClickException(f"There is nobody to take part: {left_out}")
        pixels = decode(panorama.read_bytes(), size=subject.size).pixels
        try:
            with progress("turns", turns(contenders, heats, setting)) as advance:
                result = measure(subject, contenders, heats, pixels, setting, folder, left_out, advance)
        except RacerFailed as error:
            raise click.ClickException(str(error)) from error
    machine = describe_machine(device)
    click.echo(f"{machine}; {setting.threads} threads\n\n{as_markdown(result)}")
    _write(output, {"machine": asdict(machine), "setting": asdict(setting), "measured": asdict(result)})


@bench.command()
@_network("vit-s")
@_SIZE
@option("--batch", type=click.IntRange(min=1), default=1, help="Panoramas at a time.")
@_DEVICE
@option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", help="That the network computes in.")
@threads_option
@_RUN
@option("--rounds", default=5, help="Of which the medians are taken.")
@_OUTPUT
def roofline(
    model: str,
    size: tuple[int, int] | None,
    batch: int,
    device: str,
    precision: GraphPrecision,
    threads: int | None,
    panorama: Path,
    rounds: int,
    output: Path | None,
) -> None:
    """The parts of the plain network: FLOP, bytes, time, and whether products or memory are the limit of each.

    Of an exported file, in fp32 on the CPU: the kinds of its operators, as ONNX Runtime runs them.
    """
    from benchmarks import ceiling, graph_roofline
    from benchmarks import roofline as network_roofline
    from benchmarks.contenders import find_subject
    from benchmarks.engine import turned

    threads = threads or available_cores()
    ceiling.use_threads(threads)
    with TemporaryDirectory(prefix="dap-bench-") as name, progress("rounds", rounds) as advance:
        subject = find_subject(model, None, [], size, Path(name))
        pixels = turned(decode(panorama.read_bytes(), size=subject.size).pixels, batch)
        if subject.checkpoint is not None:
            found = network_roofline.measure(
                subject.checkpoint, pixels, device=device, precision=precision, rounds=rounds, advance=advance
            )
        elif (device, precision) == ("cpu", "fp32"):
            (path,) = subject.exported
            found = graph_roofline.measure(path, pixels, threads=threads, rounds=rounds, advance=advance)
        else:
            raise InvalidParameter(f"{model} is an exported file: expected the cpu and fp32, or a checkpoint.")
    machine = describe_machine(device)
    height, width = subject.size
    what = f"{subject.name}, {width}x{height}, batch {batch}, {precision} on {device}, {threads} threads"
    click.echo(f"{machine}; {what}\n\n{network_roofline.as_markdown(found)}")
    _write(output, {"machine": asdict(machine), "what": what, "measured": network_roofline.as_dict(found)})


@bench.command()
@_network("vit-l")
@_DEVICE
@_batches("DAP_BENCH_SUITE_BATCH", " The service is measured with batches of up to the largest.")
@option("--rounds", default=5, help="Turns of each contender.")
@option("--seconds", default=2.0, help="Of each turn; the service has four times as many.")
@option("--minutes", default=60.0, help="Of each part at most; one that takes longer is ended, and has failed.")
@_PRICE
@option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the tables, the pictures and the numbers; summary.md has all tables.",
)
def suite(
    model: str,
    device: str,
    batches: tuple[int, ...],
    rounds: int,
    seconds: float,
    minutes: float,
    price_per_hour: float | None,
    output: Path,
) -> None:
    """Engines, rooflines, service and cost of a network, all into one folder. Ends with 1 if a part failed.

    Contenders are those that can run here; the summary says who is left out, and why. What a part measured stays when
    another fails.
    """
    from benchmarks.contenders import available, find_subject
    from benchmarks.suite import SUMMARY, Plan, parts, run

    kind, _ = parse_device(device)
    output = output.absolute()  # parts run in another folder
    output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="dap-bench-") as folder:
        subject = find_subject(model, None, [], None, Path(folder))
        if subject.checkpoint is None:
            raise InvalidParameter(f"{model} is an exported file: expected a checkpoint.")
        contenders, left_out = available(kind)
        plan = Plan(subject.checkpoint, device, batches or BATCHES[kind], contenders, rounds, seconds, price_per_hour)
        planned = parts(plan, output)
        with progress("parts", len(planned)) as advance:
            failed = run(planned, 60 * minutes, left_out, output, advance)
    click.echo((output / SUMMARY).read_text())
    if failed:
        raise SystemExit(1)


bench.add_command(overload.main, "overload")


def _write(path: Path | None, document: Mapping[str, Any]) -> None:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    bench()
