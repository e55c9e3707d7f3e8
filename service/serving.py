"""The model that is served: loaded, warmed, exchanged and closed here. `service.pipeline` answers with it."""

import asyncio
import enum
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from dap.engines import Engine, create_engine
from dap.errors import DapError, EngineError, LoadInProgress, ModelError, NotReady, UnknownModel, with_cause
from dap.models import Model, find_model, known_models
from dap.resolutions import Size, batch_limit, choose_resolution, resolution_list, resolution_text
from service.batcher import Batcher, BatchLimits
from service.pool import give_way
from service.settings import Settings
from service.telemetry import Telemetry

EngineFactory = Callable[[Model, Settings], Engine]

_CLOSE_S = 5.0
_NEVER_FILL = (
    "batches of %d panoramas of %s never fill: %s has room for %d; "
    "leave it out, give %d or more, or lower max_batch_size"
)

_log = logging.getLogger("dap.service")


class State(enum.Enum):
    """Of the service. READY and DRAINING take requests; from FAILED only a new process leads out."""

    LOADING = "the model is loading"
    READY = "ready"
    DRAINING = "the service is going down"
    FAILED = "the engine has failed"
    STOPPED = "the service is down"


class _Users:
    """Counts who answers with a model, so that it is closed after the last of them."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    @contextmanager
    def one_more(self) -> Iterator[None]:
        self._count += 1
        self._none.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._none.set()

    async def gone(self) -> None:
        await self._none.wait()


@dataclass(frozen=True)
class Served:
    """A model that is served, and what runs it."""

    model: Model
    engine: Engine
    limits: BatchLimits
    batcher: Batcher
    loader: ThreadPoolExecutor
    runners: ThreadPoolExecutor
    users: _Users

    def size_of(self, resolution: Size | None) -> Size:
        """(H, W) at which the model sees a panorama for whom asks for this resolution, or for none.

        Raises:
            ResolutionNotOffered: it has no such resolution; the message lists those that it has.
        """
        return choose_resolution(resolution, self.engine.sizes, self.model.name)


Rehearse = Callable[[Served, Size], Awaitable[None]]


def open_engine(model: Model, settings: Settings) -> Engine:
    """The engine that the settings ask for."""
    return create_engine(
        model,
        settings.engine,
        device=settings.device,
        threads=settings.threads,
        precision=settings.precision,
        execution=settings.execution,
        provider=settings.provider,
        max_batch_size=settings.max_batch_size,
        gpu_arena_gb=settings.gpu_arena_gb,
    )


class Serving:
    """Has one model served. `start` returns at once and loads it in the background: see `state`.

    Attributes:
        state: of the service.
        begun: how many panoramas have been answered or are being answered.
        in_progress: how many are being answered now.
        is_stuck: an engine hangs in a thread, which would keep the process from ending by itself.
    """

    def __init__(self, settings: Settings, telemetry: Telemetry, engine_factory: EngineFactory = open_engine) -> None:
        self.state = State.LOADING
        self.begun = 0
        self.in_progress = 0
        self.is_stuck = False
        self._settings = settings
        self._telemetry = telemetry
        self._engine_factory = engine_factory
        self._rehearse: Rehearse | None = None
        self._configured: Model | None = None
        self._served: Served | None = None
        self._loading: asyncio.Task[Model] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        telemetry.watch_readiness(lambda: self.state is State.READY)

    @property
    def model(self) -> Model | None:
        """The model that is served; None before it is loaded."""
        return self._served.model if self._served else None

    @property
    def sizes(self) -> tuple[Size, ...]:
        """(H, W) of the resolutions that are offered, the first for who does not ask; none before a model is loaded."""
        return self._served.engine.sizes if self._served else ()

    @property
    def max_requests(self) -> int:
        """Requests that may be in progress: as the settings have it for what is served."""
        limits = self._served.limits if self._served else None
        return self._settings.requests(limits.items, limits.lanes) if limits else self._settings.requests(1, 1)

    @property
    def wait_s(self) -> float:
        """Seconds until a panorama that came now would be done."""
        return self._served.batcher.wait_s(math.prod(self._served.engine.input_size)) if self._served else 0.0

    def current(self) -> Served:
        """What a panorama that comes now is answered by.

        Raises:
            NotReady: no panorama can be taken now.
        """
        if self._served is None or self.state not in (State.READY, State.DRAINING):
            raise NotReady(self.state.value, retry_after_s=2.0)
        return self._served

    def require_room(self, within_s: float) -> None:
        """Ask before anything of a panorama is read whose client waits so long. Who is not ready says so elsewhere.

        Raises:
            Overloaded: the queue is full, or too long for this client.
        """
        if self._served is not None:
            pixels = math.prod(self._served.engine.input_size)
            self._served.batcher.require_room(pixels, min(within_s, self._settings.request_timeout_s))

    @contextmanager
    def use(self) -> Iterator[Served]:
        """The model that answers a panorama from its first stage to its last, whatever is loaded meanwhile.

        Raises:
            NotReady: no panorama can be taken now.
        """
        served = self.current()
        self.begun += 1
        self.in_progress += 1
        try:
            with served.users.one_more():
                yield served
        finally:
            self.in_progress -= 1

    def start(self, rehearse: Rehearse) -> None:
        """Load and warm the model of the settings in the background.

        Args:
            rehearse: has one panorama answered in every stage, at the size given, so that no user pays for what is
                lazy.
        """
        self._rehearse = rehearse
        self._loading = asyncio.create_task(self._load(self._find_configured), name="load")
        self._loading.add_done_callback(self._end_of_start)

    async def load(self, name: str) -> Model:
        """Load and warm another model beside the one that is served, and then serve it instead.

        Requests in progress are finished by the old one, which is closed after the last of them. If the load fails the
        old one is served on. A caller that is cancelled stops nothing.

        Args:
            name: of the registry, or of the model that the settings name.

        Raises:
            NotReady: the service is still starting, or going down.
            LoadInProgress: another load has not ended yet.
            UnknownModel: no model has this name.
            ModelError: the model cannot be had, or is none.
            EngineError: no engine here can run it.
        """
        if self.state is not State.READY:
            raise NotReady(self.state.value, retry_after_s=2.0)
        if self._loading is not None and not self._loading.done():
            raise LoadInProgress("another model is being loaded: try again when it is served", retry_after_s=5.0)
        known = {model.name: model for model in (*known_models(), *filter(None, [self._configured]))}
        if name not in known:
            raise UnknownModel(f"no model is named {name!r:.100}: expected one of {', '.join(known)}")
        self._loading = asyncio.create_task(self._load(lambda: known[name]), name=f"load {name}")
        self._loading.add_done_callback(_note_failure)
        try:
            return await asyncio.shield(self._loading)
        except (ModelError, EngineError) as error:
            # What it says is for the log: it may name files.
            raise type(error)(f"{name} could not be loaded, and {self._name} is served on: {error.title}") from error
        except Exception as error:
            raise EngineError(f"{name} could not be loaded, and {self._name} is served on") from error

    def drain(self) -> None:
        """Be not ready, so that no more requests are sent here, but go on answering those that come."""
        if self.state in (State.LOADING, State.READY):
            self.state = State.DRAINING

    async def stop(self) -> None:
        """End all work and give the engine back."""
        self.state = State.STOPPED
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        for retiring in self._retiring:
            retiring.cancel()
        if self._retiring:
            await asyncio.wait(self._retiring)
        served, self._served = self._served, None
        if served is not None:
            await self._close(served)

    @property
    def _name(self) -> str:
        return self._served.model.name if self._served else "nothing"

    def _find_configured(self) -> Model:
        model, sizes = find_model(self._settings.model), self._settings.sizes
        self._configured = model if sizes is None else model.offering(sizes)
        return self._configured

    async def _load(self, find: Callable[[], Model]) -> Model:
        served = await self._open(find)
        try:
            await self._warm_up(served)
        except BaseException:
            await self._close(served)
            raise
        old, self._served = self._served, served
        self._telemetry.watch_queue(lambda: served.batcher.queued_items, lambda: served.batcher.queued_pixels)
        self._telemetry.serves(served.model.name, served.engine.name, served.engine.device)
        if self.state is State.LOADING:
            self.state = State.READY
        fields = {"model": served.model.name, "resolutions": resolution_list(served.engine.sizes)}
        _log.info("the model is warm", extra={"fields": fields})
        if old is not None:
            retiring = asyncio.create_task(self._retire(old), name=f"retire {old.model.name}")
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)
        return served.model

    async def _open(self, find: Callable[[], Model]) -> Served:
        loop = asyncio.get_running_loop()
        loader = ThreadPoolExecutor(1, "loader", initializer=give_way)
        try:
            model = await loop.run_in_executor(loader, find)
            engine = await loop.run_in_executor(loader, self._engine_factory, model, self._settings)
        except BaseException:
            loader.shutdown(wait=False)
            raise
        limits = _limits(engine, self._settings)
        _warn_of_batches_that_never_fill(limits, engine.sizes, self._settings.requests(limits.items, limits.lanes))
        runners = ThreadPoolExecutor(limits.lanes, "engine", initializer=give_way)
        batcher = Batcher(engine, runners, limits, self._telemetry.batch_ran, lambda error: self._died(batcher, error))
        return Served(model, engine, limits, batcher, loader, runners, _Users())

    async def _warm_up(self, served: Served) -> None:
        """Run the largest batch of each size once, on a GPU each that may come; then a panorama of each all the way."""
        assert self._rehearse is not None  # noqa: S101 - start() has set it
        loop = asyncio.get_running_loop()
        engine, most = served.engine, self._settings.max_batch_size
        for size in engine.sizes:
            # As many as there are lanes at least: each lane has something to warm.
            largest = max(batch_limit(most, size, engine.input_size), min(engine.lanes, most))
            counts = served.limits.counts_at(size) if served.limits.prepared else [largest]
            await loop.run_in_executor(served.loader, engine.warm_up, counts, size)
        served.batcher.start()
        for size in engine.sizes:
            await self._rehearse(served, size)

    async def _retire(self, old: Served) -> None:
        try:
            await old.users.gone()
        finally:
            await self._close(old)

    async def _close(self, served: Served) -> None:
        await served.batcher.stop()
        closing = served.loader.submit(_close_when_idle, served)
        served.loader.shutdown(wait=False)
        done, _ = await asyncio.wait([asyncio.wrap_future(closing)], timeout=_CLOSE_S)
        if not done:
            self.is_stuck = True
            _log.error("the engine of %s hangs and is left behind", served.model.name)

    def _end_of_start(self, loading: asyncio.Task[Model]) -> None:
        error = None if loading.cancelled() else loading.exception()
        if error is not None:
            self._fail(error)

    def _died(self, batcher: Batcher, error: BaseException) -> None:
        """A batching task has ended. Of a model that is not served yet, or no more, that is its own matter."""
        if self._served is not None and self._served.batcher is batcher:
            self._fail(error)
        else:
            _log.error("an engine that is not served has failed: %s", error, exc_info=error)

    def _fail(self, error: BaseException) -> None:
        if self.state is not State.STOPPED:
            self.state = State.FAILED
            # An error of ours says all that can be done about it.
            trace = None if isinstance(error, DapError) else error
            _log.critical("%s: %s", self.state.value, with_cause(error), exc_info=trace)


def _limits(engine: Engine, settings: Settings) -> BatchLimits:
    on_gpu = engine.device != "cpu"
    lanes = 1 if settings.batch_delay_s else engine.lanes
    items = settings.max_batch_size if lanes == 1 or on_gpu else 1
    batch_pixels = max(batch_limit(items, size, engine.input_size) * math.prod(size) for size in engine.sizes)
    return BatchLimits(
        items=items,
        queued_pixels=settings.queued_pixels(batch_pixels, lanes),
        delay_s=settings.batch_delay_s,
        run_s=settings.engine_timeout_s,
        lanes=lanes,
        size=engine.input_size,
        prepared=on_gpu,
    )


def _warn_of_batches_that_never_fill(limits: BatchLimits, sizes: Sequence[Size], max_requests: int) -> None:
    """Say which setting keeps them from it. Of batches of one there is nothing to say: an empty queue lets any in."""
    for size in sizes:
        most, pixels = limits.items_at(size), math.prod(size)
        if most > 1 and most * pixels > limits.queued_pixels:
            room = max(1, limits.queued_pixels // pixels)
            _log.warning(_NEVER_FILL, most, resolution_text(size), "max_queued_pixels", room, most * pixels)
        if most > max_requests:
            _log.warning(_NEVER_FILL, most, resolution_text(size), "max_requests", max_requests, most)


def _close_when_idle(served: Served) -> None:
    served.runners.shutdown()
    served.engine.close()


def _note_failure(loading: asyncio.Task[Model]) -> None:
    error = None if loading.cancelled() else loading.exception()
    if error is not None:
        _log.error("%s failed: %s", loading.get_name(), error, exc_info=error)
