"""Sessions of ONNX Runtime: which device they are on, and with which options."""

import io
import logging
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from dap.engines import Provider
from dap.engines.arena import ARENA
from dap.engines.assignment import CPU, CPU_INSTEAD, RECORDED, require_work_on_gpu
from dap.engines.base import parse_device
from dap.engines.cuda import CudaDevice, log_cpu
from dap.engines.memory import give_back
from dap.engines.tensorrt_builder import cast_pixels
from dap.engines.tensorrt_provider import NOT_FOUND, TENSORRT, ProviderPlans, not_found, require_tensorrt
from dap.errors import EngineUnavailable, ModelFileInvalid
from dap.graph import outline, with_switch, without_range

_log = logging.getLogger(__name__)

_CUDA = "CUDAExecutionProvider"
_PROVIDER_REASONS: dict[Provider, str] = {
    "auto": "CUDA, since TensorRT takes minutes to build plans: it is asked for as provider tensorrt",
    "cuda": "CUDA, as asked for",
    "tensorrt": "TensorRT, as asked for",
}
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


def output_names(in_range: bool) -> Sequence[str]:
    """The graph's outputs that are asked for, by the names of `dap.engines.base.Inference`."""
    return ("depth", "in_range") if in_range else ("depth",)


@dataclass(frozen=True)
class OnGpu:
    """Where a session on a GPU is, and how more like it are opened.

    Attributes:
        device: the CUDA device.
        another: gives one more session, with range masks or without.
        largest_batch: panoramas that it takes at most; None for any number.
    """

    device: CudaDevice
    another: Callable[[bool], ort.InferenceSession]
    largest_batch: int | None = None


@dataclass(frozen=True)
class Opened:
    """A session of the whole graph.

    Attributes:
        session: with range masks.
        gpu: that it is on; None for the CPU.
    """

    session: ort.InferenceSession
    gpu: OnGpu | None = None


def open_session(
    path: Path,
    device: str,
    threads: int,
    *,
    gpu_arena_gb: float | None = None,
    provider: Provider = "auto",
    max_batch_size: int = 4,
) -> Opened:
    """A session on the device that is asked for.

    Args:
        path: the ONNX file.
        device: `cpu`, `cuda` or `cuda:N`; `auto` for the GPU where ONNX Runtime is built for one, else the CPU, with a
            warning where the machine has an NVIDIA GPU. With `,cpu` after it, as in `cuda,cpu`, the CPU stands in for a
            GPU that does not start, or does not run all of the work, and a warning says so. Without it that is an
            error: nobody serves on the CPU without knowing.
        threads: that work on one panorama on the CPU.
        gpu_arena_gb: gigabytes of a GPU's memory that the session's arena grows to at most, weights among them; by
            default as far as there is any. A run that needs more fails as one for which there is no room.
        provider: on a GPU, which of ONNX Runtime's execution providers is asked first: `cuda`; `tensorrt`, with CUDA
            for what TensorRT does not take; `auto` is `cuda`, since plans of TensorRT take minutes to build.
        max_batch_size: panoramas that plans of TensorRT are built for at most.

    Raises:
        EngineUnavailable: the device or the provider asked for cannot be had, has not the precision of the file, would
            leave convolutions or products to the CPU, or its arena has no room for the weights.
        ModelFileInvalid: ONNX Runtime cannot load the file.
    """
    wanted = device.removesuffix(",cpu")
    kind, number = parse_device(wanted)
    if kind == "cpu" and provider != "auto":
        raise EngineUnavailable(f"The provider {provider} is for GPUs: expected the device auto, cuda or cuda:N.")
    has_cuda = _CUDA in ort.get_available_providers()
    if kind == "cpu":
        _log.info("onnx engine: cpu with %d threads, as asked for", threads)
        return Opened(new_session(path, threads, [CPU]))
    if kind == "auto" and provider == "auto" and not has_cuda:
        log_cpu(_log, f"onnx engine: cpu with {threads} threads, {_without_cuda()}")
        return Opened(new_session(path, threads, [CPU]))
    try:
        if not has_cuda:
            raise EngineUnavailable(f"{provider if kind == 'auto' else wanted} was asked for, and {_without_cuda()}.")
        gpu = _gpu(number or 0)
        if provider == "tensorrt":
            opened = _with_tensorrt(path, gpu, threads, max_batch_size)
        else:
            opened = _with_cuda(path, gpu, threads, gpu_arena_gb)
    except EngineUnavailable as error:
        if wanted == device:
            raise
        _log.warning("onnx engine: cpu with %d threads, which %s allows: %s", threads, device, error)
        return Opened(new_session(path, threads, [CPU]))
    reason = "as asked for" if kind == "cuda" else "the first GPU found"
    _log.info("onnx engine: cuda:%d, %s; by %s", gpu.number, reason, _PROVIDER_REASONS[provider])
    return opened


def _without_cuda() -> str:
    """Why ONNX Runtime has no CUDA here."""
    if all(any(distributions(name=name)) for name in ("onnxruntime", "onnxruntime-gpu")):
        return (
            "onnxruntime has overwritten onnxruntime-gpu, since both are installed: uninstall both, then install "
            "onnxruntime-gpu"
        )
    return "this ONNX Runtime is built without CUDA: onnxruntime-gpu, in its place, has it"


def _gpu(number: int) -> CudaDevice:
    try:
        return CudaDevice(number)
    except EngineUnavailable as error:
        raise EngineUnavailable(f"{error} {CPU_INSTEAD}") from error


