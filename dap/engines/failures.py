"""What an error of a library of engines or of CUDA means: for the batch, for its size, or for the device for good."""

import re

from dap.errors import DeviceLost, EngineError, OutOfMemory

_NO_ROOM = re.compile(
    "|".join(
        (
            r"out ?of ?memory|allocate memory|bad.?alloc",
            "(CUBLAS|CUDNN|CUSOLVER|CUFFT)_STATUS_ALLOC_FAILED",
            "Available memory of .* is smaller than requested",  # ONNX Runtime at the limit of an arena
        )
    ),
    re.IGNORECASE,
)
# After these errors "the process is in an inconsistent state and any further CUDA work will return the same error. To
# continue using CUDA, the process must be terminated and relaunched" (CUDA Runtime API, cudaError_t); or the device is
# no longer there. The words are those of cudaGetErrorString, which torch and ONNX Runtime pass on.
_LOST = re.compile(
    "|".join(
        (
            "illegal memory access was encountered",  # cudaErrorIllegalAddress
            "device-side assert triggered",  # cudaErrorAssert
            "unspecified launch failure",  # cudaErrorLaunchFailure
            "launch timed out and was terminated",  # cudaErrorLaunchTimeout
            "uncorrectable ECC error",  # cudaErrorECCUncorrectable
            "uncorrectable NVLink error",  # cudaErrorNvlinkUncorrectable
            "hardware stack error",  # cudaErrorHardwareStackError
            "illegal instruction was encountered",  # cudaErrorIllegalInstruction
            "misaligned address",  # cudaErrorMisalignedAddress
            "not supported on global/shared address space",  # cudaErrorInvalidAddressSpace
            "invalid program counter",  # cudaErrorInvalidPc
            "invalid access of peer GPU memory",  # cudaErrorContained
            "tensor memory not completely freed",  # cudaErrorTensorMemoryLeak
            "context is destroyed",  # cudaErrorContextIsDestroyed
            "driver shutting down",  # cudaErrorCudartUnloading
            "busy or unavailable",  # cudaErrorDevicesUnavailable
            "no CUDA-capable device is detected",  # cudaErrorNoDevice
            r"CUDA (error|failure 999): unknown error",  # cudaErrorUnknown
            r"(CUBLAS|CUDNN)_STATUS_(EXECUTION_FAILED|MAPPING_ERROR)",
        )
    ),
    re.IGNORECASE,
)


def as_engine_error(error: Exception, library: str, device: str, batch_size: int) -> EngineError:
    """Our error for one that a library raised while it ran a batch. What the library says may name files and hosts.

    Returns:
        DeviceLost: nothing will run there before the process starts anew.
        OutOfMemory: the device has no room for this batch; a smaller one may fit.
        EngineError: anything else.
    """
    if _LOST.search(str(error)):
        return DeviceLost(f"{library} lost {device}: it is of no use until the process starts anew.")
    if isinstance(error, MemoryError) or _NO_ROOM.search(str(error)):
        return OutOfMemory(f"No room on {device} for a batch of {batch_size}.")
    return EngineError(f"{library} failed on a batch of {batch_size}.")
