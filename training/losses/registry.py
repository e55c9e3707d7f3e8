"""Losses on the sphere: small pure functions of tensors, each with its equation and its source.

Every loss takes a `weight` (B, ...) that already holds the mask: the solid angle of the pixel where the truth counts,
zero elsewhere. It divides by the sum of the weights of one image (never by the pixel count), takes the mean over the
batch, is zero at the truth, and has a finite gradient whatever is masked out: values of masked pixels, infinities
included, never enter an expression that is differentiated. All of it runs in float32.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from dap import sphere
from dap.model.dap import NetworkOutput
from training.config import LossWeights

DEPTH_LIMIT_M = 100.0
_TINY = 1e-12


@dataclass(frozen=True)
class Truth:
    """What is known of a batch.

    Attributes:
        depth: float32 (B, H, W), ray distance in metres, +inf on sky; any value where not `known`.
        known: bool (B, H, W), False where nothing was measured (holes of a scan).
    """

    depth: Tensor
    known: Tensor

    @property
    def measured(self) -> Tensor:
        """Bool (B, H, W): known, and a surface within `DEPTH_LIMIT_M`: where depth can be learnt."""
        return self.known & (self.depth > 0) & (self.depth <= DEPTH_LIMIT_M)

    @property
    def log_depth(self) -> Tensor:
        """Natural logarithm of the depth where `measured`, zero elsewhere."""
        return torch.where(self.measured, self.depth, 1.0).log()

    def in_range(self, thresholds: tuple[float, ...]) -> Tensor:
        """Float32 (B, T, H, W): one where the depth is below the threshold; sky is out of every range."""
        limits = torch.tensor(thresholds, device=self.depth.device)[None, :, None, None]
        return (self.depth[:, None] < limits).float()


@lru_cache(maxsize=16)
def solid_angle_weights(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Float32 (height, 1): the solid angle of a pixel of each row, divided by its mean over the rows.

    This is the distortion map M_distort of DAP (arXiv 2512.16913) with the formula that the paper leaves open.
    """
    weights = torch.from_numpy(sphere.solid_angles(height, width))
    return (weights / weights.mean()).float()[:, None].to(device)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over all but the first axis; zero where the weights are all zero. `values` are finite."""
    total = weight.flatten(1).sum(1).clamp_min(_TINY)
    return (values * weight).flatten(1).sum(1) / total


def silog(residual: Tensor, weight: Tensor, scale_invariance: float = 0.5, epsilon: float = 1e-6) -> Tensor:
    """Scale-invariant logarithmic loss: sqrt(mean(d^2) - lambda mean(d)^2 + eps) - sqrt(eps).

    d = log prediction - log truth. Eigen et al. 2014 (arXiv 1406.2283) eq. 4, with the square root and the lambda of
    0.5 of the official DAP tree; lambda = 1 forgets the scale, 0 is the root mean square. The epsilon keeps the
    gradient finite at the truth.

    Args:
        residual: d, (B, H, W), finite everywhere.
        weight: (B, H, W), solid angle times mask.
        scale_invariance: lambda.
        epsilon: inside the root.
    """
    mean = _mean(residual, weight)
    # mean(d^2) - mean(d)^2 as the mean square around the mean: the difference of two near numbers loses its digits.
    variance = _mean((residual - mean[:, None, None]).square(), weight)
    return ((variance + (1 - scale_invariance) * mean.square() + epsilon).sqrt() - math.sqrt(epsilon)).mean()


def log_l1(residual: Tensor, weight: Tensor) -> Tensor:
    """Mean of |log prediction - log truth|: holds the metric scale, which `silog` half forgets. Arguments as there."""
    return _mean(residual.abs(), weight).mean()


def gradient_matching(residual: Tensor, weight: Tensor, scales: int = 4) -> Tensor:
    """Multi-scale gradient matching: the mean over scales k of mean |d(x + 2^k) - d(x)| + mean |d(y + 2^k) - d(y)|.

    MiDaS (Ranftl et al., arXiv 1907.01341) eq. 11 on the residual d of log depth, with dilated differences instead of
    subsampled ones, so that it does not change when the panorama is rolled by any number of columns. Longitude is a
    circle. A difference counts where both of its pixels do, with the smaller weight of the two.

    Args:
        residual: d, (B, H, W), finite everywhere.
        weight: (B, H, W), solid angle times mask.
        scales: number of scales; those whose pixels lie farther apart than the image is high are left out.
    """
    height = residual.shape[-2]
    steps = [1 << k for k in range(scales) if 1 << k < height]
    losses = []
    for step in steps:
        east = (residual.roll(-step, -1) - residual).abs()
        south = (residual[:, step:] - residual[:, :-step]).abs()
        losses.append(_mean(east, torch.minimum(weight, weight.roll(-step, -1))))
        losses.append(_mean(south, torch.minimum(weight[:, step:], weight[:, :-step])))
    return torch.stack(losses).sum(0).mean() / len(steps)


def range_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy of the range mask, the mean over pixels and thresholds.

    The first half of DAP's mask loss as its text has it (arXiv 2512.16913; its formula says squared error).

    Args:
        logits: (B, T, H, W), of being in range.
        target: (B, T, H, W), 0 or 1.
        weight: (B, H, W), solid angle times mask.
    """
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return _mean(losses.mean(1), weight).mean()


