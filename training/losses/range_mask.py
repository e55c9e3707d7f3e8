"""Losses of the range mask: which pixels are nearer than each threshold."""

import torch
import torch.nn.functional as F
from torch import Tensor

from training.losses.weighting import TINY, weighted_mean


def range_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor, balance: float = 0.0) -> Tensor:
    """Binary cross-entropy of the range mask, the mean over pixels and thresholds.

    The first half of DAP's mask loss as its text has it (arXiv 2512.16913: weighted BCE + Dice; its formula has the
    squared error instead). What it is weighted by is not published. A choice: by how rare the class is in the image, to
    a power between 0 (every pixel alike) and 1 (in range and beyond count the same, however small one of them is).

    Args:
        logits: (B, T, H, W), of being in range.
        target: (B, T, H, W), 0 or 1.
        weight: (B, H, W), solid angle times mask.
        balance: that power b. A pixel of a class that covers a share s of the image counts s^-b, times what makes these
            factors one in the mean.
    """
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if balance:
        losses = losses * rarity(target, weight, balance)
    return weighted_mean(losses.mean(1), weight).mean()


def rarity(target: Tensor, weight: Tensor, balance: float) -> Tensor:
    """The factor (B, T, H, W) of `range_cross_entropy` for each pixel. Arguments as there."""
    total = weight.flatten(1).sum(1).clamp_min(TINY)[:, None]
    inside = (target * weight[:, None]).flatten(2).sum(2) / total
    shares = torch.stack([1 - inside, inside])
    factors = shares.clamp_min(TINY) ** -balance
    factors = factors / (shares * factors).sum(0)
    return torch.where(target > 0, factors[1][..., None, None], factors[0][..., None, None])


def range_squared_error(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean of (probability - target)^2 over pixels and thresholds.

    The first half of DAP's mask loss as its formula has it (arXiv 2512.16913: squared error + 0.5 Dice). Arguments as
    for `range_cross_entropy`.
    """
    return weighted_mean((logits.sigmoid() - target).square().mean(1), weight).mean()


def range_dice(logits: Tensor, target: Tensor, weight: Tensor, smoothing: float = 1e-3) -> Tensor:
    """Soft Dice loss of the range mask, the mean over thresholds of 1 - (2 <p t> + s) / (<p> + <t> + s).

    <.> is the weighted mean over the image. V-Net (Milletari et al., arXiv 1606.04797) with plain sums in the
    denominator. The smoothing s lets an image without any pixel in range have no loss when none is predicted. An image
    of weight zero has no loss and no gradient. Arguments as for `range_cross_entropy`.
    """
    probability = logits.sigmoid()
    weight = weight[:, None].expand_as(logits)
    share = weight / weight.flatten(2).sum(2).clamp_min(TINY)[..., None, None]
    both, predicted, true = (
        (share * values).flatten(2).sum(2) for values in (probability * target, probability, target)
    )
    return (1 - (2 * both + smoothing) / (predicted + true + smoothing)).mean()
