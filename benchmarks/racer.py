"""One contender of `dap bench engine`, in a process of its own that runs when it is told to.

Its memory is then its own, and its threads, allocators and libraries are touched by no other. It takes its `Entry` from
the command line, says a line of JSON (`Ready`) when it has run once, and then for each line on standard input, seconds,
runs for as long and says what came of it (`Turn`). It ends with the input.
"""

import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from benchmarks.processes import forget_peak, resident_mb
from dap.engines import EngineName, Precision, create_engine
from dap.graph import GraphPrecision
from dap.models import find_model

EngineKind = Literal["eager", "torch", "compiled", "onnx", "onnx-tensorrt", "tensorrt"]
IN_TORCH: tuple[EngineKind, ...] = ("eager", "torch", "compiled")
"""Those that run checkpoints, and take a precision of `dap.engines.PRECISIONS`."""

Kind = EngineKind | Literal["product", "transfer"]
Work = Callable[[], npt.NDArray[np.float32] | None]

_LIBRARIES: dict[Kind, str] = {
    "eager": "dap.model.dap",
    "torch": "dap.engines.torch",
    "compiled": "dap.engines.torch",
    "onnx": "dap.engines.onnx",
    "onnx-tensorrt": "dap.engines.onnx",
    "tensorrt": "dap.engines.tensorrt",
    "product": "benchmarks.ceiling",
    "transfer": "benchmarks.ceiling",
}


@dataclass(frozen=True)
class Entry:
    """What a process is to run. Travels as JSON.

    Attributes:
        kind: an engine; `eager`: the plain network in torch; `compiled`: the engine torch with its kernels compiled;
            `onnx-tensorrt`: the engine onnx with the provider tensorrt; `product` and `transfer`: see
            `benchmarks.ceiling`.
        precision: of the run.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: that work on the CPU.
        size: (H, W) in pixels.
        model: a checkpoint or an exported file; as the rest empty for a ceiling.
        in_range: with range masks.
        panoramas: file of the batch, uint8 (B, H, W, 3) as `.npy`.
        depth: file to write the depth of that batch to, float32 (B, H, W) as `.npy`.
    """

    kind: Kind
    precision: GraphPrecision
    device: str
    threads: int
    size: tuple[int, int]
    model: str = ""
    in_range: bool = True
    panoramas: str = ""
    depth: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Entry":
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "size": tuple(fields["size"])})


@dataclass(frozen=True)
class Ready:
    """A process that has run once. Megabytes of 10^6 bytes.

    Attributes:
        imported_mb: in memory when its libraries were loaded, and nothing else.
        loading_mb: in memory at most, up to the end of the first run.
        amount: FLOP of a `product`, bytes of a `transfer`; else 0.
    """

    imported_mb: float
    loading_mb: float
    amount: int = 0


@dataclass(frozen=True)
class Turn:
    """One turn.

    Attributes:
        seconds: of each run.
        cpu_s: processor seconds of all of them, of all threads.
        running_mb: megabytes in memory at most, since the first run ended.
        allocated_mb: of torch's tensors on a GPU at most; 0 elsewhere.
    """

    seconds: tuple[float, ...]
    cpu_s: float
    running_mb: float
    allocated_mb: float = 0.0


def main() -> None:
    """Take part, as the module says."""
    entry = Entry.from_json(sys.argv[1])
    # What a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(message: Ready | Turn) -> None:
        answers.write(json.dumps(asdict(message)) + "\n")
        answers.flush()

    importlib.import_module(_LIBRARIES[entry.kind])
    imported_mb = resident_mb(os.getpid())
    work, amount = work_of(entry)
    depth = work()
    if depth is not None:
        np.save(entry.depth, depth)
    say(Ready(imported_mb, resident_mb(os.getpid(), "VmHWM"), amount))
    forget_peak()
    for line in sys.stdin:
        say(take_turn(work, float(line), entry.device))


def work_of(entry: Entry) -> tuple[Work, int]:
    """What one run is, and its FLOP or bytes if it is a ceiling."""
    match entry.kind:
        case "product" | "transfer":
            from benchmarks import ceiling

            ceiling.use_threads(entry.threads)
            if entry.kind == "transfer":
                return ceiling.transfer(entry.device, math.prod(entry.size))
            return ceiling.product(entry.precision, entry.device)
        case "eager":
            return _eager(entry, np.load(entry.panoramas)), 0
        case engine:
            return _engine(entry, engine, np.load(entry.panoramas)), 0


def take_turn(work: Work, seconds: float, device: str = "cpu") -> Turn:
    """Run for so many seconds, and once at least."""
    taken: list[float] = []
    cpu, started = time.process_time(), time.perf_counter()
    while not taken or time.perf_counter() < started + seconds:
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return Turn(tuple(taken), time.process_time() - cpu, resident_mb(os.getpid(), "VmHWM"), _allocated_mb(device))


def _engine(entry: Entry, kind: EngineKind, panoramas: npt.NDArray[np.uint8]) -> Work:
    name = "torch" if kind in IN_TORCH else "onnx" if kind == "onnx-tensorrt" else kind
    engine = create_engine(
        find_model(entry.model).at(entry.size),
        cast("EngineName", name),
        device=entry.device,
        threads=entry.threads,
        # An exported file has its own inside.
        precision=cast("Precision", entry.precision) if kind in IN_TORCH else "fp32",
        execution="compiled" if kind == "compiled" else "auto",
        provider="tensorrt" if kind == "onnx-tensorrt" else "auto",
        max_batch_size=len(panoramas),
    )
    if engine.device != "cpu":
        engine.warm_up((len(panoramas),))  # as the service does: graphs and plans are made here
    return lambda: engine.infer(panoramas, in_range=entry.in_range).depth


def _eager(entry: Entry, panoramas: npt.NDArray[np.uint8]) -> Work:
    """The network as it is written, with nothing around it; under autocast in less than float32."""
    import torch

    from benchmarks import ceiling
    from dap.model.checkpoints import load_network
    from dap.model.dap import PixelNetwork

    ceiling.use_threads(entry.threads)
    device = torch.device(entry.device)
    network = PixelNetwork(load_network(entry.model)).eval().to(device)
    pixels = torch.from_numpy(panoramas)
    dtype = ceiling.TYPES[entry.precision]

    def run() -> npt.NDArray[np.float32]:
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=entry.precision != "fp32"):
            depth, in_range = network(pixels.to(device), in_range=entry.in_range)
            in_range.cpu()  # who asked for it has it on the host
            return depth.float().cpu().numpy()  # type: ignore[no-any-return]

    return run


def _allocated_mb(device: str) -> float:
    if device == "cpu" or "torch" not in sys.modules:
        return 0.0
    import torch

    return torch.cuda.max_memory_allocated(device) / 1e6


if __name__ == "__main__":
    main()
