"""One small network with random weights, exported once for all tests here: an export takes seconds."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from dap.model.checkpoints import save_network
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork
from model_export.commands import export


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Networks this small are slower with more."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spherical hybrid network in which no weight is what it was initialised to, so that all of it shows."""
    generator = torch.Generator().manual_seed(360)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DapNetwork(NetworkConfig(encoder="hybrid-xs"))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_network(network, path, {"dap.name": "tiny", "dap.licence": "CC0-1.0", "dap.input_size": "[64, 128]"})
    return path


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that `dap export` makes of it."""
    path = tmp_path_factory.mktemp("export") / "new" / "tiny.onnx"
    result = CliRunner().invoke(
        export, ["--model", str(checkpoint), "--output", str(path), "--threads", "1"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return path
