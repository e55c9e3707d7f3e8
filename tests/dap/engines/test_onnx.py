"""The onnx engine on hand-made graphs: what it answers, what it refuses, where it runs."""

import dataclasses
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from dap.engines.onnx import OnnxEngine
from dap.errors import EngineError, EngineUnavailable, ModelFileInvalid, OutOfMemory
from dap.models import find_model
from tests.dap.engines.cuda_doubles import cudaError_t
from tests.dap.engines.onnx_doubles import CudaBuild
from tests.dap.graphs import METADATA, SIZE, red_graph, red_panorama, save


def opened(path: Path, **options: Any) -> OnnxEngine:
    return OnnxEngine(path, find_model(path), **options)


@pytest.fixture
def red(tmp_path: Path) -> Path:
    return save(red_graph(), tmp_path / "red.onnx")


@pytest.mark.parametrize("batch", [(5.0,), (5.0, 30.0), (0.5, 15.0, 60.0, 120.0, 10.0)])
def test_a_batch_of_any_size_is_answered_item_by_item(red: Path, batch: tuple[float, ...]) -> None:
    inference = opened(red).infer(red_panorama(*batch))
    assert inference.depth.dtype == inference.in_range.dtype == np.float32
    assert inference.depth.shape == (len(batch), *SIZE)
    assert inference.in_range.shape == (len(batch), 4, *SIZE)
    np.testing.assert_array_equal(inference.depth[:, 3, 5], batch)
    nearer = [[metres < threshold for threshold in (10, 20, 50, 100)] for metres in batch]
    np.testing.assert_array_equal(inference.in_range[:, :, 3, 5], nearer)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_panoramas_that_run_side_by_side_are_answered_in_their_order(red: Path, threads: int, count: int) -> None:
    batch = tuple(float(metres) for metres in range(3, 3 + count))
    inference = opened(red, device="cpu", threads=threads).infer(red_panorama(*batch))
    np.testing.assert_array_equal(inference.depth[:, 3, 5], batch)
    assert inference.in_range.shape == (count, 4, *SIZE)
    np.testing.assert_array_equal(inference.in_range[:, 0, 3, 5], [metres < 10 for metres in batch])


def heavy_graph() -> onnx.ModelProto:
    """`red_graph` with 128 KiB of weights, a divisor for each pixel."""
    height, width = size = (128, 256)
    model = red_graph(dataclasses.replace(METADATA, input_size=size))
    divisors = np.linspace(1, 2, height * width, dtype=np.float32).reshape(size)
    (divisor,) = (tensor for tensor in model.graph.initializer if tensor.name == "divisor")
    divisor.CopyFrom(numpy_helper.from_array(divisors, "divisor"))
    return model


@pytest.mark.parametrize("in_range", [True, False])
def test_weights_that_are_read_from_the_file_itself_are_those_of_the_file(tmp_path: Path, in_range: bool) -> None:
    (tmp_path / "blobs").mkdir()
    linked = tmp_path / "heavy.onnx"
    linked.symlink_to(save(heavy_graph(), tmp_path / "blobs" / "0123"))
    depth = opened(linked, device="cpu").infer(red_panorama(60.0, size=(128, 256)), in_range=in_range).depth
    np.testing.assert_allclose(depth[0, 0, 0], 120.0)
    np.testing.assert_allclose(depth[0, 127, 255], 60.0)


def test_weights_of_a_wrong_length_are_refused(tmp_path: Path) -> None:
    model = heavy_graph()
    (divisor,) = (tensor for tensor in model.graph.initializer if tensor.name == "divisor")
    divisor.raw_data = divisor.raw_data[:-4]
    with pytest.raises(ModelFileInvalid, match=r"cannot load heavy\.onnx") as caught:
        opened(save(model, tmp_path / "heavy.onnx"), device="cpu")
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [(5.0,), (5.0, 30.0, 60.0)])
def test_without_range_masks_the_depth_is_the_same(red: Path, threads: int, batch: tuple[float, ...]) -> None:
    inference = opened(red, device="cpu", threads=threads).infer(red_panorama(*batch), in_range=False)
    np.testing.assert_array_equal(inference.depth[:, 3, 5], batch)
    assert inference.in_range.shape == (len(batch), 0, *SIZE)


