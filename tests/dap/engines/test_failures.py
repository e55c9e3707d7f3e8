"""The messages are those that the libraries write, verbatim."""

import numpy as np
import pytest
import torch

from dap.engines.failures import as_engine_error
from dap.errors import DeviceLost, EngineError, OutOfMemory

TORCH_HINT = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call.\nCompile with `TORCH_USE_CUDA_DSA`"
)
ORT_PLACE = (
    " ; GPU=0 ; hostname=node-7 ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/gpu_data_transfer.cc ; line=73"
)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: device-side assert triggered" + TORCH_HINT,
        "CUDA error: an illegal memory access was encountered" + TORCH_HINT,
        "CUDA error: unspecified launch failure" + TORCH_HINT,
        "CUDA error: uncorrectable ECC error encountered" + TORCH_HINT,
        "CUDA error: the launch timed out and was terminated",
        "CUDA error: unknown error",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, opa, opb, m, n, k)`",
        "CUDA failure 700: an illegal memory access was encountered" + ORT_PLACE,
        "CUDA failure 999: unknown error" + ORT_PLACE,
        "CUDA failure 100: no CUDA-capable device is detected" + ORT_PLACE,
        "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 46: CUDA-capable device(s) is/are busy or unavailable"
        + ORT_PLACE,
    ],
)
def test_an_error_that_only_a_new_process_gets_rid_of_is_a_lost_device(message: str) -> None:
    assert type(as_engine_error(RuntimeError(message), "torch", "cuda:0", 4)) is DeviceLost


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB of which 8 MiB is",
        "CUDA error: out of memory" + TORCH_HINT,
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA failure 2: out of memory" + ORT_PLACE,
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running MatMul node. "
        "Name:'/MatMul' Status Message: bfc_arena.cc:376 AllocateRawInternal Failed to allocate memory for requested "
        "buffer of size 17179869184",
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running MatMul node. "
        "Name:'/MatMul' Status Message: Available memory of 1024 is smaller than requested bytes of 4096",
        "std::bad_alloc",
        "[virtualMemoryBuffer.cpp::resizePhysical::145] Error Code 2: OutOfMemory (no further information)",
    ],
)
def test_want_of_room_is_told_apart_since_a_smaller_batch_may_fit(message: str) -> None:
    assert type(as_engine_error(RuntimeError(message), "torch", "cuda:0", 4)) is OutOfMemory


@pytest.mark.parametrize("allocate", [lambda: torch.empty(10**15), lambda: np.empty(10**15)], ids=["torch", "numpy"])
def test_what_the_libraries_here_say_of_too_large_an_array_is_want_of_room(allocate) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()
    assert type(as_engine_error(caught.value, "torch", "cpu", 4)) is OutOfMemory


@pytest.mark.parametrize(
    "message", ["mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)", "CUDA error: invalid argument"]
)
def test_anything_else_is_of_the_batch_and_tells_nothing_of_the_machine(message: str) -> None:
    error = as_engine_error(RuntimeError(message + ORT_PLACE), "ONNX Runtime", "cuda:0", 4)
    assert type(error) is EngineError
    assert str(error) == "ONNX Runtime failed on a batch of 4."
