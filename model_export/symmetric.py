"""Graphs in eight bits as TensorRT takes them: int8 or fp8 around zero, in float16 where they are not.

TensorRT runs a product in eight bits where both of its sides come from a `DequantizeLinear`, and knows no zero point
but 0 (onnx-tensorrt, docs/operators.md). So values and weights are whole numbers from -127 to 127 (`int8`) or floating
point of three bits (`fp8`, E4M3: up to 448), times a scale. Values have one scale, from their greatest size on the
calibration panoramas. Weights have one for each output channel in int8, and one for all in fp8: TensorRT has products
of one scale on each side, and for others it goes back to float16 (NVIDIA/TensorRT-Model-Connect#1386).

Between the products the graph is that of `model_export.precision` in float16: in float32 it would wait for its memory
and lose what the products gain.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from model_export import precision
from model_export.precision import lowered

SymmetricPrecision = Literal["int8", "fp8"]


class _Format(NamedTuple):
    """Of numbers in eight bits: ONNX's name of it, numpy's, and the greatest."""

    onnx: int
    numpy: type[Any]
    greatest: float


_FORMATS: dict[SymmetricPrecision, _Format] = {
    "int8": _Format(TensorProto.INT8, np.int8, 127),
    "fp8": _Format(TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn, 448),
}
# TensorRT's release notes (10.13, Limitations): no fp8 for convolutions in groups, nor for kernels of more than 32
# weights; its kernels of eight bits take channels by 16.
_CHANNELS, _LARGEST_KERNEL = 16, 32
_OUTPUT_AXIS = {"Conv": 0, "MatMul": 1}

FLOAT16_LAYERS: tuple[tuple[str, ...], ...] = (
    (),
    ("network.encoder.stage",),
    ("network.depth_head.",),
    ("network.depth_head.", "network.mask_head.", "network.encoder.stage"),
)
"""Parameters, by the beginnings of their names, of the layers that stay float16 though TensorRT could run them in eight
bits: the fewest first, and what to try where a network does not keep its limit so. An encoder of convolutions has
stages, a transformer has none; in the last, transformers alone are quantised. Measured, one part of a network at a time
in fp8, on panoramas that were not calibrated on: AbsRel 0.4 to 1.1% by each stage of an encoder of the EfficientNet
family, 0.4 to 1.4% by the fusions of the depth head; 0.03 to 0.2% by any product of a trained transformer, 0.3% by all
24 of dap-s as it was first released."""


class SymmetricQuantizer:
    """Quantises one graph, as often as is needed; its values are measured once.

    Args:
        model: an exported float32 graph.
        panoramas: uint8 (H, W, 3) of the graph's input size, to measure on.
    """

    def __init__(self, model: ModelProto, panoramas: Sequence[npt.NDArray[np.uint8]]) -> None:
        self._model = lowered(model, "fp16", precision.FLOAT32_LAYERS[0])
        self._greatest = _greatest_values(model, panoramas)

    def quantized(self, kind: SymmetricPrecision, float16_layers: Sequence[str]) -> ModelProto:
        """The graph in `int8` or `fp8`; inputs and outputs as they were.

        Args:
            kind: of the eight bits.
            float16_layers: beginnings of the names of parameters whose layers stay float16. Those that are float32 in a
                float16 graph stay that.
        """
        changed = ModelProto()
        changed.CopyFrom(self._model)
        work = _Quantizing(changed.graph, kind, self._greatest)
        for node in self._model.graph.node:
            work.add(node, float16_layers)
        used = {name for node in work.nodes for name in node.input}
        parameters = [*self._model.graph.initializer, *work.parameters]
        del changed.graph.node[:], changed.graph.initializer[:]
        changed.graph.node.extend(work.nodes)
        changed.graph.initializer.extend(tensor for tensor in parameters if tensor.name in used)
        return changed


class _Quantizing:
    """A graph on its way to eight bits, node by node in the order in which they run."""

    def __init__(self, graph: onnx.GraphProto, kind: SymmetricPrecision, greatest: dict[str, float]) -> None:
        self.nodes: list[NodeProto] = []
        self.parameters: list[TensorProto] = []
        self._format = _FORMATS[kind]
        self._kind = kind
        self._greatest = greatest
        self._halves = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
        self._pairs: dict[str, str] = {}

    def add(self, node: NodeProto, float16_layers: Sequence[str]) -> None:
        added = NodeProto()
        added.CopyFrom(node)
        if self._is_product(node) and not node.input[1].startswith(tuple(float16_layers)):
            added.input[0] = self._values(node.input[0])
            added.input[1] = self._weights(node.input[1], _OUTPUT_AXIS[node.op_type])
        self.nodes.append(added)

    def _is_product(self, node: NodeProto) -> bool:
        """Of a float16 graph, those that TensorRT has kernels of eight bits for."""
        weights = self._halves.get(node.input[1]) if node.op_type in _OUTPUT_AXIS else None
        if weights is None or _unlowered(node.input[0]) not in self._greatest:
            return False
        channels, kernel = weights.dims[:2], np.prod(weights.dims[2:])
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        return groups == 1 and kernel <= _LARGEST_KERNEL and all(count % _CHANNELS == 0 for count in channels)

    def _values(self, name: str) -> str:
        if name not in self._pairs:
            scale = self._parameter(f"{name}_scale", _scale(self._greatest[_unlowered(name)], self._format))
            zero = self._zero(f"{name}_zero", ())
            self.nodes.append(helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}_{self._kind}"]))
            self._pairs[name] = self._dequantized(name, scale, zero)
        return self._pairs[name]

    def _weights(self, name: str, axis: int) -> str:
        if name not in self._pairs:
            weights = numpy_helper.to_array(self._halves[name]).astype(np.float32)
            others = tuple(one for one in range(weights.ndim) if one != axis or self._kind == "fp8")
            scales = _scale(np.abs(weights).max(axis=others, keepdims=True), self._format)
            numbers = np.clip(weights / scales.astype(np.float32), -self._format.greatest, self._format.greatest)
            if self._kind == "int8":
                numbers = np.rint(numbers)
            content = numbers.astype(self._format.numpy).tobytes()
            self.parameters.append(
                helper.make_tensor(f"{name}_{self._kind}", self._format.onnx, weights.shape, content, raw=True)
            )
            scales = scales.reshape(() if self._kind == "fp8" else -1)
            scale, zero = self._parameter(f"{name}_scale", scales), self._zero(f"{name}_zero", scales.shape)
            self._pairs[name] = self._dequantized(name, scale, zero, axis if scales.ndim else None)
        return self._pairs[name]

    def _dequantized(self, name: str, scale: str, zero: str, axis: int | None = None) -> str:
        inputs, result = [f"{name}_{self._kind}", scale, zero], f"{name}_dequantized"
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [result], axis=axis))
        return result

    def _parameter(self, name: str, values: npt.NDArray[Any]) -> str:
        self.parameters.append(numpy_helper.from_array(values, name))
        return name

    def _zero(self, name: str, shape: tuple[int, ...]) -> str:
        zeros = np.zeros(shape, np.uint8).tobytes()
        self.parameters.append(helper.make_tensor(name, self._format.onnx, shape, zeros, raw=True))
        return name


def _scale(greatest: Any, form: _Format) -> npt.NDArray[np.float16]:
    """Of what is zero everywhere any scale is right, but 0: TensorRT takes none that is not positive."""
    scales: npt.NDArray[np.float16] = (np.asarray(greatest, np.float32) / form.greatest).astype(np.float16)
    return np.maximum(scales, np.finfo(np.float16).smallest_subnormal)


def _greatest_values(model: ModelProto, panoramas: Sequence[npt.NDArray[np.uint8]]) -> dict[str, float]:
    """The greatest size of each value that is multiplied by parameters, over all panoramas."""
    measured = ModelProto()
    measured.CopyFrom(model)
    graph = measured.graph
    names = list(dict.fromkeys(_multiplied(model)))
    del graph.output[:]
    for number, name in enumerate(names):
        sizes, greatest = f"size_{number}", f"greatest_{number}"
        graph.node.append(helper.make_node("Abs", [name], [sizes]))
        graph.node.append(helper.make_node("ReduceMax", [sizes], [greatest], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(greatest, TensorProto.FLOAT, []))
    session = onnxruntime.InferenceSession(measured.SerializeToString(), providers=["CPUExecutionProvider"])
    found = [session.run(None, {"panorama": panorama[None]}) for panorama in panoramas]
    return dict(zip(names, np.max(found, axis=0).tolist(), strict=True))


def _multiplied(model: ModelProto) -> Iterator[str]:
    parameters = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in _OUTPUT_AXIS and node.input[1] in parameters and node.input[0] not in parameters:
            yield node.input[0]


def _unlowered(name: str) -> str:
    """Of a value in the float16 graph, its name in the float32 one."""
    return name.removesuffix("_low")
