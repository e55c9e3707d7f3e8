"""One way for every request: decode pool -> batcher -> engine -> encode pool.

The event loop only passes things on. Decoding and encoding run in small pools (Pillow and numpy release the interpreter
lock), the engine in a thread of its own. A caller that is cancelled, because its time is over or its client is gone, is
dropped at whichever stage it is.
"""

import asyncio
import io
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from dap.depth import DepthMap, RangeMask
from dap.errors import TooManyPixels
from dap.panorama import Header, Limits, decode, read_header
from dap.postprocess import DepthOptions, engine_inputs, finish, is_seen_twice
from dap.resolutions import Size
from service.batcher import Inferred, Place
from service.pool import Pool
from service.serving import Served, Serving
from service.settings import Settings
from service.telemetry import Telemetry, Timing

Pixels = npt.NDArray[np.uint8]
Body = TypeVar("Body")
Other = TypeVar("Other")
P = ParamSpec("P")
T = TypeVar("T")


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
class Job(Generic[Body]):
    """What a request asks of its panorama.

    Attributes:
        options: of the depth map.
        output_size: the (h, w) of the depth map wanted, from the (h, w) that the model works at and that of the
            panorama that was sent.
        encode: makes what is answered, mostly bytes; runs in the encode pool.
        needs_colours: whether `encode` looks at the colours.
        pixels: how many pixels the answer has, from the (h, w) of the depth map: those of the map itself, unless it is
            written more than once, or more is made of it. They are bounded.
        resolution: (h, w) at which the model is to see the panorama; None for the model's own choice.
    """

    options: DepthOptions
    output_size: Callable[[Size, Size], Size]
    encode: Callable[[Result], Body]
    needs_colours: bool = False
    pixels: Callable[[Size], int] = math.prod
    resolution: Size | None = None


@dataclass(frozen=True)
class Answer(Generic[Body]):
    """What `Job.encode` made, and what the headers of an answer say of it.

    Attributes:
        body: mostly bytes.
        range: metres of the range mask, None for none.
        range_mask: what the mask comes from, as `DepthMap.range_mask` says.
        model: name of the model.
        scale_factor: metres of the answer for each metre of the model; None where the scale is the model's own.
        timing: of every stage.
        resolution: (h, w) at which the model saw the panorama.
    """

    body: Body
    range: float | None
    range_mask: RangeMask
    model: str
    scale_factor: float | None
    timing: Timing
    resolution: Size

    def with_body(self, body: Other) -> "Answer[Other]":
        """The same with another body."""
        return Answer(body, self.range, self.range_mask, self.model, self.scale_factor, self.timing, self.resolution)


# Of a body with several panoramas: what they are, the resolution at which they are to be seen, and what makes the
# answer of their depth maps.
Reader = Callable[[Served], tuple[Sequence[bytes | Pixels], Size | None, Callable[[Sequence[DepthMap]], Body]]]


@dataclass(frozen=True)
class _Decoded:
    """What the engine is to see, and what is known beside: see `Result` for the colours."""

    inputs: Sequence[Pixels]
    covered: npt.NDArray[np.bool_] | None
    colours: Pixels
    output_size: Size


