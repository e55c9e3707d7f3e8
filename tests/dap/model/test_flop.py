"""What is counted, against closed forms and the facts of the release."""

import pytest
import torch
from torch import nn

from dap.errors import InvalidParameter
from dap.model.config import EncoderName, NetworkConfig
from dap.model.flop import counting, network_flop, operator_flop


@pytest.mark.parametrize("groups", [1, 4])
def test_a_convolution_costs_the_same_forward_and_for_each_gradient(groups: int) -> None:
    """2 x 8 out x (4 / groups) in x 3 x 3 taps at each of 2 x 6 x 10 places."""
    convolution = nn.Conv2d(4, 8, 3, padding=1, groups=groups)
    forward = 2 * 8 * (4 // groups) * 9 * 2 * 6 * 10
    with counting() as counter:
        out = convolution(torch.rand(2, 4, 6, 10, requires_grad=True))
    assert counter.get_total_flops() == forward
    with counting() as counter:
        out.sum().backward()
    assert counter.get_total_flops() == 2 * forward


def test_a_transposed_convolution_is_counted_at_the_places_that_go_in() -> None:
    convolution = nn.ConvTranspose2d(4, 4, 2, 2)
    with counting() as counter:
        convolution(torch.rand(1, 4, 3, 5)).sum().backward()
    assert counter.get_total_flops() == (1 + 1) * 2 * 4 * 4 * 4 * 3 * 5, "the input needs no gradient"


def test_attention_is_two_products_forward_and_five_backward() -> None:
    """Queries, keys and values of 3 heads, 7 tokens, 8 wide; the backward pass computes the weights anew."""
    product = 2 * 3 * 7 * 7 * 8
    query, key, value = (torch.rand(1, 3, 7, 8, requires_grad=True) for _ in range(3))
    with counting() as counter:
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
    assert counter.get_total_flops() == 2 * product
    with counting() as counter:
        mixed.sum().backward()
    assert counter.get_total_flops() == 5 * product


def test_a_product_costs_two_for_each_of_its_terms() -> None:
    with counting() as counter:
        torch.rand(3, 5) @ torch.rand(5, 7)
    assert counter.get_total_flops() == 2 * 3 * 5 * 7


@pytest.mark.parametrize(("encoder", "features", "published"), [("vit-s", 64, 236e9), ("vit-l", 256, 2544e9)])
def test_the_official_networks_cost_what_was_counted_for_them(
    encoder: EncoderName, features: int, published: float
) -> None:
    """365 M and 27 M parameters less what is never used, 2544 and 236 GFLOP (facts of the release).

    Our heads do a 1x1 convolution before a resize, which saves it three quarters of 2 x 256 x 256 (64 x 64) at the
    places of the four levels.
    """
    places = [256 * 512, 128 * 256, 64 * 128, 32 * 64]
    saved = 2 * 2 * features**2 * sum(places) * 3 // 4
    assert network_flop(NetworkConfig.official(encoder), (512, 1024)) + saved == pytest.approx(published, rel=0.004)


def test_without_range_the_mask_head_is_not_counted() -> None:
    """Of 236 GFLOP each of the two heads costs 35 (facts of the release); ours a little less, see above."""
    config = NetworkConfig.official("vit-s")
    whole, depth_alone = (network_flop(config, (512, 1024), in_range=in_range) for in_range in (True, False))
    assert 1 - depth_alone / whole == pytest.approx(35 / 236, rel=0.04)


def test_a_size_that_the_network_cannot_run_at_has_no_cost() -> None:
    with pytest.raises(InvalidParameter, match="multiples of 16"):
        network_flop(NetworkConfig("hybrid-xs"), (40, 80))


def test_one_call_of_an_operator_is_counted_by_the_same_formulas() -> None:
    aten = torch.ops.aten
    a, b = torch.rand(3, 5), torch.rand(5, 7)
    assert operator_flop(aten.mm.default, (a, b), {}, a @ b) == 2 * 3 * 5 * 7
    assert operator_flop(aten.relu.default, (a,), {}, a.relu()) == 0
