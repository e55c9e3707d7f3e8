"""The engine `onnx`: exported graphs in ONNX Runtime, on the CPU or on a CUDA device."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from dap.engines.base import Inference, check_finite, check_panoramas, parse_device
from dap.engines.cores import available_cores
from dap.engines.failures import as_engine_error
from dap.errors import EngineError, EngineUnavailable, ModelFileInvalid
from dap.graph import GraphMetadata, read_graph_metadata
from dap.models import Model

_log = logging.getLogger(__name__)

_INPUT = "panorama"
_OUTPUTS = ("depth", "in_range")
# Beyond so many cores, or so large a file, all cores run one batch together.
_MAX_LANES = 4
_MAX_BYTES_TWICE = 256 * 1024 * 1024
_MOMENT_S = 0.05
_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
# ONNX Runtime's exceptions have no common ancestor but Exception.
_FAILURES = (
    native.EPFail,
    native.Fail,
    native.InvalidArgument,
    native.InvalidGraph,
    native.InvalidProtobuf,
    native.NotImplemented,
    native.RuntimeException,
    RuntimeError,
    ValueError,
)


class OnnxEngine:
    """Runs a file that `dap export` wrote. See `dap.engines.base.Engine`.

    Before ONNX Runtime opens the file it is checked to be whole in itself (external data could name any file of the
    machine) and to carry our metadata. ONNX Runtime runs no code from a file, and no library of custom operators is
    ever registered, so a graph that asks for one does not load.

    On a CPU of few cores a panorama that is alone gets all of them; panoramas that run at the same time get one each.
    Cores that share a panorama wait for each other at every operator: on 2 busy cores dap-s costs 180 to 186 ms of
    processor time so, and 156 to 158 ms side by side, for the same answer to the last bit. The price is a session with
    weights of its own for each core, so large files are not run so. (Threads that share a session are as quick in one
    process, and in the next a sixth slower: 11.4 to 12.0 panoramas/s of the service in 8 starts out of 8 with a session
    for each, 10.0 to 10.6 in 4 out of 8 with one for both.) Nor is anything on many cores, where a panorama that comes
    while another runs would get one of the many.
    """

    name = "onnx"

    def __init__(self, path: Path, model: Model, *, device: str = "auto", threads: int | None = None) -> None:
        """Load the graph.

        Raises:
            ModelFileInvalid: the file is no ONNX file of ours, or not the one that the registry describes.
            EngineUnavailable: the device asked for cannot be had.
        """
        metadata = read_graph_metadata(path)
        if (metadata.input_size, metadata.thresholds) != (model.input_size, model.thresholds):
            raise ModelFileInvalid(
                f"{path.name} is for input {metadata.input_size} and thresholds {metadata.thresholds}: "
                f"expected those of {model.name}, {model.input_size} and {model.thresholds}."
            )
        self.input_size = metadata.input_size
        self.thresholds = metadata.thresholds
        cores = threads or available_cores()
        self._path = path
        self._shared: ort.InferenceSession | None
        self._shared, self.device = _open(path, device, cores)
        _check_signature(self._shared, metadata, path)
        side_by_side = self.device == "cpu" and cores <= _MAX_LANES and path.stat().st_size <= _MAX_BYTES_TWICE
        self.lanes = cores if side_by_side else 1
        self._idle: list[ort.InferenceSession] = []
        self._lock = threading.Lock()
        self._in_progress = 0
        self._is_crowded = False
        self._crowded_until = 0.0

    def infer(self, panoramas: npt.NDArray[np.uint8]) -> Inference:
        """See `dap.engines.base.Engine.infer`; any batch size, panoramas of the model's input size."""
        shared = self._shared
        if shared is None:
            raise EngineError("The engine is closed.")
        check_panoramas(panoramas, self.input_size)
        try:
            inference = self._infer(shared, np.ascontiguousarray(panoramas))
        except (*_FAILURES, MemoryError) as error:
            raise as_engine_error(error, "ONNX Runtime", self.device, len(panoramas)) from error
        return check_finite(inference)

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run each batch size once."""
        for batch_size in batch_sizes:
            self.infer(np.zeros((batch_size, *self.input_size, 3), np.uint8))

    def close(self) -> None:
        """Drop the sessions and their memory."""
        self._shared = None
        self._idle.clear()

    def _infer(self, shared: ort.InferenceSession, panoramas: npt.NDArray[np.uint8]) -> Inference:
        with self._one_more() as is_alone:
            if self.lanes == 1 or (is_alone and len(panoramas) == 1):
                return Inference(*shared.run(list(_OUTPUTS), {_INPUT: panoramas}))
            if len(panoramas) > 1:
                return self._side_by_side(panoramas)
            with self._single_threaded() as session:
                return Inference(*session.run(list(_OUTPUTS), {_INPUT: panoramas}))

    @contextmanager
    def _one_more(self) -> Iterator[bool]:
        """Count this run; whether there is no other, nor was a moment ago: under load lanes may well end together."""
        with self._lock:
            self._in_progress += 1
            self._is_crowded = self._is_crowded or self._in_progress > 1
            is_alone = not self._is_crowded and time.monotonic() >= self._crowded_until
        try:
            yield is_alone
        finally:
            with self._lock:
                self._in_progress -= 1
                if self._is_crowded:
                    self._crowded_until = time.monotonic() + _MOMENT_S
                    self._is_crowded = self._in_progress > 0

    @contextmanager
    def _single_threaded(self) -> Iterator[ort.InferenceSession]:
        """A session for whoever holds it alone. Made when needed: who has one panorama at a time never needs any."""
        with self._lock:
            session = self._idle.pop() if self._idle else None
        if session is None:
            session = _session(self._path, 1, [_CPU])
        try:
            yield session
        finally:
            with self._lock:
                self._idle.append(session)

    def _side_by_side(self, panoramas: npt.NDArray[np.uint8]) -> Inference:
        """A batch panorama by panorama; each lane takes the next that waits."""
        count, height, width = panoramas.shape[:3]
        inference = Inference(
            np.empty((count, height, width), np.float32),
            np.empty((count, len(self.thresholds), height, width), np.float32),
        )

        def run(index: int) -> None:
            part = slice(index, index + 1)
            with self._single_threaded() as session:
                binding = session.io_binding()
                binding.bind_cpu_input(_INPUT, panoramas[part])
                for name, values in zip(_OUTPUTS, (inference.depth[part], inference.in_range[part]), strict=True):
                    binding.bind_output(name, "cpu", 0, np.float32, values.shape, values.ctypes.data)
                session.run_with_iobinding(binding)

        with ThreadPoolExecutor(self.lanes, "lane") as callers:
            runs = [callers.submit(run, index) for index in range(count)]
        for finished in runs:
            finished.result()
        return inference


def _open(path: Path, device: str, threads: int) -> tuple[ort.InferenceSession, str]:
    """A session and the device it is on. `auto` may end on the CPU, and says so; a device that was named may not."""
    kind, number = parse_device(device)
    has_cuda = _CUDA in ort.get_available_providers()
    if kind == "cuda" and not has_cuda:
        raise EngineUnavailable(
            f"{device} was asked for, and ONNX Runtime is built without CUDA here: install onnxruntime-gpu."
        )
    if kind != "cpu" and has_cuda:
        number = number or 0
        options = {"device_id": number, "arena_extend_strategy": "kSameAsRequested"}
        session = _session(path, threads, [(_CUDA, options), _CPU])
        # ONNX Runtime goes on without a provider whose libraries do not load.
        if _CUDA in session.get_providers():
            _log.info("onnx engine: cuda:%d, %s", number, "as asked for" if kind == "cuda" else "the first GPU found")
            return session, f"cuda:{number}"
        if kind == "cuda":
            raise EngineUnavailable(
                f"{device} was asked for, and ONNX Runtime cannot start it: driver, CUDA and cuDNN do not fit together."
            )
        _log.warning("onnx engine: cpu with %d threads, since CUDA is installed and could not be started", threads)
        return session, "cpu"
    reason = "as asked for" if kind == "cpu" else "this ONNX Runtime is built without CUDA"
    _log.info("onnx engine: cpu with %d threads, %s", threads, reason)
    return _session(path, threads, [_CPU]), "cpu"


def _session(path: Path, threads: int, providers: list[str | tuple[str, dict[str, object]]]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take the cores from decoding and encoding: on a busy machine of 2 cores, medians
    # of 272 to 373 ms a batch without, 446 to 606 ms with (dap-s, three runs each).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A memory plan is kept for every batch size ever seen; without it 202 MB after a batch of 4, with it 278 MB,
    # in the same time.
    options.enable_mem_pattern = False
    options.log_severity_level = 4  # what is less than fatal comes as an exception
    try:
        return ort.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except _FAILURES as error:
        detail = str(error).partition("\n")[0].replace(str(path), path.name)
        raise ModelFileInvalid(f"ONNX Runtime cannot load {path.name}: {detail}") from error


def _check_signature(session: ort.InferenceSession, metadata: GraphMetadata, path: Path) -> None:
    """The inputs and outputs by name, type and shape; the batch is open."""
    height, width = metadata.input_size
    expected = {
        _INPUT: ("tensor(uint8)", [height, width, 3]),
        "depth": ("tensor(float)", [height, width]),
        "in_range": ("tensor(float)", [len(metadata.thresholds), height, width]),
    }
    found = {value.name: (value.type, value.shape[1:]) for value in (*session.get_inputs(), *session.get_outputs())}
    if found != expected:
        raise ModelFileInvalid(f"{path.name} has the inputs and outputs {found}: expected {expected}.")
