"""The torch engine on a GPU: what no double can show. `make test-gpu` runs these."""

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dap.engines.torch import TorchEngine
from dap.errors import OutOfMemory
from dap.model.checkpoints import network_from_state, save_network
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork
from dap.models import find_model
from model_export.samples import scene_panoramas
from model_export.verify import LIMITS
from tests.dap.model.conformance import official_state
from tests.gpu import require_gpu

pytestmark = pytest.mark.gpu

SIZE, LARGER = (64, 128), (128, 256)
NETWORKS: dict[str, Callable[[], DapNetwork]] = {
    "hybrid": lambda: DapNetwork(NetworkConfig(encoder="hybrid-s")),
    "efficientnet": lambda: DapNetwork(NetworkConfig(encoder="efficientnet-lite0")),
    "vit": lambda: network_from_state(official_state("vits", seed=7)),
    "heads": lambda: DapNetwork(NetworkConfig(encoder="hybrid-xs", added_thresholds=((20.0,),))),
}


@pytest.fixture(scope="module", autouse=True)
def a_gpu() -> None:
    require_gpu("torch")


@pytest.fixture(scope="module", params=NETWORKS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("torch") / f"{request.param}.safetensors"
    save_network(NETWORKS[request.param](), path, {"dap.input_size": json.dumps(SIZE)})
    return path


only_the_small_one = pytest.mark.parametrize("checkpoint", ["heads"], indirect=True)


def panoramas(count: int, size: tuple[int, int] = SIZE, seed: int = 1) -> npt.NDArray[np.uint8]:
    return np.stack(scene_panoramas(size, count, seed))


def opened(path: Path, **options: Any) -> TorchEngine:
    return TorchEngine(path, find_model(path).offering([SIZE, LARGER]), **{"device": "cuda", **options})


def absrel(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> float:
    return float(np.abs(found / expected - 1).mean())


@pytest.mark.parametrize("execution", ["eager", "graphs"])
def test_float32_gives_the_metres_of_the_cpu_at_every_size_and_number_in_any_order(
    checkpoint: Path, execution: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """To the limit of an export; with TF32 it would be beyond."""
    reference, engine = opened(checkpoint, device="cpu"), opened(checkpoint, execution=execution)
    for count, size in ((1, SIZE), (3, SIZE), (1, LARGER), (1, SIZE), (2, LARGER), (3, SIZE)):
        batch = panoramas(count, size)
        for in_range in (True, False):
            expected, found = reference.infer(batch, in_range=in_range), engine.infer(batch, in_range=in_range)
            assert absrel(found.depth, expected.depth) < LIMITS["fp32"]["absrel"]
            assert np.abs(found.in_range - expected.in_range).max(initial=0) < 1e-3
    assert "no CUDA graph" not in caplog.text
    engine.close()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_keep_their_limit(checkpoint: Path, precision: Any) -> None:
    batch = panoramas(3)
    expected, engine = opened(checkpoint, device="cpu").infer(batch), opened(checkpoint, precision=precision)
    assert 0 < absrel(engine.infer(batch).depth, expected.depth) < LIMITS[precision]["absrel"]
    engine.close()


@only_the_small_one
def test_a_graph_gives_the_same_each_time_it_is_launched_whatever_ran_between(checkpoint: Path) -> None:
    engine = opened(checkpoint, precision="bf16")
    engine.warm_up([1, 4])
    engine.warm_up([2], LARGER)
    batches = [panoramas(1), panoramas(4), panoramas(2, LARGER)]
    first = [engine.infer(batch) for batch in batches]
    for _ in range(5):
        for batch, expected in zip(batches, first, strict=True):
            again = engine.infer(batch)
            np.testing.assert_array_equal(again.depth, expected.depth)
            np.testing.assert_array_equal(again.in_range, expected.in_range)
    engine.close()


@only_the_small_one
def test_threads_side_by_side_are_each_answered(checkpoint: Path) -> None:
    engine = opened(checkpoint)
    engine.warm_up([1, 3])
    batches = [panoramas(1 + 2 * (seed % 2), seed=seed) for seed in range(40)]
    expected = [engine.infer(batch).depth for batch in batches]
    with ThreadPoolExecutor(engine.lanes) as threads:
        found = list(threads.map(lambda batch: engine.infer(batch).depth, batches))
    for answer, alone in zip(found, expected, strict=True):
        np.testing.assert_array_equal(answer, alone)
    engine.close()


@only_the_small_one
def test_a_shape_that_was_not_warmed_may_come_while_others_run(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is recorded while the other lane copies."""
    engine = opened(checkpoint)
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(engine.lanes) as threads:
        answers = list(threads.map(engine.infer, [panoramas(1 + number % 8) for number in range(32)]))
    assert "no CUDA graph" not in caplog.text
    assert all(np.isfinite(answer.depth).all() for answer in answers)
    engine.close()


@only_the_small_one
def test_compiled_kernels_keep_the_limit_too(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    batch = panoramas(2)
    expected = opened(checkpoint, device="cpu").infer(batch)
    engine = opened(checkpoint, precision="bf16", execution="compiled")
    engine.warm_up([2])
    assert absrel(engine.infer(batch).depth, expected.depth) < LIMITS["bf16"]["absrel"]
    assert "no CUDA graph" not in caplog.text
    engine.close()


@only_the_small_one
def test_a_batch_that_is_too_large_has_no_room_and_a_smaller_one_has(checkpoint: Path) -> None:
    engine = opened(checkpoint)
    engine.infer(panoramas(1))
    room = torch.cuda.memory_reserved() + 2**26
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(OutOfMemory, match="No room on cuda:0 for a batch of 1024"):
            engine.infer(np.zeros((1024, *SIZE, 3), np.uint8))
        assert np.isfinite(engine.infer(panoramas(1)).depth).all()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    engine.close()


@only_the_small_one
def test_an_engine_that_is_closed_leaves_room_for_the_next(checkpoint: Path) -> None:
    def once() -> None:
        engine = opened(checkpoint)
        engine.warm_up([1, 16])
        engine.close()

    once()  # what the first use of a GPU takes stays
    before = torch.cuda.memory_reserved()
    for _ in range(4):
        once()
    assert torch.cuda.memory_reserved() <= before
