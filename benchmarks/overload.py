"""The service under ten times the load that it can bear: how fast it refuses, and whether it keeps what it promised.

    python -m benchmarks.overload --seconds 60 --output out/overload.json

An open loop: requests come on new connections at their own times, whatever became of those before. This process sends
and reads bytes and does nothing else, since it shares the machine's cores with the service.
"""

import asyncio
import json
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import uvloop

from benchmarks.processes import resident_mb
from dap.options import option
from demo.process import ServiceProcess, running_service
from demo.run import SAMPLE

CAPACITY_S = 8.0
CAPACITY_CLIENTS = 8
CONNECT_OR_ANSWER_S = 120.0
LAG_STEP_S = 0.01
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Exchange:
    """One request as its client saw it.

    Attributes:
        status: of the answer; 0 where the connection broke.
        sent_s: when it was sent, seconds after the first.
        seconds: from the first byte of the connection to the last byte of the answer.
    """

    status: int
    sent_s: float
    seconds: float


@dataclass(frozen=True)
class Spread:
    """Seconds; all 0 where there was nothing."""

    count: int
    p50: float
    p99: float
    largest: float


@dataclass(frozen=True)
class Measurements:
    """Of one run.

    Attributes:
        capacity_per_s: answers per second to clients that wait for each other's.
        offered_per_s: requests per second that were sent.
        statuses: how many exchanges ended in which status; 0 where the connection broke.
        refused: of the answers 429.
        accepted: of the answers 200.
        client_lag: how much later than it asked this process was woken, a hundred times a second. What the machine does
            to this process it adds to every other number.
        deadlines_missed: accepted, and answered 504 or later than the deadline.
        resident_idle_mb: megabytes (10^6 bytes) before.
        resident_peak_mb: the most there ever were.
        resident_after_mb: at the end.
    """

    capacity_per_s: float
    offered_per_s: float
    statuses: dict[int, int]
    refused: Spread
    accepted: Spread
    client_lag: Spread
    deadlines_missed: int
    resident_idle_mb: float
    resident_peak_mb: float
    resident_after_mb: float


@click.command()
@option("--model", default="dap-s", envvar="DAP_MODEL", help="A name that `dap models` lists, or a model's file.")
@option("--seconds", default=60.0, help="Of overload.")
@option("--times", default=10.0, help="How many times the capacity is offered.")
@option("--deadline", default=20.0, help="X-Request-Timeout of each request, seconds.")
@option("--burst", default=0, help="Requests that are sent at once instead, with nothing after; 0: none.")
@option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the numbers, JSON; they are printed as a table in any case.",
)
def main(model: str, seconds: float, times: float, deadline: float, burst: int, output: Path | None) -> None:
    """Ten times more requests than the service can bear: refusals, deadlines, memory."""
    with running_service("--model", model, "--log-level", "warning") as service:
        measured = uvloop.run(measure(service, SAMPLE.read_bytes(), seconds, times, deadline, burst))
    click.echo(as_markdown(measured))
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(asdict(measured), indent=2) + "\n")


async def measure(
    service: ServiceProcess, image: bytes, seconds: float, times: float, deadline: float, burst: int
) -> Measurements:
    """First what the service can bear, then a multiple of it."""
    await closed_loop(service, image, 1.0)
    idle = resident_mb(service.pid)
    capacity = await closed_loop(service, image, CAPACITY_S)
    moments = [0.0] * burst if burst else arrivals(times * capacity, seconds)
    lags: list[float] = []
    watching = asyncio.create_task(watch_lag(lags))
    exchanges = await open_loop(service, image, moments, deadline)
    watching.cancel()
    accepted = [exchange.seconds for exchange in exchanges if exchange.status == 200]
    return Measurements(
        capacity_per_s=capacity,
        offered_per_s=0.0 if burst else len(moments) / seconds,
        statuses=dict(sorted(Counter(exchange.status for exchange in exchanges).items())),
        refused=spread([exchange.seconds for exchange in exchanges if exchange.status == 429]),
        accepted=spread(accepted),
        client_lag=spread(lags),
        deadlines_missed=sum(value > deadline for value in accepted)
        + sum(exchange.status == 504 for exchange in exchanges),
        resident_idle_mb=idle,
        resident_peak_mb=resident_mb(service.pid, "VmHWM"),
        resident_after_mb=resident_mb(service.pid),
    )


