"""How the onnx engine runs batches on a CUDA device: through buffers that stay there, and page-locked ones here."""

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from dap.engines.base import Inference, no_range
from dap.engines.cuda import CudaDevice, CudaError, PinnedBuffer
from dap.engines.sessions import output_names

_log = logging.getLogger(__name__)

_INPUT = "panorama"


@dataclass(frozen=True)
class _Array:
    """The input or an output of one batch size: its memory, and the host's side of it as an array."""

    buffer: PinnedBuffer
    host: npt.NDArray[Any]


@dataclass(frozen=True)
class _Bound:
    """Of one batch size, with range masks or without: the session that has the arrays bound."""

    session: ort.InferenceSession
    binding: ort.IOBinding
    options: ort.RunOptions
    pixels: _Array
    outputs: Sequence[_Array]


class Bindings:
    """Runs batches on one CUDA device, one at a time.

    Each batch size has buffers of its own, on the device and page-locked on the host, made when it comes first: pixels
    are copied up from one, depth and probabilities down to the others, each once. Since they never move, ONNX Runtime
    can record the whole run as a CUDA graph and launch it at once from then on (its execution provider's page on CUDA
    graphs). It keeps what it records for each thread by itself, so all runs are in one thread, whoever asks for them:
    what was recorded while the engine was warmed is there for the first request.

    Args:
        open_session: gives a session with range masks or without.
        session: with range masks, open already.
        gpu: where they run; `close` closes it.
        input_size: (H, W) in pixels.
        thresholds: how many channels `in_range` has.

    Attributes:
        count: 1, runs that may be in progress at a time.
    """

    count = 1

    def __init__(
        self,
        open_session: Callable[[bool], ort.InferenceSession],
        session: ort.InferenceSession,
        gpu: CudaDevice,
        input_size: tuple[int, int],
        thresholds: int,
    ) -> None:
        self._open_session = open_session
        self._sessions = {True: session}
        self._gpu = gpu
        self._items: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
            _INPUT: (np.uint8, (*input_size, 3)),
            "depth": (np.float32, input_size),
            "in_range": (np.float32, (thresholds, *input_size)),
        }
        self._arrays: dict[tuple[str, int], _Array] = {}
        self._bound: dict[tuple[int, bool], _Bound] = {}
        self._thread = ThreadPoolExecutor(1, f"cuda:{gpu.number}")

    def run(self, panoramas: npt.NDArray[np.uint8], *, in_range: bool) -> Inference:
        """See `dap.engines.base.Engine.infer`; raises what ONNX Runtime raises, and CudaError."""
        return self._thread.submit(self._run, panoramas, in_range).result()

    def close(self) -> None:
        """Give the memory of the GPU back. Nothing is run after."""
        self._thread.submit(self._release).result()
        self._thread.shutdown()

    def _run(self, panoramas: npt.NDArray[np.uint8], in_range: bool) -> Inference:
        self._gpu.make_current()
        key = len(panoramas), in_range
        if key not in self._bound:
            self._bound[key] = self._bind(*key)
        bound = self._bound[key]
        np.copyto(bound.pixels.host, panoramas)
        self._gpu.upload(bound.pixels.buffer, bound.pixels.host.nbytes)
        self._gpu.synchronize()  # ONNX Runtime computes on a stream of its own, which would not wait for the copy
        bound.session.run_with_iobinding(bound.binding, bound.options)  # ends when it is computed
        for output in bound.outputs:
            self._gpu.download(output.buffer, output.host.nbytes)
        self._gpu.synchronize()
        depth, *rest = (output.host.copy() for output in bound.outputs)
        return Inference(depth, *(rest or [no_range(depth)]))

    def _bind(self, count: int, in_range: bool) -> _Bound:
        if in_range not in self._sessions:
            self._sessions[in_range] = self._open_session(in_range)
        session = self._sessions[in_range]
        binding = session.io_binding()
        pixels = self._array(_INPUT, count)
        binding.bind_input(_INPUT, *self._place(pixels))
        outputs = [self._array(name, count) for name in output_names(in_range)]
        for name, output in zip(output_names(in_range), outputs, strict=True):
            binding.bind_output(name, *self._place(output))
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(count))  # a graph is for one shape; 0 is ONNX Runtime's own
        return _Bound(session, binding, options, pixels, outputs)

    def _array(self, name: str, count: int) -> _Array:
        if (name, count) not in self._arrays:
            kind, item = self._items[name]
            buffer = self._gpu.allocate(count * math.prod(item) * np.dtype(kind).itemsize)
            self._arrays[name, count] = _Array(buffer, buffer.host.view(kind).reshape(count, *item))
        return self._arrays[name, count]

    def _place(self, array: _Array) -> tuple[str, int, np.dtype[Any], tuple[int, ...], int]:
        """As ONNX Runtime asks for it: device, its number, type, shape and address."""
        return "cuda", self._gpu.number, array.host.dtype, array.host.shape, array.buffer.device_address

    def _release(self) -> None:
        self._bound.clear()
        self._sessions.clear()
        self._arrays.clear()
        try:
            self._gpu.close()
        except CudaError as error:
            _log.warning("onnx engine: cuda:%d gives nothing back: %s", self._gpu.number, error)
