"""One way for every request: decode pool -> batcher -> engine -> encode pool.

The event loop only passes things on. Decoding and encoding run in small pools (Pillow and numpy release the interpreter
lock), the engine in a thread of its own. A caller that is cancelled, because its time is over or its client is gone, is
dropped at whichever stage it is.
"""

import asyncio
import enum
import io
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from dap.depth import DepthMap, RangeMask, apply_range
from dap.engines import Engine, create_engine
from dap.errors import DapError, NotReady, TooManyPixels
from dap.models import Model, find_model
from dap.panorama import Limits, Panorama, decode, read_header
from service.batcher import Batcher, BatchLimits, Inferred
from service.budget import PixelBudget
from service.settings import Settings
from service.telemetry import Telemetry, Timing

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]
EngineFactory = Callable[[Model, Settings], Engine]

_log = logging.getLogger("dap.service")


@dataclass(frozen=True)
class Result:
    """What a request is answered from.

    Attributes:
        depth_map: of the size asked for.
        colours: uint8 (H, W, 3), the panorama, at the same size if the job needs its colours, else at the model's.
        timing: of the stages passed so far.
    """

    depth_map: DepthMap
    colours: Pixels
    timing: Timing


@dataclass(frozen=True)
class Job:
    """What a request asks of its panorama.

    Attributes:
        range: metres of the range mask, None for none.
        output_size: the (h, w) of the depth map wanted, from the (h, w) that the model works at and that of the
            panorama that was sent.
        encode: makes the bytes of the answer; runs in the encode pool.
        needs_colours: whether `encode` looks at the colours.
    """

    range: float | None
    output_size: Callable[[Size, Size], Size]
    encode: Callable[[Result], bytes]
    needs_colours: bool = False


@dataclass(frozen=True)
class Answer:
    """The bytes of an answer, and what its headers say of it."""

    body: bytes
    range: float | None
    range_mask: RangeMask
    model: str
    timing: Timing


class State(enum.Enum):
    """Of a pipeline. READY and DRAINING take requests; from FAILED only a new process leads out."""

    LOADING = "the model is loading"
    READY = "ready"
    DRAINING = "the service is going down"
    FAILED = "the engine has failed"
    STOPPED = "the service is down"


@dataclass(frozen=True)
class _Serving:
    """The model that is served, and what runs it."""

    model: Model
    engine: Engine
    batcher: Batcher


@dataclass(frozen=True)
class _Decoded:
    panorama: Panorama
    colours: Pixels
    output_size: Size


def open_engine(model: Model, settings: Settings) -> Engine:
    """The engine that the settings ask for."""
    return create_engine(
        model, settings.engine, device=settings.device, threads=settings.threads, precision=settings.precision
    )


