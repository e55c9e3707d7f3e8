"""Engines: what runs a model. Importing this package loads no library; `create_engine` loads the one asked for."""

import os
from collections.abc import Callable
from typing import Literal, get_args

from dap.engines.base import Engine, Inference
from dap.engines.sizes import EngineOfSizes
from dap.errors import EngineUnavailable
from dap.models import Model, model_file
from dap.resolutions import batch_limit

EngineName = Literal["auto", "onnx", "torch", "tensorrt"]
Precision = Literal["fp32", "bf16", "fp16"]
Execution = Literal["auto", "eager", "graphs", "compiled"]
Provider = Literal["auto", "cuda", "tensorrt"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
EXECUTIONS: tuple[Execution, ...] = get_args(Execution)
PROVIDERS: tuple[Provider, ...] = get_args(Provider)

# ONNX Runtime's own builds report to its maker unless this is set before it is loaded; this package always is.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "ENGINES",
    "EXECUTIONS",
    "PRECISIONS",
    "PROVIDERS",
    "Engine",
    "EngineName",
    "Execution",
    "Inference",
    "Precision",
    "Provider",
    "create_engine",
]


def create_engine(
    model: Model,
    engine: EngineName = "auto",
    *,
    device: str = "auto",
    threads: int | None = None,
    precision: Precision = "fp32",
    execution: Execution = "auto",
    provider: Provider = "auto",
    max_batch_size: int = 4,
    gpu_arena_gb: float | None = None,
) -> Engine:
    """An engine with the model loaded, not yet warm.

    Args:
        model: from `dap.models.find_model`. The engine takes panoramas of all its sizes.
        engine: `onnx` runs exported files, `torch` runs checkpoints; `auto` takes the one of these two that the model's
            file is for. `tensorrt` runs exported files on a GPU, and builds a plan for it first, which takes minutes,
            where none is kept yet.
        device: `cpu`, `cuda`, `cuda:1`, or `auto`: the GPU where the library is built for one, else the CPU; a log line
            says which and why. `cuda,cpu` lets the CPU stand in for a GPU that does not start, with a warning.
        threads: how many work on one batch on the CPU; by default as many as the cores this process may use. More than
            that slows every batch down, fewer leave cores for other work.
        precision: of the torch engine: `bf16` and `fp16` run convolutions and matrix products in bfloat16 or float16,
            but for those that need float32. An exported file has its precision inside.
        execution: of the torch engine on a GPU: `eager` launches kernel by kernel, `graphs` records batches as CUDA
            graphs, `compiled` has torch.compile fuse kernels first, while it is warmed, which takes minutes; `auto` is
            `graphs`.
        provider: of the onnx engine on a GPU: `cuda`, or `tensorrt`, which builds plans for it first, as the tensorrt
            engine does, and leaves to CUDA what TensorRT does not take; `auto` is `cuda`. What runs on the CPU is asked
            for as a device.
        max_batch_size: panoramas that run together at most, see `dap.resolutions.batch_limit` for those of another size
            than the model's input size; plans of TensorRT are built for it, and larger batches run in parts. Without
            plans any number runs together.
        gpu_arena_gb: of the onnx engine on a GPU: gigabytes that each of its sessions takes there at most, see
            `dap.engines.onnx.OnnxEngine`; by default what they need.

    Raises:
        ModelFileMissing: the model's file is not on this machine; the message says what to put where.
        ModelFileInvalid: the file is not the model it should be.
        EngineUnavailable: the library or the device is not here, or the engine cannot run this kind of file.
    """
    if engine not in ENGINES:
        raise EngineUnavailable(f"No engine is named {engine!r}: expected one of {', '.join(ENGINES)}.")
    path = model_file(model)
    exported = model.is_exported
    if engine in ("onnx", "tensorrt") and not exported:
        raise EngineUnavailable(
            f"The {engine} engine runs exported files, and {model.name} is a checkpoint. Use torch, or "
            f"export it (`dap export --model {model.name} --to onnx --output FILE.onnx`) and give FILE.onnx as "
            "the model."
        )
    if engine == "torch" and exported:
        raise EngineUnavailable(f"The torch engine runs checkpoints, and {model.name} is an exported file: use onnx.")
    if gpu_arena_gb is not None and (engine == "tensorrt" or not exported):
        raise EngineUnavailable("gpu_arena_gb limits the onnx engine alone: expected none for any other.")
    if execution != "auto" and exported:
        raise EngineUnavailable(f"The execution {execution} is of the torch engine alone: expected none for any other.")
    if provider != "auto" and (engine == "tensorrt" or not exported):
        raise EngineUnavailable(f"The provider {provider} is of the onnx engine alone: expected none for any other.")
    if provider == "tensorrt" and gpu_arena_gb is not None:
        raise EngineUnavailable("gpu_arena_gb does not limit TensorRT: expected none with the provider tensorrt.")
    if exported:
        if precision != "fp32":
            raise EngineUnavailable(
                f"An exported file runs in the precision it has inside: {model.name} does not run in {precision}."
            )
        open_engine = (
            _tensorrt(model, device, max_batch_size)
            if engine == "tensorrt"
            else _onnx(model, device, threads, gpu_arena_gb, provider, max_batch_size)
        )
        return EngineOfSizes(model, open_engine) if model.siblings else open_engine(model)
    try:
        from dap.engines.torch import TorchEngine
    except ModuleNotFoundError as error:
        raise EngineUnavailable(
            f"The torch engine needs {error.name}, which is not installed: pip install 'depth-any-panorama[export]'."
        ) from None
    return TorchEngine(path, model, device=device, threads=threads, precision=precision, execution=execution)


def _onnx(
    whole: Model,
    device: str,
    threads: int | None,
    gpu_arena_gb: float | None,
    provider: Provider,
    max_batch_size: int,
) -> Callable[[Model], Engine]:
    from dap.engines.lanes import Crowd
    from dap.engines.onnx import OnnxEngine

    crowd = Crowd()
    return lambda model: OnnxEngine(
        model_file(model),
        model,
        device=device,
        threads=threads,
        crowd=crowd,
        gpu_arena_gb=gpu_arena_gb,
        provider=provider,
        max_batch_size=batch_limit(max_batch_size, model.input_size, whole.input_size),
    )


def _tensorrt(whole: Model, device: str, max_batch_size: int) -> Callable[[Model], Engine]:
    from dap.engines.tensorrt import TensorrtEngine

    return lambda model: TensorrtEngine(
        model_file(model),
        model,
        device=device,
        max_batch_size=batch_limit(max_batch_size, model.input_size, whole.input_size),
    )