def arrivals(per_s: float, seconds: float) -> list[float]:
    """Moments of a Poisson process, seconds from its beginning, ascending; the same in every run."""
    chance = random.Random(0)
    moments, moment = [], chance.expovariate(per_s)
    while moment < seconds:
        moments.append(moment)
        moment += chance.expovariate(per_s)
    return moments


async def closed_loop(service: ServiceProcess, image: bytes, seconds: float) -> float:
    """Answers per second to clients that each send the next request when the last is answered."""
    request = as_request(image, deadline=60.0)
    started = time.perf_counter()

    async def client() -> int:
        answered = 0
        while time.perf_counter() < started + seconds:
            answered += (await exchange(service, request, started)).status == 200
        return answered

    return sum(await asyncio.gather(*(client() for _ in range(CAPACITY_CLIENTS)))) / (time.perf_counter() - started)


async def open_loop(
    service: ServiceProcess, image: bytes, moments: Sequence[float], deadline: float
) -> Sequence[Exchange]:
    """One request at each of these moments."""
    request = as_request(image, deadline)
    started = time.perf_counter()
    running = []
    for moment in moments:
        await asyncio.sleep(max(0.0, started + moment - time.perf_counter()))
        running.append(asyncio.create_task(exchange(service, request, started)))
    return await asyncio.gather(*running)


async def watch_lag(lags: list[float]) -> None:
    """Note until cancelled how late this process is woken."""
    while True:
        asked = time.perf_counter() + LAG_STEP_S
        await asyncio.sleep(LAG_STEP_S)
        lags.append(max(0.0, time.perf_counter() - asked))


def as_request(image: bytes, deadline: float) -> bytes:
    """POST /depth of this picture, as bytes on the wire."""
    head = (
        "POST /depth HTTP/1.1\r\nHost: service\r\nContent-Type: image/jpeg\r\nConnection: close\r\n"
        f"X-Request-Timeout: {deadline:g}\r\nContent-Length: {len(image)}\r\n\r\n"
    )
    return head.encode() + image


async def exchange(service: ServiceProcess, request: bytes, started: float) -> Exchange:
    """Send a request on a connection of its own and read the answer to its end."""
    host, port = service.url.removeprefix("http://").split(":")
    sent = time.perf_counter()
    status = 0
    try:
        async with asyncio.timeout(CONNECT_OR_ANSWER_S):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(request)  # not awaited: an answer may come before all of it is taken
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                await reader.readexactly(int(length[1]) if length else 0)
                status = int(head.split(b" ", 2)[1])
            finally:
                writer.close()
    except (OSError, EOFError, TimeoutError):
        pass
    return Exchange(status, sent - started, time.perf_counter() - sent)


def spread(seconds: Sequence[float]) -> Spread:
    """Median, 99th percentile and largest."""
    if len(seconds) < 2:
        return Spread(len(seconds), *([*seconds, 0.0][0],) * 3)
    percentiles = statistics.quantiles(seconds, n=100, method="inclusive")
    return Spread(len(seconds), percentiles[49], percentiles[98], max(seconds))


def as_markdown(measured: Measurements) -> str:
    """A table for docs/performance.md."""
    statuses = ", ".join(f"{status or 'broken'}: {count}" for status, count in measured.statuses.items())
    rows = [
        ("capacity, answers/s", f"{measured.capacity_per_s:.1f}"),
        ("offered, requests/s", f"{measured.offered_per_s:.0f}"),
        ("statuses", statuses),
        ("429 p50 / p99 / max, ms", _milliseconds(measured.refused)),
        ("200 p50 / p99 / max, ms", _milliseconds(measured.accepted)),
        ("the client's own lag, the same", _milliseconds(measured.client_lag)),
        ("deadlines missed", str(measured.deadlines_missed)),
        (
            "resident before / peak / after, MB",
            f"{measured.resident_idle_mb:.0f} / {measured.resident_peak_mb:.0f} / {measured.resident_after_mb:.0f}",
        ),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _milliseconds(values: Spread) -> str:
    return f"{1000 * values.p50:.0f} / {1000 * values.p99:.0f} / {1000 * values.largest:.0f}"


if __name__ == "__main__":
    main()
