"""Graphs in lower precision: what is low, what stays float32, and what it costs in metres."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from dap.engines import create_engine
from dap.engines.onnx import OnnxEngine
from dap.errors import EngineUnavailable
from dap.graph import GraphPrecision
from dap.models import find_model
from model_export.precision import FLOAT32_LAYERS, emulated, lowered
from tests.dap.graphs import save

PANORAMAS = np.random.default_rng(5).integers(0, 256, (2, 64, 128, 3), dtype=np.uint8)
TYPES = {"bf16": TensorProto.BFLOAT16, "fp16": TensorProto.FLOAT16}
ROUNDING = {"bf16": 2.0**-9, "fp16": 2.0**-12}


@pytest.fixture(scope="module")
def graph(exported: Path) -> onnx.ModelProto:
    return onnx.load(exported)


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize("layers", FLOAT32_LAYERS)
def test_a_lowered_graph_is_valid_onnx_with_the_same_inputs_and_outputs(
    graph: onnx.ModelProto, precision: GraphPrecision, layers: tuple[str, ...]
) -> None:
    low = lowered(graph, precision, layers)
    onnx.checker.check_model(low, full_check=True)
    assert (low.graph.input, low.graph.output) == (graph.graph.input, graph.graph.output)
    assert low.ByteSize() < 0.8 * graph.ByteSize()


@pytest.mark.parametrize("precision", TYPES)
def test_products_are_low_but_for_the_layers_that_stay_float32(
    graph: onnx.ModelProto, precision: GraphPrecision
) -> None:
    low = lowered(graph, precision, FLOAT32_LAYERS[0])
    types = types_of(low)
    products = [node for node in low.graph.node if node.op_type in ("Conv", "MatMul")]
    float32 = [node for node in products if types[node.output[0]] == TensorProto.FLOAT]
    assert float32
    assert all(any(name.startswith(FLOAT32_LAYERS[0]) for name in node.input) for node in float32)
    lows = [node for node in products if types[node.output[0]] == TYPES[precision]]
    assert len(float32) + len(lows) == len(products)
    assert len(lows) > 3 * len(float32)
    for node in low.graph.node:
        if node.op_type in ("LayerNormalization", "InstanceNormalization", "Sigmoid", "Exp"):
            assert types[node.output[0]] == TensorProto.FLOAT, node.op_type


def test_nothing_is_converted_twice(graph: onnx.ModelProto) -> None:
    low = lowered(graph, "fp16", FLOAT32_LAYERS[0])
    casts = [(node.input[0], node.attribute[0].i) for node in low.graph.node if node.op_type == "Cast"]
    assert len(casts) == len(set(casts))
    assert len({tensor.name for tensor in low.graph.initializer}) == len(low.graph.initializer)


@pytest.mark.parametrize("precision", TYPES)
def test_the_more_stays_float32_the_smaller_is_the_error_which_is_that_of_rounding(
    graph: onnx.ModelProto, exported: Path, tmp_path: Path, precision: GraphPrecision
) -> None:
    expected = create_engine(find_model(exported), threads=1).infer(PANORAMAS).depth
    errors = []
    for layers in ((), FLOAT32_LAYERS[1], ("",)):
        low = lowered(graph, precision, layers)
        path = save(emulated(low) if precision == "bf16" else low, tmp_path / "low.onnx")
        found = create_engine(find_model(path), threads=1).infer(PANORAMAS).depth
        errors.append(float(np.abs(found / expected - 1).mean()))
    assert 0.1 * ROUNDING[precision] < errors[1] < errors[0] < 30 * ROUNDING[precision]
    assert errors[2] < errors[1] / 2


def test_bfloat16_has_no_kernels_on_the_cpu_and_an_emulation_that_rounds(
    graph: onnx.ModelProto, tmp_path: Path
) -> None:
    low = lowered(graph, "bf16", FLOAT32_LAYERS[0])
    path = save(low, tmp_path / "low.onnx")
    with pytest.raises(EngineUnavailable, match=r"cannot run low.onnx here: .*; bf16 runs in TensorRT"):
        OnnxEngine(path, find_model(path), device="cpu", threads=1)
    copy = emulated(low)
    onnx.checker.check_model(copy, full_check=True)
    types = types_of(copy)
    used = {types[name] for node in copy.graph.node if node.op_type != "Cast" for name in node.input if name}
    assert TensorProto.BFLOAT16 not in used
