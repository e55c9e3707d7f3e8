"""What a run says of itself: one JSON object a line for machines, log lines for people."""

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

_log = logging.getLogger(__name__)


class RunLog:
    """Appends to a JSONL file, and to the `training` logger. Each line has an `event` and the `time` (Unix seconds).

    Events: `step` (means over the steps since the last one: loss, terms, samples per second, share of the time spent
        waiting for samples) and
    whatever `event` is called with.
    """

    def __init__(self, path: Path, every: int) -> None:
        """Log a step of every `every`."""
        self._path = path
        self._every = every
        self._reset()

    def _reset(self) -> None:
        self._began = time.monotonic()
        self._waited = 0.0
        self._samples = 0
        self._steps = 0
        self._sums: dict[str, Tensor] = {}

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for samples."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    def step(self, step: int, samples: int, loss: Tensor, terms: dict[str, Tensor], **numbers: float) -> None:
        """Count a step; `numbers` are logged as they are at the step that is due."""
        self._samples += samples
        self._steps += 1
        for name, value in {"loss": loss.detach(), **terms}.items():
            self._sums[name] = self._sums.get(name, 0) + value
        if step % self._every:
            return
        seconds = time.monotonic() - self._began
        means = {name: float(total) / self._steps for name, total in self._sums.items()}
        speed = {"samples_per_s": self._samples / seconds, "waiting": self._waited / seconds}
        self.event("step", step=step, **means, **numbers, **speed)
        self._reset()

    def event(self, name: str, **numbers: float | str) -> None:
        """Log anything else."""
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in numbers.items()
        }
        with self._path.open("a") as file:
            file.write(json.dumps({"event": name, "time": round(time.time(), 3), **finite}) + "\n")
        _log.info(
            "%s %s", name, " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in numbers.items())
        )
