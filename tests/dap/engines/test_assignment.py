"""What of a graph ONNX Runtime gives to a GPU, and what it may not leave to the CPU."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from dap.engines.assignment import RECORDED, Assignment, require_work_on_gpu
from dap.errors import EngineUnavailable
from tests.dap.graphs import red_graph

GPU, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def session(*parts: tuple[str, list[str]]) -> Any:
    """One that says so of its parts: provider and operators."""
    told = [
        SimpleNamespace(ep_name=name, get_nodes=lambda names=names: [SimpleNamespace(op_type=one) for one in names])
        for name, names in parts
    ]
    return SimpleNamespace(get_provider_graph_assignment_info=lambda: told)


@pytest.mark.parametrize(
    "operator",
    [
        *("Conv", "ConvTranspose", "FusedConv", "NhwcFusedConv", "ConvInteger", "QLinearConv"),
        *("MatMul", "FusedMatMul", "MatMulInteger", "QLinearMatMul", "DynamicQuantizeMatMul", "Gemm", "QGemm"),
        *("Attention", "MultiHeadAttention", "QAttention"),
    ],
)
def test_work_that_is_left_to_the_cpu_is_refused(operator: str) -> None:
    with pytest.raises(EngineUnavailable, match=rf"would leave 2 {operator} of red\.onnx to the CPU, .* cuda,cpu"):
        require_work_on_gpu(session((GPU, ["Conv"]), (CPU, [operator, "Shape", operator])), Path("red.onnx"))


def test_what_is_computed_of_shapes_may_be_there_and_the_log_counts_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        parts = (GPU, ["Conv", "Relu"]), (CPU, ["Shape"]), (GPU, ["MatMul"]), (CPU, ["Gather", "Shape"])
        require_work_on_gpu(session(*parts), Path("red.onnx"))
    assert f"red.onnx, nodes: 3 by {GPU}, 3 by {CPU} (2 Shape, 1 Gather)" in caplog.text


def test_an_onnx_runtime_that_does_not_tell_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    require_work_on_gpu(SimpleNamespace(), Path("red.onnx"))
    assert "does not tell what of red.onnx it leaves to the CPU: 1.24 and later do" in caplog.text


def test_the_onnx_runtime_that_is_here_tells() -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(RECORDED, "1")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = red_graph()
    opened = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])
    found = Assignment.of(opened)
    assert found is not None
    assert sorted(found.operators(CPU).elements()) == sorted(node.op_type for node in model.graph.node)
    assert not found.operators(GPU)
