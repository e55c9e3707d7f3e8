"""The torch engine: the same protocol over checkpoints."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dap.engines.torch import TorchEngine
from dap.errors import EngineError, EngineUnavailable, ModelFileInvalid, OutOfMemory
from dap.model.checkpoints import load_network, save_network
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork
from dap.models import find_model

SIZE = (32, 64)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("torch") / "tiny.safetensors"
    save_network(DapNetwork(NetworkConfig(encoder="hybrid-xs")), path, {"dap.input_size": "[32, 64]"})
    return path


@pytest.fixture
def engine(checkpoint: Path) -> TorchEngine:
    return TorchEngine(checkpoint, find_model(checkpoint), threads=1)


@pytest.fixture
def panoramas() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)


def test_it_answers_with_the_networks_own_numbers(checkpoint: Path, engine: TorchEngine, panoramas: np.ndarray) -> None:
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    images = ((torch.from_numpy(panoramas) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = load_network(checkpoint)(images)
    inference = engine.infer(panoramas)
    assert inference.depth.dtype == inference.in_range.dtype == np.float32
    np.testing.assert_allclose(inference.depth, expected.depth, rtol=1e-5)
    np.testing.assert_allclose(inference.in_range, expected.range_logits.sigmoid(), atol=1e-6)


def test_without_range_masks_their_head_does_not_run_and_the_depth_is_the_same(
    engine: TorchEngine, panoramas: np.ndarray
) -> None:
    within = engine.infer(panoramas)
    network = engine._network.network
    network.mask_head.register_forward_hook(lambda *_: pytest.fail("the mask head ran"))
    without = engine.infer(panoramas, in_range=False)
    assert without.in_range.shape == (2, 0, *SIZE)
    np.testing.assert_array_equal(without.depth, within.depth)


def test_it_says_what_it_is(engine: TorchEngine) -> None:
    assert (engine.name, engine.device, engine.input_size) == ("torch", "cpu", SIZE)
    assert engine.thresholds == (10.0, 20.0, 50.0, 100.0)


def test_the_caller_keeps_his_pixels(engine: TorchEngine, panoramas: np.ndarray) -> None:
    frozen = panoramas[:, :, ::-1]
    frozen.flags.writeable = False
    engine.infer(frozen)


@pytest.mark.parametrize("options", [{"precision": "fp16"}, {"execution": "graphs"}, {"execution": "compiled"}])
def test_what_is_for_gpus_is_refused_on_the_cpu(checkpoint: Path, options: Any) -> None:
    with pytest.raises(EngineUnavailable, match="for GPUs"):
        TorchEngine(checkpoint, find_model(checkpoint), device="cpu", **options)


def test_half_precision_is_close_and_comes_only_when_asked_for(
    checkpoint: Path, engine: TorchEngine, panoramas: np.ndarray
) -> None:
    half = TorchEngine(checkpoint, find_model(checkpoint), threads=1, precision="bf16").infer(panoramas)
    full = engine.infer(panoramas)
    assert half.depth.dtype == np.float32
    assert 1e-6 < np.abs(half.depth / full.depth - 1).mean() < 0.005


def test_pixels_of_another_shape_are_refused(engine: TorchEngine) -> None:
    with pytest.raises(EngineError, match=r"shape \(B, 32, 64, 3\)"):
        engine.infer(np.zeros((1, 64, 128, 3), np.uint8))


def test_one_network_serves_all_sizes_that_are_offered(checkpoint: Path) -> None:
    larger = (64, 128)
    engine = TorchEngine(checkpoint, find_model(checkpoint).offering([SIZE, larger]), threads=1)
    assert (engine.input_size, engine.sizes) == (SIZE, (SIZE, larger))
    engine.warm_up([1], larger)
    assert engine.infer(np.zeros((2, *larger, 3), np.uint8)).depth.shape == (2, *larger)
    with pytest.raises(EngineError, match=r"shape \(B, 32, 64, 3\) or \(B, 64, 128, 3\)"):
        engine.infer(np.zeros((1, 16, 32, 3), np.uint8))


def test_a_checkpoint_with_other_thresholds_is_refused(checkpoint: Path) -> None:
    model = dataclasses.replace(find_model(checkpoint), thresholds=(100.0,))
    with pytest.raises(ModelFileInvalid, match="expected those of tiny"):
        TorchEngine(checkpoint, model)


def test_broken_weights_are_an_error(tmp_path: Path) -> None:
    network = DapNetwork(NetworkConfig(encoder="hybrid-xs"))
    with torch.no_grad():
        network.depth_head.last_conv.weight.fill_(torch.nan)
    path = tmp_path / "broken.safetensors"
    save_network(network, path, {"dap.input_size": "[32, 64]"})
    engine = TorchEngine(path, find_model(path), threads=1)
    with pytest.raises(EngineError, match="NaN or infinity"):
        engine.warm_up([1])


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), OutOfMemory),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), EngineError),
    ],
)
def test_no_room_is_told_from_other_failures(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch, failure: RuntimeError, error: type[EngineError]
) -> None:
    def fail(pixels: torch.Tensor, **_: bool) -> None:
        raise failure

    monkeypatch.setattr(engine, "_network", fail)
    with pytest.raises(EngineError) as caught:
        engine.warm_up([3])
    assert type(caught.value) is error
    assert "a batch of 3" in str(caught.value)


def test_a_closed_engine_says_so(engine: TorchEngine) -> None:
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.warm_up([1])


def test_a_gpu_that_is_not_here_is_unavailable(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineUnavailable, match="cuda:1 was asked for, and torch finds 0 CUDA devices"):
        TorchEngine(checkpoint, find_model(checkpoint), device="cuda:1")
    stand_in = TorchEngine(checkpoint, find_model(checkpoint), device="cuda:1,cpu", threads=1, execution="graphs")
    assert (stand_in.device, stand_in.lanes) == ("cpu", 1)


@pytest.mark.parametrize("driver", [True, False])
def test_the_cpu_that_nobody_asked_for_is_a_warning_where_the_machine_has_a_gpu(
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    driver: bool,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("dap.engines.cuda._KERNEL_MODULE", tmp_path if driver else tmp_path / "nowhere")
    with caplog.at_level(logging.INFO, "dap.engines.torch"):
        assert TorchEngine(checkpoint, find_model(checkpoint), threads=1).device == "cpu"
        TorchEngine(checkpoint, find_model(checkpoint), device="cpu", threads=1)
    (record,) = caplog.records
    assert record.levelno == (logging.WARNING if driver else logging.INFO)
    assert f"cpu: torch {torch.__version__}, which is built" in record.message
    assert ("stays idle: docs/gpu.md says what it needs" in record.message) == driver
