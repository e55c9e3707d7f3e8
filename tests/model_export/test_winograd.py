"""Convolutions in a quarter of the multiplications: the same maps, to rounding."""

import pytest
import torch
from torch import nn

from dap.model.flop import counting
from model_export.winograd import WinogradConv2d, transforms


def test_along_one_axis_six_values_and_three_weights_make_four_results() -> None:
    """A convolution, as networks have it, does not turn its kernel round."""
    values, kernel, result = transforms()
    x = torch.tensor([2.0, -1.0, 0.5, 3.0, -4.0, 1.0], dtype=torch.float64)
    weights = torch.tensor([1.0, -2.0, 0.25], dtype=torch.float64)
    found = result @ ((kernel @ weights) * (values @ x))
    torch.testing.assert_close(found, torch.tensor([4.125, -1.25, -6.5, 11.25], dtype=torch.float64))


@pytest.mark.parametrize("size", [(8, 16), (6, 9), (3, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_convolution_in_whole_tiles_or_not(size: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(5, 7, 3, padding=1, bias=bias).double()
    features = torch.randn(2, 5, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(WinogradConv2d(convolution)(features), convolution(features), rtol=0, atol=1e-13)


def test_in_float32_rounding_is_some_millionths() -> None:
    """Of 9 x 256 products added up: a convolution of its own is off by three ten-millionths."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(256, 32, 3, padding=1)
    features = torch.randn(1, 256, 16, 16).relu()
    with torch.no_grad():
        found = WinogradConv2d(convolution)(features).double()
        expected = convolution.double()(features.double())
    assert (found - expected).std() / expected.std() < 3e-6


def test_between_channels_there_are_36_products_for_16_pixels() -> None:
    inputs, outputs, tiles = 24, 40, 4 * 8
    layer = WinogradConv2d(nn.Conv2d(inputs, outputs, 3, padding=1))
    with counting() as counter, torch.no_grad():
        layer(torch.zeros(1, inputs, 16, 32))
    to_points, from_points = 36 * 36 * inputs, 36 * 16 * outputs
    assert counter.get_total_flops() == 2 * tiles * (to_points + 36 * inputs * outputs + from_points)
