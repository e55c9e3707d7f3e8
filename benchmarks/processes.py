"""Processor time and memory of a process and all its descendants, from /proc; and what machine this is."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from dap.engines.cores import available_cores
from dap.engines.cuda import driver_version

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Of a process tree at a moment.

    Attributes:
        cpu_s: processor seconds, user and system, of all that live now.
        memory_mb: megabytes (10^6 bytes) in memory; what processes share counts once (PSS).
    """

    cpu_s: float
    memory_mb: float


@dataclass(frozen=True)
class Gpu:
    """A CUDA device, as torch finds it.

    Attributes:
        name: as the driver says it, `NVIDIA H200`.
        memory_gb: gigabytes (10^9 bytes).
        driver: its version; empty where the kernel does not tell it.
        torch: version of torch, which names the CUDA that it is built for.
    """

    name: str
    memory_gb: float
    driver: str
    torch: str

    def __str__(self) -> str:
        driver = f"driver {self.driver}, " if self.driver else ""
        return f"{self.name}, {self.memory_gb} GB, {driver}torch {self.torch}"


@dataclass(frozen=True)
class Machine:
    processor: str
    cores: int
    memory_gb: float
    python: str
    onnxruntime: str
    gpu: Gpu | None = None

    def __str__(self) -> str:
        gpu = f"{self.gpu}; " if self.gpu else ""
        return (
            f"{gpu}{self.processor}, {self.cores} cores, {self.memory_gb} GB; "
            f"Python {self.python}, ONNX Runtime {self.onnxruntime}"
        )


def describe_machine(device: str = "cpu") -> Machine:
    """This machine, and of its GPUs the one that was measured.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
    """
    processors = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return Machine(
        processor=processors[0] if processors else platform.machine(),
        cores=available_cores(),
        memory_gb=round(_field("/proc/meminfo", "MemTotal") / 1e9, 1),
        python=platform.python_version(),
        onnxruntime=onnxruntime.__version__,
        gpu=_gpu(device) if device.startswith("cuda") else None,
    )


def _gpu(device: str) -> Gpu | None:
    """None where torch cannot tell, which ONNX Runtime and TensorRT do without: it is not here, or not for CUDA."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(device)
    return Gpu(properties.name, round(properties.total_memory / 1e9, 1), driver_version(), torch.__version__)


def tree(pid: int) -> list[int]:
    """A process and its descendants; none where it has ended."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children += [int(child) for child in task.read_text().split()]
        except OSError:
            continue  # It has ended since.
    alive = [pid] if Path(f"/proc/{pid}").exists() else []
    return alive + [descendant for child in children for descendant in tree(child)]


def usage(pid: int) -> Usage:
    """Of a process and its descendants, now."""
    cpu_s, memory_mb = 0.0, 0.0
    for member in tree(pid):
        try:
            cpu_s += _cpu_seconds(Path(f"/proc/{member}/stat").read_text())
            memory_mb += _field(f"/proc/{member}/smaps_rollup", "Pss") / 1e6
        except OSError:
            continue
    return Usage(cpu_s, memory_mb)


def resident_mb(pid: int, field: str = "VmRSS") -> float:
    """Megabytes of one process: `VmRSS` now, `VmHWM` at most."""
    return _field(f"/proc/{pid}/status", field) / 1e6


def forget_peak() -> None:
    """Let `VmHWM` of this process begin anew, at what it has in memory now (proc_pid_clear_refs(5))."""
    Path("/proc/self/clear_refs").write_text("5")


def _cpu_seconds(stat: str) -> float:
    """From /proc/PID/stat; the name in parentheses may hold anything (proc_pid_stat(5))."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _field(path: str, name: str) -> int:
    """Bytes of a field in kilobytes."""
    (kilobytes,) = (int(line.split()[1]) for line in _lines(path) if line.startswith(f"{name}:"))
    return kilobytes * 1024


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
