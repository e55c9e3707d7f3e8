"""A service without weights: an engine whose depth is told from the red channel."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest

from dap.engines.base import Inference


@dataclass
class RedEngine:
    """Depth in metres is the red channel / 2; a pixel is in range of each threshold that is farther.

    `gate` holds the engine inside a run while it is cleared; `entered` tells that a run has begun.
    """

    name: str = "red"
    device: str = "cpu"
    input_size: tuple[int, int] = (32, 64)
    thresholds: tuple[float, ...] = (10.0, 20.0, 50.0, 100.0)
    before: Callable[[npt.NDArray[np.uint8]], None] = lambda panoramas: None
    batches: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    closed: bool = False

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def batch_sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]

    def infer(self, panoramas: npt.NDArray[np.uint8]) -> Inference:
        self.batches.append(panoramas)
        self.entered.release()
        assert self.gate.wait(timeout=10)
        self.before(panoramas)
        depth = panoramas[..., 0].astype(np.float32) / 2
        in_range = np.stack([(depth < threshold).astype(np.float32) for threshold in self.thresholds], axis=1)
        return Inference(depth, in_range)

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        for size in batch_sizes:
            self.infer(np.zeros((size, *self.input_size, 3), np.uint8))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def engine() -> RedEngine:
    return RedEngine()
