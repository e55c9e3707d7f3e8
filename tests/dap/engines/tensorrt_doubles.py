"""TensorRT and the CUDA runtime, played without a GPU: as strict as their documentation, and lazier than they are.

Memory of the GPU is memory of its own here, and nothing enqueued on a stream happens before somebody waits for it, so
that a copy that is forgotten, or waited for too late, shows. A plan is the ONNX graph it was built of, and ONNX Runtime
runs it.
"""
# ruff: noqa: N801, N802, N815 - the names are theirs

import ctypes
import enum
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from dap.engines import tensorrt_library

STREAM = 77


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorIllegalAddress = 700


_WORDS = {
    cudaError_t.cudaErrorMemoryAllocation: b"out of memory",
    cudaError_t.cudaErrorNoDevice: b"no CUDA-capable device is detected",
    cudaError_t.cudaErrorIllegalAddress: b"an illegal memory access was encountered",
}


class FakeCuda(ModuleType):
    """`cuda.bindings.runtime`.

    Attributes:
        gpus: how many there are.
        gpu_name: of each.
        driver: the CUDA version that it supports.
        failures: the error that a function gives from now on.
        memory: what is allocated, by address.
        copied: (direction, bytes) of each copy asked for.
        current: the device of the calling thread.
        streams: how many are open.
    """

    cudaError_t = cudaError_t
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="up", cudaMemcpyDeviceToHost="down")
    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.gpus = 2
        self.gpu_name = b"NVIDIA H200"
        self.driver = 13000
        self.failures: dict[str, cudaError_t] = {}
        self.memory: dict[int, ctypes.Array[Any]] = {}
        self.copied: list[tuple[str, int]] = []
        self.current: int | None = None
        self.streams = 0
        self._enqueued: list[Callable[[], object]] = []

    def enqueue(self, work: Callable[[], object]) -> None:
        self._enqueued.append(work)

    def cudaGetErrorString(self, error: cudaError_t) -> tuple[object, ...]:
        return cudaError_t.cudaSuccess, _WORDS[error]

    def cudaGetDeviceCount(self) -> tuple[object, ...]:
        return self._answer("cudaGetDeviceCount", self.gpus)

    def cudaSetDevice(self, number: int) -> tuple[object, ...]:
        self.current = number
        return self._answer("cudaSetDevice")

    def cudaDriverGetVersion(self) -> tuple[object, ...]:
        return self._answer("cudaDriverGetVersion", self.driver)

    def cudaGetDeviceProperties(self, number: int) -> tuple[object, ...]:
        properties = SimpleNamespace(name=self.gpu_name, major=9, minor=0, multiProcessorCount=132)
        return self._answer("cudaGetDeviceProperties", properties)

    def cudaMalloc(self, size: int) -> tuple[object, ...]:
        return self._allocate("cudaMalloc", size)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[object, ...]:
        return self._allocate("cudaHostAlloc", size)

    def cudaFree(self, address: int) -> tuple[object, ...]:
        del self.memory[address]
        return self._answer("cudaFree")

    def cudaFreeHost(self, address: int) -> tuple[object, ...]:
        del self.memory[address]
        return self._answer("cudaFreeHost")

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[object, ...]:
        self.streams += 1
        return self._answer("cudaStreamCreateWithFlags", STREAM)

    def cudaStreamDestroy(self, stream: int) -> tuple[object, ...]:
        self.streams -= 1
        return self._answer("cudaStreamDestroy")

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: str, stream: int) -> tuple[object, ...]:
        assert stream == STREAM
        assert size <= min(len(self.memory[to]), len(self.memory[source]))
        self.copied.append((kind, size))
        self.enqueue(lambda: ctypes.memmove(to, source, size))
        return self._answer("cudaMemcpyAsync")

    def cudaStreamSynchronize(self, stream: int) -> tuple[object, ...]:
        assert stream == STREAM
        for work in self._enqueued:
            work()
        self._enqueued.clear()
        return self._answer("cudaStreamSynchronize")

    def _allocate(self, function: str, size: int) -> tuple[object, ...]:
        memory = (ctypes.c_uint8 * size)()
        if function not in self.failures:
            self.memory[ctypes.addressof(memory)] = memory
        return self._answer(function, ctypes.addressof(memory))

    def _answer(self, function: str, *results: object) -> tuple[object, ...]:
        if error := self.failures.get(function):
            return (error, *(None for _ in results))
        return (cudaError_t.cudaSuccess, *results)


class _Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class _Logger:
    Severity = _Severity

    def log(self, severity: _Severity, msg: str) -> None:
        raise NotImplementedError


class _DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    UINT8 = 9


_DTYPES = {1: _DataType.FLOAT, 2: _DataType.UINT8, 10: _DataType.HALF}


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim)


class FakeTensorrt(ModuleType):
    """`tensorrt`.

    Attributes:
        builds: what each build was asked for: flags of the network, those of the builder, profiles, timings.
        complaint: what a function that fails says in the log.
        failing: the functions that fail.
        contexts: the execution contexts made.
        refused: plans that are not loaded, whatever is in them.
    """

    ILogger = _Logger
    DataType = _DataType
    NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})
    BuilderFlag = enum.Enum("BuilderFlag", ["TF32", "DEBUG"])
    Dims = tuple

    def __init__(self, cuda: FakeCuda, version: str = "11.4.0.106") -> None:
        super().__init__("tensorrt")
        self.__version__ = version
        self.cuda = cuda
        self.builds: list[SimpleNamespace] = []
        self.failing: set[str] = set()
        self.complaint = "[E] Error Code 1: Cuda Runtime (invalid argument)"
        self.contexts: list[FakeContext] = []
        self.loaded = 0

    def fails(self, function: str, logger: _Logger) -> bool:
        if function in self.failing:
            logger.log(_Severity.ERROR, self.complaint)
        return function in self.failing

    def Builder(self, logger: _Logger) -> "FakeBuilder":
        return FakeBuilder(self, logger)

    def OnnxParser(self, network: SimpleNamespace, logger: _Logger) -> SimpleNamespace:
        def parse(model: bytes) -> bool:
            network.model = model
            return not self.fails("parse", logger)

        errors = [SimpleNamespace(desc=lambda: "no importer for Whirl")] if "parse" in self.failing else []
        return SimpleNamespace(parse=parse, num_errors=len(errors), get_error=errors.__getitem__)

    def Runtime(self, logger: _Logger) -> SimpleNamespace:
        def deserialize_cuda_engine(plan: bytes) -> "FakePlan | None":
            self.loaded += 1
            return None if self.fails("deserialize_cuda_engine", logger) else FakePlan(self, logger, plan)

        return SimpleNamespace(deserialize_cuda_engine=deserialize_cuda_engine)


