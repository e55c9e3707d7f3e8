"""Graphs in eight bits: what is quantised, with which ranges, and what it costs in metres."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dap.engines import create_engine
from dap.models import find_model
from model_export.quantize import FLOAT32_LAYERS, Quantizer
from model_export.samples import scene_panoramas
from tests.dap.graphs import save

SIZE = (64, 128)


@pytest.fixture(scope="module")
def graph(exported: Path) -> onnx.ModelProto:
    return onnx.load(exported)


@pytest.fixture(scope="module")
def quantizer(graph: onnx.ModelProto) -> Iterator[Quantizer]:
    with Quantizer(graph, scene_panoramas(SIZE, 3, seed=0)) as quantizer:
        yield quantizer


@pytest.fixture(scope="module")
def quantized(quantizer: Quantizer) -> onnx.ModelProto:
    return quantizer.quantized(FLOAT32_LAYERS[0])


def test_a_quantised_graph_is_valid_onnx_with_the_same_inputs_and_outputs(
    graph: onnx.ModelProto, quantized: onnx.ModelProto
) -> None:
    onnx.checker.check_model(quantized, full_check=True)
    assert (quantized.graph.input, quantized.graph.output) == (graph.graph.input, graph.graph.output)
    functions = {(function.domain, function.name) for function in quantized.functions}
    assert {(node.domain, node.op_type) for node in quantized.graph.node if node.domain} <= functions


def test_weights_are_whole_numbers_by_channel_but_for_the_layers_that_stay_float32(
    graph: onnx.ModelProto, quantized: onnx.ModelProto
) -> None:
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    made = {node.output[0]: node for node in quantized.graph.node}
    float32, int8 = [], []
    for node in quantized.graph.node:
        if node.op_type == "Conv":
            source = made.get(node.input[1])
            (float32 if source is None else int8).append(node.input[1])
            if source is not None:
                assert source.op_type == "DequantizeLinear"
                assert weights[source.input[0]].dtype == np.int8
                assert weights[source.input[1]].shape == weights[source.input[0]].shape[:1]
    assert all(name.startswith(FLOAT32_LAYERS[0]) for name in float32)
    assert float32
    assert len(int8) > 3 * len(float32)


def test_with_every_layer_in_float32_nothing_is_quantised(graph: onnx.ModelProto, quantizer: Quantizer) -> None:
    assert quantizer.quantized(("",)) == graph


def test_depth_is_off_by_little_on_panoramas_that_were_not_calibrated_on(
    exported: Path, quantized: onnx.ModelProto, tmp_path: Path
) -> None:
    panoramas = np.stack(scene_panoramas(SIZE, 4, seed=1))
    expected = create_engine(find_model(exported), threads=1).infer(panoramas).depth
    found = create_engine(find_model(save(quantized, tmp_path / "int8.onnx")), threads=1).infer(panoramas).depth
    assert 1e-5 < np.abs(found / expected - 1).mean() < 0.05


def test_nothing_stays_on_the_disk(graph: onnx.ModelProto) -> None:
    with Quantizer(graph, []) as quantizer:
        folder = Path(quantizer._folder.name)
        assert folder.is_dir()
    assert not folder.exists()
