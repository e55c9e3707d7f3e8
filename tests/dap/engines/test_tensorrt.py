"""The tensorrt engine over doubles of TensorRT and CUDA: what it asks of them, what it keeps, what it refuses.

What no double can show is shown on a GPU by `make test-gpu`; docs/gpu.md says what has been run where.
"""

import dataclasses
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dap.engines import create_engine, plans, tensorrt_library
from dap.engines.tensorrt import TensorrtEngine
from dap.engines.tensorrt_builder import BuiltPlan, build_plan
from dap.errors import DapError, DeviceLost, EngineError, EngineUnavailable, ModelFileInvalid, OutOfMemory
from dap.models import find_model, sibling_path
from tests.dap.engines.cuda_doubles import cudaError_t
from tests.dap.engines.tensorrt_doubles import FakeTensorrt, install
from tests.dap.graphs import METADATA, SIZE, red_graph, red_panorama, save


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTensorrt:
    monkeypatch.setenv("DAP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("dap.engines.cuda._KERNEL_MODULE", tmp_path / "nowhere")
    return install(monkeypatch)


@pytest.fixture
def red(tmp_path: Path) -> Path:
    return save(red_graph(), tmp_path / "red.onnx")


def opened(path: Path, **options: Any) -> TensorrtEngine:
    return TensorrtEngine(path, find_model(path), **options)


@pytest.mark.parametrize("batch", [(5.0,), (5.0, 30.0), tuple(range(3, 12))])
def test_a_batch_of_any_size_is_answered_item_by_item(trt: FakeTensorrt, red: Path, batch: tuple[float, ...]) -> None:
    inference = opened(red).infer(red_panorama(*batch))
    assert inference.depth.dtype == inference.in_range.dtype == np.float32
    assert inference.in_range.shape == (len(batch), 4, *SIZE)
    np.testing.assert_array_equal(inference.depth[:, 3, 5], batch)
    nearer = [[metres < threshold for threshold in (10, 20, 50, 100)] for metres in batch]
    np.testing.assert_array_equal(inference.in_range[:, :, 3, 5], nearer)


def test_an_answer_is_not_overwritten_by_the_next(trt: FakeTensorrt, red: Path) -> None:
    engine = opened(red)
    first = engine.infer(red_panorama(5.0))
    engine.infer(red_panorama(30.0))
    assert first.depth.max() == 5.0


def test_probabilities_that_nobody_asks_for_are_neither_computed_nor_copied(trt: FakeTensorrt, red: Path) -> None:
    inference = opened(red).infer(red_panorama(5.0, 6.0), in_range=False)
    np.testing.assert_array_equal(inference.depth[:, 3, 5], (5.0, 6.0))
    assert inference.in_range.shape == (2, 0, *SIZE)
    assert [context.batches for context in trt.contexts] == [[], [2]]
    whole, depth_alone = (onnx.load_model_from_string(build.model).graph for build in trt.builds)
    assert [output.name for output in depth_alone.output] == ["depth"]
    assert {node.op_type for node in whole.node} - {node.op_type for node in depth_alone.node} == {"Less"}
    pixels = 2 * SIZE[0] * SIZE[1]
    assert trt.cuda.copied == [("up", pixels * 3), ("down", pixels * 4)]


def test_who_always_asks_for_range_masks_has_one_plan_on_the_gpu(trt: FakeTensorrt, red: Path) -> None:
    engine = opened(red)
    engine.infer(red_panorama(5.0))
    assert (len(trt.builds), trt.loaded) == (1, 1)


def test_both_plans_are_warm_and_each_has_a_profile_of_its_own(trt: FakeTensorrt, red: Path) -> None:
    engine = opened(red)
    engine.warm_up([1, 3])
    for in_range in (True, False):
        for metres in ((5.0,), (6.0, 7.0)):
            found = engine.infer(red_panorama(*metres), in_range=in_range)
            np.testing.assert_array_equal(found.depth[:, 3, 5], metres)
            assert found.in_range.shape == (len(metres), 4 if in_range else 0, *SIZE)
    assert len(trt.builds) == len(trt.contexts) == 2
    assert [context.batches for context in trt.contexts] == 2 * [[1, 3, 1, 2]]
    assert [context.profiles for context in trt.contexts] == 2 * [[0, 1, 0, 1]]


def test_both_plans_are_kept_and_the_second_build_knows_the_timings_of_the_first(
    trt: FakeTensorrt, red: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        opened(red).warm_up([1])
    assert len(trt.builds) == len(list((tmp_path / "home" / "tensorrt").glob("*.plan"))) == 2
    assert [build.timings for build in trt.builds] == [b"", b"timings of 1 builds"]


def test_the_plan_without_range_masks_is_of_the_file_that_was_opened(
    trt: FakeTensorrt, red: Path, tmp_path: Path
) -> None:
    engine = opened(red)
    save(red_graph(divisor=4.0), red)
    with pytest.raises(EngineError, match=r"red\.onnx is another file than the engine was opened with"):
        engine.infer(red_panorama(5.0), in_range=False)
    assert len(list((tmp_path / "home" / "tensorrt").glob("*.plan"))) == 1
    assert engine.infer(red_panorama(5.0)).depth.max() == 5.0


def test_it_says_what_it_is(trt: FakeTensorrt, red: Path) -> None:
    engine = opened(red, device="cuda:1")
    assert (engine.name, engine.device, engine.input_size, engine.lanes) == ("tensorrt", "cuda:1", SIZE, 1)
    assert engine.thresholds == METADATA.thresholds
    assert trt.cuda.current == 1


def test_each_range_of_batch_sizes_has_a_profile_of_its_own(trt: FakeTensorrt, red: Path) -> None:
    engine = opened(red, max_batch_size=8)
    (build,) = trt.builds
    counts = [tuple(shape[0] for shape in profile) for profile in build.profiles]
    assert counts == [(1, 1, 1), (2, 4, 4), (5, 8, 8)]
    engine.warm_up([1, 1, 3, 8, 2])
    assert trt.contexts[0].profiles == [0, 1, 2, 1]


def test_more_than_the_largest_batch_runs_in_parts(trt: FakeTensorrt, red: Path) -> None:
    opened(red, max_batch_size=4).warm_up([9])
    assert trt.contexts[0].batches == [4, 4, 1]


def test_each_size_of_a_model_has_a_plan_of_its_own_with_smaller_batches_of_larger_panoramas(
    trt: FakeTensorrt, red: Path
) -> None:
    larger = (32, 64)
    save(red_graph(dataclasses.replace(METADATA, input_size=larger)), sibling_path(red, larger))
    engine = create_engine(find_model(red), "tensorrt", max_batch_size=8)
    assert (engine.device, engine.sizes) == ("cuda:0", (SIZE, larger))
    for size in engine.sizes:
        assert engine.infer(red_panorama(7.0, size=size)).depth.shape == (1, *size)
    largest = [build.profiles[-1][-1] for build in trt.builds]
    assert largest == [(8, *SIZE, 3), (2, *larger, 3)]


def test_networks_are_strongly_typed_and_float32_is_not_rounded_to_tf32(trt: FakeTensorrt, red: Path) -> None:
    opened(red)
    (build,) = trt.builds
    assert build.network == 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert trt.BuilderFlag.TF32 not in build.flags


def test_a_plan_is_built_once_and_then_kept(trt: FakeTensorrt, red: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        opened(red)
    assert "building red.onnx for batches of up to 4 on NVIDIA H200 with TensorRT 11.4.0.106" in caplog.text
    assert opened(red).infer(red_panorama(7.0)).depth.max() == 7.0
    assert len(trt.builds) == 1


@pytest.mark.parametrize("change", ["driver", "TensorRT"])
def test_a_stale_plan_is_built_anew_and_the_log_says_why(
    trt: FakeTensorrt, red: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    opened(red)
    if change == "driver":
        trt.cuda.driver = 13010
    else:
        trt.__version__ = "10.16.1.11"
    with caplog.at_level(logging.INFO):
        opened(red)
    assert len(trt.builds) == 2
    expected = {
        "driver": "is stale, it was built for driver CUDA 13.0 (now CUDA 13.1)",
        "TensorRT": "is stale, it was built for tensorrt 11.4.0.106 (now 10.16.1.11)",
    }
    assert expected[change] in caplog.text


@pytest.mark.parametrize("change", ["GPU", "model", "batches"])
def test_plans_of_other_gpus_models_and_batches_lie_side_by_side(trt: FakeTensorrt, red: Path, change: str) -> None:
    opened(red)
    batch = 4
    if change == "GPU":
        trt.cuda.gpu_name = b"NVIDIA L4"
    elif change == "model":
        save(red_graph(divisor=4.0), red)
    else:
        batch = 8
    opened(red, max_batch_size=batch)
    assert len(trt.builds) == 2
    opened(red, max_batch_size=batch)
    assert len(trt.builds) == 2


def test_timings_of_one_model_are_where_the_next_build_starts(trt: FakeTensorrt, red: Path, tmp_path: Path) -> None:
    opened(red)
    opened(save(red_graph(divisor=4.0), tmp_path / "other.onnx"))
    assert [build.timings for build in trt.builds] == [b"", b"timings of 1 builds"]


def test_timings_of_builds_that_go_on_side_by_side_are_all_kept(
    trt: FakeTensorrt, red: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = [save(red_graph(divisor=4.0), tmp_path / "beside.onnx")]

    def build(*arguments: Any) -> BuiltPlan:
        if beside:
            opened(beside.pop())
        return build_plan(*arguments)

    monkeypatch.setattr("dap.engines.tensorrt.build_plan", build)
    opened(red)
    opened(save(red_graph(divisor=8.0), tmp_path / "later.onnx"))
    assert [build.timings for build in trt.builds] == [b"", b"", b"timings of 2 builds and timings of 1 builds"]


def test_timings_of_another_driver_are_not(trt: FakeTensorrt, red: Path) -> None:
    opened(red)
    trt.cuda.driver = 13010
    opened(red)
    assert trt.builds[1].timings == b""


def test_a_plan_that_tensorrt_does_not_take_any_more_is_built_anew(trt: FakeTensorrt, red: Path) -> None:
    opened(red)
    trt.failing = {"deserialize_cuda_engine"}
    with pytest.raises(EngineError, match=r"does not load the plan that it has built of red\.onnx: .*invalid argument"):
        opened(red)
    assert len(trt.builds) == 2
    trt.failing = set()
    assert opened(red).infer(red_panorama(7.0)).depth.max() == 7.0


def test_nothing_but_a_cast_sees_the_pixels(trt: FakeTensorrt, red: Path) -> None:
    """UINT8 is only supported as network input or output tensor types (onnx-tensorrt, docs/operators.md)."""
    from dap.engines.tensorrt_builder import cast_pixels

    model = red_graph()
    model.graph.value_info.append(helper.make_tensor_value_info("red", TensorProto.UINT8, ["batch", *SIZE]))
    cast = onnx.load_model_from_string(cast_pixels(save(model, red).read_bytes()))
    readers = [node for node in cast.graph.node if "panorama" in node.input]
    assert [node.op_type for node in readers] == ["Cast"]
    assert readers[0].attribute[0].i == TensorProto.FLOAT
    onnx.checker.check_model(cast, full_check=True)


def test_an_answer_that_is_no_number_is_no_depth(trt: FakeTensorrt, tmp_path: Path) -> None:
    engine = opened(save(red_graph(divisor=0.0), tmp_path / "broken.onnx"))
    with pytest.raises(EngineError, match="NaN or infinity"):
        engine.infer(red_panorama(0.0))


def test_pixels_of_another_shape_are_refused(trt: FakeTensorrt, red: Path) -> None:
    with pytest.raises(EngineError, match=r"Expected uint8 panoramas of shape \(B, 16, 32, 3\)"):
        opened(red).infer(np.zeros((1, 32, 64, 3), np.uint8))


def test_a_file_that_is_not_what_the_registry_says_is_refused(trt: FakeTensorrt, red: Path) -> None:
    model = dataclasses.replace(find_model(red), thresholds=(100.0,))
    with pytest.raises(ModelFileInvalid, match=r"expected those of red"):
        TensorrtEngine(red, model)


def test_a_graph_that_is_not_what_its_metadata_say_is_refused(trt: FakeTensorrt, tmp_path: Path) -> None:
    model = red_graph()
    helper.set_model_props(model, dataclasses.replace(METADATA, thresholds=(100.0,)).entries())
    with pytest.raises(ModelFileInvalid, match="has the inputs and outputs"):
        opened(save(model, tmp_path / "other.onnx"))


def test_a_graph_that_tensorrt_cannot_read_says_which_part(trt: FakeTensorrt, red: Path) -> None:
    trt.failing = {"parse"}
    with pytest.raises(ModelFileInvalid, match=r"cannot read red\.onnx: no importer for Whirl"):
        opened(red)


def test_a_build_that_fails_says_what_tensorrt_said(trt: FakeTensorrt, red: Path) -> None:
    trt.failing = {"build_serialized_network"}
    trt.complaint = "Error Code 10: Could not find any implementation for node"
    with pytest.raises(EngineError, match=r"cannot build red\.onnx: Error Code 10: Could not find any implementation"):
        opened(red)


@pytest.mark.parametrize(
    ("complaint", "error"),
    [
        ("Error Code 1: Cuda Runtime (an illegal memory access was encountered)", DeviceLost),
        ("Error Code 2: OutOfMemory (Requested size was 17179869184 bytes.)", OutOfMemory),
        ("Error Code 3: API Usage Error", EngineError),
    ],
)
def test_what_tensorrt_says_of_a_failed_run_decides_what_it_means(
    trt: FakeTensorrt, red: Path, complaint: str, error: type[EngineError]
) -> None:
    engine = opened(red)
    trt.failing, trt.complaint = {"execute_async_v3"}, complaint
    with pytest.raises(EngineError) as caught:
        engine.infer(red_panorama(1.0, 2.0))
    assert type(caught.value) is error


def test_a_failure_of_cuda_is_told_apart_too(trt: FakeTensorrt, red: Path) -> None:
    engine = opened(red)
    trt.cuda.failures = {"cudaStreamSynchronize": cudaError_t.cudaErrorIllegalAddress}
    with pytest.raises(DeviceLost, match="TensorRT lost cuda:0"):
        engine.infer(red_panorama(1.0))


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaHostAlloc"])
def test_no_room_for_the_buffers_is_known_at_once_and_leaves_nothing_behind(
    trt: FakeTensorrt, red: Path, function: str
) -> None:
    trt.cuda.failures = {function: cudaError_t.cudaErrorMemoryAllocation}
    with pytest.raises(OutOfMemory, match="a batch of 4"):
        opened(red)
    assert trt.cuda.memory == {}
    assert trt.builds == []


def test_no_room_for_the_second_plan_leaves_the_first(trt: FakeTensorrt, red: Path) -> None:
    engine = opened(red)
    trt.failing, trt.complaint = {"create_execution_context"}, "Error Code 1: Cuda Runtime (out of memory)"
    with pytest.raises(OutOfMemory, match="a batch of 1"):
        engine.infer(red_panorama(5.0), in_range=False)
    assert engine.infer(red_panorama(5.0)).depth.max() == 5.0


def test_no_room_for_a_context_is_known_at_once(trt: FakeTensorrt, red: Path) -> None:
    trt.failing, trt.complaint = {"create_execution_context"}, "Error Code 1: Cuda Runtime (out of memory)"
    with pytest.raises(OutOfMemory):
        opened(red)
    assert trt.cuda.memory == {}


def test_a_closed_engine_gives_all_back_and_says_so(trt: FakeTensorrt, red: Path) -> None:
    engine = opened(red)
    engine.warm_up([1])
    engine.close()
    assert (trt.cuda.memory, trt.cuda.streams) == ({}, 0)
    with pytest.raises(EngineError, match="closed"):
        engine.infer(red_panorama(5.0))


def test_an_engine_on_a_lost_gpu_can_still_be_closed(
    trt: FakeTensorrt, red: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = opened(red)
    trt.cuda.failures = {"cudaFree": cudaError_t.cudaErrorIllegalAddress}
    engine.close()
    assert "cuda:0 gives nothing back: CUDA error: an illegal memory access" in caplog.text
    with pytest.raises(EngineError, match="closed"):
        engine.infer(red_panorama(5.0))


@pytest.mark.parametrize(("capability", "runs"), [((8, 6), False), ((8, 9), True), ((9, 0), True), ((12, 0), True)])
def test_fp8_runs_where_the_gpu_has_it(
    trt: FakeTensorrt, tmp_path: Path, capability: tuple[int, int], runs: bool
) -> None:
    trt.cuda.compute_capability = capability
    path = save(red_graph(dataclasses.replace(METADATA, precision="fp8")), tmp_path / "red.onnx")
    if runs:
        assert opened(path).infer(red_panorama(5.0)).depth.max() == 5.0
    else:
        with pytest.raises(
            EngineUnavailable, match=r"capability 8\.9 .*, and NVIDIA .* has 8\.6: expected .* int8, fp16"
        ):
            opened(path)


def test_it_runs_on_no_cpu(trt: FakeTensorrt, red: Path) -> None:
    with pytest.raises(EngineUnavailable, match="on NVIDIA GPUs alone"):
        opened(red, device="cpu")


def test_a_gpu_that_is_not_here_is_named(trt: FakeTensorrt, red: Path) -> None:
    with pytest.raises(EngineUnavailable, match="cuda:2 was asked for, and CUDA finds 2 devices here"):
        opened(red, device="cuda:2")
    trt.cuda.failures = {"cudaGetDeviceCount": cudaError_t.cudaErrorNoDevice}
    with pytest.raises(EngineUnavailable, match="no CUDA-capable device is detected"):
        opened(red)


def test_a_driver_that_is_not_here_is_an_error_of_ours(
    trt: FakeTensorrt, red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_library() -> tuple[object, ...]:
        raise RuntimeError("Failed to dlopen libcuda.so.1")  # as cuda-bindings 12.8 says it

    monkeypatch.setattr(trt.cuda, "cudaGetDeviceCount", no_library)
    with pytest.raises(EngineUnavailable, match=r"there is none here: Failed to dlopen libcuda\.so\.1"):
        opened(red)


@pytest.mark.parametrize("library", ["tensorrt", "cuda.bindings", "onnx"])
def test_a_library_that_is_missing_says_what_to_install(
    trt: FakeTensorrt, red: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    model = find_model(red)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(EngineUnavailable, match=r"pip install 'depth-any-panorama\[gpu\]'"):
        TensorrtEngine(red, model)


@pytest.mark.parametrize(("version", "is_taken"), [("9.3.0", False), ("10.0.1", True), ("12.0.0", False)])
def test_tensorrt_10_and_11_are_taken(trt: FakeTensorrt, version: str, is_taken: bool) -> None:
    trt.__version__ = version
    if is_taken:
        assert tensorrt_library.tensorrt_version() == version
    else:
        with pytest.raises(EngineUnavailable, match=f"TensorRT {version} is installed: expected version 10 or 11"):
            tensorrt_library.tensorrt_version()


def test_a_folder_that_is_not_trusted_is_an_error_of_ours(trt: FakeTensorrt, red: Path, tmp_path: Path) -> None:
    (tmp_path / "home" / "tensorrt").mkdir(parents=True)
    (tmp_path / "home" / "tensorrt").chmod(0o777)
    with pytest.raises(EngineUnavailable, match="not trusted"):
        opened(red)
    assert trt.loaded == 0


def test_no_plan_is_loaded_that_somebody_names(trt: FakeTensorrt, tmp_path: Path) -> None:
    (tmp_path / "red.plan").write_bytes(b"a program")
    with pytest.raises(DapError, match="is no model file"):
        create_engine(find_model(tmp_path / "red.plan"), "tensorrt")
    assert trt.loaded == 0


def test_create_engine_passes_on_what_it_is_given(trt: FakeTensorrt, red: Path) -> None:
    engine = create_engine(find_model(red), "tensorrt", device="cuda:1", max_batch_size=2)
    assert (engine.name, engine.device) == ("tensorrt", "cuda:1")
    assert trt.builds[0].profiles[-1][-1][0] == 2
    assert plans.batch_ranges(2) == ((1, 1), (2, 2))
