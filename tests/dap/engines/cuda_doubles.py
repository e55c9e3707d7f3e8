"""The CUDA runtime, played without a GPU: as strict as its documentation, and lazier than it is.

Memory of the GPU is memory of its own here, and nothing enqueued on a stream happens before somebody waits for it, so
that a copy that is forgotten, or waited for too late, shows.
"""
# ruff: noqa: N801, N802, N815 - the names are theirs

import ctypes
import enum
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

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
        compute_capability: of each, (major, minor).
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
        self.compute_capability = (9, 0)
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
        major, minor = self.compute_capability
        properties = SimpleNamespace(name=self.gpu_name, major=major, minor=minor, multiProcessorCount=132)
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


def install_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """Have `from cuda.bindings import runtime` find the double."""
    cuda = FakeCuda()
    bindings = ModuleType("cuda.bindings")
    monkeypatch.setattr(bindings, "runtime", cuda, raising=False)
    for name, module in (("cuda", ModuleType("cuda")), ("cuda.bindings", bindings)):
        monkeypatch.setitem(sys.modules, name, module)
    return cuda
