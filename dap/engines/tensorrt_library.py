"""NVIDIA TensorRT 10 or 11 as it is loaded here: its version, what it computes with on which GPU, its one logger."""

import functools
import logging
from collections import deque
from typing import TYPE_CHECKING

from dap.engines.cuda import GpuIdentity
from dap.errors import EngineUnavailable
from dap.graph import GraphPrecision

if TYPE_CHECKING:
    import tensorrt as trt

_log = logging.getLogger(__name__)

_MAJORS = ("10", "11")
_FP8_CAPABILITY = (8, 9)  # NVIDIA's support matrix of TensorRT: hardware and precision
_complaints: deque[str] = deque(maxlen=8)


def tensorrt_version() -> str:
    """The version of the library, `11.4.0.106`.

    Raises:
        EngineUnavailable: it is not installed, cannot be loaded, or is neither 10 nor 11.
    """
    try:
        import tensorrt as trt
    except (ImportError, OSError) as error:  # OSError: a library that it loads is missing
        raise EngineUnavailable(
            f"NVIDIA TensorRT is needed, and cannot be loaded ({error}): pip install 'depth-any-panorama[gpu]'."
        ) from error
    version: str = trt.__version__
    if version.partition(".")[0] not in _MAJORS:
        raise EngineUnavailable(f"TensorRT {version} is installed: expected version {' or '.join(_MAJORS)}.")
    return version


def require_precision(precision: GraphPrecision, gpu: GpuIdentity) -> None:
    """Refuse a file whose precision the GPU has no arithmetic for; TensorRT would say so only in a build, and darkly.

    Raises:
        EngineUnavailable: fp8 on a GPU of compute capability below 8.9.
    """
    capability = tuple(int(part) for part in gpu.compute_capability.split("."))
    if precision == "fp8" and capability < _FP8_CAPABILITY:
        raise EngineUnavailable(
            f"fp8 needs a GPU of compute capability 8.9 or later (Ada, Hopper), and {gpu.name} has "
            f"{gpu.compute_capability}: expected a file in int8, fp16 or bf16 for it."
        )


@functools.cache
def tensorrt_logger() -> "trt.ILogger":
    """The logger for everything of TensorRT. One for the process, which keeps the first that it is given."""
    import tensorrt as trt

    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.Severity.ERROR: logging.ERROR,
        trt.ILogger.Severity.WARNING: logging.WARNING,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]  # of no known type where it is not installed
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: "trt.ILogger.Severity", msg: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            _log.log(level, "TensorRT: %s", msg)
            if level == logging.ERROR:
                _complaints.append(msg)

    return Logger()


def take_complaints() -> str:
    """What TensorRT has logged as errors since this was last called: its functions only say that they failed."""
    text = "; ".join(_complaints)
    _complaints.clear()
    return text
