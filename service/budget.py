"""A bound on the pixels that are worked on at a time, so that a few huge pictures cannot fill the memory together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class PixelBudget:
    """Lets work begin while its pixels fit, in order of arrival. Work beyond the whole budget runs alone."""

    def __init__(self, pixels: int) -> None:
        self._total = pixels
        self._free = pixels
        self._turn = asyncio.Lock()  # fair: it wakes its waiters in order of arrival
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def hold(self, pixels: int) -> AsyncIterator[None]:
        share = min(pixels, self._total)
        async with self._turn:
            while self._free < share:
                self._freed.clear()
                await self._freed.wait()
            self._free -= share
        try:
            yield
        finally:
            self._free += share
            self._freed.set()
