"""Attention and its rotary embedding as operators of the graph, with their meaning beside them.

In products and a softmax, attention writes a matrix of all tokens by all tokens for each head, and reads it again and
again: 100 MB for a ViT-S at 512x1024, in each block. ONNX Runtime has a kernel that keeps it in the cache, for the
operator `MultiHeadAttention` of its own domain, and one for `RotaryEmbedding` that reads and writes queries and keys
once. The graphs here have these operators, and carry functions of the same names in plain ONNX that say the same: ONNX
Runtime takes its kernels where it has them, and every other reader of the file can take the functions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import onnx
import onnx.inliner
import onnx.parser
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper
from onnxscript import opset20, values

from dap.errors import ExportError

DOMAIN = "com.microsoft"
ATTENTION, ROTARY = "MultiHeadAttention", "RotaryEmbedding"

_schema = onnx.defs.OpSchema(
    ATTENTION,
    DOMAIN,
    since_version=1,
    inputs=[onnx.defs.OpSchema.FormalParameter(name, "T") for name in ("query", "key", "value")],
    outputs=[onnx.defs.OpSchema.FormalParameter("mixed", "T")],
    type_constraints=[("T", ["tensor(float)"], "")],
    attributes=[
        onnx.defs.OpSchema.Attribute("num_heads", onnx.defs.OpSchema.AttrType.INT),
        onnx.defs.OpSchema.Attribute("scale", onnx.defs.OpSchema.AttrType.FLOAT),
    ],
)
_plain: Any = opset20
_operator = values.Op(values.Opset(DOMAIN, 1), ATTENTION, _schema)
_MEANINGS = {
    ATTENTION: f"""
<domain: "{DOMAIN}", opset_import: ["" : 20]>
{ATTENTION} <num_heads, scale> (query, key, value) => (mixed)
{{
    heads = Constant <value_int: int = @num_heads> ()
    factor = Constant <value_float: float = @scale> ()
    same = Constant <value_ints = [0, 0]> ()
    one = Constant <value_ints = [1]> ()
    rest = Constant <value_ints = [-1]> ()
    count = Reshape (heads, one)
    apart = Concat <axis = 0> (same, count, rest)
    together = Concat <axis = 0> (same, rest)
    query_apart = Reshape (query, apart)
    key_apart = Reshape (key, apart)
    value_apart = Reshape (value, apart)
    query_by_head = Transpose <perm = [0, 2, 1, 3]> (query_apart)
    key_by_head = Transpose <perm = [0, 2, 3, 1]> (key_apart)
    value_by_head = Transpose <perm = [0, 2, 1, 3]> (value_apart)
    query_scaled = Mul (query_by_head, factor)
    scores = MatMul (query_scaled, key_by_head)
    weights = Softmax <axis = -1> (scores)
    mixed_by_head = MatMul (weights, value_by_head)
    mixed_apart = Transpose <perm = [0, 2, 1, 3]> (mixed_by_head)
    mixed = Reshape (mixed_apart, together)
}}
""",
    # Of ONNX Runtime's operator this is the case of position_ids [0]: each token has the row of its number.
    ROTARY: f"""
