"""How the torch engine runs batches on a CUDA device: copies beside the work, and the work recorded as CUDA graphs."""

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import LifoQueue

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dap.engines import Execution
from dap.engines.base import Inference
from dap.errors import EngineUnavailable
from dap.model.dap import PixelNetwork

_log = logging.getLogger(__name__)

_LANES = 2
# A process may record one CUDA graph at a time, and whether convolutions may use TF32 is the whole process's.
_process = threading.Lock()

# float32 (B, 1 + T, H, W) of uint8 (B, H, W, 3), with range masks or without: depth, then the in-range probabilities.
_Answer = Callable[[Tensor, bool], Tensor]


@dataclass(frozen=True)
class _Recording:
    """The work on batches of one shape, with range masks or without, as a CUDA graph.

    Attributes:
        graph: launches all of it at once.
        pixels: uint8 (B, H, W, 3), what it works on.
        answers: float32 (B, 1 + T, H, W), where its answers are until another recording runs.
    """

    graph: torch.cuda.CUDAGraph
    pixels: Tensor
    answers: Tensor


class CudaLanes:
    """Runs batches on one CUDA device: while one is worked on, the pixels of the next go up and the last's depth down.

    All work is on one stream, one batch after the other. Each lane has a stream for its copies and memory of its own
    for what is copied, page-locked on the host. The work waits for the event that ends the lane's upload, the download
    for the one that ends its work, and the caller for the one that ends its download: so nothing is read before it is
    written. A lane has its next caller after that: so nothing is overwritten before it is read. Where all is well no
    one waits for the whole device, but to record.

    Args:
        network: on the device, in the types that it runs in.
        device: with its number.
        execution: `eager` launches each kernel by itself. `graphs` records the work on each shape of batch as a CUDA
            graph when it first comes. `compiled` records what torch.compile makes of it for the shapes that are warmed,
            and the others as `graphs` does, since compiling takes minutes.
        allow_tf32: whether float32 convolutions may run in TF32.

    Attributes:
        count: runs that may be in progress at a time.
    """

    count = _LANES

    def __init__(self, network: PixelNetwork, device: torch.device, execution: Execution, *, allow_tf32: bool) -> None:
        self._network = network
        self._device = device
        self._execution = execution
        self._allow_tf32 = allow_tf32
        self._thresholds = len(network.network.config.thresholds)
        self._recordings: dict[tuple[torch.Size, bool], _Recording | None] = {}
        with torch.cuda.device(device):
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()
            self._idle: LifoQueue[_Lane] = LifoQueue()
            for _ in range(self.count):
                self._idle.put(_Lane(device))

    def run(self, panoramas: npt.NDArray[np.uint8], *, in_range: bool) -> Inference:
        """See `dap.engines.base.Engine.infer`; raises what torch raises."""
        with self._taken(1) as (lane,):
            return self._run(lane, panoramas, in_range)

    def warm_up(self, panoramas: npt.NDArray[np.uint8]) -> None:
        """Make all that batches of this shape need, on every lane, with range masks and without.

        Raises:
            EngineUnavailable: torch cannot compile here. It raises whatever else torch does, too.
        """
        with self._taken(self.count) as lanes:
            for in_range in (True, False):
                if self._execution == "compiled":
                    self._compile(torch.from_numpy(panoramas), in_range)
                for lane in lanes:
                    self._run(lane, panoramas, in_range)

    @contextmanager
    def _taken(self, count: int) -> Iterator[Sequence["_Lane"]]:
        lanes = [self._idle.get() for _ in range(count)]
        try:
            yield lanes
        finally:
            for lane in lanes:
                self._idle.put(lane)

    def _run(self, lane: "_Lane", panoramas: npt.NDArray[np.uint8], in_range: bool) -> Inference:
        count, height, width, _ = panoramas.shape
        channels = 1 + (self._thresholds if in_range else 0)
        with torch.inference_mode(), torch.cuda.device(self._device):
            try:
                answers = self._through(lane, torch.from_numpy(panoramas), (count, channels, height, width), in_range)
            except RuntimeError:
                # What is left of it must not meet the lane's next run. Who waits for the device breaks a recording.
                with _process, suppress(RuntimeError):
                    torch.cuda.synchronize()
                raise
            return Inference(answers[:, 0].clone().numpy(), answers[:, 1:].clone().numpy())

    def _through(self, lane: "_Lane", panoramas: Tensor, answers_shape: tuple[int, ...], in_range: bool) -> Tensor:
        """Up, through the network, and down again: the answers, in the lane's memory."""
        pixels, answers = lane.pixels.of(panoramas.shape), lane.answers.of(answers_shape)
        pixels.host.copy_(panoramas)
        with torch.cuda.stream(lane.stream):
            pixels.device.copy_(pixels.host, non_blocking=True)
            lane.uploaded.record()
        with self._working():
            self._stream.wait_event(lane.uploaded)
            self._work(pixels.device, in_range, into=answers.device)
            lane.worked.record()
        with torch.cuda.stream(lane.stream):
            lane.stream.wait_event(lane.worked)
            answers.host.copy_(answers.device, non_blocking=True)
            lane.downloaded.record()
        lane.downloaded.synchronize()
        return answers.host

    @contextmanager
    def _working(self) -> Iterator[None]:
        """What is launched meanwhile is work: on its stream, and in float32 as exact as is asked for."""
        with _process, torch.cuda.stream(self._stream):
            before = torch.backends.cudnn.allow_tf32
            torch.backends.cudnn.allow_tf32 = self._allow_tf32
            try:
                yield
            finally:
                torch.backends.cudnn.allow_tf32 = before

    def _work(self, pixels: Tensor, in_range: bool, into: Tensor) -> None:
        recording = None
        if self._execution != "eager":
            if (pixels.shape, in_range) not in self._recordings:
                self._record(pixels, in_range, self._answer)
            recording = self._recordings[pixels.shape, in_range]
        if recording is None:
            into.copy_(self._answer(pixels, in_range))
        else:
            recording.pixels.copy_(pixels)
            recording.graph.replay()
            into.copy_(recording.answers)

    def _answer(self, pixels: Tensor, in_range: bool) -> Tensor:
        depth, probabilities = self._network(pixels, in_range=in_range)
        return torch.cat([depth[:, None], probabilities], dim=1)

    def _compile(self, panoramas: Tensor, in_range: bool) -> None:
        """Record what torch.compile makes of the network for this shape.

        Its own CUDA graphs (`reduce-overhead`) are left out: they fail in every thread but those that torch knows
        (pytorch/pytorch#123177).
        """
        compiled = torch.compile(self._answer, fullgraph=True, dynamic=False, mode="max-autotune-no-cudagraphs")
        # Each shape is compiled by itself; torch would stop at eight.
        limits = torch._dynamo.config.patch(cache_size_limit=1024, accumulated_cache_size_limit=1024)
        with torch.inference_mode(), torch.cuda.device(self._device), self._working(), limits:
            try:
                self._record(panoramas.to(self._device), in_range, compiled)
            except torch._dynamo.exc.TorchDynamoException as error:
                raise EngineUnavailable(
                    "torch cannot compile the network here, for which it needs Triton and a C compiler: "
                    f"{str(error).partition(chr(10))[0]:.200}. The execution `graphs` needs neither."
                ) from error

    def _record(self, pixels: Tensor, in_range: bool, answer: _Answer) -> None:
        fixed = pixels.clone()
        answer(fixed, in_range)  # kernels are compiled, loaded and chosen now, and not while they are recorded
        graph = torch.cuda.CUDAGraph()
        recording = None
        try:
            # What other threads do meanwhile, on the streams of their lanes, is no part of it and does it no harm. All
            # recordings share their memory: one runs at a time, and its answers are copied before the next.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                answers = answer(fixed, in_range)
            recording = _Recording(graph, fixed, answers)
        except RuntimeError as error:
            _log.warning("torch engine: no CUDA graph of batches of %s: %s", tuple(pixels.shape), error)
        self._recordings[pixels.shape, in_range] = recording


