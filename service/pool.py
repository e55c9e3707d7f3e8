"""Threads that decode and encode, with a bound on the pixels they work on at a time.

Without it a few huge pictures could fill the memory together. A caller that is cancelled goes at once; a thread cannot
be stopped, so its pixels count until it is done with them.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_NICENESS = 5


class Pool:
    """Runs functions in threads, in order of arrival, while their pixels fit. Work beyond the whole budget runs alone.

    Args:
        name: of the threads.
        threads: how many at most.
        pixels: worked on at a time at most.
    """

    def __init__(self, name: str, threads: int, pixels: int) -> None:
        self._threads = ThreadPoolExecutor(threads, name, initializer=give_way)
        self._total = pixels
        self._free = pixels
        self._turn = asyncio.Lock()  # fair: it wakes its waiters in order of arrival
        self._freed = asyncio.Event()

    async def run(self, pixels: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns or raises. It works on so many pixels."""
        share = min(pixels, self._total)
        async with self._turn:
            while self._free < share:
                self._freed.clear()
                await self._freed.wait()
            self._free -= share
        loop = asyncio.get_running_loop()
        work = self._threads.submit(function, *args, **kwargs)
        work.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release, share))
        return await asyncio.wrap_future(work)

    async def close(self) -> None:
        """Take no more work, and wait for what runs."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    def _release(self, share: int) -> None:
        self._free += share
        self._freed.set()


def give_way() -> None:
    """Let the event loop go first on a busy processor: whoever is refused shall hear it at once.

    Of Linux, where each thread has a niceness of its own, which those that it starts inherit; elsewhere of no effect.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS)
