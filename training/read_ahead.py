"""Batches read by a thread while the step before them is computed."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from training.batches import Batch

PREFETCHED_STEPS = 3


class ReadAhead:
    """The batches of a run, asked for in order from any step on."""

    def __init__(self, read: Callable[[int], Batch], steps: int) -> None:
        """Nothing is read yet.

        Args:
            read: the batch of a step; called in one thread only.
            steps: of the run; none is read ahead from there on.
        """
        self._read = read
        self._last = steps - 1
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._ahead: dict[int, Future[Batch]] = {}

    def batch(self, step: int) -> Batch:
        """What `read` gives for the step, or raises."""
        for coming in range(step, max(step, min(step + PREFETCHED_STEPS, self._last)) + 1):
            if coming not in self._ahead:
                self._ahead[coming] = self._reader.submit(self._read, coming)
        batch = self._ahead.pop(step).result()
        self._ahead = {number: future for number, future in self._ahead.items() if number > step}
        return batch

    def close(self) -> None:
        """Wait for what is being read, and read no more."""
        self._reader.shutdown(wait=True, cancel_futures=True)