class FakeBuilder:
    """Keeps the ONNX graph and the profiles; its timings are the number of builds so far."""

    def __init__(self, trt: FakeTensorrt, logger: _Logger) -> None:
        self._trt = trt
        self._logger = logger

    def create_network(self, flags: int) -> SimpleNamespace:
        return SimpleNamespace(flags=flags, model=b"")

    def create_optimization_profile(self) -> SimpleNamespace:
        profile = SimpleNamespace()
        profile.set_shape = lambda name, *shapes: setattr(profile, name, shapes)
        return profile

    def create_builder_config(self) -> SimpleNamespace:
        config = SimpleNamespace(flags=set(self._trt.BuilderFlag), profiles=[], timings=None)
        config.clear_flag = config.flags.remove
        config.add_optimization_profile = lambda profile: config.profiles.append(profile.panorama) or 0
        config.create_timing_cache = lambda content: SimpleNamespace(
            content=content, serialize=lambda: b"timings of %d builds" % len(self._trt.builds)
        )

        def set_timing_cache(cache: SimpleNamespace, ignore_mismatch: bool) -> bool:
            assert not ignore_mismatch
            config.timings = cache.content
            return b"strange" not in cache.content

        config.set_timing_cache = set_timing_cache
        return config

    def build_serialized_network(self, network: SimpleNamespace, config: SimpleNamespace) -> bytes | None:
        self._trt.builds.append(SimpleNamespace(network=network.flags, **vars(config)))
        if self._trt.fails("build_serialized_network", self._logger):
            return None
        return json.dumps(config.profiles).encode() + b"\n" + network.model


class FakePlan:
    """ICudaEngine."""

    def __init__(self, trt: FakeTensorrt, logger: _Logger, content: bytes) -> None:
        profiles, _, model = content.partition(b"\n")
        self.trt = trt
        self.logger = logger
        self.profiles = json.loads(profiles)
        self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        graph = onnx.load_model_from_string(model).graph
        self.tensors = {value.name: value for value in (*graph.input, *graph.output)}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_dtype(self, name: str) -> _DataType:
        return _DTYPES[self.tensors[name].type.tensor_type.elem_type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return _shape(self.tensors[name])

    def create_execution_context(self) -> "FakeContext | None":
        if self.trt.fails("create_execution_context", self.logger):
            return None
        self.trt.contexts.append(FakeContext(self))
        return self.trt.contexts[-1]


class FakeContext:
    """IExecutionContext; a change of the profile forgets the shape.

    Attributes:
        profiles: those that were chosen, in their order.
        batches: how many panoramas each run had.
    """

    def __init__(self, plan: FakePlan) -> None:
        self._plan = plan
        self._shape: Sequence[int] = ()
        self._addresses: dict[str, int] = {}
        self.profiles: list[int] = []
        self.batches: list[int] = []

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle == STREAM
        self.profiles.append(profile_index)
        self._shape = ()
        return 0 <= profile_index < len(self._plan.profiles)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._plan.profiles[self.profiles[-1]]
        self._shape = shape
        return name == "panorama" and all(a <= b <= c for a, b, c in itertools.zip_longest(least, shape, most))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return name in self._plan.tensors

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == STREAM
        assert self._shape, "no shape was set since the profile was chosen"
        assert set(self._addresses) == set(self._plan.tensors)
        if self._plan.trt.fails("execute_async_v3", self._plan.logger):
            return False
        self.batches.append(self._shape[0])
        shape, addresses = self._shape, dict(self._addresses)
        self._plan.trt.cuda.enqueue(lambda: self._execute(shape, addresses))
        return True

    def _execute(self, shape: Sequence[int], addresses: dict[str, int]) -> None:
        memory = self._plan.trt.cuda.memory
        pixels = np.frombuffer(memory[addresses["panorama"]], np.uint8)[: np.prod(shape)].reshape(shape)
        outputs = ("depth", "in_range")
        for name, values in zip(outputs, self._plan.session.run(outputs, {"panorama": pixels}), strict=True):
            ctypes.memmove(addresses[name], values.tobytes(), values.nbytes)


def install(monkeypatch: pytest.MonkeyPatch, version: str = "11.4.0.106") -> FakeTensorrt:
    """Have `import tensorrt` and `from cuda.bindings import runtime` find the doubles."""
    cuda = FakeCuda()
    trt = FakeTensorrt(cuda, version)
    bindings = ModuleType("cuda.bindings")
    monkeypatch.setattr(bindings, "runtime", cuda, raising=False)
    for name, module in (("cuda", ModuleType("cuda")), ("cuda.bindings", bindings), ("tensorrt", trt)):
        monkeypatch.setitem(sys.modules, name, module)
    tensorrt_library.tensorrt_logger.cache_clear()
    return trt
