"""Command-line options of passes over shards with Ray."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from dap.options import option
from training.throughput import Throughput

Command = TypeVar("Command", bound=Callable[..., Any])

PAPER_PANORAMAS = 2_000_000
"""About as many as DAP (arXiv 2512.16913) labelled."""

price_option = option(
    "--price-per-hour", type=click.FloatRange(0), help="Of one worker's GPU, in any currency, for the forecast."
)

torch_device_option = option(
    "--device", default="auto", envvar="DAP_DEVICE", help="cpu, cuda or cuda:N; auto: a GPU where there is one."
)


def workers_options(command: Command) -> Command:
    """`--workers`, `--device` and `--address`, as `training.shard_pipeline.Workers` takes them."""
    options = (
        option(
            "--workers",
            type=click.IntRange(1),
            help="Models side by side; by default one a GPU, or one where there is none.",
        ),
        option(
            "--device",
            type=click.Choice(["auto", "cpu", "cuda"]),
            default="auto",
            envvar="DAP_DEVICE",
            help="Where the models run; auto: GPUs where there are any.",
        ),
        option(
            "--address",
            help="Of the Ray cluster that this machine is a node of, auto or host:port: all of it works, with the same "
            "paths everywhere. By default this machine works alone.",
        ),
    )
    for decorate in reversed(options):
        command = decorate(command)
    return command


def rate_json(throughput: Throughput, price: float | None) -> dict[str, object]:
    """What a script is told of how fast it was."""
    forecast = throughput.forecast(PAPER_PANORAMAS, price)
    return {
        "panoramas": throughput.panoramas,
        "panoramas_per_second": throughput.per_second,
        "forecast": None if forecast is None else vars(forecast),
    }


def rate_told(throughput: Throughput, device: str, price: float | None) -> str:
    """The same for people."""
    forecast = throughput.forecast(PAPER_PANORAMAS, price)
    if forecast is None or throughput.per_second is None:
        return "nothing was left to do"
    unit = "GPU" if device == "cuda" else "worker"
    cost = "" if forecast.cost is None else f", {forecast.cost:,.0f} at {price:g} an hour"
    done = f"{throughput.panoramas:,} panoramas, {throughput.per_second:.3g} a second"
    expected = f"{forecast.hours:,.1f} h ({forecast.worker_hours:,.1f} {unit} hours{cost})"
    return f"{done} with {throughput.workers} x {device}; {forecast.panoramas:,} would take {expected}"
