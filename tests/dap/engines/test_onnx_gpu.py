"""The onnx engine on a GPU, with CUDA itself: what no double can show. `make test-gpu` runs these."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dap.engines.onnx import OnnxEngine
from dap.errors import EngineUnavailable, OutOfMemory
from dap.models import find_model
from dap.panorama import resize_pixels
from tests.dap.graphs import SIZE, red_graph, red_panorama, save
from tests.gpu import require_gpu

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def a_gpu() -> None:
    require_gpu("onnxruntime")


@pytest.fixture
def red(tmp_path: Path) -> Path:
    return save(red_graph(), tmp_path / "red.onnx")


def opened(path: Path, **options: Any) -> OnnxEngine:
    return OnnxEngine(path, find_model(path), device="cuda", **options)


def test_batches_of_every_size_in_any_order_are_answered_item_by_item(red: Path) -> None:
    """Three times each: run, recorded and launched again."""
    engine = opened(red)
    for count in (1, 8, 2, 5, 1, 1, 8, 3, 2, 5, 2, 8, 5):
        batch = np.arange(3.0, 3.0 + count)
        inference = engine.infer(red_panorama(*batch))
        np.testing.assert_array_equal(inference.depth[:, 3, 5], batch)
        np.testing.assert_array_equal(inference.in_range[:, 0, 3, 5], batch < 10)
        assert inference.in_range.shape == (count, 4, *SIZE)
    engine.close()


def test_depth_is_the_same_without_range_probabilities(red: Path) -> None:
    engine = opened(red)
    for batch in ((5.0, 30.0), (7.0, 9.0), (11.0, 60.0)):
        inference = engine.infer(red_panorama(*batch), in_range=False)
        np.testing.assert_array_equal(inference.depth[:, 3, 5], batch)
        assert inference.in_range.shape == (2, 0, *SIZE)
    engine.close()


def test_threads_that_take_turns_are_each_answered(red: Path) -> None:
    engine = opened(red)
    engine.warm_up([1])
    metres = [float(metres) for metres in range(1, 41)]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda one: engine.infer(red_panorama(one)).depth[0, 3, 5], metres))
    assert answers == metres
    engine.close()


def test_the_bundled_model_is_recorded_as_a_graph_and_gives_the_metres_of_the_cpu(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In float32, to the limit of an export; without TF32, with which it would be beyond."""
    model = find_model("dap-s")
    rng = np.random.default_rng(360)
    noise = [rng.integers(0, 256, (rows, 2 * rows, 3), dtype=np.uint8) for rows in (4, 32, 256)]
    pixels = np.stack([resize_pixels(panorama, model.input_size) for panorama in noise])
    expected = OnnxEngine(model.path, model, device="cpu").infer(pixels)
    with caplog.at_level(logging.INFO):
        engine = opened(model.path)
    assert "no CUDA graphs" not in caplog.text
    for _ in range(3):
        found = engine.infer(pixels)
        assert np.abs(found.depth / expected.depth - 1).mean() < 1e-5
        assert np.abs(found.in_range - expected.in_range).max() < 1e-3
    engine.close()


def test_the_bundled_model_by_tensorrt_gives_the_metres_of_the_cpu_and_keeps_its_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In float32, without TF32; batches of more than plans are built for in parts, and without range masks too."""
    require_gpu("onnxruntime", "tensorrt", "onnx")
    monkeypatch.setenv("DAP_HOME", str(tmp_path / "home"))
    model = find_model("dap-s")
    pixels = np.random.default_rng(360).integers(0, 256, (3, *model.input_size, 3), dtype=np.uint8)
    expected = OnnxEngine(model.path, model, device="cpu").infer(pixels)
    plans = []
    for _ in range(2):
        try:
            with caplog.at_level(logging.INFO):
                engine = OnnxEngine(model.path, model, device="cuda", provider="tensorrt", max_batch_size=2)
        except EngineUnavailable as error:
            if "expected the major version" not in str(error):
                raise
            pytest.skip(str(error))
        for in_range in (True, False):
            found = engine.infer(pixels, in_range=in_range)
            assert np.abs(found.depth / expected.depth - 1).mean() < 1e-5
        engine.close()
        plans.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.engine")})
    assert plans[0]
    assert plans[1] == plans[0]
    assert "in 1 plans of TensorRT" in caplog.text


def test_a_batch_beyond_the_limit_of_the_arena_has_no_room_and_a_smaller_one_has() -> None:
    model = find_model("dap-s")
    engine = opened(model.path, gpu_arena_gb=0.5)
    with pytest.raises(OutOfMemory, match="No room on cuda:0 for a batch of 64"):
        engine.infer(np.zeros((64, *model.input_size, 3), np.uint8))
    assert engine.infer(np.zeros((1, *model.input_size, 3), np.uint8)).depth.shape == (1, *model.input_size)
    engine.close()


def test_an_engine_that_is_closed_leaves_room_for_the_next(red: Path) -> None:
    from cuda.bindings import runtime

    def free() -> int:
        error, free, _ = runtime.cudaMemGetInfo()
        assert error == runtime.cudaError_t.cudaSuccess
        return int(free)

    def once() -> None:
        engine = opened(red)
        engine.warm_up([64])
        engine.close()

    once()  # what the first use of a GPU takes stays
    before = free()
    for _ in range(4):
        once()
    assert free() >= before - 2**20
