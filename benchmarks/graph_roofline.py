"""The roofline of an exported file by kind of operator, as ONNX Runtime runs it on a CPU, after all that it fuses.

Times are those of ONNX Runtime's own profile, FLOP and bytes follow from the shapes in one. Weights that it has packed
for itself have no shapes, so these are of a run in which it packs nothing. Otherwise as `benchmarks.roofline`.
"""

import functools
import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

import dap.engines  # noqa: F401 - ONNX Runtime's telemetry is off before it is loaded
from benchmarks import ceiling
from benchmarks.ceiling import Ceilings
from benchmarks.roofline import Call, Roofline, parts_of, timed_in_turns

_BYTES = {"float": 4, "double": 8, "float16": 2, "int64": 8, "int32": 4, "int8": 1, "uint8": 1, "bool": 1}
_VIEWS = {"Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"}
_KERNEL = "_kernel_time"

Shape = Sequence[int]


def measure(
    path: Path, pixels: npt.NDArray[np.uint8], *, threads: int, rounds: int, advance: Callable[[int], None]
) -> Roofline:
    """Run the file, with and without a profile, and the ceilings, in turns.

    Args:
        path: exported in fp32.
        pixels: uint8 (B, H, W, 3).
        threads: that work on it.
        rounds: of which the medians are taken.
        advance: told of each round.
    """
    multiply, flop = ceiling.product("fp32", "cpu")
    move, moved = ceiling.copy("cpu")
    feed = {"panorama": pixels}
    with TemporaryDirectory(prefix="dap-profile-") as folder:
        shapes = _shapes(path, Path(folder) / "shapes", threads, feed)
        plain, profiled = (_session(path, threads, prefix) for prefix in (None, Path(folder) / "ort"))
        works: list[Callable[[], object]] = [
            multiply,
            move,
            *(functools.partial(one.run, None, feed) for one in (plain, profiled)),
        ]
        taken = timed_in_turns(works, rounds, advance)
        events = json.loads(Path(profiled.end_profiling()).read_text())
    product_s, copy_s, whole_s, _ = map(statistics.median, taken)
    ceilings = Ceilings(flop / product_s, moved / copy_s)
    return Roofline(ceilings, parts_of(calls_of(shapes, events, rounds), ceilings), whole_s)


def calls_of(shapes: Iterable[Mapping[str, Any]], timed: Iterable[Mapping[str, Any]], rounds: int) -> list[Call]:
    """Each node of the graph, from the events of two profiles, as their JSON has them.

    Args:
        shapes: of a run in which no weights are packed; for FLOP and bytes.
        timed: of the runs whose time counts, of the same nodes.
        rounds: the last so many runs count.
    """
    calls: dict[str, Call] = {}
    for event in _nodes(shapes):
        said = event["args"]
        inputs, outputs = _tensors(said["input_type_shape"]), _tensors(said["output_type_shape"])
        flop = node_flop(said["op_name"], [shape for _, shape in inputs], [shape for _, shape in outputs])
        moved = sum(_BYTES[kind] * math.prod(shape) for kind, shape in (*inputs, *outputs))
        calls[event["name"]] = Call(said["op_name"], flop, moved)
    for event in _nodes(timed):
        calls[event["name"]].seconds.append(event["dur"] / 1e6)
    for call in calls.values():
        call.seconds = call.seconds[-rounds:]
    return list(calls.values())


def _nodes(events: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Those of nodes that do something."""
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL) and event["args"]["op_name"] not in _VIEWS:
            yield event


def _shapes(path: Path, prefix: Path, threads: int, feed: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The events of one run with no weights packed."""
    session = _session(path, threads, prefix, packed=False)
    session.run(None, feed)
    events: list[Mapping[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    return events


def node_flop(operator: str, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """FLOP of a node by the shapes of what goes in and comes out; 0 of an operator that multiplies no matrices."""
    match operator.removeprefix("Fused"):
        case "Conv":
            return 2 * math.prod(outputs[0]) * math.prod(inputs[1][1:])
        case "ConvTranspose":
            return 2 * math.prod(inputs[0]) * math.prod(inputs[1][1:])
        case "MatMul" | "Gemm":
            # A first factor that is transposed has as many numbers.
            return 2 * math.prod(inputs[0]) * outputs[0][-1]
        case "MultiHeadAttention" | "Attention":
            # Two products: of queries and keys, of their weights and the values, (B, N, heads x width) each.
            return 4 * math.prod(inputs[0]) * inputs[1][-2]
    return 0


def _tensors(types: Sequence[Mapping[str, Shape]]) -> list[tuple[str, Shape]]:
    return [(kind, shape) for entry in types for kind, shape in entry.items()]


def _session(path: Path, threads: int, profile: Path | None, *, packed: bool = True) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # As the engine has it; threads that spin would slow down the product and the copy that come next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_prepacking", "0" if packed else "1")
    options.log_severity_level = 4
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
