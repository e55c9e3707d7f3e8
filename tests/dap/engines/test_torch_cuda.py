"""Streams, events and graphs of the torch engine, on a device that is played on the CPU."""

import copy
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dap.engines import torch_cuda
from dap.engines.torch import TorchEngine
from dap.errors import EngineError, EngineUnavailable, OutOfMemory
from dap.model.checkpoints import save_network
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork, NetworkOutput
from dap.models import find_model
from tests.dap.engines.torch_doubles import PlayedCuda

SIZE, LARGER = (16, 32), (32, 64)
CONFIG = NetworkConfig(encoder="hybrid-xs", thresholds=(10.0, 20.0, 50.0), added_thresholds=((20.0,),))


class OneConvolution(torch.nn.Module):
    """Speaks as the network does, and is done at once."""

    config = CONFIG

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images: torch.Tensor, *, in_range: bool) -> NetworkOutput:
        maps = self.conv(images).float()
        return NetworkOutput(maps[:, 0].exp(), maps[:, 0], maps[:, 1 : 4 if in_range else 1])


@pytest.fixture(scope="module")
def whole_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("torch") / "tiny.safetensors"
    save_network(DapNetwork(CONFIG), path, {"dap.input_size": "[16, 32]"})
    return path


@pytest.fixture
def checkpoint(whole_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(2)
    network = OneConvolution()
    monkeypatch.setattr("dap.engines.torch.load_network", lambda path: copy.deepcopy(network))
    return whole_checkpoint


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> PlayedCuda:
    return PlayedCuda(monkeypatch)


def panoramas(count: int, seed: int = 0, size: tuple[int, int] = SIZE) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def opened(checkpoint: Path, **options: Any) -> TorchEngine:
    return TorchEngine(checkpoint, find_model(checkpoint).offering([SIZE, LARGER]), device="cuda", **options)


@pytest.fixture
def on_the_cpu(checkpoint: Path) -> TorchEngine:
    return TorchEngine(checkpoint, find_model(checkpoint).offering([SIZE, LARGER]), device="cpu", threads=1)


def test_it_is_on_the_gpu_and_two_runs_may_be_in_progress(checkpoint: Path, cuda: PlayedCuda) -> None:
    engine = opened(checkpoint)
    assert (engine.device, engine.lanes, engine.sizes) == ("cuda:0", 2, (SIZE, LARGER))


@pytest.mark.parametrize("execution", ["eager", "graphs"])
def test_batches_of_every_shape_in_any_order_are_answered_as_on_the_cpu(
    checkpoint: Path, cuda: PlayedCuda, on_the_cpu: TorchEngine, execution: Any
) -> None:
    engine = opened(checkpoint, execution=execution)
    for seed, (count, size) in enumerate([(1, SIZE), (3, SIZE), (1, SIZE), (1, LARGER), (3, SIZE), (2, LARGER)]):
        batch = panoramas(count, seed, size)
        for in_range in (True, False):
            expected, found = on_the_cpu.infer(batch, in_range=in_range), engine.infer(batch, in_range=in_range)
            np.testing.assert_allclose(found.depth, expected.depth, rtol=1e-5)
            np.testing.assert_allclose(found.in_range, expected.in_range, atol=1e-6)
            assert found.in_range.shape == expected.in_range.shape
    assert not cuda.races
    assert cuda.replayed == (12 if execution == "graphs" else 0)


def test_the_whole_network_can_be_recorded(whole_checkpoint: Path, cuda: PlayedCuda) -> None:
    """Nothing in it waits for the device, and nothing of one panorama is left in the answer to the next."""
    engine = opened(whole_checkpoint)
    reference = TorchEngine(whole_checkpoint, find_model(whole_checkpoint), device="cpu", threads=1)
    for batch in (panoramas(1), panoramas(1, seed=1)):
        np.testing.assert_allclose(engine.infer(batch).depth, reference.infer(batch).depth, rtol=1e-5)
    assert cuda.replayed == 2
    assert not cuda.races


def test_what_was_warmed_is_launched_as_one_graph_and_a_few_copies(checkpoint: Path, cuda: PlayedCuda) -> None:
    engine = opened(checkpoint)
    engine.warm_up([1, 2])
    engine.warm_up([1], LARGER)
    for batch in (panoramas(1), panoramas(2), panoramas(1, size=LARGER)):
        for in_range in (True, False):
            before = cuda.launched, cuda.replayed
            engine.infer(batch, in_range=in_range)
            assert (cuda.launched - before[0], cuda.replayed - before[1]) == (4, 1)  # up, in, out, down


def test_answers_stay_the_callers_when_the_next_batch_runs(checkpoint: Path, cuda: PlayedCuda) -> None:
    engine = opened(checkpoint)
    first = engine.infer(panoramas(2, seed=1))
    depth, in_range = first.depth.copy(), first.in_range.copy()
    engine.infer(panoramas(2, seed=2))
    np.testing.assert_array_equal(first.depth, depth)
    np.testing.assert_array_equal(first.in_range, in_range)


def test_threads_side_by_side_are_each_answered_and_nothing_is_read_before_it_is_there(
    checkpoint: Path, cuda: PlayedCuda, on_the_cpu: TorchEngine
) -> None:
    engine = opened(checkpoint)
    engine.warm_up([1, 2])
    batches = [panoramas(1 + seed % 2, seed) for seed in range(12)]
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(engine.infer, batches))
    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_allclose(answer.depth, on_the_cpu.infer(batch).depth, rtol=1e-5)
    assert not cuda.races


