"""The dynamic batcher: panoramas that arrive while the engine is busy run together in its next batch.

One task owns the queue and is the engine's only caller. Everything but the engine's own run happens on the event loop,
so nothing here needs a lock. An engine with several lanes runs several batches at a time.

A batch is formed greedily: what waits when the engine falls idle, in order of arrival, as far as the limits go. On an
idle service a panorama therefore waits for nothing, and under load batches grow by themselves.

The panoramas of a batch are of one size, that of the one that came first; others of this size join it over the heads of
those of another. Nobody is overtaken but by such company of one that came before: at most as many batches run before
a panorama as there were panoramas when it came.
"""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dap.engines.base import Engine
from dap.errors import DapError, DeviceLost, EngineError, EngineUnavailable, NotReady, OutOfMemory, Overloaded
from dap.resolutions import Size, batch_limit

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
# Seconds on the engine; depth and range probabilities of each panorama.
_Answers = tuple[float, list[tuple[Floats, Floats]]]

_IN_TIME = 0.7  # of its time may a panorama wait: batches take longer at times, and it is to be encoded, too


@dataclass(frozen=True)
class BatchLimits:
    """What a batch and the queue may hold at most.

    Attributes:
        items: panoramas of a batch.
        queued_pixels: pixels that wait or are reserved for. A single panorama beyond it is let into an empty queue.
        delay_s: how long a batch that is not full waits for company, counted from the arrival of its first panorama.
        run_s: how long a batch may run. Beyond it the engine counts as hung, and so as lost.
        lanes: batches that may run at a time.
        size: (H, W) of the panoramas that `items` is said of, and `dap.resolutions.batch_limit` of all others; None
            where it is said of all.
        prepared: batches have no other numbers of panoramas than those of `counts_at`, for which the engine is warm.
    """

    items: int
    queued_pixels: int
    delay_s: float = 0.0
    run_s: float = 120.0
    lanes: int = 1
    size: Size | None = None
    prepared: bool = False

    def items_at(self, size: Size) -> int:
        """Panoramas of this size that a batch may hold."""
        return self.items if self.size is None else batch_limit(self.items, size, self.size)

    def counts_at(self, size: Size) -> list[int]:
        """The numbers of panoramas of this size that a batch may have.

        Where each has to be prepared: 1, 2, 3, 4, 6, 8, 12 and so on, and the largest. All of them up to 256 would take
        37 times as long to run once each. What waits beyond one of them waits for the next batch: to fill this one up
        would be work for nobody.
        """
        most = self.items_at(size)
        if not self.prepared:
            return [*range(1, most + 1)]
        doubled = {start << times for start in (1, 3) for times in range(most.bit_length())}
        return sorted({most, *(count for count in doubled if count < most)})

    def next_of(self, waiting: int, size: Size) -> int:
        """How many of so many panoramas of this size run together next."""
        return max(count for count in self.counts_at(size) if count <= waiting)


@dataclass(frozen=True)
class Inferred:
    """What the engine said of one panorama, and what it took.

    Attributes:
        depth: float32 (H, W), metres along the ray, finite.
        in_range: float32 (T, H, W), for each threshold of the model the probability that the surface is nearer; T may
            be 0 where it was not asked for.
        queue_s: seconds from arrival to the start of the batch.
        inference_s: seconds of the batch on the engine.
    """

    depth: Floats
    in_range: Floats
    queue_s: float
    inference_s: float


@dataclass(eq=False)
class _Item:
    panorama: Pixels
    in_range: bool
    arrived: float
    answer: asyncio.Future[Inferred] = field(default_factory=asyncio.Future)

    @property
    def size(self) -> Size:
        return self.panorama.shape[0], self.panorama.shape[1]

    @property
    def pixels(self) -> int:
        return self.panorama.size // 3

    @property
    def is_abandoned(self) -> bool:
        return self.answer.done()

    def fail(self, error: Exception) -> None:
        if not self.is_abandoned:
            self.answer.set_exception(error)


