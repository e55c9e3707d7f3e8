"""The model that is served: loaded, warmed and closed here; answered from in `service.pipeline`."""

import asyncio
import enum
import logging
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from dap.engines import Engine, create_engine
from dap.errors import DapError, NotReady
from dap.models import Model, find_model
from service.batcher import Batcher, BatchLimits
from service.settings import Settings
from service.telemetry import Telemetry

EngineFactory = Callable[[Model, Settings], Engine]

_log = logging.getLogger("dap.service")


class State(enum.Enum):
    """Of the service. READY and DRAINING take requests; from FAILED only a new process leads out."""

    LOADING = "the model is loading"
    READY = "ready"
    DRAINING = "the service is going down"
    FAILED = "the engine has failed"
    STOPPED = "the service is down"


@dataclass(frozen=True)
class Served:
    """A model that is served, and what runs it."""

    model: Model
    engine: Engine
    batcher: Batcher
    thread: ThreadPoolExecutor


Rehearse = Callable[[Served], Awaitable[None]]


def open_engine(model: Model, settings: Settings) -> Engine:
    """The engine that the settings ask for."""
    return create_engine(
        model, settings.engine, device=settings.device, threads=settings.threads, precision=settings.precision
    )


class Serving:
    """Has one model served. `start` returns at once and loads it in the background: see `state`."""

    def __init__(self, settings: Settings, telemetry: Telemetry, engine_factory: EngineFactory = open_engine) -> None:
        self.state = State.LOADING
        self._settings = settings
        self._telemetry = telemetry
        self._engine_factory = engine_factory
        self._loading: asyncio.Task[None] | None = None
        self._served: Served | None = None
        telemetry.watch_readiness(lambda: self.state is State.READY)

    @property
    def model(self) -> Model | None:
        """The model that is served; None before it is loaded."""
        return self._served.model if self._served else None

    @property
    def wait_s(self) -> float:
        """Seconds until a panorama that came now would be done."""
        return self._served.batcher.wait_s if self._served else 0.0

    def current(self) -> Served:
        """What a panorama that comes now is answered by.

        Raises:
            NotReady: no panorama can be taken now.
        """
        if self._served is None or self.state not in (State.READY, State.DRAINING):
            raise NotReady(self.state.value, retry_after_s=2.0)
        return self._served

    @contextmanager
    def use(self) -> Iterator[Served]:
        """The model that answers a panorama from its first stage to its last, whatever is loaded meanwhile.

        Raises:
            NotReady: no panorama can be taken now.
        """
        yield self.current()

    def start(self, rehearse: Rehearse) -> None:
        """Load and warm the model in the background.

        Args:
            rehearse: has one panorama answered in every stage, so that no user pays for what is lazy.
        """
        self._loading = asyncio.create_task(self._load(rehearse), name="load")

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
        served, self._served = self._served, None
        if served is not None:
            await served.batcher.stop()
            served.thread.submit(served.engine.close)
            await asyncio.to_thread(served.thread.shutdown)

    async def _load(self, rehearse: Rehearse) -> None:
        try:
            self._served = await self._open()
            await self._warm_up(self._served, rehearse)
        except Exception as error:  # noqa: BLE001 - whatever it is, the service is not ready and must say so
            self._fail(error)
        else:
            if self.state is State.LOADING:
                self.state = State.READY
            _log.info("the model is warm", extra={"fields": {"model": self._served.model.name}})

    async def _open(self) -> Served:
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, "engine")
        model = await loop.run_in_executor(thread, find_model, self._settings.model)
        engine = await loop.run_in_executor(thread, self._engine_factory, model, self._settings)
        limits = BatchLimits(
            self._settings.max_batch_size, self._settings.max_queued_pixels, self._settings.batch_delay_s
        )
        batcher = Batcher(engine, thread, limits, self._telemetry.batch_ran, self._fail)
        self._telemetry.watch_queue(lambda: batcher.queued_items, lambda: batcher.queued_pixels)
        self._telemetry.serves(model.name, engine.name, engine.device)
        return Served(model, engine, batcher, thread)

    async def _warm_up(self, served: Served, rehearse: Rehearse) -> None:
        """Run the largest batch once, then one panorama through the whole way."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(served.thread, served.engine.warm_up, [self._settings.max_batch_size])
        served.batcher.start()
        await rehearse(served)

    def _fail(self, error: BaseException) -> None:
        if self.state is not State.STOPPED:
            self.state = State.FAILED
            # An error of ours says all that can be done about it.
            _log.critical("%s: %s", self.state.value, error, exc_info=None if isinstance(error, DapError) else error)
