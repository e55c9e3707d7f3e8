"""TensorRT, played without a GPU over the double of CUDA: as strict as its documentation, and lazier than it is.

A plan is the ONNX graph it was built of, and ONNX Runtime runs it.
"""
# ruff: noqa: N802 - the names are theirs

import ctypes
import enum
import itertools
import json
import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

from dap.engines import tensorrt_library
from tests.dap.engines.cuda_doubles import STREAM, FakeCuda, install_cuda


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
        builds: what each build was asked for: flags of the network, those of the builder, profiles, timings, and the
            graph.
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
        config.create_timing_cache = lambda content: FakeTimings(self._trt, content)

        def set_timing_cache(cache: FakeTimings, ignore_mismatch: bool) -> bool:
            assert not ignore_mismatch
            config.timings = cache.content
            return b"strange" not in cache.content

        config.set_timing_cache = set_timing_cache
        return config

    def build_serialized_network(self, network: SimpleNamespace, config: SimpleNamespace) -> bytes | None:
        self._trt.builds.append(SimpleNamespace(network=network.flags, model=network.model, **vars(config)))
        if self._trt.fails("build_serialized_network", self._logger):
            return None
        return json.dumps(config.profiles).encode() + b"\n" + network.model


class FakeTimings:
    """ITimingCache."""

    def __init__(self, trt: FakeTensorrt, content: bytes) -> None:
        self._trt = trt
        self.content = content
        self._others = b""

    def combine(self, input_cache: "FakeTimings", ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self._others += b" and " + input_cache.content
        return True

    def serialize(self) -> bytes:
        return b"timings of %d builds" % len(self._trt.builds) + self._others


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
        outputs = [name for name in self._plan.tensors if name != "panorama"]
        for name, values in zip(outputs, self._plan.session.run(outputs, {"panorama": pixels}), strict=True):
            ctypes.memmove(addresses[name], values.tobytes(), values.nbytes)


def install(monkeypatch: pytest.MonkeyPatch, version: str = "11.4.0.106") -> FakeTensorrt:
    """Have `import tensorrt` and `from cuda.bindings import runtime` find the doubles."""
    trt = FakeTensorrt(install_cuda(monkeypatch), version)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    tensorrt_library.tensorrt_logger.cache_clear()
    return trt
