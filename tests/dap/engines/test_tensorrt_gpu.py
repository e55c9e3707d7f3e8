"""The tensorrt engine on a GPU, with TensorRT itself: what no double can show. `make test-gpu` runs these."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dap.engines.onnx import OnnxEngine
from dap.engines.tensorrt import TensorrtEngine
from dap.errors import EngineUnavailable
from dap.models import find_model
from dap.panorama import resize_pixels
from tests.dap.graphs import SIZE, red_graph, red_panorama, save
from tests.gpu import require_gpu

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def a_gpu_and_a_folder_of_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_gpu("tensorrt", "onnx")
    monkeypatch.setenv("DAP_HOME", str(tmp_path / "home"))


@pytest.fixture
def red(tmp_path: Path) -> Path:
    return save(red_graph(), tmp_path / "red.onnx")


def opened(path: Path, max_batch_size: int = 4) -> TensorrtEngine:
    return TensorrtEngine(path, find_model(path), max_batch_size=max_batch_size)


def test_batches_of_every_size_in_any_order_are_answered_item_by_item(red: Path) -> None:
    engine = opened(red, max_batch_size=8)
    for count in (1, 8, 2, 5, 4, 1, 3, 17):
        batch = np.arange(3.0, 3.0 + count)
        inference = engine.infer(red_panorama(*batch))
        np.testing.assert_array_equal(inference.depth[:, 3, 5], batch)
        np.testing.assert_array_equal(inference.in_range[:, 0, 3, 5], batch < 10)
        assert inference.in_range.shape == (count, 4, *SIZE)


def test_depth_is_the_same_without_range_probabilities(red: Path) -> None:
    engine = opened(red)
    for in_range in (False, True, False):
        inference = engine.infer(red_panorama(5.0, 30.0), in_range=in_range)
        np.testing.assert_array_equal(inference.depth[:, 3, 5], (5.0, 30.0))
        assert inference.in_range.shape == (2, 4 if in_range else 0, *SIZE)


def test_the_second_start_loads_what_the_first_has_built(red: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened(red).close()
    with caplog.at_level(logging.INFO):
        engine = opened(red)
    assert "building" not in caplog.text
    assert engine.infer(red_panorama(7.0)).depth.max() == 7.0


def test_the_bundled_model_gives_the_metres_that_onnx_runtime_gives() -> None:
    """In float32, to the limit of an export (`dap verify` holds every precision to its own)."""
    model = find_model("dap-s")
    rng = np.random.default_rng(360)
    noise = [rng.integers(0, 256, (rows, 2 * rows, 3), dtype=np.uint8) for rows in (4, 32, 256)]
    pixels = np.stack([resize_pixels(panorama, model.input_size) for panorama in noise])
    expected = OnnxEngine(model.path, model, device="cpu").infer(pixels)
    engine = TensorrtEngine(model.path, model)
    found = engine.infer(pixels)
    assert np.abs(found.depth / expected.depth - 1).mean() < 1e-5
    assert np.abs(found.in_range - expected.in_range).max() < 1e-3
    alone = engine.infer(pixels, in_range=False)
    assert np.abs(alone.depth / expected.depth - 1).mean() < 1e-5


def test_an_engine_that_is_closed_leaves_room_for_the_next(red: Path) -> None:
    from cuda.bindings import runtime

    def free() -> int:
        error, free, _ = runtime.cudaMemGetInfo()
        assert error == runtime.cudaError_t.cudaSuccess
        return int(free)

    opened(red).close()  # what the first use of a GPU takes stays
    before = free()
    for _ in range(3):
        engine = opened(red, max_batch_size=4)
        engine.warm_up([4])
        engine.close()
    assert free() >= before - 16 * 2**20


def test_one_thread_after_another_may_use_it(red: Path) -> None:
    """As in the service, where one thread loads it and another runs it: each has a current GPU of its own."""
    engine = opened(red)
    for _ in range(3):
        with ThreadPoolExecutor(1) as runner:
            assert runner.submit(engine.infer, red_panorama(9.0)).result().depth.max() == 9.0


def test_a_gpu_beyond_the_last_is_named(red: Path) -> None:
    with pytest.raises(EngineUnavailable, match="cuda:99 was asked for"):
        TensorrtEngine(red, find_model(red), device="cuda:99")
