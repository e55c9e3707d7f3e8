"""Layers that know that longitude is a circle.

On an equirectangular image the first and the last column are neighbours. `spherical=True` makes a layer treat them
so: a roll of its input by whole strides rolls its output. Rows keep zero padding (convolution) or replication
(resize): the poles are the edge of the image, and that edge tells the network the latitude. With `spherical=False`
each layer is exactly the plain torch one that the official weights were trained with.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pad_longitude(features: Tensor, columns: int) -> Tensor:
    """Continue (..., H, W) by `columns` on both sides with the columns from the other side."""
    return torch.cat([features[..., -columns:], features, features[..., :columns]], dim=-1)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` with "same" padding for odd kernels, circular in longitude when `spherical`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, bias: bool = True, spherical: bool
    ) -> None:
        self.columns = kernel // 2 if spherical else 0
        super().__init__(inputs, outputs, kernel, stride, padding=(kernel // 2, kernel // 2 - self.columns), bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(pad_longitude(features, self.columns) if self.columns else features)


def upsample(features: Tensor, size: tuple[int, int], *, spherical: bool) -> Tensor:
    """Bilinear resize of (B, C, h, w) to `size`.

    Spherical: half-pixel centres and neighbours across the border; `size` is a whole multiple of (h, w). Otherwise
        the corners are aligned, as the
    official network does everywhere.
    """
    if features.shape[-2:] == size:
        return features
    rows, columns = (to // of for to, of in zip(size, features.shape[-2:], strict=True))
    if not spherical:
        if size == (rows * features.shape[-2], columns * features.shape[-1]):
            # The same numbers, and in ONNX Runtime a third of the time: it keeps the layout of its convolutions.
            return F.interpolate(features, scale_factor=(rows, columns), mode="bilinear", align_corners=True)
        return F.interpolate(features, size, mode="bilinear", align_corners=True)
    resized = F.interpolate(
        pad_longitude(features, 1), scale_factor=(rows, columns), mode="bilinear", align_corners=False
    )
    return resized[..., columns:-columns]
