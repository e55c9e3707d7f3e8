"""Graphs in lower precision: what runs in bfloat16 or float16, and what stays float32.

Convolutions and matrix products run in the lower precision, and so does what lies between them; a value is converted
where the two meet, as torch's autocast does. Norms and the way from logits to metres stay float32. So do the layers
named in `FLOAT32_LAYERS`: measured, one part of the network at a time in bfloat16, on dap-s as it was first released,
on an encoder of the EfficientNet family and on a ViT-S of random weights, nearly all of the error comes from the
convolutions at full and half resolution that see the pixels first, and from those that give the depth. Softmax in
lower precision changes nothing that could be measured; attention can then be one kernel.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from dap.graph import GraphPrecision
from dap.model import precision as in_torch
from model_export.attention import spelt_out

FIRST_LAYERS = tuple(f"network.{name}" for name in in_torch.FIRST_LAYERS)
"""Of a graph, whose parameters have names of their own."""

FLOAT32_LAYERS: tuple[tuple[str, ...], ...] = (
    (*FIRST_LAYERS, "network.depth_head.output_conv"),
    (*FIRST_LAYERS, "network.depth_head."),
)
"""Parameters, by the beginnings of their names, of the layers that stay float32: the fewest first, and what to try
where a network does not keep its limit so."""

_TYPES = {"bf16": TensorProto.BFLOAT16, "fp16": TensorProto.FLOAT16}
_KINDS = {"bf16": ml_dtypes.bfloat16, "fp16": np.float16}
# The first opset in which convolutions take bfloat16. Between it and the exporter's, no operator changed its meaning
# but GroupNormalization, which is not in our graphs.
_BFLOAT16_OPSET = 22
_PRODUCTS = {"Conv", "ConvTranspose", "MatMul", "Gemm"}
_FLOAT32_OPERATORS = {
    "Cast",
    "Cos",
    "Exp",
    "InstanceNormalization",
    "LayerNormalization",
    "Log",
    "ReduceMean",
    "Sigmoid",
    "Sin",
}
# Resize takes its region and its scales as float32 whatever it resizes.
_FIXED_INPUTS = {"Resize": (1, 2)}


def lowered(model: onnx.ModelProto, precision: GraphPrecision, float32_layers: Sequence[str]) -> onnx.ModelProto:
    """The graph with its products in `bf16` or `fp16`; inputs and outputs as they were.

    Args:
        model: an exported float32 graph.
        precision: `bf16` or `fp16`.
        float32_layers: beginnings of the names of parameters whose layers stay float32.
    """
    model = spelt_out(model)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    work = _Lowering(changed.graph, precision, _names_of_type(model, TensorProto.FLOAT))
    outputs = {output.name for output in changed.graph.output}
    for node in model.graph.node:
        work.add(node, is_low=outputs.isdisjoint(node.output) and work.may_be_low(node, float32_layers))
    used = {name for node in work.nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    _replace(changed.graph.node, work.nodes)
    _replace(changed.graph.initializer, [*kept, *work.low_parameters.values()])
    if precision == "bf16":
        changed.opset_import[0].version = _BFLOAT16_OPSET
    return changed


def emulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """A `bf16` graph for processors without bfloat16: float32 that is rounded to bfloat16 after every operator.

    ONNX Runtime has no bfloat16 products for the CPU (1.32). For float16 it converts by itself.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    low = _names_of_type(model, TensorProto.BFLOAT16)
    nodes: list[NodeProto] = []
    for node in changed.graph.node:
        nodes.append(node)
        for position, name in enumerate(node.output):
            if name in low:
                node.output[position] = f"{name}_exact"
                nodes.append(helper.make_node("Cast", [f"{name}_exact"], [f"{name}_rounded"], to=TensorProto.BFLOAT16))
                nodes.append(helper.make_node("Cast", [f"{name}_rounded"], [name], to=TensorProto.FLOAT))
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
    parameters = [
        numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
        if tensor.data_type == TensorProto.BFLOAT16
        else tensor
        for tensor in changed.graph.initializer
    ]
    _replace(changed.graph.node, nodes)
    _replace(changed.graph.initializer, parameters)
    return changed


@dataclass
class _Lowering:
    """A graph on its way to lower precision, node by node in the order in which they run."""

    graph: onnx.GraphProto
    precision: GraphPrecision
    float32: set[str]
    nodes: list[NodeProto] = field(default_factory=list)
    low: set[str] = field(default_factory=set)
    low_parameters: dict[str, TensorProto] = field(default_factory=dict)
    converted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.parameters = {tensor.name: tensor for tensor in self.graph.initializer}
        self.type = _TYPES[self.precision]

    def may_be_low(self, node: NodeProto, float32_layers: Sequence[str]) -> bool:
        """Products may; what moves or combines values may where all of them are low already, as in torch's autocast."""
        if node.op_type in _PRODUCTS:
            return not any(name.startswith(tuple(float32_layers)) for name in node.input)
        values = [name for name in node.input if name in self.float32 and name not in self.parameters]
        return bool(values) and node.op_type not in _FLOAT32_OPERATORS and self.low.issuperset(values)

    def add(self, node: NodeProto, *, is_low: bool) -> None:
        added = NodeProto()
        added.CopyFrom(node)
        fixed = _FIXED_INPUTS.get(node.op_type, ())
        for position, name in enumerate(node.input):
            if name in self.float32 and position not in fixed:
                added.input[position] = self._as_low(name) if is_low else self._as_float32(name)
        self.nodes.append(added)
        if is_low:
            self.low.update(self.float32.intersection(node.output))

    def _as_low(self, name: str) -> str:
        if name in self.low:
            return name
        if name not in self.parameters:
            return self._cast(name, f"{name}_low", self.type)
        if name not in self.low_parameters:
            values = numpy_helper.to_array(self.parameters[name]).astype(_KINDS[self.precision])
            self.low_parameters[name] = helper.make_tensor(
                f"{name}_low", self.type, values.shape, values.tobytes(), raw=True
            )
        return f"{name}_low"

    def _as_float32(self, name: str) -> str:
        return self._cast(name, f"{name}_float32", TensorProto.FLOAT) if name in self.low else name

    def _cast(self, name: str, cast: str, to: int) -> str:
        if cast not in self.converted:
            self.converted.add(cast)
            self.nodes.append(helper.make_node("Cast", [name], [cast], to=to))
        return cast


def _names_of_type(model: onnx.ModelProto, kind: int) -> set[str]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    names = {value.name for value in values if value.type.tensor_type.elem_type == kind}
    return names | {tensor.name for tensor in graph.initializer if tensor.data_type == kind}


def _replace(messages: Any, new: Iterable[NodeProto] | Iterable[TensorProto]) -> None:
    """Fill a repeated field of the graph anew; what was in it may be among the new."""
    copies = [type(message).FromString(message.SerializeToString()) for message in new]
    del messages[:]
    messages.extend(copies)
