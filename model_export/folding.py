"""Two linear layers in one, where that takes fewer multiplications.

Zero padding between two layers pads what the first has made of its bias, too, so that the bias of both together is
another at the borders. Here the input of both has channels of ones, whose weights are the bias of the first: zero
padding then leaves it out where it should.
"""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_Layer = TypeVar("_Layer", nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


ONES = 16
"""Channels of ones that `pointwise_then` reckons with: one would do, but ONNX Runtime has channels in blocks of 16."""


class PaddedWithOnes(nn.Module):
    """`layer` of (B, C, H, W) features and `ONES` channels of ones."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        return self.layer(F.pad(features, (0, 0, 0, 0, 0, ONES), value=1.0))  # type: ignore[no-any-return]


def with_ones(pointwise: nn.Conv2d) -> nn.Conv2d:
    """A 1x1 convolution that gives one channel more, of ones."""
    weight, bias = pointwise.weight.detach(), _bias(pointwise)
    return loaded(
        nn.Conv2d(pointwise.in_channels, pointwise.out_channels + 1, 1, device="meta"),
        torch.cat([weight, weight.new_zeros(1, *weight.shape[1:])]),
        torch.cat([bias, bias.new_ones(1)]),
    )


def pointwise_then(convolution: nn.Conv2d, pointwise: nn.Conv2d) -> nn.Conv2d:
    """`convolution(pointwise(x))` as one convolution of x and `ONES` channels of ones.

    Args:
        convolution: with zero padding, in one group.
        pointwise: 1x1.
    """
    columns = [pointwise.weight.detach()[:, :, 0, 0], _bias(pointwise)[:, None]]
    inner = F.pad(torch.cat(columns, dim=1).double(), (0, ONES - 1))
    weight = torch.einsum("omyx,mi->oiyx", convolution.weight.detach().double(), inner)
    outputs, inputs, *_ = weight.shape
    size, stride, padding = convolution.kernel_size, convolution.stride, convolution.padding
    made = nn.Conv2d(inputs, outputs, size, stride, padding, device="meta")  # type: ignore[arg-type]
    return loaded(made, weight.to(convolution.weight.dtype), convolution.bias)


def transposed_then(convolution: nn.Conv2d, transposed: nn.ConvTranspose2d) -> nn.ConvTranspose2d:
    """`convolution(transposed(x))` as one transposed convolution of x and one channel of ones (`with_ones`).

    Between the two are many pixels that come from one of x: at a stride of 4 the convolution takes 9 x 16 products for
    each pixel of x and pair of channels, and both together 6 x 6.

    Args:
        convolution: 3x3, stride 1, with zero padding of 1, without bias.
        transposed: its stride is its kernel's size, without padding.
    """
    size = transposed.kernel_size[0]
    blocks = transposed.weight.detach().double()  # (inputs, middle, size, size)
    constant = _bias(transposed).double()[None, :, None, None].expand(1, -1, size, size)
    # To spread a pixel out, a convolution is a transposed one with its kernel turned round.
    kernel = convolution.weight.detach().double().transpose(0, 1).flip(2, 3)
    weight = F.conv_transpose2d(torch.cat([blocks, constant]), kernel)
    inputs, outputs, *_ = weight.shape
    made = nn.ConvTranspose2d(inputs, outputs, size + 2, size, padding=1, device="meta")
    return loaded(made, weight.to(transposed.weight.dtype), None)


def in_blocks(channels: int) -> nn.Conv2d:
    """A convolution that changes nothing, for ONNX Runtime to lay the values out in blocks of channels.

    It does so before each convolution, but a transposed one gives them as they were, and so would each sum with them.
    """
    made = nn.Conv2d(channels, channels, 1, groups=channels, device="meta")
    return loaded(made, torch.ones(made.weight.shape), None)


def _bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    return layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias.detach()


def loaded(layer: _Layer, weight: Tensor, bias: Tensor | None) -> _Layer:
    """`layer`, made on the device "meta", with these parameters."""
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=False))
    return layer
