"""What a run says of itself: one JSON object a line for machines, log lines and TensorBoard for people."""

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dap.errors import TrainingError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_log = logging.getLogger(__name__)


def strict_json(fields: dict[str, float | str], indent: int | None = None) -> str:
    """JSON as the standard has it: what is not finite is null."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}
    return json.dumps(finite, indent=indent, allow_nan=False)


def open_board(folder: Path, first_step: int) -> "SummaryWriter":
    """A TensorBoard of a run, for `RunLog`; what an earlier process wrote of `first_step` and later is hidden.

    Raises:
        TrainingError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError("The log needs tensorboard: install the extra `train`.") from error
    return SummaryWriter(folder, purge_step=first_step)


class RunLog:
    """Appends to a JSONL file, to the `training` logger and to TensorBoard. A context manager.

    Each line has an `event` and the `time` (Unix seconds). Events: `step` (means over the steps since the last one:
    loss, terms, samples per second, share of the time spent waiting for samples) and whatever `event` is called with.
    """

    def __init__(self, path: Path | None, every: int, board: "SummaryWriter | None" = None) -> None:
        """Log a step of every `every`. Without a path nothing is said: of several processes one speaks for all."""
        if path is not None:
            _drop_half_a_line(path)
        self._path = path
        self._every = every
        self._board = board
        self._reset()

    @classmethod
    def of_run(cls, folder: Path, every: int, first_step: int) -> Self:
        """The log of the run of a folder that begins, or goes on, with a step: `log.jsonl`, and `tensorboard`."""
        return cls(folder / "log.jsonl", every, open_board(folder / "tensorboard", first_step))

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

    def step(self, step: int, samples: int, losses: dict[str, Tensor], facts: dict[str, float]) -> None:
        """Count a step; when a line is due it has the mean losses since the last one, and this step's facts."""
        self._samples += samples
        self._steps += 1
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0) + value
        if self._path is None or step % self._every:
            return
        seconds = time.monotonic() - self._began
        means = {name: float(total) / self._steps for name, total in self._sums.items()}
        speed = {"samples_per_s": self._samples / seconds, "waiting": self._waited / seconds}
        fields = means | facts | speed
        self.event("step", " ".join(f"{name} {value:.4g}" for name, value in fields.items()), step=step, **fields)
        self._reset()

    def event(self, name: str, line: str, *, step: int, **fields: float | str) -> None:
        """Write an event of a step: `fields` to the file (not finite: null) and TensorBoard, `line` to the logger."""
        if self._path is None:
            return
        record = {"event": name, "time": round(time.time(), 3), "step": step, **fields}
        with self._path.open("a") as file:
            file.write(strict_json(record) + "\n")
        _log.info("step %d: %s", step, line)
        if self._board is not None:
            group = "/".join([name, *(value for value in fields.values() if isinstance(value, str))])
            for field, value in fields.items():
                if not isinstance(value, str):
                    self._board.add_scalar(f"{group}/{field}", value, step)

    def picture(self, name: str, pixels: npt.NDArray[np.uint8], step: int) -> None:
        """Show a picture, (H, W, 3), in TensorBoard."""
        if self._board is not None:
            self._board.add_image(name, pixels, step, dataformats="HWC")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()


def _drop_half_a_line(path: Path) -> None:
    """What a process was writing when it was killed."""
    if path.exists():
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
