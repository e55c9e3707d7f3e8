"""The service on this machine: start, latency, memory, and throughput beside the bare engine's in the same run.

    python -m benchmarks.service --json out/benchmark.json

Needs a quiet machine: clients, service and engine share its cores. The bare engine and the service take turns, so that
a change of the machine's mood falls on both.
"""

import asyncio
import json
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import click
import httpx
import numpy as np

from dap.engines import create_engine
from dap.engines.base import Engine
from dap.engines.cores import available_cores
from dap.models import find_model
from dap.panorama import decode
from demo.process import ServiceProcess, running_service
from demo.run import SAMPLE

STARTS = 3
CLIENTS = 8
ROUNDS = 5
ENGINE_BATCHES = (1, 4)
WARM_UP_S = 1.0


@dataclass(frozen=True)
class Machine:
    processor: str
    cores: int
    memory_gb: float
    python: str
    onnxruntime: str


@dataclass(frozen=True)
class Measurements:
    """Seconds, megabytes (10^6 bytes) and panoramas per second; medians where not said otherwise."""

    import_s: float
    ready_s: float
    latency_p50_s: float
    latency_p95_s: float
    resident_idle_mb: float
    resident_peak_mb: float
    engine_per_s: float
    service_per_s: dict[str, float]


@click.command()
@click.option("--model", default="dap-s", show_default=True)
@click.option("--requests", default=40, show_default=True, help="One after the other, for the latency.")
@click.option("--seconds", default=6.0, show_default=True, help="Of each round of throughput.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Also write the numbers here."
)
def main(model: str, requests: int, seconds: float, json_path: Path | None) -> None:
    """Measure, and print a table for docs/performance.md."""
    image = SAMPLE.read_bytes()
    machine, measured = describe_machine(), measure(model, image, requests, seconds)
    click.echo(as_markdown(machine, measured))
    if json_path:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps({"machine": asdict(machine), "measured": asdict(measured)}, indent=2) + "\n")


def measure(model: str, image: bytes, requests: int, seconds: float) -> Measurements:
    """All of it, in one run."""
    starts = []
    for _ in range(STARTS - 1):
        with running_service("--model", model) as service:
            starts.append(service.ready_s)
    engine = create_engine(find_model(model))
    engine.warm_up(ENGINE_BATCHES)
    pixels = decode(image, size=engine.input_size).pixels
    with running_service("--model", model) as service:
        idle = memory_mb(service.pid, "VmRSS")
        latencies = sorted(sequential_latencies(service, image, requests))
        asyncio.run(service_throughput(service, image, "image/png", WARM_UP_S))
        bare: dict[int, list[float]] = {size: [] for size in ENGINE_BATCHES}
        answered: dict[str, list[float]] = {"image/png": [], "application/json": []}
        for _ in range(ROUNDS):
            for size in bare:
                bare[size].append(engine_throughput(engine, np.stack([pixels] * size), seconds / len(bare)))
            for accept in answered:
                answered[accept].append(asyncio.run(service_throughput(service, image, accept, seconds)))
        peak = memory_mb(service.pid, "VmHWM")
    return Measurements(
        import_s=statistics.median(import_seconds() for _ in range(5)),
        ready_s=statistics.median([*starts, service.ready_s]),
        latency_p50_s=statistics.median(latencies),
        latency_p95_s=latencies[int(0.95 * (len(latencies) - 1))],
        resident_idle_mb=idle,
        resident_peak_mb=peak,
        engine_per_s=max(statistics.median(rounds) for rounds in bare.values()),
        service_per_s={accept: statistics.median(rounds) for accept, rounds in answered.items()},
    )


def import_seconds() -> float:
    """Of the whole application, in a fresh interpreter, after its own start."""
    program = "import time; t = time.perf_counter(); import service.app; print(time.perf_counter() - t)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(run.stdout)


def sequential_latencies(service: ServiceProcess, image: bytes, requests: int) -> list[float]:
    """Seconds of each request for the depth PNG at the panorama's own size."""
    seconds = []
    with httpx.Client(base_url=service.url, timeout=60.0) as client:
        for _ in range(requests):
            started = time.perf_counter()
            client.post("/depth", content=image, headers={"Content-Type": "image/jpeg"}).raise_for_status()
            seconds.append(time.perf_counter() - started)
    return seconds


async def service_throughput(service: ServiceProcess, image: bytes, accept: str, seconds: float) -> float:
    """Answers per second to clients that each send the next request when the last is answered."""
    headers = {"Content-Type": "image/jpeg", "Accept": accept}
    started = time.perf_counter()

    async def client_loop(client: httpx.AsyncClient) -> int:
        answered = 0
        while time.perf_counter() < started + seconds:
            (await client.post("/depth", content=image, headers=headers)).raise_for_status()
            answered += 1
        return answered

    async with httpx.AsyncClient(base_url=service.url, timeout=60.0) as client:
        answered = await asyncio.gather(*(client_loop(client) for _ in range(CLIENTS)))
    return sum(answered) / (time.perf_counter() - started)


def engine_throughput(engine: Engine, batch: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], seconds: float) -> float:
    """Panoramas per second of the engine alone, on pixels that are already there."""
    started, runs = time.perf_counter(), 0
    while time.perf_counter() < started + seconds:
        engine.infer(batch)
        runs += 1
    return runs * len(batch) / (time.perf_counter() - started)


def memory_mb(pid: int, field: str) -> float:
    """A field of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kilobytes,) = (int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
    return kilobytes * 1024 / 1e6


def describe_machine() -> Machine:
    processors = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    (kilobytes,) = (int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal:"))
    return Machine(
        processor=processors[0] if processors else platform.machine(),
        cores=available_cores(),
        memory_gb=round(kilobytes * 1024 / 1e9, 1),
        python=platform.python_version(),
        onnxruntime=version("onnxruntime"),
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def as_markdown(machine: Machine, measured: Measurements) -> str:
    """The machine in a line, and a table."""
    rows = {
        "import of the service": f"{measured.import_s:.2f} s",
        "start to ready": f"{measured.ready_s:.2f} s",
        "one 1024x512 JPEG to depth PNG, p50": f"{measured.latency_p50_s:.3f} s",
        "the same, p95": f"{measured.latency_p95_s:.3f} s",
        "resident memory when ready": f"{measured.resident_idle_mb:.0f} MB",
        "resident memory, peak of the run": f"{measured.resident_peak_mb:.0f} MB",
        "bare engine": f"{measured.engine_per_s:.2f} panoramas/s",
    }
    for accept, per_s in measured.service_per_s.items():
        share = per_s / measured.engine_per_s
        rows[f"{CLIENTS} clients, {accept}"] = f"{per_s:.2f} panoramas/s, {share:.2f} of the bare engine"
    lines = [
        f"{machine.processor}, {machine.cores} cores, {machine.memory_gb} GB; "
        f"Python {machine.python}, ONNX Runtime {machine.onnxruntime}",
        "",
        "| what | measured |",
        "|---|---|",
        *(f"| {what} | {value} |" for what, value in rows.items()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
