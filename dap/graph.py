"""What an ONNX file says of itself, read before any library runs it: its metadata, and whether it is whole in itself.

And the forms in which an engine loads it: with its weights left where they are, without range masks or with a switch
for them.

An ONNX file is one message of protocol buffers (`dap.protobuf`), so a model of a gigabyte is described in milliseconds
by stepping over the weights. The numbers of fields are those of onnx.proto of the ONNX standard.
"""

import json
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dap.errors import ModelFileInvalid
from dap.protobuf import BrokenMessage, Buffer, Field, bytes_field, integer_field

# The fields of each message that hold a further message which is looked into: a tensor may sit there, or a name.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 12: "value", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "value": {},
}
_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_GRAPH_NODE, _GRAPH_NAME, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO = 1, 2, 5, 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TYPE = 1, 5, 6, 20
_TENSOR, _GRAPH = 4, 5  # types of attributes
_TENSOR_DIMS, _TENSOR_TYPE = 1, 2
_TENSOR_NAME, _TENSOR_RAW_DATA, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 8, 9, 13, 14
_EXTERNAL = 1
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TENSOR_TYPE_ELEMENT, _TENSOR_TYPE_SHAPE = 1, 1, 2
_FLOAT, _BOOL = 1, 9
# Weights of fewer bytes stay in the outline of a file. These operators bring larger ones into a layout of their own.
_LARGE = 64 * 1024
_RELAID = {b"Conv", b"MatMul"}
SWITCH = "with_range"
"""The input that `with_switch` adds."""
_DEEPEST = 32  # messages within messages; ours have four

GraphPrecision = Literal["fp32", "bf16", "fp16", "int8", "fp8"]
GRAPH_PRECISIONS: tuple[GraphPrecision, ...] = get_args(GraphPrecision)


@dataclass(frozen=True)
class GraphMetadata:
    """What an exported graph carries in its `metadata_props`, under the keys `dap.*`.

    Attributes:
        name: the model's name, `dap-s`.
        thresholds: metres, ascending; the channels of the output `in_range`.
        input_size: (H, W) in pixels of the input `panorama`.
        licence: of the weights, as a person reads it.
        weights_sha256: hash of the checkpoint that the graph was exported from.
        spherical: longitude is a circle to the network: it has no seam, and turning the panorama by whole patches turns
            its answer. False of a file from before this was written down.
        precision: in which most of it runs; `fp32` of a file from before there were others.
    """

    name: str
    thresholds: tuple[float, ...]
    input_size: tuple[int, int]
    licence: str
    weights_sha256: str
    spherical: bool = False
    precision: GraphPrecision = "fp32"

    def entries(self) -> dict[str, str]:
        """The same as `metadata_props` holds it: text under text."""
        return {
            "dap.name": self.name,
            "dap.thresholds": json.dumps(self.thresholds),
            "dap.input_size": json.dumps(self.input_size),
            "dap.licence": self.licence,
            "dap.weights_sha256": self.weights_sha256,
            "dap.spherical": json.dumps(self.spherical),
            "dap.precision": self.precision,
        }

    @classmethod
    def from_entries(cls, entries: dict[str, str]) -> "GraphMetadata":
        """Read `metadata_props`.

        Raises:
            ModelFileInvalid: an entry is missing or is not what it should be; the message lists which.
        """
        expected = ("dap.name", "dap.thresholds", "dap.input_size", "dap.licence", "dap.weights_sha256")
        missing = [key for key in expected if key not in entries]
        if missing:
            raise ModelFileInvalid(
                f"The ONNX file has no metadata {', '.join(missing)}: expected a file that `dap export` wrote."
            )
        return cls(
            name=entries["dap.name"],
            thresholds=_ascending(entries["dap.thresholds"]),
            input_size=size_from_json(entries["dap.input_size"]),
            licence=entries["dap.licence"],
            weights_sha256=entries["dap.weights_sha256"],
            spherical=_flag("dap.spherical", entries.get("dap.spherical", "false")),
            precision=_precision(entries.get("dap.precision", "fp32")),
        )


def read_graph_metadata(path: Path) -> GraphMetadata:
    """The metadata of the ONNX file at `path`, which must hold all of its own weights.

    A tensor kept in another file could name any file of the machine, so a graph with one is refused, here and before an
    engine opens it.

    Raises:
        ModelFileInvalid: not an ONNX file, metadata missing or wrong, or a tensor with external data.
    """
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise ModelFileInvalid(f"{path.name} is empty: expected an ONNX file.") from None
        with data:
            model = Field.outermost(data)
            try:
                entries = dict(_metadata_entries(model))
                graphs = len(list(model.fields(_MODEL_GRAPH)))
                external = _has_external_data(model, "model", 0)
            except (BrokenMessage, UnicodeDecodeError):
                raise ModelFileInvalid(f"{path.name} is truncated or no ONNX file.") from None
    if graphs != 1:
        raise ModelFileInvalid(f"{path.name} holds {graphs} graphs: expected one.")
    if external:
        raise ModelFileInvalid(
            f"{path.name} keeps weights in another file (external data): expected one that is whole in itself."
        )
    return GraphMetadata.from_entries(entries)


