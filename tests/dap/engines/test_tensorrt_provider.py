"""The onnx engine by ONNX Runtime's TensorRT provider: what it is asked for, what is kept, what is refused.

Over doubles of CUDA, of TensorRT and of an ONNX Runtime built for both; docs/gpu.md says what has been run where.
"""

import dataclasses
import logging
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from dap.engines import create_engine
from dap.engines.onnx import OnnxEngine
from dap.errors import EngineUnavailable, ModelFileInvalid
from dap.models import find_model
from tests.dap.engines.onnx_doubles import PROVIDERS, CudaBuild, TensorrtProvider
from tests.dap.engines.test_onnx import multiplied
from tests.dap.graphs import METADATA, SIZE, red_graph, red_panorama, save


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TensorrtProvider:
    return TensorrtProvider(monkeypatch, tmp_path / "home")


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch, tensorrt: TensorrtProvider) -> CudaBuild:
    return CudaBuild(monkeypatch, starts=True, tensorrt=tensorrt)


@pytest.fixture
def red(tmp_path: Path, build: CudaBuild) -> Path:
    return save(red_graph(), tmp_path / "red.onnx")


def opened(path: Path, **options: Any) -> OnnxEngine:
    return OnnxEngine(path, find_model(path), **{"provider": "tensorrt", **options})


def plans(home: Path) -> list[Path]:
    return sorted(home.glob("tensorrt/*.onnxruntime/*.engine"))


@pytest.mark.parametrize("in_range", [True, False])
def test_larger_batches_than_plans_are_built_for_run_in_parts(red: Path, build: CudaBuild, in_range: bool) -> None:
    metres = (5.0, 30.0, 60.0, 7.0, 9.0)
    inference = opened(red, max_batch_size=2).infer(red_panorama(*metres), in_range=in_range)
    np.testing.assert_array_equal(inference.depth[:, 3, 5], metres)
    assert inference.in_range.shape == (5, 4 if in_range else 0, *SIZE)
    assert build.graphs == ["2", "2", "1"]


def test_tensorrt_is_asked_first_and_then_cuda(red: Path, build: CudaBuild) -> None:
    assert opened(red, max_batch_size=8).device == "cuda:0"
    asked: list[Any] = build.asked
    (((name, options), (second, cuda_options), cpu),) = asked
    assert (name, second, cpu) == ("TensorrtExecutionProvider", *PROVIDERS)
    assert cuda_options["use_tf32"] == "0"
    assert "enable_cuda_graph" not in cuda_options
    folder = options["trt_engine_cache_path"]
    assert options == {
        "device_id": 0,
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": folder,
        "trt_profile_min_shapes": "panorama:1x16x32x3,panorama_float32:1x16x32x3",
        "trt_profile_opt_shapes": "panorama:8x16x32x3,panorama_float32:8x16x32x3",
        "trt_profile_max_shapes": "panorama:8x16x32x3,panorama_float32:8x16x32x3",
    }


@pytest.mark.parametrize(("said", "is_then"), [(None, "0"), ("1", "1")])
def test_float32_is_float32_unless_the_environment_says_otherwise(
    red: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, is_then: str
) -> None:
    if said is not None:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", said)
    opened(red)
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == is_then


