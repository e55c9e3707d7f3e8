"""3x3 convolutions of what a bilinear resize has enlarged, with most of their multiplications before the resize."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dap.model.layers import upsample
from model_export.folding import loaded

_ROWS, _COLUMNS = 2, 3


class EnlargedConv2d(nn.Module):
    """`convolution(upsample(before(features), size))` for corners that are aligned, the same but for rounding.

    A 3x3 convolution is the sum of nine 1x1 convolutions, each of whose results is moved by one pixel at most. A 1x1
    convolution commutes with a resize: before it there are fewer pixels, a quarter where the size is doubled. Then nine
    results are enlarged and not the features, rows first, then columns.

    Args:
        convolution: 3x3, stride 1, with zero padding of 1.
        before: 1x1; none: the features are enlarged as they are.
    """

    def __init__(self, convolution: nn.Conv2d, before: nn.Conv2d | None = None) -> None:
        super().__init__()
        weight, bias = _composed(convolution, before)
        self.taps = nn.ModuleList(
            _pointwise(weight[:, :, row, column], bias[:, row, column]) for column in range(3) for row in range(3)
        )
        for axis, shape in ((_ROWS, (-1, 1, 3, 1)), (_COLUMNS, (-1, 1, 1, 3))):
            for place in (0, 2):
                move = torch.eye(3)[place].repeat(convolution.out_channels, 1).view(shape)
                self.register_buffer(_move(axis, place), move.to(weight.dtype))

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        higher = (size[0], features.shape[-1])
        return self._sum(
            lambda column: self._sum(lambda row: self.taps[3 * column + row](features), higher, _ROWS), size, _COLUMNS
        )

    def _sum(self, tap: Callable[[int], Tensor], size: tuple[int, int], axis: int) -> Tensor:
        """Of three taps, enlarged, the first and the last moved along the axis, zero from outside."""
        total = upsample(tap(1), size, spherical=False)
        padding = (1, 0) if axis == _ROWS else (0, 1)
        for place in (0, 2):
            enlarged = upsample(tap(place), size, spherical=False)
            move = self.get_buffer(_move(axis, place))
            total = F.conv2d(enlarged, move, padding=padding, groups=len(move)) + total
        return total


def _move(axis: int, place: int) -> str:
    return f"move_{axis}_{place}"


def _composed(convolution: nn.Conv2d, before: nn.Conv2d | None) -> tuple[Tensor, Tensor]:
    """The weight (outputs, inputs, 3, 3) of both convolutions in one, and the bias of each tap (outputs, 3, 3)."""
    weight = convolution.weight.detach().double()
    bias = weight.new_zeros(weight.shape[0], 3, 3)
    if before is not None:
        if before.bias is not None:
            bias = torch.einsum("omyx,m->oyx", weight, before.bias.detach().double())
        weight = torch.einsum("omyx,mi->oiyx", weight, before.weight.detach().double()[:, :, 0, 0])
    if convolution.bias is not None:
        bias[:, 1, 1] += convolution.bias.detach()
    return weight.to(convolution.weight.dtype), bias.to(convolution.weight.dtype)


def _pointwise(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    outputs, inputs = weight.shape
    return loaded(nn.Conv2d(inputs, outputs, 1, device="meta"), weight[:, :, None, None], bias)
