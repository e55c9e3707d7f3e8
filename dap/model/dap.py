"""DAP, Depth Any Panoramas (arXiv 2512.16913): an encoder, a depth head and a range mask head, in metres."""

import math
from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dap.errors import InvalidParameter
from dap.model.config import PATCH, NetworkConfig
from dap.model.dpt import DptHead
from dap.model.efficientnet import EFFICIENTNET_SHAPES, EfficientNetEncoder
from dap.model.hybrid import HYBRID_SHAPES, HybridEncoder
from dap.model.vit import VIT_SHAPES, VisionTransformer

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class NetworkOutput(NamedTuple):
    """What the network says of B images.

    Attributes:
        depth: float32 (B, H, W), metres along the ray.
        log_depth: float32 (B, H, W), natural logarithm of `depth`, computed from the logit: exact where the sigmoid
            has run out of digits.
        range_logits: float32 (B, T, H, W), for each threshold; above 0 the surface is nearer than the threshold. T is 0
            where they were not asked for.
    """

    depth: Tensor
    log_depth: Tensor
    range_logits: Tensor


class DapNetwork(nn.Module):
    """Encoder and heads. Input: RGB (B, 3, H, W), normalised as `PixelNetwork` does; H and W are multiples of 16."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _encoder(config)
        self.depth_head = _head(config, self.encoder.channels, outputs=1, narrow=False)
        self.mask_head, *added = (
            _head(config, self.encoder.channels, outputs=len(thresholds), narrow=True)
            for thresholds in config.mask_heads
        )
        self.added_mask_heads = nn.ModuleList(added)
        if config.depth_activation == "log":
            # Start at the depth of a room, about 1.8 m, not in the middle of the logarithmic range.
            start = math.log(1.8 / config.near_m) / math.log(config.far_m / config.near_m)
        else:
            start = 1.8 / config.far_m
        last = self.depth_head.last_conv
        nn.init.constant_(last.bias, math.log(start / (1 - start)))  # type: ignore[arg-type]

    def forward(self, images: Tensor, *, in_range: bool = True) -> NetworkOutput:
        """Depth and range logits; without `in_range` the mask heads do not run.

        Raises:
            InvalidParameter: height or width is not a multiple of 16.
        """
        height, width = images.shape[-2:]
        if height % PATCH or width % PATCH:
            raise InvalidParameter(f"Height and width must be multiples of {PATCH}; the image is {height}x{width}.")
        taps = self.encoder(images)
        depth, log_depth = self._activate(self.depth_head(taps, (height, width))[:, 0].float())
        logits = (
            self._range_logits(taps, (height, width)) if in_range else depth.new_empty(len(images), 0, height, width)
        )
        return NetworkOutput(depth, log_depth, logits.float())

    @property
    def mask_heads(self) -> list[DptHead]:
        """The range mask heads, in the order of `NetworkConfig.mask_heads`."""
        return [self.mask_head, *cast("Iterable[DptHead]", self.added_mask_heads)]

    def _range_logits(self, taps: list[Tensor], size: tuple[int, int]) -> Tensor:
        logits: Tensor = self.mask_head(taps, size)
        if not self.added_mask_heads:
            return logits
        logits = torch.cat([logits, *(head(taps, size) for head in self.added_mask_heads)], dim=1)
        thresholds = [threshold for head in self.config.mask_heads for threshold in head]
        by_threshold = dict(zip(thresholds, logits.unbind(1), strict=True))
        # Picked one by one: a list of indices would be copied to a GPU, which a CUDA graph cannot record.
        return torch.stack([by_threshold[threshold] for threshold in self.config.thresholds], dim=1)

    def _activate(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        near, far = self.config.near_m, self.config.far_m
        if self.config.depth_activation == "linear":
            return far * logits.sigmoid(), math.log(far) + F.logsigmoid(logits)
        log_depth = math.log(near) + math.log(far / near) * logits.sigmoid()
        return log_depth.exp(), log_depth


class PixelNetwork(nn.Module):
    """The network from pixels to metres, as it is exported: nobody can forget to normalise."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: DapNetwork) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, panorama: Tensor, *, in_range: bool = True) -> tuple[Tensor, Tensor]:
        """uint8 (B, H, W, 3) RGB to depth, float32 (B, H, W) metres, and in-range probabilities (B, T, H, W).

        Without `in_range` the mask heads do not run, and T is 0.
        """
        output = self.network(self.normalise(panorama), in_range=in_range)
        return output.depth, output.range_logits.sigmoid()

    def normalise(self, panorama: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) RGB to the network's input, float32 (B, 3, H, W)."""
        return (panorama.permute(0, 3, 1, 2).to(self.mean.dtype) / 255 - self.mean) / self.std


def _encoder(config: NetworkConfig) -> VisionTransformer | HybridEncoder | EfficientNetEncoder:
    if config.encoder in VIT_SHAPES:
        shape = VIT_SHAPES[config.encoder]
        return VisionTransformer(shape, spherical=config.spherical, token_stretch=config.token_stretch)
    if config.encoder in EFFICIENTNET_SHAPES:
        return EfficientNetEncoder(EFFICIENTNET_SHAPES[config.encoder], spherical=config.spherical)
    return HybridEncoder(HYBRID_SHAPES[config.encoder], spherical=config.spherical)


_HEAD_WIDTHS: dict[str, tuple[tuple[int, ...], int]] = {
    "vit-s": ((48, 96, 192, 384), 64),
    "vit-b": ((96, 192, 384, 768), 128),
    "vit-l": ((256, 512, 1024, 1024), 256),
}
# Of the depth head, and of the mask head: the simpler question.
_PYRAMID_FEATURES = {"hybrid-s": (48, 24), "hybrid-xs": (16, 8), "efficientnet-lite0": (64, 32)}


def _head(config: NetworkConfig, taps: tuple[int, ...], *, outputs: int, narrow: bool) -> DptHead:
    """A head in the official widths for a ViT; an encoder with a pyramid of its own has narrower ones."""
    if config.encoder in _HEAD_WIDTHS:
        levels, features = _HEAD_WIDTHS[config.encoder]
    else:
        features = _PYRAMID_FEATURES[config.encoder][narrow]
        levels = tuple(min(tap, 4 * features) for tap in taps)
    return DptHead(
        taps,
        levels=levels,
        features=features,
        outputs=outputs,
        patch_taps=config.encoder in VIT_SHAPES,
        full_resolution=config.encoder in VIT_SHAPES,
        spherical=config.spherical,
    )
