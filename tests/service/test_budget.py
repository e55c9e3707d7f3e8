import asyncio

from service.budget import PixelBudget


async def test_work_runs_side_by_side_while_it_fits() -> None:
    budget = PixelBudget(100)
    async with asyncio.timeout(1), budget.hold(60), budget.hold(40):
        pass


async def test_work_that_does_not_fit_waits_until_enough_is_freed() -> None:
    budget = PixelBudget(100)
    order = []

    async def work(name: str, pixels: int) -> None:
        async with budget.hold(pixels):
            order.append(f"{name} begins")
            await asyncio.sleep(0.01)
            order.append(f"{name} ends")

    await asyncio.gather(work("a", 60), work("b", 60))
    assert order == ["a begins", "a ends", "b begins", "b ends"]


async def test_small_work_does_not_overtake_large_work_that_waits() -> None:
    budget = PixelBudget(100)
    order = []

    async def work(name: str, pixels: int) -> None:
        async with budget.hold(pixels):
            order.append(name)
            await asyncio.sleep(0.01)

    await asyncio.gather(work("first", 50), work("large", 100), work("small", 10))
    assert order == ["first", "large", "small"]


async def test_work_beyond_the_whole_budget_runs_alone() -> None:
    budget = PixelBudget(100)
    async with asyncio.timeout(1), budget.hold(1000):
        pass


async def test_work_that_is_cancelled_while_it_waits_holds_nothing() -> None:
    budget = PixelBudget(100)
    async with budget.hold(100):
        waiting = asyncio.create_task(budget.hold(50).__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    async with asyncio.timeout(1), budget.hold(100):
        pass
