"""Engines: what runs a model. Importing this package loads no library; `create_engine` loads the one that is asked for."""

from typing import Literal, get_args

from dap.engines.base import Engine, Inference
from dap.errors import EngineUnavailable
from dap.models import Model, model_file

EngineName = Literal["auto", "onnx", "torch"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)

__all__ = ["ENGINES", "Engine", "EngineName", "Inference", "create_engine"]


def create_engine(
    model: Model, engine: EngineName = "auto", *, device: str = "auto", threads: int | None = None
) -> Engine:
    """An engine with the model loaded, not yet warm.

    Args:
        model: from `dap.models.find_model`.
        engine: `onnx` runs exported files, `torch` runs checkpoints; `auto` takes the one that the model's file is for.
        device: `cpu`, `cuda`, `cuda:1`, or `auto`: the GPU where the library has one, else the CPU; a log line says which and why.
        threads: on the CPU, how many work on one batch; by default the cores this process may use. More than those slows every request down, fewer
            leave cores idle unless something else needs them.

    Raises:
        ModelFileMissing: the model's file is not on this machine; the message says what to put where.
        ModelFileInvalid: the file is not the model it should be.
        EngineUnavailable: the library or the device is not here, or the engine cannot run this kind of file.
    """
    path = model_file(model)
    kind = "onnx" if path.suffix == ".onnx" else "torch"
    if engine == "auto":
        engine = kind
    elif engine not in ENGINES:
        raise EngineUnavailable(f"no engine is named {engine!r}: expected one of {', '.join(ENGINES)}")
    if engine == "onnx":
        if kind != "onnx":
            raise EngineUnavailable(
                f"the onnx engine runs exported files, and {model.name} is a checkpoint: use the engine torch, or export it "
                f"once with `dap export --model {model.name} --to onnx --output FILE.onnx` and use FILE.onnx as the model"
            )
        from dap.engines.onnx import OnnxEngine

        return OnnxEngine(path, model, device=device, threads=threads)
    if kind == "onnx":
        raise EngineUnavailable(
            f"the torch engine runs checkpoints, and {model.name} is an exported file: use the engine onnx"
        )
    try:
        from dap.engines.torch import TorchEngine
    except ModuleNotFoundError as error:
        raise EngineUnavailable(
            f"the torch engine needs {error.name}, which is not installed: pip install 'depth-any-panorama[export]'"
        ) from None
    return TorchEngine(path, model, device=device, threads=threads)
