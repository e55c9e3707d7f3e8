"""The network in bfloat16 and float16: what is low, what stays float32, and what it costs in metres."""

import copy
import functools
from collections.abc import Callable

import pytest
import torch

from dap.model.checkpoints import network_from_state
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork, PixelNetwork
from dap.model.precision import float32_layers, lower
from model_export import precision as of_exports
from model_export.samples import scene_panoramas
from model_export.verify import LIMITS
from tests.dap.model.conformance import official_state

PIXELS = torch.stack([torch.from_numpy(scene) for scene in scene_panoramas((64, 128), 2, seed=1)])


@functools.cache
def official_network() -> DapNetwork:
    return network_from_state(official_state("vits", seed=7)).eval()


def random_network(encoder: str) -> DapNetwork:
    torch.manual_seed(3)
    return DapNetwork(NetworkConfig(encoder=encoder)).eval()


NETWORKS: dict[str, Callable[[], DapNetwork]] = {
    "hybrid": lambda: random_network("hybrid-s"),
    "efficientnet": lambda: random_network("efficientnet-lite0"),
    "vit": lambda: copy.deepcopy(official_network()),
}


def depth_of(network: DapNetwork) -> torch.Tensor:
    with torch.inference_mode():
        return PixelNetwork(network)(PIXELS)[0].double()


def absrel(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((found - expected).abs() / expected).mean())


@pytest.mark.parametrize("encoder", NETWORKS)
def test_products_are_low_but_for_those_that_need_float32_and_norms_are_not(encoder: str) -> None:
    network = NETWORKS[encoder]()
    kept = float32_layers(network.config)
    lower(network, torch.bfloat16)
    low = {name for name, weight in network.named_parameters() if weight.dtype == torch.bfloat16}
    float32 = dict(network.named_parameters()).keys() - low
    assert {name for name in float32 if name.startswith(kept)}
    assert not {name for name in low if name.startswith(kept) or "norm" in name}
    products = {name for name, weight in network.named_parameters() if weight.ndim >= 2 and "token" not in name}
    assert not {name for name in products & float32 if not name.startswith(kept)}


@pytest.mark.parametrize("encoder", NETWORKS)
def test_bfloat16_keeps_the_limit_of_its_precision_which_it_would_not_in_every_layer(encoder: str) -> None:
    network = NETWORKS[encoder]()
    exact = depth_of(network)
    with torch.autocast("cpu", torch.bfloat16):
        everywhere = absrel(depth_of(network), exact)
    lower(network, torch.bfloat16)
    low = absrel(depth_of(network), exact)
    assert 0 < low < min(everywhere, LIMITS["bf16"]["absrel"])
    if encoder == "vit":
        assert everywhere > LIMITS["bf16"]["absrel"]


def test_float16_is_closer_than_bfloat16() -> None:
    exact = depth_of(random_network("hybrid-xs"))
    errors = {}
    for dtype in (torch.bfloat16, torch.float16):
        network = random_network("hybrid-xs")
        lower(network, dtype)
        errors[dtype] = absrel(depth_of(network), exact)
    assert 0 < errors[torch.float16] < errors[torch.bfloat16] / 4


def test_what_comes_out_is_float32() -> None:
    network = random_network("hybrid-xs")
    lower(network, torch.bfloat16)
    with torch.inference_mode():
        output = network(torch.zeros(1, 3, 32, 64))
    assert {value.dtype for value in output} == {torch.float32}


def test_the_same_layers_stay_float32_in_exports() -> None:
    first, next_to_try = of_exports.FLOAT32_LAYERS
    for encoder, layers in (("hybrid-s", first), ("efficientnet-lite0", first), ("vit-l", next_to_try)):
        assert {f"network.{name}" for name in float32_layers(NetworkConfig(encoder=encoder))} == set(layers)


def test_it_is_one_graph_to_torch_compile() -> None:
    network = PixelNetwork(random_network("hybrid-xs"))
    lower(network.network, torch.bfloat16)
    compiled = torch.compile(network, fullgraph=True, dynamic=False, backend="eager")
    with torch.inference_mode():
        for found, expected in zip(compiled(PIXELS), network(PIXELS), strict=True):
            torch.testing.assert_close(found, expected)
