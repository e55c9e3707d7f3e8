"""Heads with fewer multiplications: what the official heads say, to rounding."""

import pytest
import torch
from onnx import TensorProto, helper

from dap.model.config import EncoderName, NetworkConfig
from dap.model.dap import DapNetwork
from dap.model.dpt import DptHead
from dap.model.flop import counting, network_flop
from model_export.enlargement import EnlargedConv2d
from model_export.lean import LeanHead, lean, own_weights
from model_export.winograd import WinogradConv2d


def test_a_lean_head_says_what_the_head_says() -> None:
    torch.manual_seed(0)
    size, taps, features = (256, 512), (12, 12, 12, 12), 16
    head = DptHead(
        taps,
        levels=(features // 4, features // 2, 2 * features, 2 * features),
        features=features,
        outputs=2,
        patch_taps=True,
        full_resolution=True,
        spherical=False,
    )
    found = LeanHead(head, size)
    kinds = {type(module) for module in found.modules()}
    assert {EnlargedConv2d, WinogradConv2d} <= kinds
    patches = [torch.randn(1, channels, 16, 32) for channels in taps]
    with torch.no_grad():
        expected = head(patches, size)
        assert expected.std() > 1e-3
        torch.testing.assert_close(found(patches, size), expected, rtol=0, atol=2e-5 * expected.std().item())


@pytest.mark.parametrize(("encoder", "most"), [("vit-b", 0.82), ("vit-l", 0.79)])
def test_an_official_network_takes_fewer_multiplications(encoder: EncoderName, most: float) -> None:
    config, size = NetworkConfig.official(encoder), (512, 1024)
    with torch.device("meta"), torch.no_grad():
        network = lean(DapNetwork(config).eval(), size)
        with counting() as counter:
            network(torch.empty(1, 3, *size))
    assert counter.get_total_flops() < most * network_flop(config, size)


def test_a_network_of_few_features_is_left() -> None:
    with torch.device("meta"):
        network = DapNetwork(NetworkConfig.official("vit-s")).eval()
    assert lean(network, (512, 1024)) is network


def test_the_network_that_it_is_made_of_stays_as_it_is_and_shares_its_encoder() -> None:
    with torch.device("meta"):
        network = DapNetwork(NetworkConfig.official("vit-b")).eval()
    names = list(network.state_dict())
    changed = lean(network, (512, 1024))
    assert list(network.state_dict()) == names
    assert all(map(lambda a, b: a is b, network.encoder.parameters(), changed.encoder.parameters()))
    assert not changed.training


def test_a_network_that_knows_that_longitude_is_a_circle_is_left() -> None:
    with torch.device("meta"):
        network = DapNetwork(NetworkConfig(encoder="hybrid-xs")).eval()
    assert lean(network, (64, 128)) is network


def test_convolutions_that_share_their_weights_get_each_their_own() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "shared"], ["a"]),
        helper.make_node("Conv", ["a", "shared"], ["b"]),
        helper.make_node("Mul", ["b", "scale"], ["c"]),
        helper.make_node("Mul", ["c", "scale"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    weights = [
        helper.make_tensor("shared", TensorProto.FLOAT, (1, 1, 1, 1), [3.0]),
        helper.make_tensor("scale", TensorProto.FLOAT, (1,), [2.0]),
    ]
    model = helper.make_model(helper.make_graph(nodes, "test", values[:1], values[1:], weights))
    own_weights(model)
    assert [node.input[1] for node in model.graph.node] == ["shared", "b.shared", "scale", "scale"]
    assert [(tensor.name, tensor.float_data[0]) for tensor in model.graph.initializer] == [
        ("shared", 3.0),
        ("scale", 2.0),
        ("b.shared", 3.0),
    ]