class Batcher:
    """Runs one engine for many callers: `reserve` a place and infer from it, between `start` and `stop`.

    Args:
        engine: called from `threads` alone.
        threads: an executor with a thread for each lane.
        limits: what a batch and the queue may hold.
        on_batch: told of each run of the engine: how many panoramas it had, and how many seconds of the engine it took;
            of several lanes each counts as a part of it.
        on_death: called if the batching task ends other than by `stop`. From then on `is_alive` is False, and whoever
            waited has an error.
    """

    def __init__(
        self,
        engine: Engine,
        threads: Executor,
        limits: BatchLimits,
        on_batch: Callable[[int, float], None],
        on_death: Callable[[BaseException], None],
    ) -> None:
        self._engine = engine
        self._threads = threads
        self._limits = limits
        self._on_batch = on_batch
        self._on_death = on_death
        self._queue: deque[_Item] = deque()
        self._places: set[Place] = set()
        self._running: set[_Item] = set()
        self._arrival = asyncio.Event()
        self._full = asyncio.Event()
        self._seconds_per_pixel = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def queued_items(self) -> int:
        return sum(not item.is_abandoned for item in self._queue)

    @property
    def queued_pixels(self) -> int:
        return sum(item.pixels for item in self._queue if not item.is_abandoned)

    def wait_s(self, pixels: int) -> float:
        """Seconds until a panorama of so many pixels that came now would be done, judged by the batches of late."""
        running = sum(item.pixels for item in self._running)
        return (self.queued_pixels + self._awaited_pixels + running + pixels) * self._seconds_per_pixel

    @property
    def _awaited_pixels(self) -> int:
        return sum(place.pixels for place in self._places)

    def start(self) -> None:
        """Begin to take panoramas. Needs a running event loop."""
        self._task = asyncio.create_task(self._work(), name="batcher")
        self._task.add_done_callback(self._end)

    async def stop(self) -> None:
        """Take no more panoramas. What waits or runs gets `NotReady`; a batch that runs is not waited for."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def require_room(self, pixels: int, within_s: float = math.inf) -> None:
        """Ask before panoramas of so many pixels cost anything; `reserve` asks again.

        Args:
            pixels: of them together.
            within_s: how long their client waits.

        Raises:
            Overloaded: the queue has no room for them now, or is so long that they would hardly be done in time.
        """
        self._drop_abandoned()
        waiting = len(self._queue) + sum(place.pixels > 0 for place in self._places)
        wait_s = self.wait_s(pixels)
        if waiting and self.queued_pixels + self._awaited_pixels + pixels > self._limits.queued_pixels:
            raise Overloaded(f"{waiting} panoramas are waiting already", retry_after_s=wait_s)
        if waiting and wait_s > _IN_TIME * within_s:
            raise Overloaded(
                f"{waiting} panoramas are waiting already; one more would hardly be done within {within_s:g} seconds",
                retry_after_s=wait_s - _IN_TIME * within_s,
            )

    @contextmanager
    def reserve(self, pixels: int) -> Iterator["Place"]:
        """Keep room in the queue for panoramas of so many pixels together, while they are decoded and until they ran.

        Raises:
            Overloaded: the queue has no room for them now.
        """
        self.require_room(pixels)
        place = Place(self._infer, pixels)
        self._places.add(place)
        try:
            yield place
        finally:
            self._places.discard(place)

    async def _infer(self, panorama: Pixels, in_range: bool) -> Inferred:
        if not self.is_alive:
            raise NotReady("the model is not running")
        item = _Item(panorama, in_range, asyncio.get_running_loop().time())
        self._queue.append(item)
        self._arrival.set()
        if self._has_full_batch():
            self._full.set()
        return await item.answer

    async def _work(self) -> None:
        """Every lane. Of several for one panorama each one more has the next ready for the lane that is free first.

        Where one dies, all do.
        """
        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in range(self._limits.lanes + (self._limits.lanes > 1 and self._limits.items == 1)):
                    lanes.create_task(self._work_lane())
        except ExceptionGroup as failures:
            first = failures.exceptions[0]
        raise first

    async def _work_lane(self) -> None:
        while True:
            await self._arrival.wait()
            if self._limits.delay_s and self._queue:
                await self._window()
            batch = self._take_batch()
            self._running.update(batch)
            if batch:
                await self._run(batch)
            self._running.difference_update(batch)

    async def _window(self) -> None:
        """Wait until the delay of the first panorama is over, or a batch of some size is full before."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._queue[0].arrived + self._limits.delay_s):
                await self._full.wait()

    def _take_batch(self) -> list[_Item]:
        """The one that came first, and of those after it as many of its size as fit."""
        self._drop_abandoned()
        company = [item for item in self._queue if item.size == self._queue[0].size]
        batch = company[: self._limits.next_of(len(company), company[0].size)] if company else []
        taken = set(batch)
        self._queue = deque(item for item in self._queue if item not in taken)
        if not self._queue:
            self._arrival.clear()
        if not self._has_full_batch():
            self._full.clear()
        return batch

    def _has_full_batch(self) -> bool:
        waiting = Counter(item.size for item in self._queue)
        return any(count >= self._limits.items_at(size) for size, count in waiting.items())

    def _drop_abandoned(self) -> None:
        self._queue = deque(item for item in self._queue if not item.is_abandoned)

    async def _run(self, batch: Sequence[_Item]) -> None:
        """Run a batch. Where it fails, run its halves: a bad panorama, or one too many for the device, fails alone."""
        loop = asyncio.get_running_loop()
        try:
            seconds, answers = await self._on_engine(
                [item.panorama for item in batch],
                lambda: not all(item.is_abandoned for item in batch),
                in_range=any(item.in_range for item in batch),
            )
        except EngineUnavailable:
            raise  # The device is gone for good, and this task with it.
        except Exception as error:  # noqa: BLE001 - whatever one panorama does to the engine, the others live on
            await self._run_halves(batch, error)
            return
        if not answers:
            return
        ended = loop.time()
        self._observe(batch, seconds)
        for item, answer in zip(batch, answers, strict=True):
            if not item.is_abandoned:
                queue_s = max(0.0, ended - item.arrived - seconds)
                item.answer.set_result(Inferred(*answer, queue_s, inference_s=seconds))

    async def _on_engine(
        self, panoramas: Sequence[Pixels], is_wanted: Callable[[], bool] = lambda: True, *, in_range: bool = True
    ) -> _Answers:
        limit_s = self._limits.run_s
        try:
            async with asyncio.timeout(limit_s) as limit:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._threads, _infer, self._engine, panoramas, is_wanted, in_range)
        except TimeoutError:
            if not limit.expired():
                raise  # the engine's own
            raise DeviceLost(f"a batch of {len(panoramas)} has run for more than {limit_s:g} seconds") from None

    async def _run_halves(self, batch: Sequence[_Item], error: Exception) -> None:
        if len(batch) == 1:
            if not isinstance(error, OutOfMemory):
                await self._require_sound_engine(batch[0].panorama, error)
            if not isinstance(error, DapError):
                unforeseen, error = error, EngineError("the engine failed on this panorama")
                error.__cause__ = unforeseen
            batch[0].fail(error)
            return
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            wanted = [item for item in half if not item.is_abandoned]
            if wanted:
                await self._run(wanted)

    async def _require_sound_engine(self, failed: Pixels, error: Exception) -> None:
        """Whether it is the panorama or the engine. Not every lost device says so in words that an engine knows."""
        try:
            await self._on_engine([np.zeros_like(failed)])
        except OutOfMemory:
            pass
        except Exception:  # noqa: BLE001 - the first error says more
            raise DeviceLost("the engine fails on black, too") from error

    def _observe(self, batch: Sequence[_Item], seconds: float) -> None:
        latest = seconds / sum(item.pixels for item in batch) / self._limits.lanes
        self._seconds_per_pixel += (latest - self._seconds_per_pixel) * (0.2 if self._seconds_per_pixel else 1.0)
        self._on_batch(len(batch), seconds / self._limits.lanes)

    def _end(self, task: asyncio.Task[None]) -> None:
        """The task is no more, so nobody may wait for it."""
        error = None if task.cancelled() else task.exception()
        for item in (*self._running, *self._queue):
            item.fail(EngineError("the engine has died") if error else NotReady("the service is going down"))
        self._running.clear()
        self._queue.clear()
        if error is not None:
            self._on_death(error)


