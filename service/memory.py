"""What this process does with memory that it has freed: keeps it while there is work, gives it back when there is none.

Every panorama needs the same few megabytes again, and pages that were given back have to be faulted in and cleared
anew. Processor time beside inference, for each request of 8 clients: 10.3 ms with glibc as it is, 8.6 so, and 15.6
where every block of a megabyte is given back at once. After many mixed requests glibc as it is keeps 250 to 300 MB,
this 192 as soon as it is idle. Elsewhere than under glibc both do nothing.
"""

import asyncio
import ctypes
from collections.abc import Callable

from dap.engines.memory import give_back

# mallopt(3). Larger blocks go back to the system the moment they are freed, smaller ones wait for the next panorama.
# One arena for all threads: what one has freed the next can use, and of any other arena malloc_trim leaves the top.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT_BLOCK_BYTES = 32 * 1024 * 1024
_KEPT_BYTES = 128 * 1024 * 1024
_IDLE_S = 0.5


def keep_what_is_freed() -> None:
    """Settle how much is kept, for good. Called before there is anything to keep."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


async def give_back_when_idle(begun: Callable[[], int], in_progress: Callable[[], int]) -> None:
    """Give memory back when work has ended and no other has begun for half a second; until cancelled.

    Args:
        begun: pieces of work that have begun since the start.
        in_progress: how many of them have not ended.
    """
    before = given_back = 0
    while True:
        await asyncio.sleep(_IDLE_S)
        now = begun()
        if now == before != given_back and not in_progress():
            await asyncio.to_thread(give_back)
            given_back = now
        before = now
