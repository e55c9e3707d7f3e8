"""Attention as one operator of the graph, with its meaning beside it.

In products and a softmax, attention writes a matrix of all tokens by all tokens for each head, and reads it again and
again: 100 MB for a ViT-S at 512x1024, in each block. ONNX Runtime has a kernel that keeps it in the cache, for the
operator `MultiHeadAttention` of its own domain. The graphs here have that operator, and carry a function of the same
name in plain ONNX that says the same: ONNX Runtime takes its kernel where it has one, and every other reader of the
file can take the function.
"""

from collections.abc import Callable
from typing import Any

import onnx
import onnx.inliner
import onnx.parser
import torch
from onnx import ModelProto
from onnxscript import opset20, values

from dap.errors import ExportError

DOMAIN, OPERATOR = "com.microsoft", "MultiHeadAttention"

_schema = onnx.defs.OpSchema(
    OPERATOR,
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
_operator = values.Op(values.Opset(DOMAIN, 1), OPERATOR, _schema)
_MEANING = f"""
<domain: "{DOMAIN}", opset_import: ["" : 20]>
{OPERATOR} <num_heads, scale> (query, key, value) => (mixed)
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
"""


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


def say_meaning(model: ModelProto) -> None:
    """Give a graph that has the operator the function that says what it is."""
    if any(node.domain == DOMAIN for node in model.graph.node):
        model.functions.append(onnx.parser.parse_function(_MEANING))


def spelt_out(model: ModelProto) -> ModelProto:
    """The same graph in plain ONNX, the function in place of the operator."""
    plain: ModelProto = onnx.inliner.inline_local_functions(model)
    return plain
