"""What a profile of ONNX Runtime says of the operators."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import ceiling, graph_roofline
from benchmarks.graph_roofline import calls_of, node_flop
from tests.dap.graphs import SIZE, red_graph, save


@pytest.mark.parametrize(
    ("operator", "inputs", "outputs", "flop"),
    [
        ("Conv", [[2, 4, 6, 10], [8, 4, 3, 3], [8]], [[2, 8, 6, 10]], 2 * 8 * 4 * 9 * 2 * 60),
        ("Conv", [[1, 4, 6, 10], [4, 1, 3, 3]], [[1, 4, 6, 10]], 2 * 4 * 9 * 60),
        ("ConvTranspose", [[1, 4, 3, 5], [4, 7, 2, 2]], [[1, 7, 6, 10]], 2 * 4 * 7 * 4 * 15),
        ("MatMul", [[1, 512, 192]], [[1, 512, 576]], 2 * 512 * 192 * 576),
        ("FusedMatMul", [[1, 322, 512]], [[1, 512, 192]], 2 * 512 * 322 * 192),
        ("MultiHeadAttention", [[1, 7, 24], [1, 9, 24], [1, 9, 24]], [[1, 7, 24]], 2 * 2 * 7 * 9 * 24),
        ("Attention", [[1, 3, 7, 8], [1, 3, 9, 8], [1, 3, 9, 8]], [[1, 3, 7, 8]], 2 * 2 * 3 * 7 * 9 * 8),
        ("Softmax", [[1, 6, 512, 512]], [[1, 6, 512, 512]], 0),
    ],
)
def test_products_are_counted_by_their_closed_form(
    operator: str, inputs: list[list[int]], outputs: list[list[int]], flop: int
) -> None:
    assert node_flop(operator, inputs, outputs) == flop


def event(name: str, operator: str, microseconds: int, weights: bool = True) -> dict[str, object]:
    inputs = [{"float": [2, 3]}, {"uint8": []}, *([{"float": [3, 5]}] if weights else [])]
    shapes = {"input_type_shape": inputs, "output_type_shape": [{"int64": [6]}]}
    return {"cat": "Node", "name": name, "dur": microseconds, "args": {"op_name": operator, **shapes}}


def test_a_node_has_the_seconds_of_the_last_runs_and_the_bytes_that_it_reads_and_writes() -> None:
    shapes = [event("a_kernel_time", "Relu", 900), event("b_kernel_time", "Relu", 900)]
    timed = [
        {"cat": "Session", "name": "session_initialization", "dur": 1},
        *(event("a_kernel_time", "Relu", microseconds, weights=False) for microseconds in (90, 10, 20)),
        event("a_fence_after", "Relu", 5),
        event("c_kernel_time", "Reshape", 5),
        *(event("b_kernel_time", "Relu", microseconds, weights=False) for microseconds in (90, 30, 40)),
    ]
    first, second = calls_of(shapes, timed, rounds=2)
    assert first.seconds == pytest.approx([10e-6, 20e-6])
    assert second.seconds == pytest.approx([30e-6, 40e-6])
    assert (first.part, first.flop, first.moved) == ("Relu", 0, 4 * (6 + 15) + 1 + 8 * 6)


def test_weights_that_are_packed_count_like_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a transposed convolution ONNX Runtime packs them, and shows none in its profile."""
    monkeypatch.setattr(ceiling, "_PRODUCT", {"cpu": 16})
    monkeypatch.setattr(ceiling, "_COPIED", {"cpu": 1024})
    nodes = [
        helper.make_node("Cast", ["panorama"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["maps"], perm=[0, 3, 1, 2]),
        helper.make_node("ConvTranspose", ["maps", "weight"], ["depth"], strides=[2, 2]),
    ]
    graph = helper.make_graph(
        nodes,
        "transposed",
        [helper.make_tensor_value_info("panorama", TensorProto.UINT8, (1, 8, 16, 3))],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, (1, 5, 16, 32))],
        [numpy_helper.from_array(np.ones((3, 5, 2, 2), np.float32), "weight")],
    )
    path = tmp_path / "transposed.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    pixels = np.zeros((1, 8, 16, 3), np.uint8)
    found = graph_roofline.measure(path, pixels, threads=1, rounds=1, advance=lambda _: None)
    assert found.total.flop == 2 * 3 * 8 * 16 * 5 * 4


def test_a_file_is_run_beside_the_ceilings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ceiling, "_PRODUCT", {"cpu": 16})
    monkeypatch.setattr(ceiling, "_COPIED", {"cpu": 1024})
    told: list[int] = []
    found = graph_roofline.measure(
        save(red_graph(), tmp_path / "red.onnx"),
        np.zeros((1, *SIZE, 3), np.uint8),
        threads=1,
        rounds=2,
        advance=told.append,
    )
    assert told == [1, 1]
    assert {"Gather", "Div"} <= {part.name for part in found.parts}
    assert found.total.flop == 0 < found.whole_seconds
