"""The command `dap bench`: the programs that measure. docs/performance.md says what they gave."""

from dataclasses import asdict
from pathlib import Path

import click

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
    from benchmarks.service import as_json, as_markdown, duration, measure

    with progress("measuring (s)", duration(peers, seconds, rounds)) as advance:
        result = measure(model, panorama.read_bytes(), peers, clients, seconds, rounds, advance)
    machine = describe_machine()
    click.echo(f"{machine}\n\n{as_markdown(result)}")
    if json_path:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(as_json(asdict(machine), asdict(result)))


if __name__ == "__main__":
    bench()
