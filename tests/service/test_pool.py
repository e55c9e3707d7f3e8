import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from service.pool import Pool


@asynccontextmanager
async def pool_of(threads: int = 4, pixels: int = 100) -> AsyncIterator[Pool]:
    pool = Pool("work", threads, pixels)
    async with asyncio.timeout(10):
        yield pool
        await pool.close()


class Gated:
    """Work that begins and then stays until it may end."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.may_end.wait(10)


def noting(order: list[str], name: str) -> Callable[[], None]:
    return lambda: order.append(name)


async def settle() -> None:
    """Let every task go as far as it can by itself."""
    for _ in range(20):
        await asyncio.sleep(0.001)


async def test_what_a_function_returns_and_raises_comes_back() -> None:
    async with pool_of() as pool:
        assert await pool.run(1, divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await pool.run(1, divmod, 7, 0)


async def test_work_runs_side_by_side_while_it_fits() -> None:
    meeting = threading.Barrier(2, timeout=10)
    async with pool_of(pixels=100) as pool:
        await asyncio.gather(pool.run(60, meeting.wait), pool.run(40, meeting.wait))


async def test_work_that_does_not_fit_waits_until_enough_is_freed() -> None:
    first, second = Gated(), Gated()
    second.may_end.set()
    async with pool_of(pixels=100) as pool:
        running = [asyncio.create_task(pool.run(60, work)) for work in (first, second)]
        await settle()
        assert (first.begun.is_set(), second.begun.is_set()) == (True, False)
        first.may_end.set()
        await asyncio.gather(*running)


async def test_small_work_does_not_overtake_large_work_that_waits() -> None:
    order: list[str] = []
    first = Gated()
    async with pool_of(pixels=100) as pool:
        running = [
            asyncio.create_task(pool.run(50, first)),
            asyncio.create_task(pool.run(100, noting(order, "large"))),
            asyncio.create_task(pool.run(10, noting(order, "small"))),
        ]
        await settle()
        assert order == []
        first.may_end.set()
        await asyncio.gather(*running)
    assert order == ["large", "small"]


async def test_work_beyond_the_whole_budget_runs_alone() -> None:
    async with pool_of(pixels=100) as pool:
        assert await pool.run(1000, lambda: "done") == "done"


async def test_work_that_is_cancelled_while_it_waits_never_runs_and_holds_nothing() -> None:
    order: list[str] = []
    first = Gated()
    async with pool_of(pixels=100) as pool:
        running = asyncio.create_task(pool.run(100, first))
        waiting = asyncio.create_task(pool.run(50, noting(order, "cancelled")))
        await settle()
        waiting.cancel()
        first.may_end.set()
        await running
        await pool.run(100, noting(order, "next"))
    assert order == ["next"]


async def test_work_that_is_cancelled_in_its_thread_counts_until_it_ends() -> None:
    """Its pixels are in the memory until then, whoever waits for them."""
    given_up, following = Gated(), Gated()
    following.may_end.set()
    async with pool_of(pixels=100) as pool:
        first = asyncio.create_task(pool.run(100, given_up))
        await asyncio.to_thread(given_up.begun.wait)
        first.cancel()
        await asyncio.wait([first])
        second = asyncio.create_task(pool.run(100, following))
        await settle()
        assert not following.begun.is_set()
        given_up.may_end.set()
        await second


async def test_a_thread_gives_way_to_the_event_loop() -> None:
    async with pool_of() as pool:
        theirs = await pool.run(1, lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    assert theirs > os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