class _Lane:
    """What one run at a time owns: a stream for its copies, what it copies, and events that say how far it is."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.pixels = _Twins(torch.uint8, device, self.stream)
        self.answers = _Twins(torch.float32, device, self.stream)
        # Who waits for an event lets the core go meanwhile.
        self.uploaded, self.worked, self.downloaded = (
            torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            for _ in range(3)
        )


@dataclass(frozen=True)
class _Twin:
    """The same array on both sides: page-locked on the host, and on the device."""

    host: Tensor
    device: Tensor


class _Twins:
    """Memory for one array at a time, on both sides, as much as the largest took."""

    def __init__(self, dtype: torch.dtype, device: torch.device, stream: torch.cuda.Stream) -> None:
        self._dtype = dtype
        self._device = device
        self._stream = stream
        self._whole: _Twin | None = None

    def of(self, shape: Sequence[int]) -> _Twin:
        """An array of this shape; the one before is no more."""
        size = math.prod(shape)
        if self._whole is None or len(self._whole.host) < size:
            with torch.cuda.stream(self._stream):
                device = torch.empty(size, dtype=self._dtype, device=self._device)
            self._whole = _Twin(torch.empty(size, dtype=self._dtype, pin_memory=True), device)
        return _Twin(*(side[:size].view(*shape) for side in (self._whole.host, self._whole.device)))