<domain: "{DOMAIN}", opset_import: ["" : 20]>
{ROTARY} <num_heads> (tokens, position_ids, cosine, sine) => (turned)
{{
    heads = Constant <value_int: int = @num_heads> ()
    same = Constant <value_ints = [0, 0]> ()
    one = Constant <value_ints = [1]> ()
    rest = Constant <value_ints = [-1]> ()
    count = Reshape (heads, one)
    apart = Concat <axis = 0> (same, count, rest)
    together = Concat <axis = 0> (same, rest)
    tokens_apart = Reshape (tokens, apart)
    first, second = Split <axis = -1, num_outputs = 2> (tokens_apart)
    cosine_of_all = Unsqueeze (cosine, one)
    sine_of_all = Unsqueeze (sine, one)
    first_straight = Mul (first, cosine_of_all)
    second_crossed = Mul (second, sine_of_all)
    second_straight = Mul (second, cosine_of_all)
    first_crossed = Mul (first, sine_of_all)
    first_turned = Sub (first_straight, second_crossed)
    second_turned = Add (second_straight, first_crossed)
    turned_apart = Concat <axis = -1> (first_turned, second_turned)
    turned = Reshape (turned_apart, together)
}}
""",
}


def attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """What the exporter writes for torch's `scaled_dot_product_attention` of (batch, heads, tokens, head width).

    Raises:
        ExportError: with a mask, dropout or groups, which no network here has.
    """
    if attn_mask is not None or dropout_p or is_causal or enable_gqa:
        raise ExportError("Attention is exported without mask, dropout and groups alone.")
    heads, width = query.shape[1], query.shape[3]
    side_by_side = _plain.Constant(value_ints=[0, 0, heads * width])
    apart = _plain.Constant(value_ints=[0, 0, heads, width])
    # The network has just turned them the other way: ONNX Runtime drops both.
    parts = [_plain.Reshape(_plain.Transpose(part, perm=[0, 2, 1, 3]), side_by_side) for part in (query, key, value)]
    mixed = _operator(*parts, num_heads=heads, scale=width**-0.5 if scale is None else scale)
    return _plain.Transpose(_plain.Reshape(mixed, apart), perm=[0, 2, 1, 3])


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.scaled_dot_product_attention.default: attention
}


class _Turn(NamedTuple):
    """`tokens * cosine + (tokens with their halves exchanged) * sine`, from `dap.model.attention.Rotation`."""

    tokens: str
    cosine: str
    sine: str
    inner: tuple[str, ...]


def fuse_rotary(model: ModelProto) -> None:
    """Write each turn of (batch, tokens, parts, heads, head width), queries, keys or both, as one operator.

    Args:
        model: with the shapes of its values (`value_info`).
    """
    graph = model.graph
    made = {name: node for node in graph.node for name in node.output}
    turns = {node.output[0]: turn for node in graph.node if (turn := _turn(node, made))}
    if not turns:
        return
    shapes = {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in graph.value_info}
    *_, heads, width = shapes[next(iter(turns))]
    graph.initializer.extend(
        helper.make_tensor(name, TensorProto.INT64, (len(numbers),), numbers)
        for name, numbers in (
            ("rotary_side_by_side", (0, 0, -1)),
            ("rotary_apart", (0, 0, -1, heads, width)),
            ("rotary_first", (0,)),
            ("rotary_inner_axes", (1, 2)),
        )
    )
    inner = {name for turn in turns.values() for name in turn.inner}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if turn := turns.get(node.output[0]):
            if node.output[0] == next(iter(turns)):
                nodes += _tables(turn)
            nodes += _rotary(turn, node.output[0], shapes[node.output[0]][2] * heads)
        elif inner.isdisjoint(node.output):
            nodes.append(node)
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _turn(node: NodeProto, made: dict[str, NodeProto]) -> _Turn | None:
    straight, crossed = (_maker(name, "Mul", made) for name in node.input) if node.op_type == "Add" else (None, None)
    exchanged = _maker(crossed.input[0], "Concat", made) if crossed else None
    halves = _maker(exchanged.input[0], "Split", made) if exchanged else None
    if not (straight and crossed and exchanged and halves) or halves.input[0] != straight.input[0]:
        return None
    if list(exchanged.input) != list(reversed(halves.output)):
        return None
    inner = tuple(name for each in (straight, crossed, exchanged, halves) for name in each.output)
    return _Turn(straight.input[0], straight.input[1], crossed.input[1], inner)


def _maker(name: str, operator: str, made: dict[str, NodeProto]) -> NodeProto | None:
    node = made.get(name)
    return node if node is not None and node.op_type == operator else None


def _tables(turn: _Turn) -> list[NodeProto]:
    """Of both tables (tokens, 1, 1, head width) the half in which the sine has its own sign, without the inner axes."""
    halves = [
        helper.make_node("Split", [table], [f"rotary_{name}_0", f"rotary_{name}_1"], axis=-1, num_outputs=2)
        for name, table in (("cosine", turn.cosine), ("sine", turn.sine))
    ]
    return halves + [
        helper.make_node("Squeeze", [half, "rotary_inner_axes"], [f"rotary_{name}"])
        for name, half in (("cosine", "rotary_cosine_0"), ("sine", "rotary_sine_1"))
    ]


def _rotary(turn: _Turn, turned: str, heads: int) -> list[NodeProto]:
    inputs = [f"{turned}_side_by_side", "rotary_first", "rotary_cosine", "rotary_sine"]
    return [
        helper.make_node("Reshape", [turn.tokens, "rotary_side_by_side"], inputs[:1]),
        helper.make_node(ROTARY, inputs, [f"{turned}_together"], domain=DOMAIN, num_heads=heads),
        helper.make_node("Reshape", [f"{turned}_together", "rotary_apart"], [turned]),
    ]


def say_meaning(model: ModelProto) -> None:
    """Give a graph that has these operators the functions that say what they are."""
    used = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
    model.functions.extend(onnx.parser.parse_function(text) for name, text in _MEANINGS.items() if name in used)


def spelt_out(model: ModelProto) -> ModelProto:
    """The same graph in plain ONNX, the functions in place of the operators."""
    plain: ModelProto = onnx.inliner.inline_local_functions(model)
    return plain
