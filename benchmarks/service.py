"""The service on this machine: start, latency, memory; and under load beside the bare engine, LitServe and BentoML.

All that are compared take turns in one run, so that a change of the machine's mood falls on each. The bare engine is
ours on pixels that are decoded already, at the better of two batch sizes: nothing that decodes and encodes on the same
cores can be faster. On a GPU it has as many callers as it runs batches at a time, as the service gives it.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import load, servers
from benchmarks.load import Load
from benchmarks.metrics import Batches, read_batches
from benchmarks.processes import resident_mb, usage
from benchmarks.servers import DEFAULTS, Runtime, Server
from dap.engines.base import Engine
from dap.formats.depth import DEPTH_FORMATS
from dap.panorama import decode

STARTS = 3
SEQUENTIAL_S = 5.0
WARM_UP_S = 1.5
OPEN_LOOP_SHARES = (0.5, 0.8)
SEED = 2026


@dataclass(frozen=True)
class Alone:
    """The service with nobody else: seconds and megabytes (10^6 bytes), medians where not said otherwise."""

    import_s: float
    ready_s: float
    latency_p50_s: float
    latency_p95_s: float
    resident_idle_mb: float


@dataclass(frozen=True)
class Round:
    """One turn of one server: what it made of the load, and the processor seconds of all its processes."""

    load: Load
    cpu_s: float
    memory_mb: float


@dataclass
class Contender:
    """A server, and its turns under one kind of load."""

    server: Server
    answer_format: str
    turns: list[Round] = field(default_factory=list)
    batches: Batches = field(default_factory=Batches)

    def row(self, engine_per_s: float) -> dict[str, Any]:
        """Its numbers: throughput as the median of the turns, latencies of all of them together."""
        together = sum((turn.load for turn in self.turns[1:]), self.turns[0].load)
        per_s = statistics.median(turn.load.per_s for turn in self.turns)
        answered = len(together.answered)
        return {
            "server": self.server.name,
            "configuration": self.server.configuration,
            "format": self.answer_format,
            "per_s": per_s,
            "of_engine": per_s / engine_per_s,
            "per_s_by_turn": [turn.load.per_s for turn in self.turns],
            "p50_s": together.percentile(0.5),
            "p95_s": together.percentile(0.95),
            "p99_s": together.percentile(0.99),
            "cpu_ms": 1000 * sum(turn.cpu_s for turn in self.turns) / max(answered, 1),
            "memory_mb": max(turn.memory_mb for turn in self.turns),
            "mean_batch": self.batches.mean,
            "answered": answered,
            "failures": together.failures,
        }


@dataclass(frozen=True)
class Result:
    """All that one run measured; rows as `Contender.row` says."""

    device: str
    alone: Alone
    resident_peak_mb: float
    engine_per_s: float
    engine_cpu_ms: float
    clients: int
    closed: list[dict[str, Any]]
    opened: dict[str, list[dict[str, Any]]]


def measure(
    model: str,
    image: bytes,
    peers: Path | None,
    clients: int,
    seconds: float,
    rounds: int,
    advance: Callable[[int], None],
    runtime: Runtime = DEFAULTS,
) -> Result:
    """All of it, in one run.

    Args:
        model: name or file.
        image: JPEG.
        peers: the python of the peers' environment; None to leave them out.
        clients: of the closed loop.
        seconds: of each turn.
        rounds: turns of each contender.
        advance: told of the seconds that have been measured; see `duration`.
        runtime: of ours and of the bare engine.
    """
    options = runtime.options
    starts = [ready_seconds(model, image, options) for _ in range(STARTS - 1)]
    engine = runtime.create(model)
    batch_sizes = (1, runtime.max_batch_size)
    engine.warm_up(batch_sizes)
    pixels = decode(image, size=engine.input_size).pixels
    with ExitStack() as stack:
        ours = stack.enter_context(servers.ours(image, model, *options))
        alone = measure_alone(ours, [*starts, ours.ready_s])
        others = [stack.enter_context(peer) for peer in (_peers(image, model, peers) if peers else ())]
        contenders = [
            Contender(server, answer_format) for server in (ours, *others) for answer_format in servers.FORMATS
        ]
        check(contenders)
        bare = BareEngine(engine, pixels, batch_sizes)
        for _ in range(rounds):
            bare.take_turn(seconds)
            advance(round(seconds))
            for contender in contenders:
                take_turn(contender, ours, partial(closed_load, clients=clients, seconds=seconds))
                advance(round(seconds))
        opened = {}
        for share in OPEN_LOOP_SHARES:
            arrivals = load.poisson_arrivals(share * bare.per_s, 2 * seconds, SEED)
            racers = [Contender(server, "png") for server in (ours, *others)]
            for racer in racers:
                take_turn(racer, ours, partial(open_load, arrivals=arrivals))
                advance(round(2 * seconds))
            opened[f"{share:g}"] = [racer.row(bare.per_s) for racer in racers]
        return Result(
            engine.device,
            alone,
            resident_mb(ours.pid, "VmHWM"),
            bare.per_s,
            bare.cpu_ms,
            clients,
            [contender.row(bare.per_s) for contender in contenders],
            opened,
        )


def duration(peers: Path | None, seconds: float, rounds: int) -> int:
    """Seconds that the loads of `measure` take, starts and warming up aside."""
    parties = 3 if peers else 1
    turns = rounds * (1 + parties * len(servers.FORMATS)) + 2 * parties * len(OPEN_LOOP_SHARES)
    return turns * round(seconds)


def _peers(image: bytes, model: str, python: Path) -> Iterator[Any]:
    yield servers.litserve(image, model, python)
    yield servers.bentoml(image, model, python)


def ready_seconds(model: str, image: bytes, options: Sequence[str]) -> float:
    with servers.ours(image, model, *options) as server:
        return server.ready_s


def measure_alone(ours: Server, starts: Sequence[float]) -> Alone:
    idle = resident_mb(ours.pid)
    latencies = load.run(load.closed_loop(ours.requests["png"], 1, SEQUENTIAL_S, WARM_UP_S))
    return Alone(
        import_s=statistics.median(import_seconds() for _ in range(5)),
        ready_s=statistics.median(starts),
        latency_p50_s=latencies.percentile(0.5),
        latency_p95_s=latencies.percentile(0.95),
        resident_idle_mb=idle,
    )


def import_seconds() -> float:
    """Of the whole application, in a fresh interpreter, after its own start."""
    program = "import time; t = time.perf_counter(); import service.app; print(time.perf_counter() - t)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(run.stdout)


def check(contenders: Sequence[Contender]) -> None:
    """Hold the first answers against each other.

    Raises:
        RuntimeError: one is no depth map, or another one than ours: then there is nothing to compare.
    """
    known: dict[str, npt.NDArray[np.float32]] = {}
    for contender in contenders:
        answer = load.run(load.ask(contender.server.requests[contender.answer_format]))
        reader = DEPTH_FORMATS[contender.answer_format].decode
        if answer.status != 200 or reader is None:
            raise RuntimeError(f"{contender.server.name} answered {answer.status}: {answer.body[:200]!r}")
        depth = reader(answer.body).depth
        if not np.array_equal(depth, known.setdefault(contender.answer_format, depth)):
            raise RuntimeError(f"{contender.server.name} answers another {contender.answer_format} than ours")


class BareEngine:
    """The engine alone, its batch sizes in turns."""

    def __init__(self, engine: Engine, pixels: npt.NDArray[np.uint8], batch_sizes: Sequence[int]) -> None:
        self._engine = engine
        self._callers = 1 if engine.device == "cpu" else engine.lanes  # on a CPU who is alone has all cores
        self._batches = [np.stack([pixels] * size) for size in batch_sizes]
        self._turns: dict[int, list[tuple[float, float]]] = {size: [] for size in batch_sizes}

    def take_turn(self, seconds: float) -> None:
        for batch in self._batches:
            cpu, started = time.process_time(), time.perf_counter()
            ends = started + seconds / len(self._batches)
            with ThreadPoolExecutor(self._callers) as callers:
                runs: int = sum(callers.map(partial(self._run_until, ends), [batch] * self._callers))
            per_s = runs / (time.perf_counter() - started)
            self._turns[len(batch)].append((per_s, 1000 * (time.process_time() - cpu) / runs))

    def _run_until(self, ends: float, batch: npt.NDArray[np.uint8]) -> int:
        runs = 0
        while time.perf_counter() < ends:
            self._engine.infer(batch)
            runs += len(batch)
        return runs

    @property
    def per_s(self) -> float:
        """Panoramas per second: the median of the turns of the better batch size."""
        return self._best[0]

    @property
    def cpu_ms(self) -> float:
        """Processor milliseconds of a panorama, likewise."""
        return self._best[1]

    @property
    def _best(self) -> tuple[float, float]:
        medians = [tuple(map(statistics.median, zip(*turns, strict=True))) for turns in self._turns.values()]
        per_s, cpu_ms = max(medians)
        return per_s, cpu_ms


LoadOf = Callable[[load.Request, Callable[[], None]], Load]


def take_turn(contender: Contender, ours: Server, load_of: LoadOf) -> None:
    server = contender.server
    used: list[tuple[float, float]] = []

    def look() -> None:
        now = usage(server.pid)
        used.append((now.cpu_s, now.memory_mb))

    before = read_batches(server.url) if server is ours else Batches()
    result = load_of(server.requests[contender.answer_format], look)
    if server is ours:
        contender.batches += read_batches(server.url) - before
    contender.turns.append(Round(result, used[-1][0] - used[0][0], used[-1][1]))


def closed_load(request: load.Request, look: Callable[[], None], clients: int, seconds: float) -> Load:
    return load.run(load.closed_loop(request, clients, seconds, WARM_UP_S, look))


def open_load(request: load.Request, look: Callable[[], None], arrivals: Sequence[float]) -> Load:
    look()
    result = load.run(load.open_loop(request, arrivals))
    look()
    return result


def as_markdown(result: Result) -> str:
    """Tables for docs/performance.md."""
    alone = result.alone
    rows = {
        "import of the service": f"{alone.import_s:.2f} s",
        "start to ready": f"{alone.ready_s:.2f} s",
        "one 1024x512 JPEG to depth PNG, p50": f"{alone.latency_p50_s:.3f} s",
        "the same, p95": f"{alone.latency_p95_s:.3f} s",
        "resident memory when ready": f"{alone.resident_idle_mb:.0f} MB",
        "resident memory, peak of the run": f"{result.resident_peak_mb:.0f} MB",
        "bare engine": f"{result.engine_per_s:.2f} panoramas/s, {result.engine_cpu_ms:.0f} ms of processor time each",
    }
    lines = ["| what | measured |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows.items())]
    lines += ["", f"Closed loop, {result.clients} clients:", "", *_table(result.closed)]
    for share, racers in result.opened.items():
        rate = float(share) * result.engine_per_s
        lines += ["", f"Open loop, {rate:.1f} requests/s ({share} of the bare engine), Poisson:", "", *_table(racers)]
    return "\n".join(lines)


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    head = (
        "server|runs as|answer|panoramas/s|of the bare engine|p50 s|p95 s|p99 s|CPU ms each|memory MB|mean batch|failed"
    )
    columns = head.split("|")
    return [
        f"| {' | '.join(columns)} |",
        "|" + "---|" * len(columns),
        *(
            f"| {row['server']} | {row['configuration']} | {row['format']} "
            f"| {row['per_s']:.2f} | {row['of_engine']:.3f} "
            f"| {row['p50_s']:.3f} | {row['p95_s']:.3f} | {row['p99_s']:.3f} | {row['cpu_ms']:.0f} "
            f"| {row['memory_mb']:.0f} | {_or_dash(row['mean_batch'])} | {sum(row['failures'].values())} |"
            for row in rows
        ),
    ]


def _or_dash(number: float) -> str:
    return f"{number:.1f}" if number else ""