def test_the_graph_is_in_plain_operators_and_a_cast_alone_sees_the_pixels(build: CudaBuild, tmp_path: Path) -> None:
    """Of an operator of ONNX Runtime's that the file spells out as a function TensorRT knows nothing."""
    model = red_graph()
    halves = [helper.make_node("Div", ["depth", "divisor"], ["half"])]
    opsets = [helper.make_opsetid("", 20)]
    model.functions.append(
        helper.make_function("com.microsoft", "Halve", ["depth", "divisor"], ["half"], halves, opsets)
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.node[2].CopyFrom(
        helper.make_node("Halve", ["red_float", "divisor"], ["metres"], domain="com.microsoft")
    )
    engine = opened(save(model, tmp_path / "halved.onnx"))
    for in_range in (True, False):
        assert engine.infer(red_panorama(30.0), in_range=in_range).depth.max() == 30.0
    for source in build.sources:
        graph = onnx.load_model_from_string(source).graph
        assert {node.domain for node in graph.node} == {""}
        assert [node.op_type for node in graph.node if "panorama" in node.input] == ["Cast"]


def test_the_log_says_what_tensorrt_runs(red: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        opened(red)
    assert "red.onnx in 1 plans of TensorRT" in caplog.text
    assert "red.onnx, nodes: 7 by TensorrtExecutionProvider" in caplog.text
    assert "cuda:0, the first GPU found; by TensorRT, as asked for" in caplog.text


def test_cuda_is_taken_unless_tensorrt_is_asked_for_and_the_log_says_how(
    red: Path, build: CudaBuild, tensorrt: TensorrtProvider, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        opened(red, provider="auto")
        opened(red, provider="cuda")
    asked: list[Any] = build.asked
    assert [providers[0][0] for providers in asked] == 2 * ["CUDAExecutionProvider"]
    assert "by CUDA, since TensorRT takes minutes to build plans: it is asked for as provider tensorrt" in caplog.text
    assert "by CUDA, as asked for" in caplog.text
    assert tensorrt.builds == []


def test_plans_of_both_forms_are_kept_for_the_next_start(
    red: Path, tensorrt: TensorrtProvider, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        opened(red).warm_up([1, 2])
    assert len(tensorrt.builds) == len(plans(tmp_path / "home")) == 2
    assert len({plan.parent for plan in plans(tmp_path / "home")}) == 1
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == []


def test_plans_for_other_batches_are_others(red: Path, tensorrt: TensorrtProvider, tmp_path: Path) -> None:
    for largest in (4, 8, 4, 8):
        opened(red, max_batch_size=largest)
    assert len(tensorrt.builds) == len(plans(tmp_path / "home")) == 2


@pytest.mark.parametrize("library", ["tensorrt", "onnxruntime"])
def test_plans_of_another_version_are_built_anew(
    red: Path,
    tensorrt: TensorrtProvider,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    library: str,
) -> None:
    opened(red)
    (before,) = plans(tmp_path / "home")
    (before.parent / "older.engine").write_bytes(b"a program that nothing would remove")
    monkeypatch.setattr(tensorrt.library if library == "tensorrt" else onnxruntime, "__version__", "10.99.0")
    with caplog.at_level(logging.INFO):
        opened(red)
    assert len(tensorrt.builds) == 2
    assert plans(tmp_path / "home") == [before]
    assert f"{before.parent.name} is stale, it was built for {library} " in caplog.text


@pytest.mark.parametrize("name", ["changed", "added"])
def test_a_plan_that_is_not_as_it_was_built_is_built_anew(
    red: Path, tensorrt: TensorrtProvider, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    opened(red)
    (plan,) = plans(tmp_path / "home")
    (plan if name == "changed" else plan.with_name("added.engine")).write_bytes(b"another program")
    opened(red)
    assert len(tensorrt.builds) == 2
    assert [path.read_bytes() for path in plans(tmp_path / "home")] == [b"a program"]
    assert f"{plan.parent.name} is not what its record says, and is not used" in caplog.text


def test_plans_that_others_may_write_are_refused(red: Path, tensorrt: TensorrtProvider, tmp_path: Path) -> None:
    opened(red)
    (plan,) = plans(tmp_path / "home")
    for path in (plan, plan.parent, plan.parent.parent):
        mode = path.stat().st_mode
        path.chmod(mode | 0o020)
        with pytest.raises(EngineUnavailable, match="is not trusted, since a plan is a program"):
            opened(red)
        path.chmod(mode)
    opened(red)
    assert len(tensorrt.builds) == 1


def test_what_is_built_for_a_session_that_is_refused_is_not_loaded(red: Path, tensorrt: TensorrtProvider) -> None:
    tensorrt.takes = False
    with pytest.raises(EngineUnavailable, match=r"TensorRT takes no node of red\.onnx: expected the provider cuda"):
        opened(red)
    tensorrt.takes = True
    opened(red)
    assert len(tensorrt.builds) == 2


def test_products_that_neither_tensorrt_nor_cuda_takes_are_refused_unless_the_cpu_is_allowed(
    build: CudaBuild, tmp_path: Path
) -> None:
    path = multiplied(tmp_path / "multiplied.onnx")
    assert opened(path).infer(red_panorama(5.0)).depth.max() == 5.0
    build.left = {"MatMul"}
    with pytest.raises(EngineUnavailable, match=r"would leave 1 MatMul of multiplied\.onnx to the CPU"):
        opened(path)
    assert opened(path, device="cuda,cpu", threads=1).device == "cpu"


@pytest.mark.parametrize("what", ["library", "build", "fits", "starts"])
def test_the_cpu_stands_in_for_a_tensorrt_that_does_not_start_only_where_that_is_allowed(
    red: Path,
    tensorrt: TensorrtProvider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    if what == "library":
        monkeypatch.setitem(sys.modules, "tensorrt", None)
    elif what == "build":
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: PROVIDERS)
    else:
        setattr(tensorrt, what, False)
    expected = {
        "library": r"TensorRT is needed, and cannot be loaded .*pip install",
        "build": "tensorrt was asked for, and this ONNX Runtime is built without it",
    }.get(what, r"cannot load its TensorRT provider with TensorRT 10\.13\.3\.9: expected the major version")
    with pytest.raises(EngineUnavailable, match=expected):
        opened(red, device="cuda")
    assert opened(red, device="cuda,cpu", threads=1).device == "cpu"
    assert "cpu with 1 threads, which cuda,cpu allows: " in caplog.text


def test_without_a_gpu_build_a_provider_that_is_asked_for_is_unavailable(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineUnavailable, match=r"tensorrt was asked for, and this .* without CUDA: onnxruntime-gpu"):
        opened(red)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_no_provider_of_a_gpu_runs_on_the_cpu(red: Path, provider: str) -> None:
    with pytest.raises(EngineUnavailable, match=f"The provider {provider} is for GPUs: expected the device auto, cuda"):
        opened(red, device="cpu", provider=provider)


def test_a_file_that_is_quantised_for_onnx_runtime_is_refused(build: CudaBuild, tmp_path: Path) -> None:
    model = red_graph()
    zero = onnx.numpy_helper.from_array(np.array(3, np.uint8), "zero")
    scale = onnx.numpy_helper.from_array(np.array(1.0, np.float32), "scale")
    model.graph.initializer.extend([zero, scale])
    model.graph.node.insert(2, helper.make_node("QuantizeLinear", ["red_float", "scale", "zero"], ["quantised"]))
    model.graph.node.insert(3, helper.make_node("DequantizeLinear", ["quantised", "scale", "zero"], ["again"]))
    model.graph.node[4].input[0] = "again"
    with pytest.raises(ModelFileInvalid, match="export --to tensorrt --precision int8"):
        opened(save(model, tmp_path / "quantised.onnx"))


@pytest.mark.parametrize(("capability", "runs"), [((8, 6), False), ((8, 9), True), ((9, 0), True)])
def test_fp8_runs_where_the_gpu_has_it(
    build: CudaBuild, tmp_path: Path, capability: tuple[int, int], runs: bool
) -> None:
    build.cuda.compute_capability = capability
    path = save(red_graph(dataclasses.replace(METADATA, precision="fp8")), tmp_path / "red.onnx")
    if runs:
        assert opened(path).infer(red_panorama(5.0)).depth.max() == 5.0
    else:
        with pytest.raises(
            EngineUnavailable, match=r"capability 8\.9 .*, and NVIDIA .* has 8\.6: expected .* int8, fp16"
        ):
            opened(path)
        assert opened(path, device="cuda,cpu", threads=1).device == "cpu"


def test_create_engine_passes_on_the_provider_and_the_largest_batch(red: Path, build: CudaBuild) -> None:
    create_engine(find_model(red), provider="tensorrt", max_batch_size=3)
    assert build.options[0]["trt_profile_max_shapes"] == "panorama:3x16x32x3,panorama_float32:3x16x32x3"
    with pytest.raises(EngineUnavailable, match="gpu_arena_gb does not limit TensorRT"):
        create_engine(find_model(red), provider="tensorrt", gpu_arena_gb=2.0)
