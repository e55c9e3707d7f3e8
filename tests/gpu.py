"""What tests that are marked gpu need, and whether it is here."""

import importlib.util
import os

import onnxruntime
import pytest
import torch


def require_gpu(*libraries: str) -> None:
    """Skip the test where there is no GPU, or fail it where DAP_TEST_GPU says that there is one (`make test-gpu`).

    Args:
        libraries: that must be installed, too; `cuda.bindings` is among them by itself. Of `onnxruntime` and `torch`,
            one that is built for CUDA.
    """
    missing = _missing("cuda", *libraries)
    if missing and os.environ.get("DAP_TEST_GPU"):
        pytest.fail(f"DAP_TEST_GPU is set, and {missing}")
    if missing:
        pytest.skip(missing)


def _missing(*libraries: str) -> str | None:
    absent = [library for library in libraries if importlib.util.find_spec(library) is None]
    if absent:
        return f"{', '.join(absent)} not installed: pip install 'depth-any-panorama[gpu]'"
    if "onnxruntime" in libraries and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "onnxruntime is built without CUDA: docs/gpu.md says how to install the other"
    if "torch" in libraries and not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no GPU: it is built without CUDA, or for another driver"
    from dap.engines.cuda import CudaDevice
    from dap.errors import EngineUnavailable

    try:
        CudaDevice(0).close()
    except EngineUnavailable as error:
        return str(error)
    return None