class Place:
    """Room in a batcher's queue: see `Batcher.reserve`.

    Attributes:
        pixels: how many may still be brought.
    """

    def __init__(self, infer: Callable[[Pixels, bool], Awaitable[Inferred]], pixels: int) -> None:
        self._infer = infer
        self.pixels = pixels

    async def infer(self, panorama: Pixels, *, in_range: bool = True) -> Inferred:
        """Depth of one panorama, uint8 (H, W, 3), from the next batch that has room for it.

        Without `in_range` its batch has range probabilities only if another panorama in it needs them.

        A caller that is cancelled gives up its place: its panorama reaches the engine only if it is there already.

        Raises:
            NotReady: the batcher is not running, or stopped.
            EngineError: the engine failed on this panorama, or gave NaN or infinity for it.
            OutOfMemory: the device has no room even for this panorama alone.
        """
        self.pixels -= panorama.size // 3
        return await self._infer(panorama, in_range)


def _infer(engine: Engine, panoramas: Sequence[Pixels], is_wanted: Callable[[], bool], in_range: bool) -> _Answers:
    """In a thread of the engine: what it takes, and what it says of each panorama; nothing if nobody wants it now."""
    if not is_wanted():
        return 0.0, []
    started = time.perf_counter()
    inference = engine.infer(np.stack(panoramas), in_range=in_range)
    seconds = time.perf_counter() - started
    return seconds, list(zip(inference.depth, inference.in_range, strict=True))
