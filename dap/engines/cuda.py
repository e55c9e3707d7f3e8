"""One NVIDIA GPU, as far as an engine without torch needs it: who it is, its memory, pinned memory, a stream, copies.

Over the runtime bindings of cuda-python (`cuda.bindings.runtime`), which return an error and then their results. They
bring a CUDA runtime of their own and need nothing but the driver.
"""

import ctypes
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from dap.errors import EngineUnavailable

_KERNEL_MODULE = Path("/sys/module/nvidia/version")


def log_cpu(log: logging.Logger, message: str) -> None:
    """Log that an engine which may take either has taken the CPU.

    It is a warning, and says what to do, where the kernel has NVIDIA's driver: that loads for a GPU alone.

    Args:
        log: of the engine.
        message: that it has, and why; a sentence without its full stop.
    """
    if _KERNEL_MODULE.exists():
        log.warning(
            "%s. This machine has an NVIDIA GPU, which stays idle: docs/gpu.md says what it needs; ask for the device "
            "cpu if it is to stay idle.",
            message,
        )
    else:
        log.info("%s", message)


def driver_version() -> str:
    """Of NVIDIA's driver, `580.159.04`; empty where the kernel does not tell it."""
    try:
        return _KERNEL_MODULE.read_text(encoding="ascii").strip()
    except OSError:
        return ""


class CudaError(RuntimeError):
    """A CUDA call failed; the message ends in the words of cudaGetErrorString."""


@dataclass(frozen=True)
class GpuIdentity:
    """What a plan that was built on one GPU depends on, and another GPU of the kind shares.

    Attributes:
        name: as the driver says it, `NVIDIA H200`; the parts that a GPU is split into (MIG) have names of their own.
        compute_capability: `9.0`.
        multiprocessors: how many.
        driver: its version, `580.159.04`; where the kernel does not tell it, the CUDA version that it supports.
    """

    name: str
    compute_capability: str
    multiprocessors: int
    driver: str

    def entries(self) -> dict[str, str]:
        """The same as text under text."""
        return {key: str(value) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class PinnedBuffer:
    """Memory of the host that the GPU copies from and to by itself, and as much of its own.

    Attributes:
        host: uint8 (bytes,), page-locked.
        host_address: where that is.
        device_address: where the memory on the GPU is.
    """

    host: npt.NDArray[np.uint8]
    host_address: int
    device_address: int


class CudaDevice:
    """A GPU, one stream on it, and the buffers made here. Every thread that uses it calls `make_current` first."""

    def __init__(self, number: int) -> None:
        """Open a GPU.

        Raises:
            EngineUnavailable: cuda-python is not installed, there is no driver, or no such GPU.
        """
        self._cuda = _runtime()
        self.number = number
        try:
            (count,) = self._call("cudaGetDeviceCount")
        except RuntimeError as error:  # CudaError, or of the bindings themselves where the driver's library is missing
            raise EngineUnavailable(f"cuda:{number} was asked for, and there is none here: {error}.") from error
        if number >= count:
            raise EngineUnavailable(f"cuda:{number} was asked for, and CUDA finds {count} devices here.")
        self._addresses: list[int] = []
        self._pinned: list[int] = []
        self._stream: Any = None
        self.make_current()

    @property
    def identity(self) -> GpuIdentity:
        """Who it is."""
        (properties,) = self._call("cudaGetDeviceProperties", self.number)
        return GpuIdentity(
            name=properties.name.decode().rstrip("\0"),
            compute_capability=f"{properties.major}.{properties.minor}",
            multiprocessors=int(properties.multiProcessorCount),
            driver=self._driver(),
        )

    @property
    def stream(self) -> int:
        """The handle of the stream that everything here goes through, one that waits for no other."""
        if self._stream is None:
            (self._stream,) = self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking)
        return int(self._stream)

    def make_current(self) -> None:
        """Have the calling thread use this GPU."""
        self._call("cudaSetDevice", self.number)

    def allocate(self, size: int) -> PinnedBuffer:
        """`size` bytes on both sides, given back by `close`.

        Raises:
            CudaError: there is no room.
        """
        (device_address,) = self._call("cudaMalloc", size)
        self._addresses.append(int(device_address))
        (host_address,) = self._call("cudaHostAlloc", size, self._cuda.cudaHostAllocDefault)
        self._pinned.append(int(host_address))
        memory = (ctypes.c_uint8 * size).from_address(int(host_address))
        return PinnedBuffer(np.ctypeslib.as_array(memory), int(host_address), int(device_address))

    def upload(self, buffer: PinnedBuffer, size: int) -> None:
        """Enqueue the copy of the first `size` bytes to the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", buffer.device_address, buffer.host_address, size, kind, self.stream)

    def download(self, buffer: PinnedBuffer, size: int) -> None:
        """Enqueue the copy of the first `size` bytes from the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", buffer.host_address, buffer.device_address, size, kind, self.stream)

    def synchronize(self) -> None:
        """Wait until everything enqueued is done.

        Raises:
            CudaError: something of it failed.
        """
        self._call("cudaStreamSynchronize", self.stream)

    def close(self) -> None:
        """Give the buffers and the stream back. Views of the buffers must not be used after."""
        self.make_current()
        while self._addresses:
            self._call("cudaFree", self._addresses.pop())
        while self._pinned:
            self._call("cudaFreeHost", self._pinned.pop())
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self._call("cudaStreamDestroy", stream)

    def _driver(self) -> str:
        if told := driver_version():
            return told
        (version,) = self._call("cudaDriverGetVersion")
        return f"CUDA {version // 1000}.{version % 1000 // 10}"

    def _call(self, function: str, *arguments: object) -> tuple[Any, ...]:
        error, *results = getattr(self._cuda, function)(*arguments)
        if error != self._cuda.cudaError_t.cudaSuccess:
            _, text = self._cuda.cudaGetErrorString(error)
            raise CudaError(f"CUDA error: {text.decode()}")
        return tuple(results)


def _runtime() -> ModuleType:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise EngineUnavailable(
            f"A GPU needs cuda-python, which cannot be loaded ({error}): pip install 'depth-any-panorama[gpu]'."
        ) from error
    module: ModuleType = runtime
    return module
