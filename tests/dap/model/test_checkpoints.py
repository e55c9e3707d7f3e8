"""The official layout is read strictly, whole, and without running any of it."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dap.errors import ModelFileInvalid, ModelFileMissing
from dap.model.checkpoints import from_official, load_network, network_from_state, official_name, save_network
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork
from tests.dap.model.conformance import layout, official_state, vector


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return official_state("vits", seed=7)


@pytest.mark.parametrize("size", ["128x256", "256x512"])
def test_the_official_vectors_are_met_to_1e_4(state: dict[str, torch.Tensor], size: str) -> None:
    network = network_from_state(state).eval()
    expected = vector(size)
    with torch.inference_mode():
        output = network(expected.image)
    np.testing.assert_allclose(output.depth[0].numpy() / 100, expected.depth, atol=1e-4, rtol=0)
    np.testing.assert_allclose(1 - output.range_logits[0, 0].sigmoid().numpy(), expected.beyond, atol=1e-4, rtol=0)
    assert expected.depth.std() > 0.1, "a vector without contrast would prove nothing"


def test_names_are_read_with_and_without_the_prefix_of_data_parallel(state: dict[str, torch.Tensor]) -> None:
    plain = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    config, ours = from_official(plain)
    _, prefixed = from_official(state)
    assert config == NetworkConfig.official("vit-s")
    assert all(torch.equal(ours[name], prefixed[name]) for name in ours)


def test_every_tensor_of_the_largest_encoder_has_its_place() -> None:
    with torch.device("meta"):
        ours = DapNetwork(NetworkConfig.official("vit-l")).state_dict()
    official = layout("vitl")
    for name, tensor in ours.items():
        assert official[official_name(name)] == tuple(tensor.shape)
    config, _ = from_official({name: torch.empty(shape, device="meta") for name, shape in official.items()})
    assert config.encoder == "vit-l"


def test_a_missing_an_unexpected_and_a_misshapen_tensor_are_all_named(state: dict[str, torch.Tensor]) -> None:
    broken = dict(state)
    del broken["module.core.pretrained.blocks.3.attn.proj.weight"]
    broken["module.core.extra"] = torch.zeros(1)
    broken["module.core.depth_head.projects.0.bias"] = torch.zeros(7)
    with pytest.raises(ModelFileInvalid) as error:
        network_from_state(broken)
    message = str(error.value)
    assert "Missing (1): core.pretrained.blocks.3.attn.proj.weight" in message
    assert "Unexpected (1): core.extra" in message
    assert "core.depth_head.projects.0.bias should be (48,) and is (7,)" in message


def test_the_tensors_that_no_output_needs_must_be_there_too(state: dict[str, torch.Tensor]) -> None:
    broken = {name: tensor for name, tensor in state.items() if "mask_token" not in name}
    with pytest.raises(ModelFileInvalid, match="mask_token"):
        network_from_state(broken)


def test_a_state_dict_of_something_else_is_not_a_checkpoint() -> None:
    with pytest.raises(ModelFileInvalid, match="cls_token should be 384, 768 or 1024 wide"):
        network_from_state({"weight": torch.zeros(3)})


def test_the_official_layout_is_read_from_safetensors(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "model.safetensors")
    network = load_network(tmp_path / "model.safetensors")
    assert torch.equal(network.encoder.cls_token, state["module.core.pretrained.model.cls_token"])


def test_the_official_layout_is_read_from_pth(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "model.pth")
    network = load_network(tmp_path / "model.pth")
    assert not network.training
    assert torch.equal(network.encoder.cls_token, state["module.core.pretrained.model.cls_token"])


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("exploited"),))


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Exploit()}, "model.pth")
    with pytest.raises(ModelFileInvalid, match="plain tensors"):
        load_network("model.pth")
    assert not Path("exploited").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps([1, 2], protocol=2)])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("model.pth", "model.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelFileInvalid, match=name):
            load_network(tmp_path / name)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelFileMissing):
        load_network(tmp_path / "nowhere.pth")


def test_the_same_network_is_the_same_bytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = DapNetwork(NetworkConfig(encoder="hybrid-xs"))
    said = {f"dap.{letter}": f"{letter} é" for letter in "abcdefgh"}
    files = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for path in files:
        save_network(network, path, said)
    assert len({path.read_bytes() for path in files}) == 1
    with safe_open(files[0], framework="pt") as file:
        assert file.metadata().items() >= said.items()


def test_our_own_layout_comes_back_as_it_was_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = DapNetwork(NetworkConfig(encoder="hybrid-xs", thresholds=(5.0, 50.0), far_m=80.0))
    save_network(network, tmp_path / "ours.safetensors")
    read = load_network(tmp_path / "ours.safetensors")
    assert read.config == network.config
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), read.state_dict().values(), strict=True)
    )
