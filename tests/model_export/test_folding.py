"""Chains of linear layers in one: the same maps at the borders, too, where zero padding meets a bias."""

import pytest
import torch
from torch import nn

from model_export.folding import PaddedWithOnes, in_blocks, pointwise_then, transposed_then, with_ones


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_a_projection_and_the_convolution_after_it(stride: int, bias: bool) -> None:
    project = nn.Conv2d(6, 9, 1).double()
    convolution = nn.Conv2d(9, 5, 3, stride, padding=1, bias=bias).double()
    features = torch.randn(2, 6, 7, 8, dtype=torch.float64)
    folded = PaddedWithOnes(pointwise_then(convolution, project))
    torch.testing.assert_close(folded(features), convolution(project(features)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [2, 4])
@torch.no_grad()
def test_a_transposed_convolution_and_the_convolution_after_it(size: int) -> None:
    project = nn.Conv2d(6, 9, 1).double()
    transposed = nn.ConvTranspose2d(9, 9, size, size).double()
    convolution = nn.Conv2d(9, 5, 3, padding=1, bias=False).double()
    features = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    folded = nn.Sequential(with_ones(project), transposed_then(convolution, transposed))
    expected = convolution(transposed(project(features)))
    torch.testing.assert_close(folded(features), expected, rtol=0, atol=1e-12)


def test_what_is_laid_out_in_blocks_is_what_it_was() -> None:
    features = torch.randn(1, 32, 3, 4)
    assert torch.equal(in_blocks(32)(features), features)