@pytest.mark.parametrize("batch", [(5.0,), (5.0, 30.0)], ids=["alone", "side by side"])
def test_what_only_range_masks_need_is_not_computed_without_them(tmp_path: Path, batch: tuple[float, ...]) -> None:
    """There is no room for the masks of this model, so it would fail if it tried."""
    model = red_graph()
    nodes = model.graph.node
    nodes.append(helper.make_node("Expand", ["in_range_of_one", "too_many"], ["in_range_of_many"]))
    nodes[-2].output[0] = "in_range_of_one"
    model.graph.initializer.append(numpy_helper.from_array(np.array([1 << 40, 1, 1, 1, 1]), "too_many"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "first_axis"))
    nodes.append(helper.make_node("ReduceMax", ["in_range_of_many", "first_axis"], ["in_range"], keepdims=0))
    engine = opened(save(model, tmp_path / "hungry.onnx"), device="cpu", threads=2)
    with pytest.raises(OutOfMemory):
        engine.infer(red_panorama(*batch))
    np.testing.assert_array_equal(engine.infer(red_panorama(*batch), in_range=False).depth[:, 3, 5], batch)


def test_an_answer_is_not_overwritten_by_the_next(red: Path) -> None:
    engine = opened(red, device="cpu", threads=1)
    first = engine.infer(red_panorama(5.0))
    engine.infer(red_panorama(30.0))
    np.testing.assert_array_equal(first.depth, np.full((1, *SIZE), 5.0))
    assert first.in_range.min() == 1