def outline(path: Path) -> bytes:
    """The ONNX file at `path` without its large weights: in their place stands where in the file they are.

    Whoever loads this reads them one by one, and never has the whole file in memory beside what it makes of it. ONNX
    Runtime makes something else of each, so that it uses nothing of the file once it is loaded, and the file may be
    overwritten. Behind `with_switch` it does so for convolutions and products only: other weights there stay.

    Args:
        path: a file that `read_graph_metadata` has found sound. It is named by its last part, links resolved; the
            folder is for the reader to know.
    """
    real = path.resolve()
    with real.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        graph = _graph(data)
        stay = {
            name
            for node in _for_range_only(graph)
            if node.number == _GRAPH_NODE and _RELAID.isdisjoint(node.contents(_NODE_OPERATOR))
            for name in node.contents(_NODE_INPUT)
        }
        large = [
            (tensor, _pointing(tensor, raw, real))
            for tensor in graph.fields(_GRAPH_INITIALIZER)
            if (raw := _large_data(tensor)) and stay.isdisjoint(tensor.contents(_TENSOR_NAME))
        ]
        return _with_graph(data, graph, graph.replaced(large))


def without_range(model: bytes) -> bytes:
    """The same graph with no output but `depth`, and nothing in it that only the others need.

    Asked for one output of several, ONNX Runtime still runs every node of the graph (1.32: dap-s takes as long for
    depth as for depth and range masks), so what should not run must not be there.

    Args:
        model: an ONNX file that `read_graph_metadata` has found sound.
    """
    graph = _graph(model)
    others = [value for value in graph.fields(_GRAPH_OUTPUT) if b"depth" not in value.contents(_VALUE_NAME)]
    gone = sorted((*_for_range_only(graph), *others), key=lambda field: field.key)
    return _with_graph(model, graph, graph.replaced([(field, b"") for field in gone]))


def with_switch(model: bytes) -> bytes:
    """The same graph with one more input, the bool `SWITCH`: if it is false, what only `in_range` needs does not run.

    One session then serves both who wants range masks and who does not, with one copy of the weights. Nodes and weights
    move into a branch of an `If`; outside it ONNX Runtime would not bring the weights into its own layouts, and masks
    would take half as long again. Switched off, `in_range` is empty.

    Args:
        model: an ONNX file that `read_graph_metadata` has found sound.
    """
    graph = _graph(model)
    moved = _for_range_only(graph)
    inside = b"".join(_renamed(field, b"in_range", _IN_BRANCH) for field in moved)
    added = bytes_field(_GRAPH_INPUT, _value(SWITCH.encode(), _BOOL, bytes_field(_TENSOR_TYPE_SHAPE, b"")))
    if any(b"in_range" in field.contents(_NODE_OUTPUT) for field in moved if field.number == _GRAPH_NODE):
        added += bytes_field(_GRAPH_NODE, _if(inside))
        body = graph.replaced([(field, b"") for field in moved])
    else:
        body = graph.content()  # depth itself needs it
    return _with_graph(model, graph, body + added)


def _graph(model: Buffer) -> Field:
    return next(Field.outermost(model).fields(_MODEL_GRAPH))


def _with_graph(model: Buffer, graph: Field, other: bytes) -> bytes:
    """The model with another graph in the place of its own."""
    return Field.outermost(model).replaced([(graph, bytes_field(_MODEL_GRAPH, other))])


def _for_range_only(graph: Field) -> list[Field]:
    """The nodes and initializers that `depth` does not need, and what the graph says of their values."""
    needed = {b"depth"}
    idle: list[Field] = []
    # Nodes are in the order in which they run.
    for node in reversed(list(graph.fields(_GRAPH_NODE))):
        if needed.isdisjoint(node.contents(_NODE_OUTPUT)):
            idle.append(node)
        else:
            needed.update(_read_names(node, "node"))
    made = {name for node in idle for name in node.contents(_NODE_OUTPUT)}
    tensors = graph.fields(_GRAPH_INITIALIZER)
    idle += [tensor for tensor in tensors if needed.isdisjoint(tensor.contents(_TENSOR_NAME))]
    idle += [value for value in graph.fields(_GRAPH_VALUE_INFO) if not made.isdisjoint(value.contents(_VALUE_NAME))]
    return sorted(idle, key=lambda field: field.key)


_IN_BRANCH = b"dap.in_range"  # names within a branch must be others than those around it


def _if(inside: bytes) -> bytes:
    """A node that gives `in_range` from these nodes and initializers, or nothing."""
    empty = b"".join(integer_field(_TENSOR_DIMS, length) for length in (0, 1, 1, 1)) + integer_field(
        _TENSOR_TYPE, _FLOAT
    )
    nothing = bytes_field(_NODE_OUTPUT, _IN_BRANCH) + bytes_field(_NODE_OPERATOR, b"Constant")
    nothing += _attribute(b"value", _ATTRIBUTE_TENSOR, _TENSOR, empty)
    output = bytes_field(_GRAPH_OUTPUT, _value(_IN_BRANCH, _FLOAT))
    branches = {b"then_branch": inside, b"else_branch": bytes_field(_GRAPH_NODE, nothing)}
    return b"".join(
        (
            bytes_field(_NODE_INPUT, SWITCH.encode()),
            bytes_field(_NODE_OUTPUT, b"in_range"),
            bytes_field(_NODE_OPERATOR, b"If"),
            *(
                _attribute(name, _ATTRIBUTE_GRAPH, _GRAPH, bytes_field(_GRAPH_NAME, name) + body + output)
                for name, body in branches.items()
            ),
        )
    )


