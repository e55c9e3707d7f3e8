"""What one request costs beside inference, through the real way: HTTP, decoding, encoding.

For each request the milliseconds from its first byte out to the last byte of its answer here, less the two that the
answer's Server-Timing names queue and inference.
"""

import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import load, servers
from benchmarks.load import Connection, Request
from benchmarks.metrics import read_device
from benchmarks.servers import DEFAULTS, FORMATS, Runtime, Server

LARGE = (8192, 4096)
GRAIN = 2.0

_STAGE = re.compile(r"(\w+);dur=([\d.]+)")


@dataclass(frozen=True)
class Case:
    """One kind of request.

    Attributes:
        name: for the table.
        request: what is sent.
        at_most_ms: what it may cost.
    """

    name: str
    request: Request
    at_most_ms: float


@dataclass(frozen=True)
class Cost:
    """Of one case: milliseconds beside inference, and the medians of the stages that the service names."""

    name: str
    body_mb: float
    at_most_ms: float
    p50_ms: float
    p95_ms: float
    stages_ms: Mapping[str, float]

    @property
    def is_met(self) -> bool:
        return self.p50_ms <= self.at_most_ms


def measure(
    model: str, image: bytes, requests: int, advance: Callable[[int], None], runtime: Runtime = DEFAULTS
) -> tuple[str, list[Cost]]:
    """Each case so many times, one request after the other, and before them the device that the model ran on."""
    with servers.ours(image, model, *runtime.options) as server:
        costs = []
        for case in cases(server, image):
            costs.append(load.run(_cost(case, requests)))
            advance(requests)
        return read_device(server.url), costs


def cases(server: Server, image: bytes) -> list[Case]:
    size = "size=1024x512"
    baseline, progressive = enlarged(image, progressive=False), enlarged(image, progressive=True)

    def case(name: str, body: bytes, answer: str, query: str, at_most_ms: float) -> Case:
        headers = {"Content-Type": "image/jpeg", "Accept": FORMATS[answer]}
        return Case(f"{name} to {answer}", load.post(f"{server.url}/depth?{query}", body, headers), at_most_ms)

    return [
        case("1024x512 JPEG", image, "npy", size, 10),
        case("1024x512 JPEG", image, "png", size, 20),
        case("8192x4096 JPEG, baseline,", baseline, "png", size, 120),
        case("8192x4096 JPEG, progressive,", progressive, "png", size, 120),
    ]


def enlarged(image: bytes, *, progressive: bool) -> bytes:
    """The panorama as a JPEG of 8192x4096, with some grain: without it there would be little to decode."""
    picture = Image.open(BytesIO(image)).convert("RGB").resize(LARGE, Image.Resampling.BICUBIC)
    width, height = LARGE
    grain = np.random.default_rng(0).normal(0, GRAIN, (height // 2, width // 2, 1)).astype(np.float32)
    pixels = np.clip(np.asarray(picture) + np.tile(grain, (2, 2, 1)), 0, 255).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90, progressive=progressive)
    return stream.getvalue()


async def _cost(case: Case, requests: int) -> Cost:
    beside: list[float] = []
    stages: dict[str, list[float]] = {}
    connection = await Connection.open(case.request, keep_answers=True)
    for number in range(requests + 1):
        seconds, answer = await load.timed(connection, case.request.data)
        if answer.status != 200:
            raise RuntimeError(f"{case.name} was answered {answer.status}")
        timing = server_timing(answer.head)
        if number:  # The first finds what is lazy.
            beside.append(1000 * seconds - timing["queue"] - timing["inference"])
            for stage, milliseconds in timing.items():
                stages.setdefault(stage, []).append(milliseconds)
    connection.close()
    beside.sort()
    return Cost(
        case.name,
        len(case.request.data) / 1e6,
        case.at_most_ms,
        load.percentile(beside, 0.5),
        load.percentile(beside, 0.95),
        {stage: statistics.median(values) for stage, values in stages.items()},
    )


def server_timing(head: bytes) -> dict[str, float]:
    """Milliseconds of each stage, from the head of an answer."""
    (line,) = (line for line in head.decode("latin-1").split("\r\n") if line.lower().startswith("server-timing:"))
    return {stage: float(milliseconds) for stage, milliseconds in _STAGE.findall(line)}


def as_markdown(costs: list[Cost]) -> str:
    """A table for docs/performance.md."""
    rows = [
        f"| {cost.name} | {cost.body_mb:.1f} | {cost.p50_ms:.1f} | {cost.p95_ms:.1f} | {cost.at_most_ms:g} "
        f"| {cost.stages_ms['decode']:.1f} | {cost.stages_ms['encode']:.1f} |"
        for cost in costs
    ]
    head = "| one request | sent MB | beside inference, p50 ms | p95 ms | asked for | decode ms | encode ms |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *rows])


def as_list(costs: list[Cost]) -> list[dict[str, Any]]:
    return [{**vars(cost), "is_met": cost.is_met} for cost in costs]
