"""Convolutions of what a resize enlarges, taken apart around it: the same maps, to rounding."""

import pytest
import torch
from torch import nn

from dap.model.flop import counting
from dap.model.layers import upsample
from model_export.enlargement import EnlargedConv2d


@pytest.mark.parametrize("size", [(18, 24), (17, 31)], ids=["doubled", "by no whole factor"])
@pytest.mark.parametrize("before", [True, False])
def test_it_is_the_convolution_of_the_enlarged(size: tuple[int, int], before: bool) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(8, 5, 3, padding=1).double()
    pointwise = nn.Conv2d(8, 8, 1).double() if before else None
    features = torch.randn(2, 8, 9, 12, dtype=torch.float64)
    with torch.no_grad():
        expected = convolution(upsample(pointwise(features) if pointwise else features, size, spherical=False))
        found = EnlargedConv2d(convolution, pointwise)(features, size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_it_multiplies_between_channels_before_the_resize() -> None:
    """Moves of whole maps are counted as products of each channel with itself: three for a pixel."""
    layer = EnlargedConv2d(nn.Conv2d(64, 16, 3, padding=1))
    with counting() as counter, torch.no_grad():
        layer(torch.zeros(1, 64, 8, 12), (16, 24))
    along_columns, along_rows = 2 * 3 * 16 * (16 * 24), 3 * 2 * 3 * 16 * (16 * 12)
    assert counter.get_total_flops() == 2 * (9 * 64 * 16 * (8 * 12) + along_columns + along_rows)
