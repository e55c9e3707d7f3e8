"""Attention as operators that ONNX Runtime has kernels for, and as functions that anything else can read."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from dap.engines import create_engine
from dap.errors import ExportError
from dap.models import find_model
from model_export.attention import ATTENTION, DOMAIN, ROTARY, attention, fuse_rotary, spelt_out

PANORAMAS = np.random.default_rng(6).integers(0, 256, (2, 64, 128, 3), dtype=np.uint8)


def test_each_block_has_an_operator_to_turn_queries_one_for_keys_and_one_for_attention(exported: Path) -> None:
    """The network has two blocks."""
    nodes = onnx.load(exported).graph.node
    expected = [(DOMAIN, ROTARY), (DOMAIN, ROTARY), (DOMAIN, ATTENTION)] * 2
    assert [(node.domain, node.op_type) for node in nodes if node.domain] == expected
    assert "Softmax" not in {node.op_type for node in nodes}


def test_a_graph_without_a_rotary_embedding_stays_as_it_is(exported: Path) -> None:
    model = onnx.load(exported)
    fuse_rotary(model)
    assert model == onnx.load(exported)


def test_every_operator_that_is_not_plain_onnx_is_a_function_of_the_file(exported: Path) -> None:
    model = onnx.load(exported)
    assert {(function.domain, function.name) for function in model.functions} == {(DOMAIN, ATTENTION), (DOMAIN, ROTARY)}
    assert {node.domain for function in model.functions for node in function.node} == {""}


def test_spelt_out_it_is_plain_onnx_and_gives_the_same_metres(exported: Path, tmp_path: Path) -> None:
    plain = spelt_out(onnx.load(exported))
    assert {node.domain for node in plain.graph.node} == {""}
    assert not plain.functions
    assert [node.op_type for node in plain.graph.node].count("Softmax") == 2
    path = tmp_path / "plain.onnx"
    onnx.save(plain, path)
    fused, by_function = (create_engine(find_model(file), threads=1).infer(PANORAMAS) for file in (exported, path))
    np.testing.assert_allclose(fused.depth, by_function.depth, rtol=1e-5)
    np.testing.assert_allclose(fused.in_range, by_function.in_range, atol=1e-5)


def test_onnx_runtime_takes_its_kernels_although_the_file_has_functions(exported: Path, tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = ort.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    session.run(["depth"], {"panorama": PANORAMAS})
    events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time")]
    assert (kernels.count(ROTARY), kernels.count(ATTENTION)) == (4, 2)
    assert "Softmax" not in kernels


@pytest.mark.parametrize("more", [{"attn_mask": object()}, {"dropout_p": 0.1}, {"is_causal": True}])
def test_attention_that_the_operator_would_not_say_is_refused(more: dict[str, object]) -> None:
    with pytest.raises(ExportError, match="without mask, dropout and groups"):
        attention(None, None, None, **more)  # type: ignore[arg-type]
