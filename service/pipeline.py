"""One way for every request: decode pool -> batcher -> engine -> encode pool.

The event loop only passes things on. Decoding and encoding run in small pools (Pillow and numpy release the interpreter
lock), the engine in a thread of its own. A caller that is cancelled, because its time is over or its client is gone, is
dropped at whichever stage it is.
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from dap.depth import DepthMap, RangeMask, apply_range
from dap.errors import TooManyPixels
from dap.panorama import Header, Limits, Panorama, decode, read_header
from service.batcher import Inferred
from service.pool import Pool
from service.serving import Served, Serving
from service.settings import Settings
from service.telemetry import Telemetry, Timing

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]


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


@dataclass(frozen=True)
class _Decoded:
    panorama: Panorama
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

    def require_ready(self) -> None:
        """Ask before anything of a request is read.

        Raises:
            NotReady: no panorama can be taken now.
        """
        self._serving.current()

    async def rehearse(self, served: Served) -> None:
        """Answer a small panorama in every stage: no user pays for what is lazy."""
        picture = io.BytesIO()
        Image.effect_noise((64, 32), 64).convert("RGB").save(picture, "JPEG")
        await self._answer(served, picture.getvalue(), Job(100.0, _input_size, _nothing))

    async def answer(self, data: bytes, job: Job) -> Answer:
        """Depth of one image file, encoded as the job says.

        Raises:
            InputError: the file, or the size asked for, cannot be taken.
            Unavailable: not ready, or overloaded.
            EngineError: the engine failed on this panorama.
        """
        with self._serving.use() as served:
            return await self._answer(served, data, job)

    async def _answer(self, served: Served, data: bytes, job: Job) -> Answer:
        rows, columns = served.engine.input_size
        served.batcher.require_room(rows * columns)
        started = time.perf_counter()
        decoded = await self._decode(data, job, served.engine.input_size)
        timing = Timing(decode=time.perf_counter() - started)
        inferred = await served.batcher.infer(decoded.panorama.pixels)
        timing = replace(timing, queue=inferred.queue_s, inference=inferred.inference_s)
        started = time.perf_counter()
        height, width = decoded.output_size
        body, depth_map = await self._encoding.run(height * width, _encode, served, decoded, inferred, job, timing)
        timing = replace(timing, encode=time.perf_counter() - started)
        self._telemetry.stages_passed(timing)
        return Answer(body, depth_map.range, depth_map.range_mask, depth_map.model, timing)

    async def _decode(self, data: bytes, job: Job, input_size: Size) -> _Decoded:
        header = await self._decoding.run(0, read_header, data, self._limits)
        output_size = job.output_size(input_size, header.crop.sphere_size)
        self._check_output(output_size)
        height, width = header.image.size
        return await self._decoding.run(height * width, _decode, header, self._limits, job, input_size, output_size)

    def _check_output(self, size: Size) -> None:
        height, width = size
        if height * width > self._settings.max_output_pixels:
            raise TooManyPixels(
                f"an answer has at most {self._settings.max_output_pixels} pixels; {width}x{height} was asked for: "
                f"ask for a smaller one with size=WxH"
            )


def _decode(header: Header, limits: Limits, job: Job, input_size: Size, output_size: Size) -> _Decoded:
    panorama = decode(header, limits, input_size)
    if not job.needs_colours or output_size == input_size:
        return _Decoded(panorama, panorama.pixels, output_size)
    return _Decoded(panorama, decode(header, limits, output_size).pixels, output_size)


def _encode(served: Served, decoded: _Decoded, inferred: Inferred, job: Job, timing: Timing) -> tuple[bytes, DepthMap]:
    depth_map = apply_range(
        inferred.depth,
        inferred.in_range,
        served.engine.thresholds,
        job.range,
        served.model.name,
        decoded.panorama.covered,
    ).resize(decoded.output_size)
    return job.encode(Result(depth_map, decoded.colours, timing)), depth_map


def _input_size(_model_size: Size, input_size: Size) -> Size:
    return input_size


def _nothing(_result: Result) -> bytes:
    return b""
