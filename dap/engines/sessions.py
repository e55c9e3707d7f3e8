"""Sessions of ONNX Runtime: which device they are on, and with which options."""

import logging
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from dap.engines.base import parse_device
from dap.errors import EngineUnavailable, ModelFileInvalid
from dap.graph import without_range

_log = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
# ONNX Runtime's exceptions have no common ancestor but Exception.
FAILURES = (
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

Providers = Sequence[str | tuple[str, dict[str, object]]]


def open_session(path: Path, device: str, threads: int) -> tuple[ort.InferenceSession, Providers, str]:
    """A session, its providers, and the device it is on.

    `auto` may end on the CPU, and says so; a device that was named may not.

    Raises:
        EngineUnavailable: the device asked for cannot be had.
        ModelFileInvalid: ONNX Runtime cannot load the file.
    """
    kind, number = parse_device(device)
    has_cuda = _CUDA in ort.get_available_providers()
    if kind == "cuda" and not has_cuda:
        raise EngineUnavailable(
            f"{device} was asked for, and ONNX Runtime is built without CUDA here: install onnxruntime-gpu."
        )
    if kind != "cpu" and has_cuda:
        number = number or 0
        options: dict[str, object] = {"device_id": number, "arena_extend_strategy": "kSameAsRequested"}
        providers: Providers = [(_CUDA, options), CPU]
        session = new_session(path, threads, providers)
        # ONNX Runtime goes on without a provider whose libraries do not load.
        if _CUDA in session.get_providers():
            _log.info("onnx engine: cuda:%d, %s", number, "as asked for" if kind == "cuda" else "the first GPU found")
            return session, providers, f"cuda:{number}"
        if kind == "cuda":
            raise EngineUnavailable(
                f"{device} was asked for, and ONNX Runtime cannot start it: driver, CUDA and cuDNN do not fit together."
            )
        _log.warning("onnx engine: cpu with %d threads, since CUDA is installed and could not be started", threads)
        return session, [CPU], "cpu"
    reason = "as asked for" if kind == "cpu" else "this ONNX Runtime is built without CUDA"
    _log.info("onnx engine: cpu with %d threads, %s", threads, reason)
    return new_session(path, threads, [CPU]), [CPU], "cpu"


def new_session(path: Path, threads: int, providers: Providers, *, in_range: bool = True) -> ort.InferenceSession:
    """A session of its own, with weights of its own; without `in_range` it has no range masks, and does not run them.

    Raises:
        ModelFileInvalid: ONNX Runtime cannot load the file.
    """
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
    source = path if in_range else without_range(path.read_bytes())
    try:
        return ort.InferenceSession(source, options, providers=providers, enable_fallback=0)
    except FAILURES as error:
        detail = str(error).partition("\n")[0].replace(str(path), path.name)
        raise ModelFileInvalid(f"ONNX Runtime cannot load {path.name}: {detail}") from error
