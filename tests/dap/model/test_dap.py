"""The network in metres, and true on the sphere."""

import math

import pytest
import torch
import torch.nn.functional as F

from dap.errors import InvalidParameter
from dap.model.attention import RotaryAngles, whole_frequencies
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork, PixelNetwork
from dap.model.layers import upsample
from dap.model.vit import stretch_tokens


def lively(config: NetworkConfig) -> DapNetwork:
    """A random network whose every part matters: no residual branch starts near zero."""
    torch.manual_seed(1)
    network = DapNetwork(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.3)
            elif parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("encoder", ["hybrid-xs", "hybrid-s", "efficientnet-lite0", "vit-s"])
@pytest.mark.parametrize("patches", [1, 5])
def test_rolling_the_panorama_by_whole_patches_rolls_the_answer(encoder: str, patches: int) -> None:
    network = lively(NetworkConfig(encoder=encoder))  # type: ignore[arg-type]
    image = torch.randn(1, 3, 64, 128)
    columns = 16 * patches
    with torch.inference_mode():
        still, rolled = network(image), network(image.roll(columns, -1))
    torch.testing.assert_close(rolled.log_depth, still.log_depth.roll(columns, -1), atol=1e-5, rtol=0)
    torch.testing.assert_close(rolled.range_logits, still.range_logits.roll(columns, -1), atol=1e-5, rtol=0)
    assert still.log_depth.std() > 1e-3, "a constant answer would roll too"


def test_the_official_network_is_not_periodic_which_is_why_the_switch_exists() -> None:
    network = lively(NetworkConfig.official("vit-s"))
    image = torch.randn(1, 3, 64, 128)
    with torch.inference_mode():
        still, rolled = network(image), network(image.roll(16, -1))
    assert (rolled.log_depth - still.log_depth.roll(16, -1)).abs().max() > 1e-3


@pytest.mark.parametrize("encoder", ["hybrid-xs", "efficientnet-lite0", "vit-s"])
@pytest.mark.parametrize("size", [(48, 96), (80, 160), (32, 96)])
def test_any_multiple_of_16_is_an_input_and_the_answer_has_its_size(encoder: str, size: tuple[int, int]) -> None:
    network = DapNetwork(NetworkConfig(encoder=encoder)).eval()  # type: ignore[arg-type]
    with torch.inference_mode():
        output = network(torch.randn(2, 3, *size))
    assert output.depth.shape == output.log_depth.shape == (2, *size)
    assert output.range_logits.shape == (2, 4, *size)


def test_another_size_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="multiples of 16; the image is 64x130"):
        DapNetwork(NetworkConfig(encoder="hybrid-xs"))(torch.zeros(1, 3, 64, 130))


@pytest.mark.parametrize("activation", ["linear", "log"])
def test_depth_and_its_logarithm_agree_and_stay_between_the_limits(activation: str) -> None:
    config = NetworkConfig(encoder="hybrid-xs", depth_activation=activation, near_m=0.2, far_m=50.0)  # type: ignore[arg-type]
    network = DapNetwork(config)
    depth, log_depth = network._activate(torch.linspace(-12, 12, 101))
    torch.testing.assert_close(depth.log(), log_depth, atol=1e-4, rtol=0)
    assert depth.max() <= 50.0 + 1e-4
    assert depth[50].item() == pytest.approx(25.0 if activation == "linear" else math.sqrt(0.2 * 50.0))
    assert depth.min() >= (0.0 if activation == "linear" else 0.2 - 1e-6)


@pytest.mark.parametrize("activation", ["linear", "log"])
def test_an_untrained_network_sees_a_room_not_the_middle_of_its_range(activation: str) -> None:
    torch.manual_seed(0)
    network = DapNetwork(NetworkConfig(encoder="hybrid-xs", depth_activation=activation)).eval()  # type: ignore[arg-type]
    with torch.inference_mode():
        depth = network(torch.randn(1, 3, 64, 128)).depth
    assert 0.9 < depth.median() < 3.6


def test_pixels_are_normalised_by_the_mean_and_deviation_of_imagenet() -> None:
    pixels = torch.zeros(1, 16, 32, 3, dtype=torch.uint8)
    pixels[..., 0] = 255
    image = PixelNetwork(DapNetwork(NetworkConfig(encoder="hybrid-xs"))).normalise(pixels)
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(image[0, :, 0, 0], expected)


def test_longitude_frequencies_are_different_whole_numbers_from_1() -> None:
    assert whole_frequencies(8, highest=32) == [1, 2, 3, 4, 7, 12, 20, 32]
    assert whole_frequencies(16)[0] == 1
    assert len(set(whole_frequencies(16))) == 16


@pytest.mark.parametrize("spherical", [False, True])
def test_the_rotary_embedding_turns_patches_and_not_the_tokens_before_them(spherical: bool) -> None:
    rotation = RotaryAngles(8, spherical=spherical)(2, 4, prefix=3)
    tokens = torch.randn(1, 3 + 8, 2, 1, 8)
    turned = rotation.turn(tokens)
    torch.testing.assert_close(turned.norm(dim=-1)[:, 3:], tokens.norm(dim=-1)[:, 3:])
    assert not torch.isclose(turned, tokens)[:, 3:].all(dim=-1).any()
    by_latitude = torch.tensor([True, True, False, False] * 2)  # the first half of the angles, then the pairs' others
    expected = tokens[:, :3] * by_latitude if spherical else tokens[:, :3]
    assert torch.equal(turned[:, :3], expected)


def test_a_resize_by_a_whole_factor_is_the_resize_to_that_size() -> None:
    maps = torch.randn(1, 2, 3, 5)
    expected = F.interpolate(maps, (6, 15), mode="bilinear", align_corners=True)
    assert torch.equal(upsample(maps, (6, 15), spherical=False), expected)


def test_stretching_n_minus_1_tokens_to_n_follows_half_pixel_centres() -> None:
    tokens = torch.tensor([9.0, 0.0, 1.0, 2.0]).view(1, 4, 1)  # the first is dropped: 0 1 2 become four
    # Centres (i + 0.5) * 3/4 - 0.5 = -0.125, 0.625, 1.375, 2.125; the ends hold.
    expected = torch.tensor([0.0, 0.625, 1.375, 2.0]).view(1, 4, 1)
    with pytest.raises(InvalidParameter, match="perfect square"):
        stretch_tokens(torch.zeros(1, 5, 1))
    torch.testing.assert_close(stretch_tokens(tokens), expected)


def test_added_mask_heads_give_channels_that_ascend_with_those_of_the_first() -> None:
    """Two heads were added: for 10 and 50 m, and for 20 m. The first has 100 m and what comes below all of them."""
    config = NetworkConfig(
        encoder="hybrid-xs", thresholds=(5.0, 10.0, 20.0, 50.0, 100.0), added_thresholds=((10.0, 50.0), (20.0,))
    )
    assert config.mask_heads == ((5.0, 100.0), (10.0, 50.0), (20.0,))
    network = lively(config)
    image = torch.randn(1, 3, 32, 64)
    with torch.inference_mode():
        taps = network.encoder(image)
        first, second, third = (head(taps, (32, 64)) for head in network.mask_heads)
        logits = network(image).range_logits
    expected = [first[:, 0], second[:, 0], third[:, 0], second[:, 1], first[:, 1]]
    assert torch.equal(logits, torch.stack(expected, dim=1))
