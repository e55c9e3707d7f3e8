"""The engine `tensorrt`: exported graphs as plans of NVIDIA TensorRT 10 or 11, on a GPU, without torch."""

import hashlib
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dap.checksums import sha256_of
from dap.engines.base import (
    Inference,
    check_finite,
    check_panoramas,
    in_parts,
    joined,
    no_range,
    parse_device,
    read_metadata,
)
from dap.engines.cuda import CudaDevice, CudaError, PinnedBuffer
from dap.engines.failures import as_engine_error
from dap.engines.plans import BatchRanges, PlanFolder, PlanKey, batch_ranges
from dap.engines.tensorrt_builder import INPUT, build_plan, joined_timings
from dap.engines.tensorrt_library import require_precision, take_complaints, tensorrt_logger, tensorrt_version
from dap.errors import EngineError, EngineUnavailable, ModelFileInvalid
from dap.graph import without_range
from dap.models import Model, cache_folder
from dap.resolutions import Size

if TYPE_CHECKING:
    import tensorrt as trt

_log = logging.getLogger(__name__)


class TensorrtEngine:
    """Runs a file that `dap export` wrote, as a plan for this GPU. See `dap.engines.base.Engine`.

    Plans are taken from the folder of plans (`dap.engines.plans`), or built where none that fits is there, which takes
    minutes. Nothing else is ever loaded as a plan.

    A plan computes all that it gives, wanted or not, so there are two: one of the whole graph, and one without range
    masks. The second is loaded or built when depth alone is first asked for, or when the engine is warmed. It has
    weights of its own on the GPU, and memory of its own for what it computes.

    Pixels go up and depth comes down through pinned memory, on one stream, each copied once.
    """

    name = "tensorrt"
    lanes = 1

    def __init__(self, path: Path, model: Model, *, device: str = "auto", max_batch_size: int = 4) -> None:
        """Load the plan of the whole graph, or build it.

        Args:
            path: the ONNX file.
            model: what the registry says of it.
            device: `auto`, `cuda` or `cuda:N`.
            max_batch_size: panoramas that run together at most; larger batches run in parts.

        Raises:
            ModelFileInvalid: the file is no ONNX file of ours, not the one that the registry describes, or not one
                that TensorRT can read.
            EngineUnavailable: a library or the device is not here, the device has no arithmetic in the precision of the
                file, or the folder of plans is not to be trusted.
            EngineError: the build failed.
        """
        metadata = read_metadata(path, model)
        self._path = path
        self.input_size = metadata.input_size
        self.sizes: tuple[Size, ...] = (self.input_size,)
        self.thresholds = metadata.thresholds
        version = tensorrt_version()
        self._gpu = CudaDevice(gpu_number(device))
        self.device = f"cuda:{self._gpu.number}"
        self._ranges = batch_ranges(max_batch_size)
        gpu = self._gpu.identity
        require_precision(metadata.precision, gpu)
        self._key = PlanKey(model.name, sha256_of(path), self._ranges, gpu, version)
        self._folder = PlanFolder(cache_folder() / "tensorrt")
        self._runs: dict[bool, _Run] = {}
        try:
            self._tensors = self._allocate(max_batch_size)
            self._open(True)
        except BaseException as error:
            self.close()
            if isinstance(error, CudaError | _Failure):
                raise as_engine_error(error, "TensorRT", self.device, max_batch_size) from error
            raise

    def infer(self, panoramas: npt.NDArray[np.uint8], *, in_range: bool = True) -> Inference:
        """See `dap.engines.base.Engine.infer`; any batch size, panoramas of the model's input size."""
        if not self._runs:
            raise EngineError("The engine is closed.")
        check_panoramas(panoramas, self.sizes)
        try:
            self._gpu.make_current()
            run = self._runs.get(in_range) or self._open(in_range)
            parts = in_parts(panoramas, self._ranges[-1][1])
            inference = joined([run(part) for part in parts])
        except (CudaError, _Failure) as error:
            raise as_engine_error(error, "TensorRT", self.device, len(panoramas)) from error
        return check_finite(inference)

    def warm_up(self, batch_sizes: Sequence[int], size: Size | None = None) -> None:
        """Run each batch size once, with range masks and without."""
        for batch_size in batch_sizes:
            for in_range in (True, False):
                self.infer(np.zeros((batch_size, *(size or self.input_size), 3), np.uint8), in_range=in_range)

    def discard_plans(self) -> None:
        """Forget the plans that are kept of this file: whoever opens it next has them built anew, in the same way."""
        for in_range in (True, False):
            self._folder.discard(replace(self._key, in_range=in_range).plan())

    def close(self) -> None:
        """Give the memory of the GPU back."""
        try:
            self._gpu.make_current()
            self._runs.clear()  # what TensorRT holds of the GPU goes with the last reference
            self._gpu.close()
        except CudaError as error:
            self._runs.clear()
            _log.warning("tensorrt engine: %s gives nothing back: %s", self.device, error)

    def _allocate(self, count: int) -> "dict[str, _Tensor]":
        shapes = {
            INPUT: (np.uint8, (*self.input_size, 3)),
            "depth": (np.float32, self.input_size),
            "in_range": (np.float32, (len(self.thresholds), *self.input_size)),
        }
        return {
            name: _Tensor(np.dtype(kind), shape, self._gpu.allocate(count * math.prod(shape) * np.dtype(kind).itemsize))
            for name, (kind, shape) in shapes.items()
        }

    def _open(self, in_range: bool) -> "_Run":
        tensors = {name: tensor for name, tensor in self._tensors.items() if in_range or name != "in_range"}
        plan = _load_or_build(self._path, replace(self._key, in_range=in_range), self._folder, self.input_size)
        _check_signature(plan, tensors, self._path)
        context = plan.create_execution_context()
        if context is None:
            raise _Failure(f"create_execution_context: {take_complaints()}")
        self._runs[in_range] = _Run(context, self._gpu, tensors, self._ranges)
        return self._runs[in_range]


