"""Choosing an engine: by the model's file, or by name; and none of their libraries before one is chosen."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dap.engines import create_engine
from dap.errors import EngineUnavailable, ModelFileMissing
from dap.model.checkpoints import save_network
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork
from dap.models import find_model
from tests.dap.engines.onnx_doubles import CudaBuild
from tests.dap.graphs import red_graph, save


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    return save(red_graph(), tmp_path / "red.onnx")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_network(DapNetwork(NetworkConfig(encoder="hybrid-xs")), path)
    return path


def test_the_file_decides(exported: Path, checkpoint: Path) -> None:
    assert create_engine(find_model(exported), threads=1).name == "onnx"
    assert create_engine(find_model(checkpoint), threads=1).name == "torch"


def test_the_onnx_engine_says_how_to_get_an_exported_file(checkpoint: Path) -> None:
    with pytest.raises(EngineUnavailable, match="dap export --model tiny --to onnx"):
        create_engine(find_model(checkpoint), "onnx")


def test_the_torch_engine_takes_no_exported_file(exported: Path) -> None:
    with pytest.raises(EngineUnavailable, match="red is an exported file: use onnx"):
        create_engine(find_model(exported), "torch")


def test_an_exported_file_keeps_its_precision(exported: Path) -> None:
    with pytest.raises(EngineUnavailable, match="red does not run in bf16"):
        create_engine(find_model(exported), precision="bf16")


def test_an_exported_file_has_no_execution(exported: Path) -> None:
    with pytest.raises(EngineUnavailable, match="compiled is of the torch engine alone"):
        create_engine(find_model(exported), execution="compiled")


def test_an_engine_that_is_not_onnx_has_no_provider(exported: Path, checkpoint: Path) -> None:
    for path, engine in ((exported, "tensorrt"), (checkpoint, "torch"), (checkpoint, "auto")):
        with pytest.raises(EngineUnavailable, match="The provider cuda is of the onnx engine alone"):
            create_engine(find_model(path), engine, provider="cuda")


def test_the_onnx_engine_is_given_the_limit_of_its_arenas(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = CudaBuild(monkeypatch, starts=True)
    create_engine(find_model(exported), gpu_arena_gb=2.0).close()
    assert build.options[0]["gpu_mem_limit"] == 2_000_000_000


def test_an_engine_that_would_not_keep_to_a_limit_does_not_take_one(exported: Path, checkpoint: Path) -> None:
    for path, engine in ((exported, "tensorrt"), (checkpoint, "torch"), (checkpoint, "auto")):
        with pytest.raises(EngineUnavailable, match="gpu_arena_gb limits the onnx engine alone"):
            create_engine(find_model(path), engine, gpu_arena_gb=2.0)


def test_without_torch_a_checkpoint_says_what_to_install(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "dap.engines.torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EngineUnavailable, match=r"needs torch, .* pip install 'depth-any-panorama\[export\]'"):
        create_engine(find_model(checkpoint))


def test_a_model_that_is_not_here_is_missing_before_any_engine_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAP_HOME", str(tmp_path))
    with pytest.raises(ModelFileMissing):
        create_engine(find_model("dap-official-l"), "torch")


def test_threads_are_those_asked_for(checkpoint: Path) -> None:
    before = torch.get_num_threads()
    try:
        create_engine(find_model(checkpoint), threads=3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_importing_the_package_loads_no_library() -> None:
    program = "import sys, dap.engines; print([name for name in ('torch', 'onnxruntime') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