class Pipeline:
    """Answers panoramas with one model. `start` returns at once and loads it in the background: see `state`."""

    def __init__(self, settings: Settings, telemetry: Telemetry, engine_factory: EngineFactory = open_engine) -> None:
        self.state = State.LOADING
        self._settings = settings
        self._telemetry = telemetry
        self._engine_factory = engine_factory
        self._limits = Limits(settings.max_body_bytes, settings.max_image_pixels)
        self._decoding = PixelBudget(settings.max_image_pixels)
        self._encoding = PixelBudget(settings.max_output_pixels)
        self._decode_pool = ThreadPoolExecutor(settings.decode_threads, "decode")
        self._encode_pool = ThreadPoolExecutor(settings.encode_threads, "encode")
        self._engine_thread = ThreadPoolExecutor(1, "engine")
        self._loading: asyncio.Task[None] | None = None
        self._serving: _Serving | None = None
        telemetry.watch_readiness(lambda: self.state is State.READY)

    @property
    def model(self) -> Model | None:
        """The model that is served; None before it is loaded."""
        return self._serving.model if self._serving else None

    @property
    def wait_s(self) -> float:
        """Seconds until a panorama that came now would be done."""
        return self._serving.batcher.wait_s if self._serving else 0.0

    def start(self) -> None:
        """Load and warm the model in the background."""
        self._loading = asyncio.create_task(self._load(), name="load")

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
        if self._serving is not None:
            await self._serving.batcher.stop()
            self._engine_thread.submit(self._serving.engine.close)
        for pool in (self._decode_pool, self._encode_pool, self._engine_thread):
            await asyncio.to_thread(pool.shutdown)

    def require_ready(self) -> None:
        """Ask before anything of a request is read.

        Raises:
            NotReady: no panorama can be taken now.
        """
        self._ready()

    async def answer(self, data: bytes, job: Job) -> Answer:
        """Depth of one image file, encoded as the job says.

        Raises:
            InputError: the file, or the size asked for, cannot be taken.
            Unavailable: not ready, or overloaded.
            EngineError: the engine failed on this panorama.
        """
        return await self._answer(self._ready(), data, job)

    def _ready(self) -> _Serving:
        if self._serving is None or self.state not in (State.READY, State.DRAINING):
            raise NotReady(self.state.value, retry_after_s=2.0)
        return self._serving

    async def _answer(self, serving: _Serving, data: bytes, job: Job) -> Answer:
        rows, columns = serving.engine.input_size
        serving.batcher.require_room(rows * columns)
        started = time.perf_counter()
        decoded = await self._decode(data, job, serving.engine.input_size)
        timing = Timing(decode=time.perf_counter() - started)
        inferred = await serving.batcher.infer(decoded.panorama.pixels)
        timing = replace(timing, queue=inferred.queue_s, inference=inferred.inference_s)
        started = time.perf_counter()
        height, width = decoded.output_size
        async with self._encoding.hold(height * width):
            body, depth_map = await asyncio.get_running_loop().run_in_executor(
                self._encode_pool, _encode, serving, decoded, inferred, job, timing
            )
        timing = replace(timing, encode=time.perf_counter() - started)
        self._telemetry.stages_passed(timing)
        return Answer(body, depth_map.range, depth_map.range_mask, depth_map.model, timing)

    async def _decode(self, data: bytes, job: Job, input_size: Size) -> _Decoded:
        loop = asyncio.get_running_loop()
        header = await loop.run_in_executor(self._decode_pool, read_header, data, self._limits)
        output_size = job.output_size(input_size, header.crop.sphere_size)
        self._check_output(output_size)
        height, width = header.image.size
        async with self._decoding.hold(height * width):
            panorama = await loop.run_in_executor(self._decode_pool, decode, header, self._limits, input_size)
            if not job.needs_colours or output_size == input_size:
                return _Decoded(panorama, panorama.pixels, output_size)
            coloured = await loop.run_in_executor(self._decode_pool, decode, header, self._limits, output_size)
            return _Decoded(panorama, coloured.pixels, output_size)

    def _check_output(self, size: Size) -> None:
        height, width = size
        if height * width > self._settings.max_output_pixels:
            raise TooManyPixels(
                f"an answer has at most {self._settings.max_output_pixels} pixels; {width}x{height} was asked for: "
                f"ask for a smaller one with size=WxH"
            )

    async def _load(self) -> None:
        try:
            self._serving = await self._open()
            await self._rehearse(self._serving)
        except Exception as error:  # noqa: BLE001 - whatever it is, the service is not ready and must say so
            self._fail(error)
        else:
            if self.state is State.LOADING:
                self.state = State.READY
            _log.info("the model is warm", extra={"fields": {"model": self._serving.model.name}})

    async def _open(self) -> _Serving:
        loop = asyncio.get_running_loop()
        model = await loop.run_in_executor(self._engine_thread, find_model, self._settings.model)
        engine = await loop.run_in_executor(self._engine_thread, self._engine_factory, model, self._settings)
        limits = BatchLimits(
            self._settings.max_batch_size, self._settings.max_queued_pixels, self._settings.batch_delay_s
        )
        batcher = Batcher(engine, self._engine_thread, limits, self._telemetry.batch_ran, self._fail)
        self._telemetry.watch_queue(lambda: batcher.queued_items, lambda: batcher.queued_pixels)
        self._telemetry.serves(model.name, engine.name, engine.device)
        return _Serving(model, engine, batcher)

    async def _rehearse(self, serving: _Serving) -> None:
        """Run the largest batch once, then one panorama through the whole way: no user pays for what is lazy."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._engine_thread, serving.engine.warm_up, [self._settings.max_batch_size])
        serving.batcher.start()
        picture = io.BytesIO()
        Image.effect_noise((64, 32), 64).convert("RGB").save(picture, "JPEG")
        await self._answer(serving, picture.getvalue(), Job(100.0, _input_size, _nothing))

    def _fail(self, error: BaseException) -> None:
        if self.state is not State.STOPPED:
            self.state = State.FAILED
            # An error of ours says all that can be done about it.
            _log.critical("%s: %s", self.state.value, error, exc_info=None if isinstance(error, DapError) else error)


def _encode(
    serving: _Serving, decoded: _Decoded, inferred: Inferred, job: Job, timing: Timing
) -> tuple[bytes, DepthMap]:
    depth_map = apply_range(
        inferred.depth,
        inferred.in_range,
        serving.engine.thresholds,
        job.range,
        serving.model.name,
        decoded.panorama.covered,
    ).resize(decoded.output_size)
    return job.encode(Result(depth_map, decoded.colours, timing)), depth_map


def _input_size(_model_size: Size, input_size: Size) -> Size:
    return input_size


def _nothing(_result: Result) -> bytes:
    return b""
