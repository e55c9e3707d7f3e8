"""What a profile of ONNX Runtime says of the operators."""

from pathlib import Path

import numpy as np
import pytest

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


def event(name: str, operator: str, microseconds: int) -> dict[str, object]:
    shapes = {"input_type_shape": [{"float": [2, 3]}, {"uint8": []}], "output_type_shape": [{"int64": [6]}]}
    return {"cat": "Node", "name": name, "dur": microseconds, "args": {"op_name": operator, **shapes}}


def test_a_node_has_the_seconds_of_the_last_runs_and_the_bytes_that_it_reads_and_writes() -> None:
    events = [
        {"cat": "Session", "name": "session_initialization", "dur": 1},
        *(event("a_kernel_time", "Relu", microseconds) for microseconds in (90, 10, 20)),
        event("a_fence_after", "Relu", 5),
        *(event("b_kernel_time", "Relu", microseconds) for microseconds in (90, 30, 40)),
    ]
    first, second = calls_of(events, rounds=2)
    assert first.seconds == pytest.approx([10e-6, 20e-6])
    assert second.seconds == pytest.approx([30e-6, 40e-6])
    assert (first.part, first.flop, first.moved) == ("Relu", 0, 4 * 6 + 1 + 8 * 6)


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
