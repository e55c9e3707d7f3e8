"""The onnx engine's runs on a GPU, over doubles of CUDA and of an ONNX Runtime that is built for it.

What no double can show is shown on a GPU by `make test-gpu`; docs/gpu.md says what has been run where.
"""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dap.engines.onnx import OnnxEngine
from dap.errors import DeviceLost, EngineError, OutOfMemory
from dap.models import find_model
from tests.dap.engines.cuda_doubles import cudaError_t
from tests.dap.engines.onnx_doubles import CudaBuild
from tests.dap.graphs import SIZE, red_graph, red_panorama, save

PIXELS = SIZE[0] * SIZE[1]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> CudaBuild:
    return CudaBuild(monkeypatch, starts=True)


@pytest.fixture
def engine(build: CudaBuild, tmp_path: Path) -> OnnxEngine:
    path = save(red_graph(), tmp_path / "red.onnx")
    return OnnxEngine(path, find_model(path))


def test_each_batch_size_has_buffers_and_a_graph_of_its_own(build: CudaBuild, engine: OnnxEngine) -> None:
    assert engine.lanes == 1
    assert build.options[0]["enable_cuda_graph"] == "1"
    batches = [(5.0,), (7.0, 30.0), (9.0,), (11.0, 60.0)]
    answers = [engine.infer(red_panorama(*batch)) for batch in batches]
    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_array_equal(answer.depth[:, 3, 5], batch)
        np.testing.assert_array_equal(answer.in_range[:, 0, 3, 5], [metres < 10 for metres in batch])
    assert build.graphs == ["1", "2", "1", "2"]


def test_pixels_go_up_once_and_depth_and_probabilities_down_once(build: CudaBuild, engine: OnnxEngine) -> None:
    engine.infer(red_panorama(5.0, 30.0))
    assert build.cuda.copied == [("up", 2 * PIXELS * 3), ("down", 2 * PIXELS * 4), ("down", 2 * PIXELS * 4 * 4)]


def test_they_go_through_page_locked_memory_that_is_there_for_the_next_run(
    build: CudaBuild, engine: OnnxEngine
) -> None:
    engine.infer(red_panorama(5.0))
    before = dict(build.cuda.memory)
    assert sorted(len(memory) for memory in before.values()) == sorted(2 * [PIXELS * 3, PIXELS * 4, PIXELS * 4 * 4])
    engine.infer(red_panorama(7.0))
    assert build.cuda.memory == before


def test_an_answer_is_not_overwritten_by_the_next(engine: OnnxEngine) -> None:
    first = engine.infer(red_panorama(5.0))
    engine.infer(red_panorama(30.0))
    assert first.depth.max() == 5.0
    assert first.in_range[0, 0].min() == 1.0


def test_range_masks_that_nobody_asks_for_are_not_computed(build: CudaBuild, engine: OnnxEngine) -> None:
    engine.warm_up([1, 2])
    assert [b"in_range" in source for source in build.sources] == [True, False]
    build.cuda.copied.clear()
    answer = engine.infer(red_panorama(5.0, 30.0), in_range=False)
    np.testing.assert_array_equal(answer.depth[:, 3, 5], (5.0, 30.0))
    assert answer.in_range.shape == (2, 0, *SIZE)
    assert build.cuda.copied == [("up", 2 * PIXELS * 3), ("down", 2 * PIXELS * 4)]
    assert len(build.sources) == 2, "warming up has opened both"


def test_all_runs_are_in_one_thread_whoever_asks_for_them(build: CudaBuild, engine: OnnxEngine) -> None:
    """ONNX Runtime keeps the graphs that it records for each thread: what one has warmed would be cold to another."""
    engine.warm_up([1])
    with ThreadPoolExecutor(1) as elsewhere:
        assert elsewhere.submit(engine.infer, red_panorama(5.0)).result().depth.max() == 5.0
    assert len(build.threads) == 1
    assert threading.get_ident() not in build.threads


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaHostAlloc"])
def test_no_room_for_the_buffers_is_no_room_for_the_batch(build: CudaBuild, engine: OnnxEngine, function: str) -> None:
    engine.infer(red_panorama(5.0))
    build.cuda.failures = {function: cudaError_t.cudaErrorMemoryAllocation}
    with pytest.raises(OutOfMemory, match="No room on cuda:0 for a batch of 2"):
        engine.infer(red_panorama(5.0, 6.0))
    assert engine.infer(red_panorama(7.0)).depth.max() == 7.0
    build.cuda.failures = {}
    assert engine.infer(red_panorama(5.0, 6.0)).depth.max() == 6.0


def test_a_copy_that_fails_for_good_is_a_lost_device(build: CudaBuild, engine: OnnxEngine) -> None:
    build.cuda.failures = {"cudaStreamSynchronize": cudaError_t.cudaErrorIllegalAddress}
    with pytest.raises(DeviceLost, match="ONNX Runtime lost cuda:0"):
        engine.infer(red_panorama(5.0))


def test_a_closed_engine_gives_its_memory_back(build: CudaBuild, engine: OnnxEngine) -> None:
    engine.warm_up([1, 2])
    engine.close()
    assert (build.cuda.memory, build.cuda.streams) == ({}, 0)
    with pytest.raises(EngineError, match="closed"):
        engine.infer(red_panorama(5.0))


def test_a_lost_gpu_is_closed_with_a_warning(
    build: CudaBuild, engine: OnnxEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.infer(red_panorama(5.0))
    build.cuda.failures = {"cudaFree": cudaError_t.cudaErrorIllegalAddress}
    with caplog.at_level(logging.WARNING):
        engine.close()
    assert "onnx engine: cuda:0 gives nothing back: CUDA error: an illegal memory access" in caplog.text