@dataclass(frozen=True)
class _Tensor:
    """An input or output of the plan: type and shape of one item, and room for the largest batch."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    buffer: PinnedBuffer

    def nbytes(self, count: int) -> int:
        return count * math.prod(self.shape) * self.dtype.itemsize

    def view(self, count: int) -> npt.NDArray[Any]:
        return self.buffer.host[: self.nbytes(count)].view(self.dtype).reshape(count, *self.shape)


class _Run:
    """One plan with what it reads and writes: called, it runs one batch that a profile has room for."""

    def __init__(
        self, context: "trt.IExecutionContext", gpu: CudaDevice, tensors: dict[str, _Tensor], ranges: BatchRanges
    ) -> None:
        self._context = context
        self._gpu = gpu
        self._tensors = tensors
        self._ranges = ranges
        self._profile: int | None = None

    def __call__(self, panoramas: npt.NDArray[np.uint8]) -> Inference:
        """Up, through the plan, down."""
        count = len(panoramas)
        take_complaints()
        self._choose_profile(count)
        _require(self._context.set_input_shape(INPUT, panoramas.shape), "set_input_shape")
        for name, tensor in self._tensors.items():
            _require(self._context.set_tensor_address(name, tensor.buffer.device_address), "set_tensor_address")
        pixels, *outputs = self._tensors.values()
        np.copyto(pixels.view(count), panoramas)
        self._gpu.upload(pixels.buffer, pixels.nbytes(count))
        _require(self._context.execute_async_v3(self._gpu.stream), "execute_async_v3")
        for output in outputs:
            self._gpu.download(output.buffer, output.nbytes(count))
        self._gpu.synchronize()
        depth, *rest = (output.view(count).copy() for output in outputs)
        return Inference(depth, *(rest or [no_range(depth)]))

    def _choose_profile(self, count: int) -> None:
        profile = next(index for index, (_, most) in enumerate(self._ranges) if count <= most)
        if profile != self._profile:
            done = self._context.set_optimization_profile_async(profile, self._gpu.stream)
            _require(done, "set_optimization_profile")
            self._profile = profile


class _Failure(RuntimeError):
    """A function of TensorRT says no; the message is what TensorRT logged."""


def _require(done: bool, function: str) -> None:
    if not done:
        raise _Failure(f"{function}: {take_complaints()}")


def gpu_number(device: str) -> int:
    """Of `cuda` or `cuda:N`, and of `auto` the first.

    Raises:
        EngineUnavailable: anything else.
    """
    kind, number = parse_device(device)
    if kind == "cpu":
        raise EngineUnavailable("The tensorrt engine runs on NVIDIA GPUs alone: expected auto, cuda or cuda:N.")
    return number or 0


def _load_or_build(path: Path, key: PlanKey, folder: PlanFolder, input_size: tuple[int, int]) -> "trt.ICudaEngine":
    """The plan for this GPU: one that is kept, or else a new one, which is kept from then on."""
    with folder.locked(key.plan()):
        kept = folder.read(key.plan())
        if kept is not None and (engine := _deserialize(kept)) is not None:
            _log.info("tensorrt engine: %s, TensorRT %s", key.plan().name, key.tensorrt)
            return engine
        plan = _build(path, key, folder, input_size)
        engine = _deserialize(plan)
        if engine is None:
            raise EngineError(f"TensorRT does not load the plan that it has built of {path.name}: {take_complaints()}")
        folder.write(key.plan(), plan)
    return engine


def _build(path: Path, key: PlanKey, folder: PlanFolder, input_size: tuple[int, int]) -> bytes:
    _log.info(
        "tensorrt engine: building %s%s for batches of up to %d on %s with TensorRT %s, which takes minutes",
        *(path.name, "" if key.in_range else " without range masks"),
        *(key.batch_ranges[-1][1], key.gpu.name, key.tensorrt),
    )
    model = path.read_bytes()
    if hashlib.sha256(model).hexdigest() != key.model_sha256:
        raise EngineError(f"{path.name} is another file than the engine was opened with: start the engine anew.")
    started = time.monotonic()
    with folder.locked(key.timings()):
        timings = folder.read(key.timings())
    source = model if key.in_range else without_range(model)
    built = build_plan(source, path.name, input_size, key.batch_ranges, timings)
    with folder.locked(key.timings()):
        kept = folder.read(key.timings())
        if kept is None or kept == timings:
            folder.write(key.timings(), built.timings)
        else:  # another build has ended meanwhile
            folder.write(key.timings(), joined_timings(built.timings, kept))
    _log.info("tensorrt engine: built in %.0f s, %.1f MB", time.monotonic() - started, len(built.plan) / 1e6)
    return built.plan


def _deserialize(plan: bytes) -> "trt.ICudaEngine | None":
    """None where TensorRT does not take it; the log says why."""
    import tensorrt as trt

    take_complaints()
    return trt.Runtime(tensorrt_logger()).deserialize_cuda_engine(plan)


def _check_signature(plan: "trt.ICudaEngine", tensors: dict[str, _Tensor], path: Path) -> None:
    """The inputs and outputs by name, type and shape; the batch is open."""
    import tensorrt as trt

    types = {np.dtype(np.uint8): trt.DataType.UINT8, np.dtype(np.float32): trt.DataType.FLOAT}
    expected = {name: (types[tensor.dtype], tensor.shape) for name, tensor in tensors.items()}
    names = [plan.get_tensor_name(index) for index in range(plan.num_io_tensors)]
    found = {name: (plan.get_tensor_dtype(name), plan.get_tensor_shape(name)[1:]) for name in names}
    if found != expected:
        raise ModelFileInvalid(f"{path.name} has the inputs and outputs {found}: expected {expected}.")
