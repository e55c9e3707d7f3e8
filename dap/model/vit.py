"""The DINOv3 vision transformer (arXiv 2508.10104), ViT-S/B/L with patches of 16, as an encoder of four taps."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dap.errors import InvalidParameter
from dap.model.attention import Block, RotaryAngles
from dap.model.config import PATCH

STORAGE_TOKENS = 4


@dataclass(frozen=True)
class VitShape:
    """Sizes of a ViT: token width, blocks, heads, and after which blocks (0-based) the taps are taken."""

    width: int
    depth: int
    heads: int
    taps: tuple[int, int, int, int]


VIT_SHAPES = {
    "vit-s": VitShape(384, 12, 6, (2, 5, 8, 11)),
    "vit-b": VitShape(768, 12, 12, (2, 5, 8, 11)),
    "vit-l": VitShape(1024, 24, 16, (4, 11, 17, 23)),
}


class VisionTransformer(nn.Module):
    """Encoder: images (B, 3, H, W) to four maps of patch features (B, width, H/16, W/16).

    Attributes:
        channels: of each tap.
    """

    def __init__(self, shape: VitShape, *, spherical: bool, token_stretch: bool) -> None:
        super().__init__()
        self.shape = shape
        self.token_stretch = token_stretch
        self.channels = (shape.width,) * 4
        self.patch_embed = nn.Conv2d(3, shape.width, PATCH, PATCH)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.storage_tokens = nn.Parameter(torch.zeros(1, STORAGE_TOKENS, shape.width))
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.storage_tokens, std=0.02)
        self.rope_embed = RotaryAngles(shape.width // shape.heads, spherical=spherical)
        self.blocks = nn.ModuleList(Block(shape.width, shape.heads) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, eps=1e-5)
        # The official adapter normalises every tap once more, with weights of its own.
        self.tap_norm = nn.LayerNorm(shape.width, eps=1e-5)

    def forward(self, images: Tensor) -> list[Tensor]:
        patches = self.patch_embed(images)
        batch, width, rows, columns = patches.shape
        prefix = torch.cat([self.cls_token, self.storage_tokens], dim=1).expand(batch, -1, -1)
        tokens = torch.cat([prefix, patches.flatten(2).transpose(1, 2)], dim=1)
        rotation = self.rope_embed(rows, columns, prefix=prefix.shape[1])
        taps = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, rotation)
            if index in self.shape.taps:
                tap = self.tap_norm(self.norm(tokens)[:, 1 + STORAGE_TOKENS :])
                if self.token_stretch:
                    tap = stretch_tokens(tap)
                taps.append(tap.transpose(1, 2).reshape(batch, width, rows, columns))
        return taps


def stretch_tokens(patches: Tensor) -> Tensor:
    """Drop the first of N patch tokens (B, N, C) and stretch the rest back to N.

    Linear along the raster order, half-pixel centres. The official adapter does this (it takes the first patch for a
    class token), so its weights need it.

    Raises:
        InvalidParameter: N - 1 is a perfect square (464x928, say): the official code takes another way there that no
            released weights were made for.
    """
    count = patches.shape[1]
    if math.isqrt(count - 1) ** 2 == count - 1:
        raise InvalidParameter(
            f"The official weights cannot run on an input of {count} patches, because {count - 1} is a perfect square; "
            "any other size that is a multiple of 16 works, 512x1024 best."
        )
    position = (torch.arange(count, device=patches.device, dtype=torch.float32) + 0.5) * ((count - 1) / count) - 0.5
    position = position.clamp(0, count - 2)
    left = position.floor().long()
    right = (left + 1).clamp(max=count - 2)
    weight = (position - left)[:, None].to(patches.dtype)
    rest = patches[:, 1:]
    return rest[:, left] * (1 - weight) + rest[:, right] * weight
