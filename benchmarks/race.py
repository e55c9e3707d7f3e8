"""Contenders that take turns in one run, so that a change of the machine's mood falls on each; who says when."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from benchmarks.racer import Entry, Ready, Turn

_ROOT = Path(__file__).parent.parent
_ENDS_WITHIN_S = 20.0
_SAID = 400


class RacerFailed(Exception):
    """The process of a contender ended; the message has what it said last."""


@dataclass
class Record:
    """What a process was to run, and what it said of it.

    Attributes:
        entry: what it was to run.
        ready: when it had run once.
        device_mb: megabytes that it took of a GPU, as its driver counts; None on a CPU.
        turns: those that it has taken.
    """

    entry: Entry
    ready: Ready
    device_mb: float | None = None
    turns: list[Turn] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        """Of each run of all turns."""
        return [seconds for turn in self.turns for seconds in turn.seconds]

    @property
    def running_mb(self) -> float:
        """In memory at most, since the first run ended."""
        return max(turn.running_mb for turn in self.turns)

    @property
    def peak_mb(self) -> float:
        """In memory at most at any time, libraries included."""
        return max(self.ready.loading_mb, self.running_mb)

    @property
    def grown_mb(self) -> float:
        """The same beyond what the libraries take when they are loaded: weights, and what is computed."""
        return self.peak_mb - self.ready.imported_mb

    @property
    def rate(self) -> float:
        """FLOP or bytes a second of a ceiling."""
        return self.ready.amount / statistics.median(self.seconds)


class Racer:
    """The process of one contender.

    Attributes:
        record: what it said so far.
    """

    def __init__(self, entry: Entry, process: "subprocess.Popen[str]", log: IO[bytes]) -> None:
        """Wait until it has run once; see `racing`."""
        self._process = process
        self._log = log
        used_mb = device_used_mb(entry.device)
        self.record = Record(entry, Ready(**self._answer()))
        if used_mb is not None:
            self.record.device_mb = (device_used_mb(entry.device) or 0.0) - used_mb

    def take_turn(self, seconds: float) -> None:
        """Let it run for as long, and once at least.

        Raises:
            RacerFailed: it ended instead.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        said = self._answer()
        self.record.turns.append(Turn(**{**said, "seconds": tuple(said["seconds"])}))

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            said = self._log.read().decode(errors="replace").strip()
            raise RacerFailed(said.rpartition("\n")[2][-_SAID:] or "it ended without a word")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def racing(entry: Entry) -> Iterator[Racer]:
    """A process that runs `entry`, and has run it once; it ends with the context.

    Raises:
        RacerFailed: it cannot run.
    """
    # Some libraries size their pools when they are loaded.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(entry.threads))
    with TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.racer", entry.to_json()],
            cwd=_ROOT,
            env={**os.environ, **threads},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            yield Racer(entry, process, log)
        finally:
            _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    try:
        process.wait(timeout=_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def device_used_mb(device: str) -> float | None:
    """Megabytes in use on a GPU, by whomever; None for a CPU."""
    if device == "cpu":
        return None
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / 1e6


def race(
    entries: Sequence[Entry], seconds: float, rounds: int, advance: Callable[[int], None]
) -> tuple[dict[Entry, Record], dict[Entry, str]]:
    """All of them in turns, each of which is so many seconds long, and one run at least.

    Args:
        entries: what each process runs.
        seconds: of a turn.
        rounds: turns of each.
        advance: told of each turn, those aside that could not start.

    Returns:
        What those said that ran, in their order, and what those said that could not start.

    Raises:
        RacerFailed: one ended that had started.
    """
    started: dict[Entry, Racer] = {}
    failed: dict[Entry, str] = {}
    with ExitStack() as stack:
        for entry in entries:
            try:
                started[entry] = stack.enter_context(racing(entry))
            except RacerFailed as error:
                failed[entry] = str(error)
        for _ in range(rounds):
            for racer in started.values():
                racer.take_turn(seconds)
                advance(1)
        return {entry: racer.record for entry, racer in started.items()}, failed