def test_one_session_answers_who_wants_range_masks_and_who_does_not(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions: list[bytes] = []
    real = onnxruntime.InferenceSession

    def session(source: bytes, *options: Any, **rest: Any) -> onnxruntime.InferenceSession:
        sessions.append(source)
        return real(source, *options, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    engine = opened(red, device="cpu", threads=1)
    for in_range in (True, False, True):
        inference = engine.infer(red_panorama(15.0), in_range=in_range)
        np.testing.assert_array_equal(inference.depth, np.full((1, *SIZE), 15.0))
        assert inference.in_range[..., 3, 5].tolist() == ([[0, 1, 1, 1]] if in_range else [[]])
    assert len(sessions) == 1


def test_it_says_what_it_is(red: Path) -> None:
    engine = opened(red, device="cpu")
    assert (engine.name, engine.device, engine.input_size) == ("onnx", "cpu", SIZE)
    assert engine.thresholds == METADATA.thresholds


def test_pixels_that_are_no_whole_array_are_taken(red: Path) -> None:
    flipped = red_panorama(5.0)[:, ::-1, ::-1]
    np.testing.assert_array_equal(opened(red).infer(flipped).depth, np.full((1, *SIZE), 5.0))


@pytest.mark.parametrize(
    "panoramas",
    [
        np.zeros((1, 32, 64, 3), np.uint8),
        np.zeros((*SIZE, 3), np.uint8),
        np.zeros((1, 3, *SIZE), np.uint8),
        np.zeros((1, *SIZE, 3), np.float32),
    ],
)
def test_pixels_of_another_shape_or_kind_are_refused(red: Path, panoramas: np.ndarray) -> None:
    with pytest.raises(EngineError, match=r"Expected uint8 panoramas of shape \(B, 16, 32, 3\)"):
        opened(red).infer(panoramas)


@pytest.mark.parametrize("metres", [0.0, 5.0], ids=["NaN", "infinity"])
def test_what_is_no_number_is_no_depth(tmp_path: Path, metres: float) -> None:
    engine = opened(save(red_graph(divisor=0.0), tmp_path / "broken.onnx"))
    with pytest.raises(EngineError, match="NaN or infinity"):
        engine.infer(red_panorama(metres))


def test_no_room_is_an_error_of_its_own(tmp_path: Path) -> None:
    engine = opened(save(red_graph(spread=1 << 36), tmp_path / "hungry.onnx"))  # 128 TiB
    with pytest.raises(OutOfMemory, match="a batch of 1"):
        engine.infer(red_panorama(5.0))


def test_panoramas_that_threads_bring_at_the_same_time_are_answered_as_if_they_were_alone(red: Path) -> None:
    engine = opened(red, device="cpu", threads=2)
    assert engine.lanes == 2
    metres = [float(red) for red in range(1, 41)]
    with ThreadPoolExecutor(engine.lanes) as threads:
        answers = list(threads.map(lambda one: engine.infer(red_panorama(one)).depth[0, 3, 5], metres))
    assert answers == metres


@pytest.mark.parametrize(("threads", "lanes"), [(1, 1), (4, 4), (5, 1)])
def test_there_are_lanes_where_there_are_few_cores(red: Path, threads: int, lanes: int) -> None:
    assert opened(red, device="cpu", threads=threads).lanes == lanes


def test_no_room_for_one_of_several_that_run_side_by_side_is_no_room_for_the_batch(tmp_path: Path) -> None:
    engine = opened(save(red_graph(spread=1 << 36), tmp_path / "hungry.onnx"), device="cpu", threads=2)
    with pytest.raises(OutOfMemory, match="a batch of 2"):
        engine.infer(red_panorama(5.0, 6.0))


def test_warming_up_runs_every_batch_size(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened(red)
    sizes: list[int] = []
    monkeypatch.setattr(engine, "infer", lambda panoramas, *, in_range: sizes.append(len(panoramas)))
    engine.warm_up([1, 4])
    assert sizes == [1, 4]


def test_a_closed_engine_says_so(red: Path) -> None:
    engine = opened(red)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(red_panorama(5.0))


def test_a_file_that_is_not_what_the_registry_says_is_refused(red: Path) -> None:
    model = dataclasses.replace(find_model(red), thresholds=(100.0,))
    with pytest.raises(ModelFileInvalid, match=r"thresholds \(10.0, 20.0, 50.0, 100.0\): expected those of red"):
        OnnxEngine(red, model)


@pytest.mark.parametrize("claim", [{"input_size": (32, 64)}, {"thresholds": (100.0,)}], ids=["size", "thresholds"])
def test_a_graph_that_is_not_what_its_metadata_say_is_refused(tmp_path: Path, claim: dict[str, Any]) -> None:
    model = red_graph()
    helper.set_model_props(model, dataclasses.replace(METADATA, **claim).entries())
    with pytest.raises(ModelFileInvalid, match=r"has the inputs and outputs .*'depth': .*\[16, 32\].*: expected"):
        opened(save(model, tmp_path / "other.onnx"))


def test_an_operator_of_a_custom_library_does_not_load(tmp_path: Path) -> None:
    model = red_graph()
    model.opset_import.append(helper.make_opsetid("elsewhere", 1))
    model.graph.node[2].domain = "elsewhere"
    with pytest.raises(ModelFileInvalid, match=r"cannot load custom\.onnx") as caught:
        opened(save(model, tmp_path / "custom.onnx"))
    assert str(tmp_path) not in str(caught.value)


def test_a_device_that_does_not_exist_is_named(red: Path) -> None:
    for device in ("gpu", "cuda:", "cuda:x", "cpu:0"):
        with pytest.raises(EngineUnavailable, match=f"No device is named '{device}'"):
            opened(red, device=device)


def test_a_gpu_is_taken_where_there_is_one(
    red: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    build = CudaBuild(monkeypatch, starts=True)
    with caplog.at_level(logging.INFO):
        assert opened(red).device == "cuda:0"
        assert opened(red, device="cuda:1").device == "cuda:1"
    assert [options["device_id"] for options in build.options] == [0, 1]
    assert "cuda:0, the first GPU found" in caplog.text
    assert "cuda:1, as asked for" in caplog.text


def test_the_cpu_is_taken_when_it_is_asked_for(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = CudaBuild(monkeypatch, starts=True)
    assert opened(red, device="cpu").device == "cpu"
    assert build.asked == [["CPUExecutionProvider"]]


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
def test_the_cpu_stands_in_for_a_gpu_that_does_not_start_only_where_that_is_allowed(
    red: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, device: str
) -> None:
    CudaBuild(monkeypatch, starts=False)
    with pytest.raises(EngineUnavailable, match=r"built for CUDA and cannot start cuda:\d: .* cuda,cpu to let the CPU"):
        opened(red, device=device)
    assert caplog.text == ""
    assert opened(red, device=f"{device},cpu", threads=1).device == "cpu"
    assert f"cpu with 1 threads, which {device},cpu allows: ONNX Runtime is built for CUDA" in caplog.text


def multiplied(path: Path) -> Path:
    """`red_graph` with a product of matrices on its way."""
    model = red_graph()
    (division,) = (node for node in model.graph.node if node.op_type == "Div")
    division.output[0] = "before"
    model.graph.node.insert(3, helper.make_node("MatMul", ["before", "identity"], ["metres"]))
    model.graph.initializer.append(numpy_helper.from_array(np.eye(SIZE[1], dtype=np.float32), "identity"))
    return save(model, path)


def test_a_file_whose_products_the_gpu_would_leave_to_the_cpu_is_refused_unless_the_cpu_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = multiplied(tmp_path / "red.onnx")
    build = CudaBuild(monkeypatch, starts=True)
    assert opened(path).infer(red_panorama(5.0)).depth.max() == 5.0
    build.left = {"MatMul"}
    for device in ("auto", "cuda"):
        with pytest.raises(EngineUnavailable, match=r"would leave 1 MatMul of red\.onnx to the CPU"):
            opened(path, device=device)
    assert opened(path, device="cuda,cpu", threads=1).device == "cpu"
    assert "cpu with 1 threads, which cuda,cpu allows: ONNX Runtime" in caplog.text


def test_both_sessions_on_a_gpu_are_asked_what_they_leave_to_the_cpu_and_the_log_counts_it(
    red: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    CudaBuild(monkeypatch, starts=True).left = {"Gather", "Less"}
    with caplog.at_level(logging.INFO):
        opened(red).warm_up([1])
    assert "red.onnx, nodes: 5 by CUDAExecutionProvider, 2 by CPUExecutionProvider (1 Gather, 1 Less)" in caplog.text
    assert "red.onnx, nodes: 4 by CUDAExecutionProvider, 1 by CPUExecutionProvider (1 Gather)" in caplog.text


def test_a_graph_that_cuda_cannot_record_runs_without(
    red: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    build = CudaBuild(monkeypatch, starts=True, records=False)
    with caplog.at_level(logging.INFO):
        engine = opened(red)
    assert (engine.device, engine.infer(red_panorama(5.0)).depth[0, 3, 5]) == ("cuda:0", 5.0)
    assert ["enable_cuda_graph" in options for options in build.options] == [True, False]
    assert "no CUDA graphs for red.onnx" in caplog.text


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_where_there_is_no_gpu_the_error_says_how_to_do_without(
    red: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    build = CudaBuild(monkeypatch, starts=True)
    build.cuda.failures = {"cudaGetDeviceCount": cudaError_t.cudaErrorNoDevice}
    with pytest.raises(EngineUnavailable, match=r"there is none here: CUDA error: no CUDA-capable .* cuda,cpu to let"):
        opened(red, device=device)
    assert opened(red, device=f"{device},cpu").device == "cpu"


def test_a_gpu_needs_cuda_python(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CudaBuild(monkeypatch, starts=True)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(EngineUnavailable, match=r"A GPU needs cuda-python, .*pip install 'depth-any-panorama\[gpu\]'"):
        opened(red)


def test_on_a_gpu_float32_is_float32_and_memory_grows_by_what_is_needed(
    red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = CudaBuild(monkeypatch, starts=True)
    opened(red)
    (options,) = build.options
    assert (options["use_tf32"], options["arena_extend_strategy"]) == ("0", "kSameAsRequested")
    assert "gpu_mem_limit" not in options


def test_each_session_has_an_arena_of_the_gigabytes_given(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = CudaBuild(monkeypatch, starts=True)
    opened(red, gpu_arena_gb=1.5).warm_up([1])
    assert [options["gpu_mem_limit"] for options in build.options] == [1_500_000_000] * 2


def test_an_arena_that_the_weights_alone_would_fill_is_refused(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime would take it, and then know of no limit: what is left is told without a sign."""
    CudaBuild(monkeypatch, starts=True)
    with pytest.raises(EngineUnavailable, match=r"An arena of 1e-07 GB has no room for the .* GB of red\.onnx"):
        opened(red, gpu_arena_gb=1e-7)


def test_the_libraries_that_pip_installs_are_loaded_and_those_that_miss_are_logged(
    red: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    CudaBuild(monkeypatch, starts=True)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: sys.stdout.write("Failed to load libcublas.so.13\n"))
    opened(red)
    assert "onnx engine: Failed to load libcublas.so.13" in caplog.text
    assert capsys.readouterr().out == "", "what is printed there is for scripts"


def test_without_a_gpu_build_cuda_is_unavailable_and_auto_is_the_cpu(
    red: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with caplog.at_level(logging.INFO):
        assert opened(red, threads=1).device == "cpu"
    assert "cpu with 1 threads, this ONNX Runtime is built without CUDA" in caplog.text
    with pytest.raises(EngineUnavailable, match=r"cuda was asked for, and this .* without CUDA: onnxruntime-gpu"):
        opened(red, device="cuda")
    assert opened(red, device="cuda,cpu").device == "cpu"


@pytest.mark.parametrize("driver", [True, False])
def test_the_cpu_that_nobody_asked_for_is_a_warning_where_the_machine_has_a_gpu(
    red: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, driver: bool
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr("dap.engines.cuda._KERNEL_MODULE", tmp_path if driver else tmp_path / "nowhere")
    with caplog.at_level(logging.INFO, "dap.engines.sessions"):
        for device in ("auto", "cpu"):
            assert opened(red, device=device, threads=1).device == "cpu"
    unasked, asked = caplog.records
    assert unasked.levelno == (logging.WARNING if driver else logging.INFO)
    assert "cpu with 1 threads, this ONNX Runtime is built without CUDA" in unasked.message
    assert ("stays idle: docs/gpu.md says what it needs" in unasked.message) == driver
    assert (asked.levelno, asked.message) == (logging.INFO, "onnx engine: cpu with 1 threads, as asked for")


def test_where_one_onnx_runtime_has_overwritten_the_other_the_log_and_the_error_say_so(
    red: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        info = tmp_path / f"{name.replace('-', '_')}-1.31.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.31.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with caplog.at_level(logging.INFO):
        assert opened(red, threads=1).device == "cpu"
    assert "cpu with 1 threads, onnxruntime has overwritten onnxruntime-gpu, since both are installed" in caplog.text
    with pytest.raises(EngineUnavailable, match="uninstall both, then install onnxruntime-gpu"):
        opened(red, device="cuda")
