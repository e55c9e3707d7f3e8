"""The engine `onnx`: exported graphs in ONNX Runtime, on the CPU or on a CUDA device."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from dap.engines.base import Inference, check_finite, check_panoramas, parse_device
from dap.engines.cores import available_cores
from dap.errors import EngineError, EngineUnavailable, ModelFileInvalid, OutOfMemory
from dap.graph import GraphMetadata, read_graph_metadata
from dap.models import Model

_log = logging.getLogger(__name__)

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
_NO_ROOM = re.compile(r"failed to allocate memory|bad.?alloc|out of memory|ALLOC_FAILED", re.IGNORECASE)


class OnnxEngine:
    """Runs a file that `dap export` wrote. See `dap.engines.base.Engine`.

    Before ONNX Runtime opens the file it is checked to be whole in itself (external data could name any file of the
    machine) and to carry our metadata. ONNX Runtime runs no code from a file, and no library of custom operators is
    ever registered, so a graph that asks for one does not load.
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
        self._session: ort.InferenceSession | None
        self._session, self.device = _open(path, device, threads or available_cores())
        _check_signature(self._session, metadata, path)

    def infer(self, panoramas: npt.NDArray[np.uint8]) -> Inference:
        """See `dap.engines.base.Engine.infer`; any batch size, panoramas of the model's input size."""
        if self._session is None:
            raise EngineError("The engine is closed.")
        check_panoramas(panoramas, self.input_size)
        try:
            depth, in_range = self._session.run(["depth", "in_range"], {"panorama": np.ascontiguousarray(panoramas)})
        except (*_FAILURES, MemoryError) as error:
            if isinstance(error, MemoryError) or _NO_ROOM.search(str(error)):
                raise OutOfMemory(f"No room on {self.device} for a batch of {len(panoramas)}.") from error
            raise EngineError(f"ONNX Runtime failed on a batch of {len(panoramas)}.") from error
        return check_finite(Inference(depth, in_range))

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run each batch size once."""
        for batch_size in batch_sizes:
            self.infer(np.zeros((batch_size, *self.input_size, 3), np.uint8))

    def close(self) -> None:
        """Drop the session and its memory."""
        self._session = None


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
        "panorama": ("tensor(uint8)", [height, width, 3]),
        "depth": ("tensor(float)", [height, width]),
        "in_range": ("tensor(float)", [len(metadata.thresholds), height, width]),
    }
    found = {value.name: (value.type, value.shape[1:]) for value in (*session.get_inputs(), *session.get_outputs())}
    if found != expected:
        raise ModelFileInvalid(f"{path.name} has the inputs and outputs {found}: expected {expected}.")
