import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np
import numpy.typing as npt
import pytest

from dap.engines.base import check_finite
from dap.errors import DeviceLost, EngineError, EngineUnavailable, NotReady, OutOfMemory, Overloaded
from service.batcher import Batcher, BatchLimits, Inferred

PIXELS = 4 * 8
WIDE = BatchLimits(items=8, queued_pixels=100 * PIXELS)


def panorama(red: int, height: int = 4) -> npt.NDArray[np.uint8]:
    return np.full((height, 2 * height, 3), red, np.uint8)


def reds(batch: npt.NDArray[np.uint8]) -> list[int]:
    return [int(panorama[0, 0, 0]) for panorama in batch]


@asynccontextmanager
async def running(
    engine,
    limits: BatchLimits = WIDE,
    on_batch: Callable[[int, float], None] = lambda size, seconds: None,
    on_death: Callable[[BaseException], None] = lambda error: None,
) -> AsyncIterator[Batcher]:
    with ThreadPoolExecutor(limits.lanes) as threads:
        batcher = Batcher(engine, threads, limits, on_batch, on_death)
        batcher.start()
        try:
            async with asyncio.timeout(10):
                yield batcher
        finally:
            engine.gate.set()
            await batcher.stop()


@asynccontextmanager
async def busy(engine, batcher: Batcher) -> AsyncIterator[asyncio.Task]:
    """The engine runs a first panorama, with red 0, until the block is left."""
    engine.gate.clear()
    first = asyncio.create_task(infer(batcher, panorama(0)))
    await asyncio.to_thread(engine.entered.acquire)
    yield first
    await asyncio.sleep(0)
    engine.gate.set()


