"""Networks with less to compute: what the official heads say, to rounding."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from dap.engines.assignment import CPU
from dap.engines.onnx import OnnxEngine
from dap.engines.sessions import new_session, output_names
from dap.graph import SWITCH, GraphMetadata
from dap.model.attention import LayerScale
from dap.model.config import EncoderName, NetworkConfig
from dap.model.dap import DapNetwork, PixelNetwork
from dap.model.dpt import DptHead
from dap.model.flop import counting, network_flop
from dap.model.vit import VIT_SHAPES, VitShape
from dap.models import find_model
from model_export import lean as lean_module
from model_export.blocks import LeanBlock
from model_export.enlargement import EnlargedConv2d
from model_export.lean import LeanHead, folded_head, lean, own_weights
from model_export.onnx import to_graph
from model_export.winograd import WinogradConv2d


def _head(taps: tuple[int, ...], features: int) -> DptHead:
    return DptHead(
        taps,
        levels=(features // 4, features // 2, 2 * features, 2 * features),
        features=features,
        outputs=2,
        patch_taps=True,
        full_resolution=True,
        spherical=False,
    )


def test_a_lean_head_says_what_the_head_says() -> None:
    torch.manual_seed(0)
    size, taps = (256, 512), (12, 12, 12, 12)
    head = _head(taps, features=16)
    found = LeanHead(head, size)
    kinds = {type(module) for module in found.modules()}
    assert {EnlargedConv2d, WinogradConv2d} <= kinds
    patches = [torch.randn(1, channels, 16, 32) for channels in taps]
    with torch.no_grad():
        expected = head(patches, size)
        assert expected.std() > 1e-3
        torch.testing.assert_close(found(patches, size), expected, rtol=0, atol=2e-5 * expected.std().item())


@torch.no_grad()
def test_a_head_of_which_layers_are_folded_says_what_the_head_says() -> None:
    torch.manual_seed(0)
    head = _head(taps=(12, 12, 12, 12), features=16)
    patches = [torch.randn(1, 12, 4, 8) for _ in range(4)]
    expected = head(patches, (64, 128))
    assert expected.std() > 1e-3
    torch.testing.assert_close(
        folded_head(head)(patches, (64, 128)), expected, rtol=0, atol=1e-5 * expected.std().item()
    )


@pytest.mark.parametrize(("encoder", "most"), [("vit-s", 0.985), ("vit-b", 0.82), ("vit-l", 0.79)])
def test_an_official_network_takes_fewer_multiplications(encoder: EncoderName, most: float) -> None:
    config, size = NetworkConfig.official(encoder), (512, 1024)
    with torch.device("meta"), torch.no_grad():
        network = lean(DapNetwork(config).eval(), size)
        with counting() as counter:
            network(torch.empty(1, 3, *size))
    assert counter.get_total_flops() < most * network_flop(config, size)


def test_heads_of_few_features_are_folded_and_no_more() -> None:
    with torch.device("meta"):
        network = lean(DapNetwork(NetworkConfig.official("vit-s")).eval(), (512, 1024))
    assert not {type(module) for module in network.modules()} & {LeanHead, EnlargedConv2d, WinogradConv2d}


def test_the_network_that_it_is_made_of_stays_as_it_is_and_shares_what_is_not_changed() -> None:
    with torch.device("meta"):
        network = DapNetwork(NetworkConfig.official("vit-b")).eval()
    kinds = [type(module) for module in network.modules()]
    changed = lean(network, (512, 1024))
    assert [type(module) for module in network.modules()] == kinds
    assert changed.encoder.get_parameter("patch_embed.weight") is network.encoder.get_parameter("patch_embed.weight")
    assert not changed.training


@torch.no_grad()
def test_a_network_that_knows_that_longitude_is_a_circle_keeps_its_heads_and_its_answer() -> None:
    torch.manual_seed(0)
    network = DapNetwork(NetworkConfig(encoder="hybrid-xs")).eval()
    for module in network.modules():
        if isinstance(module, LayerScale):
            nn.init.normal_(module.gamma)
    changed, images = lean(network, (64, 128)), torch.rand(1, 3, 64, 128)
    kinds = [type(module) for module in changed.modules()]
    assert kinds.count(LeanBlock) == len(network.encoder.get_submodule("blocks"))  # type: ignore[arg-type]
    assert kinds.count(DptHead) == 2
    for found, expected in zip(changed(images), network(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


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


SIZE = (64, 128)
PANORAMAS = np.random.default_rng(8).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)


def narrow_vit(encoder: EncoderName) -> DapNetwork:
    """An official network of few and narrow blocks, its heads as wide as ever; no weight is what it is by default."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VIT_SHAPES, encoder, VitShape(width=64, depth=4, heads=2, taps=(0, 1, 2, 3)))
        network = DapNetwork(NetworkConfig.official(encoder)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.02 * torch.randn(parameter.shape)
    return network


@pytest.fixture(scope="module")
def narrow() -> DapNetwork:
    return narrow_vit("vit-s")


@pytest.fixture(scope="module")
def lean_file(narrow: DapNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is exported of it with the heads that a larger network gets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lean_module, "_FEWEST_FEATURES", 64)
        patch.setattr(lean_module, "_FEWEST_TILES", 32)
        changed = lean(narrow, SIZE)
    kinds = Counter(type(module) for module in changed.modules())
    assert (kinds[LeanBlock], kinds[LeanHead], kinds[WinogradConv2d]) == (4, 2, 8)
    path = tmp_path_factory.mktemp("lean") / "narrow.onnx"
    metadata = GraphMetadata("narrow", (100.0,), SIZE, "none: random weights", "0" * 64)
    path.write_bytes(to_graph(PixelNetwork(changed), metadata).SerializeToString())
    return path


def test_a_lean_file_gives_the_same_depth_with_range_masks_and_without(narrow: DapNetwork, lean_file: Path) -> None:
    engine = OnnxEngine(lean_file, find_model(lean_file), device="cpu", threads=1)
    alone, both, again = (engine.infer(PANORAMAS, in_range=in_range) for in_range in (False, True, False))
    np.testing.assert_array_equal(alone.depth, both.depth)
    np.testing.assert_array_equal(again.depth, both.depth)
    assert alone.in_range.shape == (2, 0, *SIZE)
    with torch.inference_mode():
        depth, in_range = (maps.numpy() for maps in PixelNetwork(narrow)(torch.from_numpy(PANORAMAS)))
    assert np.ptp(depth) > 0.1, "a flat answer would agree with anything"
    np.testing.assert_allclose(both.depth, depth, rtol=1e-4)
    np.testing.assert_allclose(both.in_range, in_range, atol=1e-4)


def test_without_range_masks_the_head_of_a_lean_file_that_gives_them_does_not_run(
    lean_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both heads have the same convolutions; one more makes patches of the panorama."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    monkeypatch.setattr(onnxruntime, "SessionOptions", lambda: options)
    convolutions = {}
    for in_range in (True, False):
        options.profile_file_prefix = str(tmp_path / f"{in_range}")
        session = new_session(lean_file, 1, [CPU])
        session.run(output_names(in_range), {"panorama": PANORAMAS[:1], SWITCH: np.array(in_range)})
        events = json.loads(Path(session.end_profiling()).read_text())
        kernels = [event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time")]
        convolutions[in_range] = sum("Conv" in kernel for kernel in kernels)
    assert convolutions[False] > 20
    assert convolutions[True] - 1 == 2 * (convolutions[False] - 1)
