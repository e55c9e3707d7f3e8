"""A few real steps of a training at its true shapes on the device at hand: how long one takes, and how much memory.

What is trained is the trainer's own step, on noise instead of panoramas and from random weights, which cost the same.
"""

import platform
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dap.errors import TrainingError
from training.batches import Batch
from training.config import Phase, TrainingConfig
from training.distributed import Process
from training.losses import Truth
from training.trainer import descend, start, update

_WARM_UP = 2
_PATIENCE_S = 600.0
_CPU_FLOPS = 5e9
"""FLOP a second of a CPU, cautiously (bf16 without instructions for it): only to refuse what would take hours."""


@dataclass(frozen=True)
class StepTiming:
    """What was measured.

    Attributes:
        device: the GPU's name, or that of the processor.
        torch: its version.
        threads: of torch on the CPU.
        height: of the panoramas.
        samples: a step; one process's share.
        accumulate: parts in which they ran.
        checkpoint_activations: whether activations were computed again.
        precision: `bf16` or `float32`.
        steps: that were timed, after two that were not.
        seconds: of the median step.
        peak_bytes: most that was allocated at once; on a CPU the most that the process ever had in memory, program and
            libraries included.
        tflops: 10^12 counted FLOP a second.
    """

    device: str
    torch: str
    threads: int
    height: int
    samples: int
    accumulate: int
    checkpoint_activations: bool
    precision: str
    steps: int
    seconds: float
    peak_bytes: int
    tflops: float


def time_steps(
    config: TrainingConfig, height: int, samples: int, step_flop: int, device: torch.device, steps: int = 5
) -> StepTiming:
    """Train a few steps and time each.

    Args:
        config: of the training; its network, losses, precision, parts of a batch, and what it keeps of activations.
        height: of the panoramas.
        samples: a step.
        step_flop: FLOP of a sample, from `training.step_trace`.
        device: that trains.
        steps: that are timed.

    Raises:
        TrainingError: on a CPU it would take longer than ten minutes.
    """
    estimate = (steps + _WARM_UP) * samples * step_flop / _CPU_FLOPS
    if device.type == "cpu" and estimate > _PATIENCE_S:
        raise TrainingError(
            f"{steps + _WARM_UP} steps of {samples} x {height}x{2 * height} would take this CPU about "
            f"{estimate / 60:,.0f} minutes: measure on a GPU, or give a lower --height or --batch"
        )
    phases = (Phase(height, steps + _WARM_UP, samples),)
    config = replace(config, phases=phases, initial="random", weights="", sharded=False)
    process = Process(device)
    with tempfile.TemporaryDirectory() as nowhere:
        learner, _ = start(config, Path(nowhere), process)
    batch = noise(samples, height, config.seed)
    seconds = []
    for step in range(config.steps):
        if step == _WARM_UP and device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        begun = _now(device)
        losses = descend(config, learner, batch, step, process)
        update(learner, losses["loss"], config.optimizer.clip, config.learning_rate_at(step), 0.9)
        seconds.append(_now(device) - begun)
    median = sorted(seconds[_WARM_UP:])[steps // 2]
    return StepTiming(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU",
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        height=height,
        samples=samples,
        accumulate=config.accumulate,
        checkpoint_activations=config.checkpoint_activations,
        precision="bf16" if config.uses_bf16(device.type) else "float32",
        steps=steps,
        seconds=median,
        peak_bytes=_peak_bytes(device),
        tflops=samples * step_flop / median / 1e12,
    )


def noise(samples: int, height: int, seed: int) -> Batch:
    """Panoramas and depth of nothing, for who only needs their size."""
    generator = torch.Generator().manual_seed(seed)
    size = (samples, height, 2 * height)
    rgb = torch.randint(256, (*size, 3), dtype=torch.uint8, generator=generator)
    depth = torch.rand(size, generator=generator) * 150 + 0.5
    return Batch(rgb, Truth(depth, depth > 0))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # In kilobytes, but for macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
