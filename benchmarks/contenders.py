"""Who takes part in `dap bench engine`: the plain network, the engines, and the files that they run."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from benchmarks.racer import IN_TORCH, EngineKind
from dap.engines import PRECISIONS
from dap.errors import InvalidParameter
from dap.graph import GRAPH_PRECISIONS, GraphPrecision, read_graph_metadata
from dap.model.config import EncoderName, NetworkConfig
from dap.models import find_model, model_file

UNTRAINED: tuple[EncoderName, ...] = ("vit-s", "vit-b", "vit-l")
"""The official network in its three sizes: as models here they have weights that nobody trained."""

DEFAULTS = {"cpu": ("eager:fp32", "torch:fp32", "onnx:fp32"), "cuda": ("eager:fp32", "eager:bf16", "torch:bf16")}

_Target = Literal["cpu", "gpu"]
_EXPORT_FOR: dict[_Target, tuple[str, ...]] = {
    "cpu": ("--to", "onnx"),
    "gpu": ("--to", "tensorrt", "--no-plan"),  # who runs it builds its plans, for as many panoramas as it runs
}

_OFFICIAL_SIZE = (512, 1024)
_SAID = 300


@dataclass(frozen=True)
class Contender:
    """One that takes part.

    Attributes:
        name: for the tables.
        kind: an engine, or `eager`: the plain network in torch.
        precision: of the run.
        path: what it runs: a checkpoint or an exported file.
    """

    name: str
    kind: EngineKind
    precision: GraphPrecision
    path: Path


@dataclass(frozen=True)
class Subject:
    """The model that all of them run.

    Attributes:
        name: for people.
        size: (H, W) in pixels at which it is run.
        checkpoint: its weights, an absolute path; None where there is nothing but exported files.
        exported: files of it, for the same size, absolute paths.
    """

    name: str
    size: tuple[int, int]
    checkpoint: Path | None
    exported: tuple[Path, ...]


def find_subject(
    model: str, against: str | None, files: Sequence[Path], size: tuple[int, int] | None, folder: Path
) -> Subject:
    """The model by its name or file.

    Args:
        model: a name that `dap models` lists, a checkpoint, an exported file, or one of `UNTRAINED`.
        against: the checkpoint of an exported file, for those that run checkpoints.
        files: exported files of the same model.
        size: (H, W) to run at; by default the model's.
        folder: for the checkpoint of an untrained one.

    Raises:
        ModelError: there is no such model, or its file is not what it should be.
        InvalidParameter: a checkpoint was given with another.
    """
    files = [file.absolute() for file in files]  # what runs them runs in another folder; links keep their names
    if model in UNTRAINED:
        return Subject(f"{model}, untrained", size or _OFFICIAL_SIZE, _untrained(model, folder), tuple(files))
    found = find_model(model)
    found = found.at(size or found.input_size)
    path = model_file(found).absolute()
    if not found.is_exported:
        if against is not None:
            raise InvalidParameter(f"{model} is a checkpoint itself: expected an exported file with --against.")
        return Subject(found.name, found.input_size, path, tuple(files))
    checkpoint = None if against is None else model_file(find_model(against)).absolute()
    return Subject(found.name, found.input_size, checkpoint, (path, *files))


def _untrained(encoder: EncoderName, folder: Path) -> Path:
    import torch

    from dap.model.checkpoints import save_network
    from dap.model.dap import DapNetwork

    torch.manual_seed(0)
    path = folder / f"{encoder}.safetensors"
    size = json.dumps(_OFFICIAL_SIZE)
    save_network(DapNetwork(NetworkConfig.official(encoder)), path, {"dap.name": encoder, "dap.input_size": size})
    return path


def available(kind: str) -> tuple[list[str], dict[str, str]]:
    """Names for `choose` of all that has what it needs on this machine; and who has not, and why.

    Args:
        kind: `cpu`, or `cuda` where torch has found such a device.
    """
    if kind == "cpu":
        return list(DEFAULTS["cpu"]), {}
    names = list(DEFAULTS["cuda"])
    left_out: dict[str, str] = {}
    for name, missing in (
        ("compiled:bf16", _missing("triton") or ("" if shutil.which("cc") or shutil.which("gcc") else "a C compiler")),
        ("onnx:fp16", _missing("onnx", "onnxscript", "cuda") or _missing_provider("CUDAExecutionProvider")),
        (
            "onnx-tensorrt:fp16",
            _missing("onnx", "onnxscript", "tensorrt", "cuda") or _missing_provider("TensorrtExecutionProvider"),
        ),
        ("tensorrt:fp16", _missing("onnx", "onnxscript", "tensorrt", "cuda")),
    ):
        if missing:
            left_out[name] = f"needs {missing}, not installed here"
        else:
            names.append(name)
    return names, left_out


def _missing(*libraries: str) -> str:
    return ", ".join(library for library in libraries if find_spec(library) is None)


def _missing_provider(provider: str) -> str:
    import onnxruntime

    return "" if provider in onnxruntime.get_available_providers() else f"an ONNX Runtime with the {provider}"


def choose(
    subject: Subject, names: Sequence[str], device: str, threads: int, panorama: Path, folder: Path
) -> tuple[list[Contender], dict[str, str]]:
    """Those that take part, the first of which the others are held against; and who cannot, and why.

    Args:
        subject: what they run.
        names: as `onnx:int8`, an engine or `eager` and a precision; none for the `DEFAULTS` of the device.
        device: `cpu` or `cuda`.
        threads: for exports.
        panorama: that exports are verified on.
        folder: for exports.

    Raises:
        InvalidParameter: a name is none.
    """
    chosen: list[Contender] = []
    left_out: dict[str, str] = {}
    given = {path: read_graph_metadata(path).precision for path in subject.exported}
    exports = _Exports(subject, threads, panorama, folder)
    for kind, precision in map(_parse, names or DEFAULTS[device]):
        name = f"{kind} {precision}"
        try:
            if kind in IN_TORCH:
                paths = [_checkpoint(subject)]
            else:
                paths = [path for path, inside in given.items() if inside == precision]
                paths = paths or [exports.file(precision, _target(kind, device))]
        except _NotThere as error:
            left_out[name] = str(error)
        else:
            told_apart = (f"{name}, {path.name}" if len(paths) > 1 else name for path in paths)
            chosen += [Contender(one, kind, precision, path) for one, path in zip(told_apart, paths, strict=True)]
    ran = {contender.path for contender in chosen}
    for path, precision in given.items():
        if path not in ran:
            chosen.append(Contender(f"onnx {precision}, {path.name}", "onnx", precision, path))
    return chosen, left_out


def _target(kind: EngineKind, device: str) -> _Target:
    """What its files are exported for: on a GPU those for ONNX Runtime on the CPU are slower, or do not run."""
    return "cpu" if (kind, device) == ("onnx", "cpu") else "gpu"


def _parse(name: str) -> tuple[EngineKind, GraphPrecision]:
    kind, _, precision = name.partition(":")
    known = (kind in get_args(EngineKind), precision in (PRECISIONS if kind in IN_TORCH else GRAPH_PRECISIONS))
    if not all(known):
        raise InvalidParameter(
            f"No contender is named {name!r}: expected {', '.join(IN_TORCH)} in one of {', '.join(PRECISIONS)}, as "
            f"eager:fp32, or onnx, onnx-tensorrt or tensorrt in one of {', '.join(GRAPH_PRECISIONS)}."
        )
    return kind, precision  # type: ignore[return-value]


class _NotThere(Exception):
    """What it would run is not there and cannot be made; the message says why."""


def _checkpoint(subject: Subject) -> Path:
    if subject.checkpoint is None:
        raise _NotThere("there is no checkpoint; give it with --against")
    return subject.checkpoint


class _Exports:
    """Files for contenders that none was given for, each exported once for all that run it."""

    def __init__(self, subject: Subject, threads: int, panorama: Path, folder: Path) -> None:
        self._subject = subject
        self._options = ("--threads", str(threads), "--panorama", str(panorama))
        self._folder = folder
        self._made: dict[tuple[GraphPrecision, _Target], Path | str] = {}

    def file(self, precision: GraphPrecision, target: _Target) -> Path:
        """The file, exported when it is first asked for.

        Raises:
            _NotThere: it cannot be exported.
        """
        wanted = (precision, target)
        if wanted not in self._made:
            self._made[wanted] = self._export(precision, target)
        made = self._made[wanted]
        if isinstance(made, str):
            raise _NotThere(made)
        return made

    def _export(self, precision: GraphPrecision, target: _Target) -> Path | str:
        """By `dap export`, as a user would, in a process whose memory is gone after; or why there is none."""
        if self._subject.checkpoint is None:
            return "there is no file in this precision, and no checkpoint to export"
        path = self._folder / f"{precision}-{target}.onnx"
        height, width = self._subject.size
        command = [sys.executable, "-m", "dap", "export", "--model", str(self._subject.checkpoint)]
        command += ["--output", str(path), "--precision", precision, "--size", f"{width}x{height}"]
        run = subprocess.run([*command, *_EXPORT_FOR[target], *self._options], capture_output=True, text=True)
        return run.stderr.strip().rpartition("\n")[2][-_SAID:] if run.returncode else path