def range_dice(logits: Tensor, target: Tensor, weight: Tensor, smoothing: float = 1e-3) -> Tensor:
    """Soft Dice loss of the range mask, the mean over thresholds of 1 - (2 <p t> + s) / (<p> + <t> + s).

    <.> is the weighted mean over the image. V-Net (Milletari et al., arXiv 1606.04797) with plain sums in the
    denominator. The smoothing s lets an image without any pixel in range have no loss when none is predicted. An image
    of weight zero has no loss and no gradient. Arguments as for `range_cross_entropy`.
    """
    probability = logits.sigmoid()
    weight = weight[:, None].expand_as(logits)
    share = weight / weight.flatten(2).sum(2).clamp_min(_TINY)[..., None, None]
    both, predicted, true = (
        (share * values).flatten(2).sum(2) for values in (probability * target, probability, target)
    )
    return (1 - (2 * both + smoothing) / (predicted + true + smoothing)).mean()


def training_loss(
    prediction: NetworkOutput, truth: Truth, thresholds: tuple[float, ...], weights: LossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of all losses and, for the log, each of them unweighted and detached.

    Depth is learnt where the truth is `measured`: sky and all beyond 100 m belong to the range mask, which is learnt
    wherever the truth is known.

    Args:
        prediction: the network's output at the size of the truth.
        truth: the batch's depth and what of it is known.
        thresholds: metres, the channels of `range_logits`.
        weights: the factor of each loss; a factor of zero leaves it out.
    """
    log_depth, range_logits = prediction.log_depth.float(), prediction.range_logits.float()
    solid_angles = solid_angle_weights(*log_depth.shape[-2:], log_depth.device)
    depth_weight = solid_angles * truth.measured
    known_weight = solid_angles * truth.known
    residual = torch.where(truth.measured, log_depth - truth.log_depth, 0.0)
    in_range = truth.in_range(thresholds)

    terms = {}
    if weights.silog:
        terms["silog"] = silog(residual, depth_weight, weights.scale_invariance)
    if weights.log_l1:
        terms["log_l1"] = log_l1(residual, depth_weight)
    if weights.gradient:
        terms["gradient"] = gradient_matching(residual, depth_weight, weights.gradient_scales)
    if weights.range_cross_entropy:
        terms["range_cross_entropy"] = range_cross_entropy(range_logits, in_range, known_weight)
    if weights.range_dice:
        terms["range_dice"] = range_dice(range_logits, in_range, known_weight)
    total = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return total, {name: term.detach() for name, term in terms.items()}
