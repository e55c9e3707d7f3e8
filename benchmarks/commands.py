"""The command `dap bench`: the programs that measure. docs/performance.md says what they gave."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks import overload
from benchmarks.processes import describe_machine
from dap.progress import log_to_stderr, progress
from demo.run import SAMPLE

_PANORAMA = click.option(
    "--panorama",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=SAMPLE,
    show_default="the demo's",
    help="JPEG that is sent.",
)
_MODEL = click.option("--model", default="dap-s", show_default=True, help="Name or file.")
_JSON = click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Also write the numbers here."
)


@click.group()
def bench() -> None:
    """Measure the service on this machine, which should be quiet."""
    log_to_stderr()
    logging.getLogger("httpx").setLevel(logging.WARNING)


@bench.command()
@_MODEL
@_PANORAMA
@click.option(
    "--peers",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The python of an environment made by `make bench-peers`; without it LitServe and BentoML are left out.",
)
@click.option("--clients", default=8, show_default=True, help="Of the closed loop.")
@click.option("--seconds", default=8.0, show_default=True, help="Of each turn.")
@click.option("--rounds", default=5, show_default=True, help="Turns of each contender.")
@_JSON
def service(
    model: str, panorama: Path, peers: Path | None, clients: int, seconds: float, rounds: int, json_path: Path | None
) -> None:
    """Start, latency, memory; throughput and latency under load, beside the bare engine and other servers."""
    from benchmarks.service import as_markdown, duration, measure

    with progress("measuring (s)", duration(peers, seconds, rounds)) as advance:
        result = measure(model, panorama.read_bytes(), peers, clients, seconds, rounds, advance)
    machine = describe_machine()
    click.echo(f"{machine}\n\n{as_markdown(result)}")
    _write(json_path, {"machine": asdict(machine), "measured": asdict(result)})


@bench.command()
@_MODEL
@_PANORAMA
@click.option("--requests", default=40, show_default=True, help="Of each case.")
@_JSON
def cost(model: str, panorama: Path, requests: int, json_path: Path | None) -> None:
    """What a request costs beside inference. Ends with 1 if it is more than it may be."""
    from benchmarks.cost import as_list, as_markdown, measure

    with progress("requests", 4 * requests) as advance:
        costs = measure(model, panorama.read_bytes(), requests, advance)
    machine = describe_machine()
    click.echo(f"{machine}\n\n{as_markdown(costs)}")
    _write(json_path, {"machine": asdict(machine), "measured": as_list(costs)})
    if not all(cost.is_met for cost in costs):
        raise SystemExit(1)


@bench.command()
@_MODEL
@_PANORAMA
@click.option("--requests", default=20_000, show_default=True)
@click.option("--clients", default=8, show_default=True)
@_JSON
def soak(model: str, panorama: Path, requests: int, clients: int, json_path: Path | None) -> None:
    """Many mixed requests, good and bad: memory stays, and each gets its due. Ends with 1 if not.

    With a smaller export of the model (`dap export --size`) it is over sooner; what is not the engine sees the same.
    """
    from benchmarks.soak import as_markdown, measure

    with progress("requests", requests) as advance:
        result = measure(model, panorama.read_bytes(), requests, clients, advance)
    machine = describe_machine()
    click.echo(f"{machine}; model {Path(model).name}, {clients} clients\n\n{as_markdown(result)}")
    _write(json_path, {"machine": asdict(machine), "model": Path(model).name, "measured": result.as_dict()})
    if not result.is_sound:
        raise SystemExit(1)


bench.add_command(overload.main, "overload")


def _write(path: Path | None, document: Mapping[str, Any]) -> None:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    bench()
