"""The DPT head (arXiv 2103.13413) in the form that Depth Anything gave it: ReLU, no batch norm."""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from dap.model.config import PATCH
from dap.model.layers import Conv2d, upsample

OUTPUT_CHANNELS = 32


class ResidualConvUnit(nn.Module):
    def __init__(self, channels: int, *, spherical: bool) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels, channels, 3, spherical=spherical)
        self.conv2 = Conv2d(channels, channels, 3, spherical=spherical)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.conv2(F.relu(self.conv1(F.relu(features))))  # type: ignore[no-any-return]


class Fusion(nn.Module):
    """Adds a finer level to what comes from the coarser one, and refines ("refinenet").

    The coarsest level has no coarser one: it is made with `has_skip=False` and is given only its features.
    """

    def __init__(self, channels: int, *, has_skip: bool, spherical: bool) -> None:
        super().__init__()
        self.resConfUnit1 = ResidualConvUnit(channels, spherical=spherical) if has_skip else None
        self.resConfUnit2 = ResidualConvUnit(channels, spherical=spherical)
        self.out_conv = nn.Conv2d(channels, channels, 1)

    def forward(self, coarse: Tensor, skip: Tensor | None) -> Tensor:
        if self.resConfUnit1 is not None and skip is not None:
            coarse = coarse + self.resConfUnit1(skip)
        # The official head resizes before this. A 1x1 convolution and a bilinear resize commute: so it costs a quarter.
        return self.out_conv(self.resConfUnit2(coarse))  # type: ignore[no-any-return]


class DptHead(nn.Module):
    """Four taps to `outputs` maps of logits at the size of the image.

    Args:
        taps: channels of the four taps, finest first.
        levels: channels that each tap is projected to.
        features: channels of the fusion.
        outputs: maps.
        patch_taps: the taps are patch features, all at stride 16 (a plain ViT), and are resized to a pyramid here;
            otherwise they come as a pyramid.
        full_resolution: the last convolutions run at the size of the image, as in the release; otherwise at half of
            it, a quarter of the cost.
        spherical: longitude is a circle. The coarsest level then stays at stride 16, since a stride of 32 would see
            every second patch only and rolling the image by one patch would change more than the place of the output.
    """

    def __init__(
        self,
        taps: tuple[int, ...],
        *,
        levels: tuple[int, ...],
        features: int,
        outputs: int,
        patch_taps: bool,
        full_resolution: bool,
        spherical: bool,
    ) -> None:
        super().__init__()
        self.spherical = spherical
        self.full_resolution = full_resolution
        self.projects = nn.ModuleList(nn.Conv2d(tap, level, 1) for tap, level in zip(taps, levels, strict=True))
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(levels[0], levels[0], 4, 4),
                nn.ConvTranspose2d(levels[1], levels[1], 2, 2),
                nn.Identity(),
                Conv2d(levels[3], levels[3], 3, stride=1 if spherical else 2, spherical=spherical),
            ]
            if patch_taps
            else [nn.Identity() for _ in levels]
        )
        self.to_features = nn.ModuleList(
            Conv2d(level, features, 3, bias=False, spherical=spherical) for level in levels
        )
        self.fusions = nn.ModuleList(
            Fusion(features, has_skip=index < len(levels) - 1, spherical=spherical) for index in range(len(levels))
        )
        self.output_conv1 = Conv2d(features, features // 2, 3, spherical=spherical)
        self.output_conv2 = nn.Sequential(
            Conv2d(features // 2, OUTPUT_CHANNELS, 3, spherical=spherical),
            nn.ReLU(),
            nn.Conv2d(OUTPUT_CHANNELS, outputs, 1),
        )

    @property
    def last_conv(self) -> nn.Conv2d:
        """The 1x1 convolution that gives the logits."""
        return cast("nn.Conv2d", self.output_conv2[2])

    def forward(self, taps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Logits (B, outputs, H, W) from the taps of an image of `size` (H, W)."""
        fused = upsample(self.fused(taps), half_of(size), spherical=self.spherical)
        maps = self.output_conv1(fused)
        if self.full_resolution:
            return self.output_conv2(upsample(maps, size, spherical=self.spherical))  # type: ignore[no-any-return]
        return upsample(self.output_conv2(maps), size, spherical=self.spherical)

    def fused(self, taps: list[Tensor]) -> Tensor:
        """The features (B, features, h, w) of all levels, in the size of the finest."""
        pyramid = [
            to_features(resize(project(tap)))
            for tap, project, resize, to_features in zip(
                taps, self.projects, self.resize_layers, self.to_features, strict=True
            )
        ]
        fused: Tensor = self.fusions[-1](pyramid[-1], None)
        for fusion, level in zip(self.fusions[-2::-1], pyramid[-2::-1], strict=True):
            height, width = level.shape[-2:]
            fused = fusion(upsample(fused, (height, width), spherical=self.spherical), level)
        return fused


def half_of(size: tuple[int, int]) -> tuple[int, int]:
    """Of an image of `size` (H, W), the size at which the first of the output convolutions runs."""
    return size[0] // (PATCH // 8), size[1] // (PATCH // 8)
