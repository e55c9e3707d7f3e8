"""How fast a pass over shards is, and what it would cost for millions."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Forecast:
    """What so many panoramas would take.

    Attributes:
        panoramas: how many.
        hours: with as many workers as were measured.
        worker_hours: of all of them: GPU hours, where they are GPUs.
        cost: of these, in the unit of the price; None without one.
    """

    panoramas: int
    hours: float
    worker_hours: float
    cost: float | None


class Throughput:
    """Panoramas a second, measured as shards are finished.

    Where there are shards enough, the first of each worker is not counted: loading models and filling the pipeline are
    in it, of which a long run has none.
    """

    def __init__(self, workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock.

        Args:
            workers: side by side.
            clock: seconds.
        """
        self.workers = workers
        self._clock = clock
        self._done: list[tuple[float, int]] = [(clock(), 0)]

    def add(self, panoramas: int) -> None:
        """A shard of so many is finished."""
        self._done.append((self._clock(), panoramas))

    @property
    def panoramas(self) -> int:
        """All that are finished."""
        return sum(panoramas for _, panoramas in self._done)

    @property
    def per_second(self) -> float | None:
        """Panoramas a second of all workers; None where nothing was done."""
        first = self.workers if len(self._done) > 2 * self.workers + 1 else 0
        seconds = self._done[-1][0] - self._done[first][0]
        panoramas = sum(panoramas for _, panoramas in self._done[first + 1 :])
        return panoramas / seconds if panoramas and seconds > 0 else None

    def forecast(self, panoramas: int, price: float | None = None) -> Forecast | None:
        """What so many would take at this rate; None where nothing was done.

        Args:
            panoramas: how many.
            price: of an hour of one worker's device.
        """
        rate = self.per_second
        if rate is None:
            return None
        hours = panoramas / rate / 3600
        worker_hours = hours * self.workers
        return Forecast(panoramas, hours, worker_hours, None if price is None else price * worker_hours)