def _with_cuda(path: Path, gpu: CudaDevice, threads: int, arena_gb: float | None) -> Opened:
    """With CUDA graphs where ONNX Runtime can record the whole of the file as one, else without."""
    _load_cuda()
    options = _cuda_options(path, gpu.number, arena_gb)
    providers: Providers = [(_CUDA, options | {"enable_cuda_graph": "1"}), CPU]

    def another(in_range: bool) -> ort.InferenceSession:
        session = new_session(path, threads, providers, in_range=in_range)
        _require_cuda(session, gpu)
        require_work_on_gpu(session, path)
        return session

    try:
        session = another(True)
    except ModelFileInvalid as error:
        providers = [(_CUDA, options), CPU]
        session = another(True)
        _log.info("onnx engine: no CUDA graphs for %s: %s", path.name, error)
    return Opened(session, OnGpu(gpu, another))


def _with_tensorrt(path: Path, gpu: CudaDevice, threads: int, max_batch_size: int) -> Opened:
    """Plans are built while sessions open, where none that fit are kept."""
    if TENSORRT not in ort.get_available_providers():
        raise EngineUnavailable("tensorrt was asked for, and this ONNX Runtime is built without it.")
    plans = ProviderPlans(path, gpu, max_batch_size)
    _load_cuda()

    def another(in_range: bool) -> ort.InferenceSession:
        with plans.options() as options:
            providers: Providers = [(TENSORRT, options), (_CUDA, _cuda_options(path, gpu.number, None)), CPU]
            session = new_session(path, threads, providers, in_range=in_range)
            require_tensorrt(session, path)
            _require_cuda(session, gpu)
            require_work_on_gpu(session, path)
            return session

    return Opened(another(True), OnGpu(gpu, another, max_batch_size))


def _require_cuda(session: ort.InferenceSession, gpu: CudaDevice) -> None:
    """ONNX Runtime goes on without a provider whose libraries do not load."""
    if _CUDA not in session.get_providers():
        raise EngineUnavailable(
            f"ONNX Runtime is built for CUDA and cannot start cuda:{gpu.number}: driver, CUDA and cuDNN are not all "
            f"here, or do not fit together. {CPU_INSTEAD}"
        )


def _load_cuda() -> None:
    """Load CUDA and cuDNN as pip installs them, where it has; the linker would look for those of the system only."""
    with redirect_stdout(io.StringIO()) as printed:
        ort.preload_dlls()
    for line in printed.getvalue().splitlines():
        _log.warning("onnx engine: %s", line)


def _cuda_options(path: Path, number: int, arena_gb: float | None) -> dict[str, object]:
    """See "CUDA Execution Provider, configuration options" of ONNX Runtime's documentation."""
    options: dict[str, object] = {
        "device_id": number,
        # To the next power of two, as it would grow by default, it may take twice what is needed.
        "arena_extend_strategy": "kSameAsRequested",
        # What the file says is float32 is computed in float32, as by every engine.
        "use_tf32": "0",
    }
    if arena_gb is not None:
        limit = int(arena_gb * 1e9)
        size = path.stat().st_size
        # ONNX Runtime counts weights and refuses none: beyond the limit with them, it would know of no limit at all.
        if size >= limit:
            raise EngineUnavailable(
                f"An arena of {arena_gb:g} GB has no room for the {size / 1e9:.3g} GB of {path.name}: expected more."
            )
        options["gpu_mem_limit"] = limit
    return options


def new_session(path: Path, threads: int, providers: Providers, *, in_range: bool = True) -> ort.InferenceSession:
    """A session of its own, with weights of its own.

    Args:
        path: the ONNX file.
        threads: that work on one panorama on the CPU.
        providers: ONNX Runtime's execution providers. On the CPU the session has the input `dap.graph.SWITCH`;
            elsewhere not, since CUDA can record no graph with a branch. For TensorRT the graph is in plain operators.
        in_range: elsewhere than on the CPU: False for a session that has no range masks, and does not run them.

    Raises:
        EngineUnavailable: ONNX Runtime has no kernels for the precision of the file, or cannot load a provider.
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
    # A file that is parsed as a whole has its weights in memory twice: 1972 MB to load a ViT-L so, 1595 MB from an
    # outline, in half the time.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.resolve().parent))
    on_cpu = list(providers) == [CPU]
    if on_cpu:
        source = with_switch(outline(path))
        ARENA.prepare(options, path.stat().st_size)
    else:
        source = cast_pixels(path.read_bytes()) if providers[0][0] == TENSORRT else outline(path)
        source = source if in_range else without_range(source)
        options.add_session_config_entry(RECORDED, "1")
    try:
        session = ort.InferenceSession(source, options, providers=providers, enable_fallback=0)
    except native.NotImplemented as error:
        raise EngineUnavailable(
            f"ONNX Runtime cannot run {path.name} here: {_first_line(error)}. Of lower precisions its CPU provider "
            "runs int8, and fp16 by way of float32; bf16 runs in TensorRT."
        ) from error
    except FAILURES as error:
        if NOT_FOUND in str(error):
            raise not_found() from error
        detail = _first_line(error).replace(str(path), path.name)
        raise ModelFileInvalid(f"ONNX Runtime cannot load {path.name}: {detail}") from error
    if on_cpu:
        ARENA.add(session)
    # Loading leaves blocks free, 80 MB of a ViT-L.
    give_back()
    return session


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