def _attribute(name: bytes, place: int, kind: int, body: bytes) -> bytes:
    parts = (bytes_field(_ATTRIBUTE_NAME, name), bytes_field(place, body), integer_field(_ATTRIBUTE_TYPE, kind))
    return bytes_field(_NODE_ATTRIBUTE, b"".join(parts))


def _value(name: bytes, element: int, shape: bytes = b"") -> bytes:
    tensor = integer_field(_TENSOR_TYPE_ELEMENT, element) + shape
    return bytes_field(_VALUE_NAME, name) + bytes_field(_VALUE_TYPE, bytes_field(_TYPE_TENSOR, tensor))


def _renamed(field: Field, name: bytes, other: bytes) -> bytes:
    """A field of a graph with what a node reads or makes under `name` under another one."""
    if field.number != _GRAPH_NODE:
        return field.encoded()
    values = field.fields(_NODE_INPUT, _NODE_OUTPUT)
    found = [(value, bytes_field(value.number, other)) for value in values if value.content() == name]
    return bytes_field(_GRAPH_NODE, field.replaced(found))


def size_from_json(text: str) -> tuple[int, int]:
    """(H, W) from its JSON.

    Raises:
        ModelFileInvalid: not two whole numbers of pixels. They need not be 2:1: a panorama is squeezed to what the
            network was exported for.
    """
    match _json_list(text):
        case [int(height), int(width)] if height > 0 and width > 0:
            return height, width
    raise ModelFileInvalid(f"dap.input_size is {text!r}: expected [height, width] in pixels, such as [256, 512].")


def _metadata_entries(model: Field) -> Iterator[tuple[str, str]]:
    for field in model.fields(_MODEL_METADATA):
        entry = {part.number: part.content().decode() for part in field.fields()}
        yield entry.get(_ENTRY_KEY, ""), entry.get(_ENTRY_VALUE, "")


def _has_external_data(message: Field, kind: str, depth: int) -> bool:
    if depth > _DEEPEST:
        raise BrokenMessage(f"Messages within messages: expected {_DEEPEST} at most.")
    for field in message.fields():
        if kind == "tensor":
            if field.number == _TENSOR_EXTERNAL_DATA:
                return True
        elif (child := _CHILDREN[kind].get(field.number)) and _has_external_data(field, child, depth + 1):
            return True
    return False


def _large_data(tensor: Field) -> Field | None:
    return next((data for data in tensor.fields(_TENSOR_RAW_DATA) if data.size >= _LARGE), None)


def _pointing(tensor: Field, raw: Field, path: Path) -> bytes:
    """The tensor with the place of its data in the file instead of the data."""
    place = {b"location": os.fsencode(path.name), b"offset": b"%d" % raw.start, b"length": b"%d" % raw.size}
    entries = (
        bytes_field(_TENSOR_EXTERNAL_DATA, bytes_field(_ENTRY_KEY, key) + bytes_field(_ENTRY_VALUE, value))
        for key, value in place.items()
    )
    location = integer_field(_TENSOR_DATA_LOCATION, _EXTERNAL)
    return bytes_field(_GRAPH_INITIALIZER, b"".join((tensor.replaced([(raw, b"")]), *entries, location)))


def _read_names(message: Field, kind: str) -> Iterator[bytes]:
    """What a node reads, and what the nodes of the graphs within it read, which see the names around them."""
    for field in message.fields():
        if kind == "node" and field.number == _NODE_INPUT:
            yield field.content()
        elif (child := _CHILDREN[kind].get(field.number)) in ("node", "attribute", "graph"):
            yield from _read_names(field, child)


def _ascending(text: str) -> tuple[float, ...]:
    values = _json_list(text)
    thresholds = tuple(float(value) for value in values if isinstance(value, int | float) and value > 0)
    if not thresholds or len(thresholds) != len(values) or list(thresholds) != sorted(set(thresholds)):
        raise ModelFileInvalid(
            f"dap.thresholds is {text!r}: expected ascending metres such as [10.0, 20.0, 50.0, 100.0]"
        )
    return thresholds


def _flag(key: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise ModelFileInvalid(f"{key} is {text!r}: expected true or false.")
    return text == "true"


def _precision(text: str) -> GraphPrecision:
    if text not in GRAPH_PRECISIONS:
        raise ModelFileInvalid(f"dap.precision is {text!r}: expected one of {', '.join(GRAPH_PRECISIONS)}.")
    return text


def _json_list(text: str) -> list[object]:
    try:
        value = json.loads(text)
    except ValueError:
        return []
    return value if isinstance(value, list) else []
