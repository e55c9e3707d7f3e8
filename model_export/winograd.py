"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3) (Lavin and Gray, arXiv 1509.09308).

A tile of 4x4 results takes 6x6 values of the input. Convolving is multiplying polynomials, and those may be multiplied
by their values at points: 36 products for each pair of channels and not 144. To the points and back goes each channel
by itself, which with many channels is little beside the products between them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_KERNEL, _TILE = 3, 4
_WINDOW = _TILE + _KERNEL - 1
# At once, in whole rows. Of 256 channels at 128x256 they are an eighth: 0.3 instead of 0.7 GB, in 9% more time.
_TILES = 256
# Beside these, infinity. With 0, 1, -1, 2, -2, as is usual, rounding errors are 2.4 times as large.
_POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))


class WinogradConv2d(nn.Module):
    """A 3x3 convolution with zero padding of (B, C, H, W), in operators that every runtime has.

    To the points goes a convolution of 36 kernels with a stride of 4, which sees each channel as an image; back from
    them goes the transpose of such a convolution; the products between channels are 36 products of matrices.

    Args:
        convolution: 3x3, stride 1, in one group, with zero padding of 1; of it weights and bias are taken.
    """

    TILE = _TILE

    to_points: Tensor
    from_points: Tensor
    weight: Tensor
    bias: Tensor | None

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        values, kernel, result = transforms()
        weight = convolution.weight.detach()
        # (36, outputs, inputs)
        at_points = torch.einsum("ik,jl,ockl->ijoc", kernel, kernel, weight.double()).flatten(0, 1)
        self.register_buffer("weight", at_points.to(weight.dtype))
        self.register_buffer("to_points", _in_two_axes(values).to(weight.dtype))
        self.register_buffer("from_points", _in_two_axes(result.T).to(weight.dtype))
        bias = convolution.bias
        self.register_buffer("bias", None if bias is None else bias.detach().view(-1, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        batch, inputs, height, width = features.shape
        rows, columns = -(-height // _TILE), -(-width // _TILE)
        border = (1, 1 + columns * _TILE - width, 1, 1 + rows * _TILE - height)
        images = F.pad(features, border).reshape(batch * inputs, 1, rows * _TILE + 2, columns * _TILE + 2)
        together = max(1, _TILES // columns)
        strips = [
            self._strip(images[:, :, _TILE * row : _TILE * min(rows, row + together) + 2], batch)
            for row in range(0, rows, together)
        ]
        maps = torch.cat(strips, dim=2)[..., :height, :width]
        return maps if self.bias is None else maps + self.bias

    def _strip(self, images: Tensor, batch: int) -> Tensor:
        """The maps (B, outputs, rows, columns) of some rows of tiles, from images (B C, 1, rows + 2, columns + 2)."""
        rows, columns = images.shape[-2] // _TILE, images.shape[-1] // _TILE
        at_points = F.conv2d(images, self.to_points, stride=_TILE)
        at_points = at_points.reshape(batch, -1, _WINDOW**2, rows * columns).transpose(1, 2)
        products = (self.weight @ at_points).transpose(1, 2)
        maps = F.conv_transpose2d(products.reshape(-1, _WINDOW**2, rows, columns), self.from_points, stride=_TILE)
        return maps.reshape(batch, -1, rows * _TILE, columns * _TILE)


def transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Along one axis, float64: of six values (6, 6), of a kernel of three (6, 3), and to four results (4, 6).

    `result @ ((kernel @ k) * (values @ v))` is the correlation of v with k. By the transposition principle that is the
    product of polynomials of 4 and of 3 coefficients, turned round: evaluate both at the points (Vandermonde's
    matrices), multiply, interpolate (the inverse).
    """
    return torch.linalg.inv(_evaluation(_WINDOW)).T, _evaluation(_KERNEL), _evaluation(_TILE).T


def _evaluation(coefficients: int) -> Tensor:
    """(6, coefficients): a polynomial at each point. At infinity there is its leading coefficient."""
    finite = torch.vander(torch.tensor(_POINTS, dtype=torch.float64), coefficients, increasing=True)
    return torch.cat([finite, torch.eye(coefficients, dtype=torch.float64)[-1:]])


def _in_two_axes(transform: Tensor) -> Tensor:
    """(6, n) for one axis as kernels (36, 1, n, n) for two."""
    size = transform.shape[1]
    return torch.einsum("ik,jl->ijkl", transform, transform).reshape(-1, 1, size, size)
