"""A convolutional stem with attention on top: the encoder of our small models.

The idea of DPT-Hybrid (arXiv 2103.13413): fine taps come from convolutions, coarse ones from attention. A plain ViT
does not learn depth from scratch on a small budget; this does (docs/decisions). The rays' latitude goes in as two
more channels, since up and down are known in a panorama.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dap.model.attention import Block, RotaryAngles
from dap.model.layers import Conv2d

NORM_GROUPS = 8


@dataclass(frozen=True)
class HybridShape:
    """Sizes of a hybrid encoder.

    Attributes:
        widths: channels at strides 2, 4, 8 and 16.
        residuals: residual blocks at strides 4, 8 and 16.
        blocks: transformer blocks at stride 16; the third tap is taken after half of them.
        heads: of each transformer block.
    """

    widths: tuple[int, int, int, int]
    residuals: tuple[int, int, int]
    blocks: int
    heads: int


HYBRID_SHAPES = {
    "hybrid-s": HybridShape(widths=(24, 48, 96, 192), residuals=(1, 2, 2), blocks=6, heads=6),
    "hybrid-xs": HybridShape(widths=(8, 16, 24, 32), residuals=(1, 1, 1), blocks=2, heads=2),
}


class ConvNorm(nn.Module):
    """3x3 convolution and group normalisation."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, spherical: bool) -> None:
        super().__init__()
        self.conv = Conv2d(inputs, outputs, 3, stride=stride, bias=False, spherical=spherical)
        self.norm = nn.GroupNorm(NORM_GROUPS, outputs)

    def forward(self, features: Tensor) -> Tensor:
        return self.norm(self.conv(features))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """Two 3x3 convolutions around a skip; an identity at the start of training."""

    def __init__(self, channels: int, *, spherical: bool) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels, spherical=spherical)
        self.second = ConvNorm(channels, channels, spherical=spherical)
        nn.init.zeros_(self.second.norm.weight)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + self.second(F.relu(self.first(features))))


class HybridEncoder(nn.Module):
    """Encoder: images (B, 3, H, W) to four taps at strides 4, 8, 16 and 16.

    Attributes:
        channels: of each tap.
    """

    def __init__(self, shape: HybridShape, *, spherical: bool) -> None:
        super().__init__()
        two, four, eight, sixteen = shape.widths
        self.shape = shape
        self.channels = (four, eight, sixteen, sixteen)
        self.stem = ConvNorm(5, two, stride=2, spherical=spherical)
        self.stage4 = self._stage(two, four, shape.residuals[0], spherical)
        self.stage8 = self._stage(four, eight, shape.residuals[1], spherical)
        self.stage16 = self._stage(eight, sixteen, shape.residuals[2], spherical)
        self.rotary = RotaryAngles(sixteen // shape.heads, spherical=spherical)
        self.blocks = nn.ModuleList(Block(sixteen, shape.heads, layer_scale=0.1) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(sixteen)

    @staticmethod
    def _stage(inputs: int, outputs: int, residuals: int, spherical: bool) -> nn.Sequential:
        return nn.Sequential(
            ConvNorm(inputs, outputs, stride=2, spherical=spherical),
            nn.ReLU(),
            *(Residual(outputs, spherical=spherical) for _ in range(residuals)),
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        stem = F.relu(self.stem(torch.cat([images, latitude_channels(images)], dim=1)))
        four = self.stage4(stem)
        eight = self.stage8(four)
        sixteen = self.stage16(eight)
        batch, width, rows, columns = sixteen.shape
        tokens = sixteen.flatten(2).transpose(1, 2)
        rotation = self.rotary(rows, columns)
        taps = [four, eight]
        for index, block in enumerate(self.blocks, start=1):
            tokens = block(tokens, rotation)
            if index in (len(self.blocks) // 2, len(self.blocks)):
                taps.append(self.norm(tokens).transpose(1, 2).reshape(batch, width, rows, columns))
        return taps


def latitude_channels(images: Tensor) -> Tensor:
    """Sine and cosine of each row's latitude, (B, 2, H, W) for images (B, C, H, W)."""
    batch, _, height, width = images.shape
    latitude = (0.5 - (torch.arange(height, device=images.device, dtype=images.dtype) + 0.5) / height) * math.pi
    channels = torch.stack([latitude.sin(), latitude.cos()])
    return channels[None, :, :, None].expand(batch, 2, height, width)