async def infer(batcher: Batcher, pixels: npt.NDArray[np.uint8], *, in_range: bool = True) -> Inferred:
    with batcher.reserve(pixels.size // 3) as place:
        return await place.infer(pixels, in_range=in_range)


def submit(batcher: Batcher, *panoramas: npt.NDArray[np.uint8], in_range: bool = True) -> list[asyncio.Task]:
    return [asyncio.create_task(infer(batcher, pixels, in_range=in_range)) for pixels in panoramas]


async def outcomes(tasks: list[asyncio.Task]) -> list[object]:
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_idle_engine_takes_a_panorama_at_once_and_alone(engine) -> None:
    async with running(engine) as batcher:
        inferred = await infer(batcher, panorama(40))
    assert inferred.depth.shape == (4, 8)
    assert inferred.in_range.shape == (4, 4, 8)
    assert inferred.depth[0, 0] == 20.0
    assert inferred.queue_s >= 0
    assert inferred.inference_s > 0


async def test_panoramas_that_come_while_the_engine_is_busy_run_in_one_batch(engine) -> None:
    async with running(engine) as batcher:
        async with busy(engine, batcher):
            waiting = submit(batcher, panorama(20), panorama(40), panorama(60))
        answers = await asyncio.gather(*waiting)
    assert engine.batch_sizes == [1, 3]
    assert [answer.depth[0, 0] for answer in answers] == [10.0, 20.0, 30.0]


async def test_a_batch_takes_no_more_than_its_limit_and_the_rest_comes_next_in_order(engine) -> None:
    async with running(engine, BatchLimits(items=2, queued_pixels=100 * PIXELS)) as batcher:
        async with busy(engine, batcher):
            waiting = submit(batcher, *(panorama(red) for red in (1, 2, 3)))
        await asyncio.gather(*waiting)
    assert [reds(batch) for batch in engine.batches] == [[0], [1, 2], [3]]


class TestPrepared:
    """An engine that is warm for some numbers of panoramas, as on a GPU, gets no other."""

    @pytest.mark.parametrize(
        ("items", "counts"),
        [
            (1, [1]),
            (2, [1, 2]),
            (4, [1, 2, 3, 4]),
            (7, [1, 2, 3, 4, 6, 7]),
            (16, [1, 2, 3, 4, 6, 8, 12, 16]),
            (256, [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]),
        ],
    )
    def test_the_numbers_are_half_an_octave_apart(self, items: int, counts: list[int]) -> None:
        assert BatchLimits(items=items, queued_pixels=1, prepared=True).counts_at((4, 8)) == counts
        assert BatchLimits(items=items, queued_pixels=1).counts_at((4, 8)) == [*range(1, items + 1)]

    def test_a_larger_size_has_its_own(self) -> None:
        limits = BatchLimits(items=40, queued_pixels=1, size=(4, 8), prepared=True)
        assert limits.counts_at((8, 16)) == [1, 2, 3, 4, 6, 8, 10]

    async def test_what_is_more_than_such_a_number_waits_for_the_next_batch_in_its_place(self, engine) -> None:
        async with running(engine, BatchLimits(items=8, queued_pixels=1000 * PIXELS, prepared=True)) as batcher:
            async with busy(engine, batcher):
                waiting = submit(batcher, *(panorama(red) for red in range(1, 6)))
                waiting += submit(batcher, panorama(6, height=6), panorama(7))
                waiting += submit(batcher, panorama(8))
            await asyncio.gather(*waiting)
        assert [reds(batch) for batch in engine.batches] == [[0], [1, 2, 3, 4, 5, 7], [6], [8]]


class TestSizes:
    """Panoramas of several sizes wait in one queue; those of a batch are of one size."""

    async def test_others_of_its_size_join_the_first_over_the_heads_of_another_size(self, engine) -> None:
        async with running(engine) as batcher:
            async with busy(engine, batcher):
                waiting = submit(
                    batcher, panorama(1), panorama(2, height=6), panorama(3), panorama(4, height=6), panorama(5)
                )
            await asyncio.gather(*waiting)
        assert [reds(batch) for batch in engine.batches] == [[0], [1, 3, 5], [2, 4]]

    async def test_a_size_that_never_stops_coming_does_not_starve_another(self, engine) -> None:
        """Whoever came first is in the next batch, however full the batches of the other size would be."""
        async with running(engine, BatchLimits(items=2, queued_pixels=1000 * PIXELS)) as batcher:
            async with busy(engine, batcher):
                waiting = submit(batcher, *(panorama(red) for red in (1, 2)))
                waiting += submit(batcher, panorama(3, height=6))
                waiting += submit(batcher, *(panorama(red) for red in (4, 5, 6, 7)))
            await asyncio.gather(*waiting)
        assert [reds(batch) for batch in engine.batches] == [[0], [1, 2], [3], [4, 5], [6, 7]]

    async def test_fewer_of_a_larger_size_run_together(self, engine) -> None:
        limits = BatchLimits(items=8, queued_pixels=1000 * PIXELS, size=(4, 8))
        async with running(engine, limits) as batcher:
            async with busy(engine, batcher):
                waiting = submit(batcher, *(panorama(red, height=8) for red in (1, 2, 3)))
                waiting += submit(batcher, *(panorama(red) for red in range(4, 12)))
            await asyncio.gather(*waiting)
        assert [reds(batch) for batch in engine.batches] == [[0], [1, 2], [3], [*range(4, 12)]]

    async def test_the_wait_is_judged_by_pixels(self, engine) -> None:
        engine.before = lambda panoramas: time.sleep(0.01)
        async with running(engine) as batcher:
            answer = await infer(batcher, panorama(1, height=8))
            assert batcher.wait_s(PIXELS) == pytest.approx(answer.inference_s / 4)
            with batcher.reserve(4 * PIXELS):
                assert batcher.wait_s(PIXELS) == pytest.approx(answer.inference_s * 5 / 4)

    async def test_a_full_batch_of_any_size_ends_the_wait_for_company_in_order_of_arrival(self, engine) -> None:
        async with running(engine, BatchLimits(items=2, queued_pixels=1000 * PIXELS, delay_s=3600)) as batcher:
            waiting = submit(batcher, panorama(1), panorama(2, height=6), panorama(3, height=6))
            await asyncio.gather(*waiting)
        assert [reds(batch) for batch in engine.batches] == [[1], [2, 3]]


async def test_range_masks_are_asked_for_where_one_of_the_batch_needs_them(engine) -> None:
    async with running(engine, BatchLimits(items=2, queued_pixels=100 * PIXELS)) as batcher:
        async with busy(engine, batcher):
            without = submit(batcher, panorama(20), panorama(40), panorama(60), in_range=False)
            within = submit(batcher, panorama(80))
        answers = await asyncio.gather(*without, *within)
    assert [reds(batch) for batch in engine.batches] == [[0], [20, 40], [60, 80]]
    assert engine.asked_in_range == [True, False, True]
    assert [answer.depth[0, 0] for answer in answers] == [10.0, 20.0, 30.0, 40.0]
    assert answers[0].in_range.shape == (0, 4, 8)
    assert answers[3].in_range.shape == (4, 4, 8)


async def test_each_run_is_reported(engine) -> None:
    runs = []
    async with running(engine, on_batch=lambda size, seconds: runs.append((size, seconds > 0))) as batcher:
        async with busy(engine, batcher):
            waiting = submit(batcher, panorama(1), panorama(2))
        await asyncio.gather(*waiting)
    assert runs == [(1, True), (2, True)]


class TestLanes:
    """An engine with two lanes, of which each takes one panorama."""

    LIMITS = BatchLimits(items=1, queued_pixels=100 * PIXELS, lanes=2)

    async def test_as_many_panoramas_run_at_a_time_as_there_are_lanes(self, engine) -> None:
        async with running(engine, self.LIMITS) as batcher:
            async with busy(engine, batcher):
                waiting = submit(batcher, panorama(2), panorama(4), panorama(6))
                await asyncio.to_thread(engine.entered.acquire)
                assert [reds(batch) for batch in engine.batches] == [[0], [2]]
                assert batcher.queued_items == 1  # and one is at hand for the lane that is free first
            answers = await asyncio.gather(*waiting)
        assert [answer.depth[0, 0] for answer in answers] == [1.0, 2.0, 3.0]

    async def test_the_one_that_is_at_hand_never_reaches_the_engine_if_it_is_abandoned(self, engine) -> None:
        async with running(engine, self.LIMITS) as batcher:
            async with busy(engine, batcher):
                (running_too,) = submit(batcher, panorama(2))
                await asyncio.to_thread(engine.entered.acquire)
                (at_hand,) = submit(batcher, panorama(4))
                await asyncio.sleep(0.01)
                at_hand.cancel()
                await outcomes([at_hand])
            await running_too
            await infer(batcher, panorama(6))
        assert [reds(batch) for batch in engine.batches] == [[0], [2], [6]]

    async def test_the_next_one_does_not_wait_for_the_slower_lane(self, engine) -> None:
        stuck = threading.Event()
        engine.before = lambda panoramas: stuck.wait(10) if (panoramas == 13).any() else None
        async with running(engine, self.LIMITS) as batcher:
            (slow,) = submit(batcher, panorama(13))
            await asyncio.to_thread(engine.entered.acquire)
            quick = await asyncio.gather(*submit(batcher, panorama(2), panorama(4), panorama(6)))
            assert not slow.done()
            stuck.set()
            await slow
        assert [answer.depth[0, 0] for answer in quick] == [1.0, 2.0, 3.0]

    async def test_the_wait_is_shared_between_the_lanes(self, engine) -> None:
        engine.before = lambda panoramas: time.sleep(0.01)
        async with running(engine, self.LIMITS) as batcher:
            answer = await infer(batcher, panorama(1))
            assert batcher.wait_s(PIXELS) == pytest.approx(answer.inference_s / 2)

    async def test_a_device_that_one_lane_loses_is_lost_to_all(self, engine) -> None:
        def lose(panoramas: npt.NDArray[np.uint8]) -> None:
            if panoramas.any():
                raise EngineUnavailable("gone")

        engine.before = lose
        deaths: list[BaseException] = []
        async with running(engine, self.LIMITS, on_death=deaths.append) as batcher:
            async with busy(engine, batcher) as first:
                waiting = submit(batcher, panorama(1), panorama(2))
                await asyncio.to_thread(engine.entered.acquire)
            results = await outcomes([first, *waiting])
            assert not batcher.is_alive
        assert EngineError in {type(result) for result in results[1:]}
        assert [str(death) for death in deaths] == ["gone"]


class TestLanesOfBatches:
    """An engine with two lanes, of which each takes a batch, as on a GPU."""

    LIMITS = BatchLimits(items=4, queued_pixels=100 * PIXELS, lanes=2)

    async def test_a_second_batch_is_under_way_while_the_first_runs_and_all_others_wait_together(self, engine) -> None:
        async with running(engine, self.LIMITS) as batcher:
            async with busy(engine, batcher):
                waiting = submit(batcher, panorama(2), panorama(4))
                await asyncio.to_thread(engine.entered.acquire)
                waiting += submit(batcher, panorama(6), panorama(8), panorama(10))
                await asyncio.sleep(0.01)
                assert batcher.queued_items == 3
            await asyncio.gather(*waiting)
        assert [reds(batch) for batch in engine.batches] == [[0], [2, 4], [6, 8, 10]]


class TestDelay:
    async def test_the_first_panorama_waits_for_company(self, engine) -> None:
        async with running(engine, BatchLimits(items=8, queued_pixels=100 * PIXELS, delay_s=0.5)) as batcher:
            early = submit(batcher, panorama(1))
            await asyncio.sleep(0.01)
            late = submit(batcher, panorama(2))
            await asyncio.gather(*early, *late)
        assert engine.batch_sizes == [2]

    async def test_a_full_batch_waits_no_longer(self, engine) -> None:
        async with running(engine, BatchLimits(items=2, queued_pixels=100 * PIXELS, delay_s=3600)) as batcher:
            await asyncio.gather(*submit(batcher, panorama(1), panorama(2)))
        assert engine.batch_sizes == [2]

    async def test_no_company_is_waited_for_longer_than_the_delay(self, engine) -> None:
        async with running(engine, BatchLimits(items=2, queued_pixels=100 * PIXELS, delay_s=0.01)) as batcher:
            await infer(batcher, panorama(1))
        assert engine.batch_sizes == [1]


class TestQueueLimit:
    async def test_more_pixels_than_the_queue_may_hold_are_refused_with_a_time_to_come_back(self, engine) -> None:
        async with running(engine, BatchLimits(items=8, queued_pixels=2 * PIXELS)) as batcher:
            await infer(batcher, panorama(0))
            async with busy(engine, batcher) as first:
                waiting = submit(batcher, panorama(1), panorama(2))
                await asyncio.sleep(0)
                assert (batcher.queued_items, batcher.queued_pixels) == (2, 2 * PIXELS)
                with pytest.raises(Overloaded) as refused:
                    await infer(batcher, panorama(3))
            await asyncio.gather(first, *waiting)
        assert refused.value.retry_after_s is not None
        assert refused.value.retry_after_s > 0
        assert [reds(batch) for batch in engine.batches[1:]] == [[0], [1, 2]]

    async def test_a_single_panorama_beyond_the_limit_runs_when_nothing_waits(self, engine) -> None:
        async with running(engine, BatchLimits(items=8, queued_pixels=PIXELS - 1)) as batcher:
            assert (await infer(batcher, panorama(2))).depth[0, 0] == 1.0

    async def test_what_is_still_being_decoded_has_its_room_already(self, engine) -> None:
        async with running(engine, BatchLimits(items=8, queued_pixels=2 * PIXELS)) as batcher:
            with batcher.reserve(2 * PIXELS) as place:
                with pytest.raises(Overloaded, match="1 panoramas are waiting"):
                    batcher.require_room(PIXELS)
                await place.infer(panorama(1))
                batcher.require_room(PIXELS)
            batcher.require_room(2 * PIXELS)

    async def test_who_would_hardly_be_done_in_time_is_told_so_instead(self, engine) -> None:
        async with running(engine) as batcher:
            await infer(batcher, panorama(0))
            seconds = batcher.wait_s(PIXELS)
            batcher.require_room(PIXELS, within_s=seconds / 2)  # nobody waits: it may try
            with batcher.reserve(PIXELS):
                batcher.require_room(PIXELS, within_s=10 * seconds)
                with pytest.raises(Overloaded, match="hardly be done within") as refused:
                    batcher.require_room(PIXELS, within_s=2 * seconds)
        assert refused.value.retry_after_s == pytest.approx((2 - 0.7 * 2) * seconds)

    async def test_a_place_that_is_given_up_is_free(self, engine) -> None:
        async with running(engine, BatchLimits(items=8, queued_pixels=PIXELS)) as batcher:
            with pytest.raises(ZeroDivisionError), batcher.reserve(PIXELS):
                raise ZeroDivisionError("no picture after all")
            with batcher.reserve(PIXELS):
                pass

    async def test_abandoned_panoramas_take_no_room(self, engine) -> None:
        async with running(engine, BatchLimits(items=8, queued_pixels=PIXELS)) as batcher:
            async with busy(engine, batcher):
                (gone,) = submit(batcher, panorama(1))
                await asyncio.sleep(0)
                gone.cancel()
                await outcomes([gone])
                assert batcher.queued_items == 0
                waiting = submit(batcher, panorama(2))
            await asyncio.gather(*waiting)


class TestAbandoned:
    async def test_a_panorama_nobody_waits_for_never_reaches_the_engine(self, engine) -> None:
        async with running(engine) as batcher:
            async with busy(engine, batcher):
                waiting = submit(batcher, panorama(1), panorama(2), panorama(3))
                await asyncio.sleep(0)
                waiting[1].cancel()
            await outcomes(waiting)
        assert [reds(batch) for batch in engine.batches] == [[0], [1, 3]]

    async def test_one_that_is_on_the_engine_already_does_not_touch_the_others(self, engine) -> None:
        async with running(engine) as batcher:
            async with busy(engine, batcher) as first:
                waiting = submit(batcher, panorama(4))
                await asyncio.sleep(0)
                first.cancel()
            (answer,) = await asyncio.gather(*waiting)
        assert answer.depth[0, 0] == 2.0
        assert first.cancelled()

    async def test_a_queue_of_only_abandoned_panoramas_runs_nothing_and_the_next_one_is_served(self, engine) -> None:
        async with running(engine) as batcher:
            async with busy(engine, batcher) as first:
                (gone,) = submit(batcher, panorama(1))
                await asyncio.sleep(0)
                gone.cancel()
            await first
            await infer(batcher, panorama(2))
        assert [reds(batch) for batch in engine.batches] == [[0], [2]]


class TestFailure:
    async def test_out_of_memory_splits_the_batch_until_it_fits(self, engine) -> None:
        def room_for_two(panoramas: npt.NDArray[np.uint8]) -> None:
            if len(panoramas) > 2:
                raise OutOfMemory("no room")

        engine.before = room_for_two
        async with running(engine) as batcher:
            async with busy(engine, batcher):
                waiting = submit(batcher, *(panorama(2 * metres) for metres in range(1, 6)))
            answers = await asyncio.gather(*waiting)
        assert [answer.depth[0, 0] for answer in answers] == [1.0, 2.0, 3.0, 4.0, 5.0]
        assert engine.batch_sizes == [1, 5, 2, 3, 1, 2]

    async def test_a_panorama_with_no_room_even_alone_is_told_so(self, engine) -> None:
        def no_room(panoramas: npt.NDArray[np.uint8]) -> None:
            raise OutOfMemory("no room")

        engine.before = no_room
        async with running(engine) as batcher:
            with pytest.raises(OutOfMemory):
                await infer(batcher, panorama(1))
            assert batcher.is_alive

    @pytest.mark.parametrize("error", [EngineError("bad"), RuntimeError("unforeseen")])
    async def test_a_panorama_that_breaks_the_engine_fails_alone(self, engine, error: Exception) -> None:
        def choke_on_13(panoramas: npt.NDArray[np.uint8]) -> None:
            if (panoramas == 13).any():
                raise error

        engine.before = choke_on_13
        async with running(engine) as batcher:
            async with busy(engine, batcher):
                waiting = submit(batcher, *(panorama(red) for red in (2, 13, 4, 6)))
            two, thirteen, four, six = await outcomes(waiting)
            assert batcher.is_alive
        assert [answer.depth[0, 0] for answer in (two, four, six)] == [1.0, 2.0, 3.0]
        assert isinstance(thirteen, EngineError)

    async def test_nan_is_an_error_of_its_panorama_alone(self, engine) -> None:
        """Which every engine looks for, in all of a batch."""
        infer = engine.infer

        def infer_with_a_hole(panoramas: npt.NDArray[np.uint8], **asked: bool):
            inference = infer(panoramas, **asked)
            inference.depth[panoramas[..., 0] == 13] = np.nan
            return check_finite(inference)

        engine.infer = infer_with_a_hole
        async with running(engine) as batcher:
            async with busy(engine, batcher):
                waiting = submit(batcher, panorama(13), panorama(2))
            thirteen, two = await outcomes(waiting)
        assert isinstance(thirteen, EngineError)
        assert two.depth[0, 0] == 1.0


class TestSoundness:
    """Whether it was the panorama or the engine is seen from what the engine does with black."""

    async def test_an_engine_that_fails_on_black_too_is_lost(self, engine) -> None:
        def fail(panoramas: npt.NDArray[np.uint8]) -> None:
            raise RuntimeError("in words that no table has")

        engine.before = fail
        deaths: list[BaseException] = []
        async with running(engine, on_death=deaths.append) as batcher:
            (failed,) = await outcomes(submit(batcher, panorama(5)))
            assert not batcher.is_alive
        assert isinstance(failed, EngineError)
        assert [reds(batch) for batch in engine.batches] == [[5], [0]]
        (death,) = deaths
        assert isinstance(death, DeviceLost)
        assert str(death.__cause__) == "in words that no table has"

    async def test_a_panorama_without_room_says_nothing_of_the_engine(self, engine) -> None:
        def no_room(panoramas: npt.NDArray[np.uint8]) -> None:
            raise OutOfMemory("no room")

        engine.before = no_room
        async with running(engine) as batcher:
            await outcomes(submit(batcher, panorama(5)))
            assert batcher.is_alive
        assert engine.batch_sizes == [1]


class TestDeath:
    async def test_an_engine_that_hangs_is_lost_and_nobody_waits_for_it(self, engine) -> None:
        deaths: list[BaseException] = []
        limits = BatchLimits(items=1, queued_pixels=100 * PIXELS, run_s=0.05)
        async with running(engine, limits, on_death=deaths.append) as batcher:
            async with busy(engine, batcher) as first:
                waiting = submit(batcher, panorama(1))
                results = await outcomes([first, *waiting])
            assert not batcher.is_alive
        assert [type(result) for result in results] == [EngineError] * 2
        (death,) = deaths
        assert isinstance(death, DeviceLost)

    async def test_a_timeout_of_the_engines_own_is_an_error_like_any_other(self, engine) -> None:
        def time_out(panoramas: npt.NDArray[np.uint8]) -> None:
            if panoramas.any():
                raise TimeoutError

        engine.before = time_out
        async with running(engine) as batcher:
            (failed,) = await outcomes(submit(batcher, panorama(5)))
            assert batcher.is_alive
        assert isinstance(failed, EngineError)

    async def test_a_lost_device_fails_all_that_wait_and_is_reported(self, engine) -> None:
        def device_lost(panoramas: npt.NDArray[np.uint8]) -> None:
            raise EngineUnavailable("the device fell off the bus")

        engine.before = device_lost
        deaths: list[BaseException] = []
        async with running(engine, BatchLimits(items=1, queued_pixels=100 * PIXELS), on_death=deaths.append) as batcher:
            async with busy(engine, batcher) as first:
                waiting = submit(batcher, panorama(1), panorama(2))
            results = await outcomes([first, *waiting])
            assert not batcher.is_alive
            with pytest.raises(NotReady):
                await infer(batcher, panorama(3))
        assert [type(result) for result in results] == [EngineError] * 3
        assert [str(death) for death in deaths] == ["the device fell off the bus"]
        assert engine.batch_sizes == [1]

    async def test_stop_tells_all_that_wait_and_is_no_death(self, engine) -> None:
        deaths: list[BaseException] = []
        async with running(engine, on_death=deaths.append) as batcher, busy(engine, batcher) as first:
            waiting = submit(batcher, panorama(1))
            await asyncio.sleep(0)
            await batcher.stop()
            results = await outcomes([first, *waiting])
        assert [type(result) for result in results] == [NotReady] * 2
        assert deaths == []

    async def test_before_start_nothing_is_taken(self, engine) -> None:
        batcher = Batcher(engine, ThreadPoolExecutor(1), BatchLimits(1, 1), lambda *run: None, lambda error: None)
        with pytest.raises(NotReady):
            await infer(batcher, panorama(1))


async def test_the_wait_grows_with_the_queue(engine) -> None:
    async with running(engine) as batcher:
        await infer(batcher, panorama(0))
        idle = batcher.wait_s(PIXELS)
        async with busy(engine, batcher):
            waiting = submit(batcher, panorama(1), panorama(2))
            await asyncio.sleep(0)
            assert batcher.wait_s(PIXELS) == pytest.approx(4 * idle)
        await asyncio.gather(*waiting)