class Pipeline:
    """Answers panoramas with the model that is served."""

    def __init__(self, settings: Settings, telemetry: Telemetry, serving: Serving) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._serving = serving
        self._limits = Limits(settings.max_body_bytes, settings.max_image_pixels)
        self._decoding = Pool("decode", settings.decode_threads, settings.max_image_pixels)
        self._encoding = Pool("encode", settings.encode_threads, settings.max_output_pixels)

    async def close(self) -> None:
        """End what decodes and encodes."""
        await self._decoding.close()
        await self._encoding.close()

    def require_ready(self, resolution: Size | None) -> None:
        """Ask before anything of a request is read.

        Args:
            resolution: as `Job.resolution` has it.

        Raises:
            NotReady: no panorama can be taken now.
            ResolutionNotOffered: the model has no such resolution.
        """
        self._serving.current().size_of(resolution)

    async def decode(self, pixels: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns or raises; it runs in the decode pool and works on so many pixels."""
        return await self._decoding.run(pixels, function, *args, **kwargs)

    async def rehearse(self, served: Served, size: Size) -> None:
        """Answer a small panorama in every stage, seen at this size: no user pays for what is lazy."""
        picture = io.BytesIO()
        Image.effect_noise((64, 32), 64).convert("RGB").save(picture, "JPEG")
        await self._answer(served, picture.getvalue(), Job(DepthOptions(), _input_size, _nothing, resolution=size))

    async def answer(self, picture: bytes | Pixels, job: Job[Body]) -> Answer[Body]:
        """Depth of one panorama, encoded as the job says.

        Args:
            picture: an image file; or the pixels, uint8 (H, W, 3), at the resolution of the job.
            job: what to make of it.

        Raises:
            InputError: the picture, the size or the resolution asked for cannot be taken.
            Unavailable: not ready, or overloaded.
            EngineError: the engine failed on this panorama.
        """
        with self._serving.use() as served:
            answer = await self._answer(served, picture, job)
            self._telemetry.stages_passed(answer.timing, answer.resolution)
            return answer

    async def infer(self, read: Reader[Body]) -> Answer[Body]:
        """What the model says of several panoramas, each with a place of its own in the queue. One fails: all fail.

        Args:
            read: gives the panoramas, as `answer` takes them, their resolution as `Job` has it, and what makes the
                answer of their depth maps, which are of that size, without a range mask and with the in-range
                probabilities. Runs in the decode pool, and what it gives in the encode pool.

        Raises:
            DapError: as `read`, and as `answer` says.
        """
        with self._serving.use() as served:
            with self._telemetry.tracer.stage("read"):
                pictures, resolution, write = await self._decoding.run(0, read, served)
            rows, columns = served.size_of(resolution)
            job = Job(DepthOptions(range=None, keep_in_range=True), _model_size, _depth_map, resolution=resolution)
            served.batcher.require_room(len(pictures) * rows * columns)
            answers = await _all([self._answer(served, picture, job) for picture in pictures])
            started = time.perf_counter()
            with self._telemetry.tracer.stage("encode"):
                depth_maps = [answer.body for answer in answers]
                body = await self._encoding.run(len(pictures) * rows * columns, write, depth_maps)
            encode_s = time.perf_counter() - started
        for answer in answers:
            self._telemetry.stages_passed(replace(answer.timing, encode=None), answer.resolution)
        self._telemetry.stages_passed(Timing(encode=encode_s), (rows, columns))
        last = max(answers, key=lambda answer: answer.timing.seconds)
        return replace(last.with_body(body), timing=replace(last.timing, encode=encode_s))

    async def _answer(self, served: Served, picture: bytes | Pixels, job: Job[Body]) -> Answer[Body]:
        rows, columns = size = served.size_of(job.resolution)
        looks = 1 + is_seen_twice(columns, job.options, spherical=served.model.spherical)
        with served.batcher.reserve(rows * columns * looks) as place:
            started = time.perf_counter()
            with self._telemetry.tracer.stage("decode"):
                decoded = await self._decode(served, size, picture, job)
            timing = Timing(decode=time.perf_counter() - started)
            inferred = await _all([self._infer(place, pixels, job) for pixels in decoded.inputs])
        last = max(inferred, key=lambda one: one.queue_s + one.inference_s)
        timing = replace(timing, queue=last.queue_s, inference=last.inference_s)
        started = time.perf_counter()
        pixels = job.pixels(decoded.output_size)
        with self._telemetry.tracer.stage("encode"):
            body, depth_map = await self._encoding.run(pixels, _encode, served, decoded, inferred, job, timing)
        timing = replace(timing, encode=time.perf_counter() - started)
        factor = None if job.options.camera_height is None else depth_map.scale_factor
        return Answer(body, depth_map.range, depth_map.range_mask, depth_map.model, factor, timing, size)

    async def _decode(self, served: Served, input_size: Size, picture: bytes | Pixels, job: Job[Body]) -> _Decoded:
        spherical = served.model.spherical
        if not isinstance(picture, bytes):
            output_size = job.output_size(input_size, input_size)
            self._check_output(output_size, job.pixels(output_size))
            return _Decoded(engine_inputs(picture, job.options, spherical=spherical), None, picture, output_size)
        header = await self._decoding.run(0, read_header, picture, self._limits)
        output_size = job.output_size(input_size, header.crop.sphere_size)
        self._check_output(output_size, job.pixels(output_size))
        height, width = header.image.size
        return await self._decoding.run(
            height * width, _decode, header, self._limits, job, input_size, output_size, spherical=spherical
        )

    async def _infer(self, place: Place, panorama: Pixels, job: Job[Body]) -> Inferred:
        with self._telemetry.tracer.stage("queue") as stage:
            inferred = await place.infer(panorama, in_range=job.options.needs_in_range)
            stage.became("inference", inferred.queue_s)
            return inferred

    def _check_output(self, size: Size, pixels: int) -> None:
        height, width = size
        if max(height * width, pixels) > self._settings.max_output_pixels:
            asked = f"{width}x{height}" + (f", {pixels} in all," if pixels > height * width else "")
            raise TooManyPixels(
                f"an answer has at most {self._settings.max_output_pixels} pixels; {asked} was asked for: "
                f"ask for a smaller one with size=WxH"
            )


async def _all(works: Sequence[Coroutine[Any, Any, T]]) -> Sequence[T]:
    """What each of them returns. Where one fails, the others are abandoned."""
    if len(works) == 1:
        return [await works[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _decode(
    header: Header, limits: Limits, job: Job[Body], input_size: Size, output_size: Size, *, spherical: bool
) -> _Decoded:
    panorama = decode(header, limits, input_size)
    colours = panorama.pixels
    if (job.needs_colours or job.options.needs_colours) and output_size != input_size:
        colours = decode(header, limits, output_size).pixels
    inputs = engine_inputs(panorama.pixels, job.options, spherical=spherical)
    return _Decoded(inputs, panorama.covered, colours, output_size)


def _encode(
    served: Served, decoded: _Decoded, inferred: Sequence[Inferred], job: Job[Body], timing: Timing
) -> tuple[Body, DepthMap]:
    depth_map = finish(
        [(one.depth, one.in_range) for one in inferred],
        served.engine.thresholds,
        job.options,
        served.model.name,
        decoded.covered,
        decoded.output_size,
        decoded.colours if job.options.needs_colours else None,
    )
    return job.encode(Result(depth_map, decoded.colours, timing)), depth_map


def _input_size(_model_size: Size, input_size: Size) -> Size:
    return input_size


def _model_size(model_size: Size, _input_size: Size) -> Size:
    return model_size


def _depth_map(result: Result) -> DepthMap:
    return result.depth_map


def _nothing(_result: Result) -> bytes:
    return b""