@pytest.mark.parametrize("event", ["uploaded", "worked", "downloaded"])
def test_each_of_the_three_events_is_needed(
    checkpoint: Path, cuda: PlayedCuda, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    """The played device tells what is not waited for, so what it finds nothing in is in order."""
    engine = opened(checkpoint)
    assert engine._gpu is not None
    with engine._gpu._taken(2) as lanes:
        for lane in lanes:
            monkeypatch.setattr(getattr(lane, event), "record", lambda: None)
    engine.infer(panoramas(1))
    engine.infer(panoramas(1))
    assert cuda.races


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("bf16", True)])
def test_float32_is_exact_and_tf32_is_for_what_stays_float32_beside_lower_precision(
    checkpoint: Path, cuda: PlayedCuda, precision: Any, allowed: bool
) -> None:
    before = torch.backends.cudnn.allow_tf32
    opened(checkpoint, precision=precision, execution="eager").infer(panoramas(1))
    assert cuda.tf32 == {allowed}
    assert torch.backends.cudnn.allow_tf32 == before


def test_what_cannot_be_recorded_runs_kernel_by_kernel_and_a_log_line_says_why(
    checkpoint: Path,
    cuda: PlayedCuda,
    on_the_cpu: TorchEngine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    engine = opened(checkpoint)
    batch = panoramas(2)
    for _ in range(2):
        np.testing.assert_allclose(engine.infer(batch).depth, on_the_cpu.infer(batch).depth, rtol=1e-5)
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "torch engine: no CUDA graph of batches of (2, 16, 32, 3): operation not permitted when stream is capturing"
    ]
    assert not cuda.races


class TestCompiled:
    @pytest.fixture
    def compiled(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
        """Shapes that were compiled, each when what came of it first ran."""
        shapes: list[tuple[int, ...]] = []

        def compiled(answer: Callable[..., Any], **options: Any) -> Callable[..., Any]:
            assert options == {"fullgraph": True, "dynamic": False, "mode": "max-autotune-no-cudagraphs"}

            def run(pixels: torch.Tensor, in_range: bool) -> Any:
                shapes.append((*pixels.shape[:3], int(in_range)))
                return answer(pixels, in_range)

            return run

        monkeypatch.setattr(torch, "compile", compiled)
        return shapes

    def test_shapes_are_compiled_while_they_are_warmed_and_never_after(
        self, checkpoint: Path, cuda: PlayedCuda, on_the_cpu: TorchEngine, compiled: list[tuple[int, ...]]
    ) -> None:
        engine = opened(checkpoint, execution="compiled")
        engine.warm_up([1, 2])
        assert set(compiled) == {(count, *SIZE, in_range) for count in (1, 2) for in_range in (0, 1)}
        compiled.clear()
        for count in (1, 2, 3):
            batch = panoramas(count)
            np.testing.assert_allclose(engine.infer(batch).depth, on_the_cpu.infer(batch).depth, rtol=1e-5)
        assert not compiled
        assert not cuda.races

    def test_where_torch_cannot_compile_the_error_says_what_else_there_is(
        self, checkpoint: Path, cuda: PlayedCuda, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise torch._dynamo.exc.TorchDynamoException("Cannot find a working triton installation")

        monkeypatch.setattr(torch, "compile", lambda *_, **__: refuse)
        with pytest.raises(EngineUnavailable, match=r"a working triton .* `graphs` needs neither"):
            opened(checkpoint, execution="compiled").warm_up([1])


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), EngineError),
    ],
)
def test_a_batch_that_fails_leaves_its_lane_to_the_next(
    checkpoint: Path, cuda: PlayedCuda, monkeypatch: pytest.MonkeyPatch, failure: RuntimeError, error: type[EngineError]
) -> None:
    engine = opened(checkpoint)
    waited: list[str] = []

    def fail(*_: object, **__: object) -> None:
        raise failure

    with monkeypatch.context() as broken:
        broken.setattr(torch.cuda, "synchronize", lambda: waited.append("for the device"))
        broken.setattr(torch_cuda.CudaLanes, "_work", fail)
        for run in (engine.infer, lambda batch: engine.warm_up([len(batch)])) * 2:
            with pytest.raises(EngineError, match="a batch of 3") as caught:
                run(panoramas(3))
            assert type(caught.value) is error
    assert waited == ["for the device"] * 4
    assert np.isfinite(engine.infer(panoramas(3)).depth).all()


def test_a_closed_engine_keeps_nothing_of_the_device(checkpoint: Path, cuda: PlayedCuda) -> None:
    engine = opened(checkpoint)
    engine.infer(panoramas(1))
    engine.close()
    assert engine._gpu is None
    with pytest.raises(EngineError, match="closed"):
        engine.infer(panoramas(1))
