"""Graphs in eight bits for TensorRT: what is quantised, with which scales, and what it costs in metres."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dap.engines import create_engine
from dap.models import find_model
from model_export.samples import scene_panoramas
from model_export.symmetric import SymmetricPrecision, SymmetricQuantizer
from tests.dap.graphs import save

SIZE = (64, 128)


@pytest.fixture(scope="module")
def quantizer(exported: Path) -> SymmetricQuantizer:
    return SymmetricQuantizer(onnx.load(exported), scene_panoramas(SIZE, 3, seed=0))


@pytest.fixture(scope="module", params=["int8", "fp8"])
def kind(request: pytest.FixtureRequest) -> SymmetricPrecision:
    named: SymmetricPrecision = request.param
    return named


@pytest.fixture(scope="module")
def quantized(quantizer: SymmetricQuantizer, kind: SymmetricPrecision) -> onnx.ModelProto:
    return quantizer.quantized(kind, ())


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def quantised_products(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto]]:
    """Of each: itself, what dequantises its values, what dequantises its weights."""
    made = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    products = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul")]
    return [(one, made[one.input[0]], made[one.input[1]]) for one in products if one.input[0] in made]


def test_a_quantised_graph_is_valid_plain_onnx_with_the_same_inputs_and_outputs(
    exported: Path, quantized: onnx.ModelProto
) -> None:
    onnx.checker.check_model(quantized, full_check=True)
    graph = onnx.load(exported).graph
    assert (quantized.graph.input, quantized.graph.output) == (graph.input, graph.output)
    assert {node.domain for node in quantized.graph.node} == {""}


def test_both_sides_of_a_product_are_quantised_around_zero_and_come_out_as_float16(
    quantized: onnx.ModelProto, kind: SymmetricPrecision
) -> None:
    given = constants(quantized)
    number = {"int8": np.int8, "fp8": ml_dtypes.float8_e4m3fn}[kind]
    products = quantised_products(quantized)
    assert {product.op_type for product, _, _ in products} == {"Conv", "MatMul"}
    for product, values, weights in products:
        for side in (values, weights):
            assert given[side.input[1]].dtype == np.float16
            assert given[side.input[1]].min() > 0
            assert given[side.input[2]].dtype == number
            assert not given[side.input[2]].astype(np.float32).any()
        assert given[values.input[1]].shape == ()
        assert given[weights.input[0]].dtype == number
        axis = 0 if product.op_type == "Conv" else 1
        channels = given[weights.input[0]].shape[axis : axis + 1]
        assert given[weights.input[1]].shape == (channels if kind == "int8" else ())


def test_scales_reach_just_as_far_as_the_weights(quantizer: SymmetricQuantizer, quantized: onnx.ModelProto) -> None:
    original = constants(quantizer.quantized("int8", ("",)))
    given = constants(quantized)
    for product, _, weights in quantised_products(quantized):
        float16 = original[weights.input[0].rpartition("_")[0]].astype(np.float32)
        numbers, scales = (given[name].astype(np.float32) for name in weights.input[:2])
        if scales.ndim and product.op_type == "Conv":
            scales = scales.reshape(-1, 1, 1, 1)
        np.testing.assert_allclose(np.abs(numbers * scales).max(), np.abs(float16).max(), rtol=2e-3)
        step = np.maximum(scales / 2, np.abs(float16) / 16)  # half a whole number; half of the last of three bits
        assert np.all(np.abs(numbers * scales - float16) <= 1.01 * step)


def convolution(shape: tuple[int, ...], group: int) -> onnx.ModelProto:
    """Of values of 16 channels, (batch, 8, 8, 16) uint8, with weights of that shape."""
    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), "weight")
    nodes = [
        helper.make_node("Cast", ["panorama"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["values"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["values", "weight"], ["product"], group=group),
        helper.make_node("Relu", ["product"], ["depth"]),
    ]
    given = helper.make_tensor_value_info("panorama", TensorProto.UINT8, ["batch", 8, 8, 16])
    asked = helper.make_tensor_value_info("depth", TensorProto.FLOAT, ["batch", shape[0], None, None])
    graph = helper.make_graph(nodes, "convolution", [given], [asked], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(
    ("shape", "group", "is_quantised"),
    [
        ((32, 16, 3, 3), 1, True),
        ((32, 16, 6, 6), 1, False),
        ((24, 16, 3, 3), 1, False),
        ((16, 1, 3, 3), 16, False),
        ((16, 8, 3, 3), 2, False),
    ],
)
def test_what_tensorrt_has_no_kernels_of_eight_bits_for_stays_float16(
    shape: tuple[int, ...], group: int, is_quantised: bool
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 16), dtype=np.uint8)
    quantizer = SymmetricQuantizer(convolution(shape, group), [pixels])
    assert len(quantised_products(quantizer.quantized("fp8", ()))) == is_quantised


def test_the_scale_of_values_is_that_of_the_greatest_on_all_panoramas() -> None:
    dim, bright = np.full((8, 8, 16), 10, np.uint8), np.full((8, 8, 16), 224, np.uint8)
    model = SymmetricQuantizer(convolution((32, 16, 3, 3), 1), [dim, bright, dim]).quantized("fp8", ())
    ((_, values, _),) = quantised_products(model)
    assert constants(model)[values.input[1]] == 224 / 448


def test_layers_that_are_named_stay_float16(quantizer: SymmetricQuantizer) -> None:
    some = quantizer.quantized("fp8", ("network.depth_head.",))
    names = {weights.input[0] for _, _, weights in quantised_products(some)}
    assert names
    assert not any(name.startswith("network.depth_head.") for name in names)
    none = quantizer.quantized("fp8", ("",))
    assert {node.op_type for node in none.graph.node}.isdisjoint({"QuantizeLinear", "DequantizeLinear"})
    assert {tensor.data_type for tensor in none.graph.initializer} >= {TensorProto.FLOAT16, TensorProto.FLOAT}


def test_depth_is_off_by_little_on_panoramas_that_were_not_calibrated_on(
    exported: Path, quantized: onnx.ModelProto, kind: SymmetricPrecision, tmp_path: Path
) -> None:
    panoramas = np.stack(scene_panoramas(SIZE, 4, seed=1))
    expected = create_engine(find_model(exported), threads=1).infer(panoramas).depth
    found = create_engine(find_model(save(quantized, tmp_path / "low.onnx")), threads=1).infer(panoramas).depth
    assert 1e-4 < np.abs(found / expected - 1).mean() < {"int8": 0.05, "fp8": 0.1}[kind]
