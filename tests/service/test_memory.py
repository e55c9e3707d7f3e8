"""When memory is given back; that glibc then does so is seen in a process of its own."""

import asyncio
import ctypes
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service import memory

ROOT = Path(__file__).parent.parent.parent


class Work:
    begun = 0
    in_progress = 0


@pytest.fixture
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much work had begun each time that memory was given back."""
    times: list[int] = []
    monkeypatch.setattr(memory, "_IDLE_S", 0.01)
    monkeypatch.setattr(memory, "give_back", lambda: times.append(Work.begun))
    monkeypatch.setattr(Work, "begun", 0)
    monkeypatch.setattr(Work, "in_progress", 0)
    return times


@asynccontextmanager
async def watched() -> AsyncIterator[None]:
    watching = asyncio.create_task(memory.give_back_when_idle(lambda: Work.begun, lambda: Work.in_progress))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def test_memory_is_given_back_once_after_work_has_ended(given_back: list[int]) -> None:
    Work.begun = 3
    async with watched():
        await asyncio.sleep(0.1)
        assert given_back == [3]
        Work.begun = 4
        await asyncio.sleep(0.1)
    assert given_back == [3, 4]


async def test_while_there_is_work_memory_is_kept(given_back: list[int]) -> None:
    Work.begun, Work.in_progress = 3, 1
    async with watched():
        await asyncio.sleep(0.1)
        assert given_back == []
        Work.in_progress = 0
        await asyncio.sleep(0.1)
    assert given_back == [3]


async def test_where_nothing_was_done_there_is_nothing_to_give_back(given_back: list[int]) -> None:
    async with watched():
        await asyncio.sleep(0.05)
    assert given_back == []


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library than glibc")
def test_what_was_freed_is_kept_until_it_is_given_back() -> None:
    program = """if True:
        import re
        from pathlib import Path
        from dap.engines.memory import give_back
        from service.memory import keep_what_is_freed

        def megabytes():
            return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

        keep_what_is_freed()
        before = megabytes()
        blocks = [bytearray(b"x" * 2_000_000) for _ in range(40)]
        pinned = bytearray(b"x" * 100_000)
        del blocks
        kept = megabytes()
        give_back()
        print(kept - before, megabytes() - before)
    """
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    kept, left = map(int, run.stdout.split())
    assert kept > 60
    assert left < 10
