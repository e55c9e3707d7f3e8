"""Losses of log depth: scale-invariant, absolute, of its gradient, and on the edges of the true depth."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from training.losses.truth import DEPTH_LIMIT_M, Truth
from training.losses.weighting import weighted_mean
from training.sphere import pad_sphere


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
    mean = weighted_mean(residual, weight)
    # mean(d^2) - mean(d)^2 as the mean square around the mean: the difference of two near numbers loses its digits.
    variance = weighted_mean((residual - mean[:, None, None]).square(), weight)
    return ((variance + (1 - scale_invariance) * mean.square() + epsilon).sqrt() - math.sqrt(epsilon)).mean()


def log_l1(residual: Tensor, weight: Tensor) -> Tensor:
    """Mean of |log prediction - log truth|: holds the metric scale, which `silog` half forgets. Arguments as there."""
    return weighted_mean(residual.abs(), weight).mean()


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
        losses.append(weighted_mean(east, torch.minimum(weight, weight.roll(-step, -1))))
        losses.append(weighted_mean(south, torch.minimum(weight[:, step:], weight[:, :-step])))
    return torch.stack(losses).sum(0).mean() / len(steps)


@torch.no_grad()
def edges(truth: Truth, threshold: float = 0.05) -> Tensor:
    """Bool (B, H, W): where the Sobel gradient of the true depth in ERP is above the threshold.

    The mask of DAP's gradient loss (arXiv 2512.16913). Choices, since the paper names neither scale nor threshold: the
    gradient is that of log depth, so that a step of one tenth is as much of an edge at 2 m as at 50 m; the kernels are
    divided by 8, so that it reads as the change of log depth from a pixel to the next (a step counts half of its height
    on both of its sides); sky and all beyond `DEPTH_LIMIT_M` stand at that limit, so that a silhouette before the sky
    is an edge. A pixel that has a neighbour of unknown depth is none. Columns wrap, rows go on over the poles.

    Args:
        truth: the batch's.
        threshold: of the magnitude of the gradient, natural logarithm of depth per pixel.
    """
    seen = truth.known & (truth.depth > 0)
    log_depth = torch.where(seen, truth.depth, 1.0).clamp_max(DEPTH_LIMIT_M).log()
    smooth, difference = (torch.tensor(taps, device=log_depth.device) for taps in ((0.25, 0.5, 0.25), (-0.5, 0.0, 0.5)))
    east = smooth[:, None] * difference
    around = pad_sphere(log_depth, (1, 1), (1, 1))[:, None]
    magnitude = F.conv2d(around, torch.stack([east, east.T])[:, None]).square().sum(1).sqrt()
    hidden = F.max_pool2d(pad_sphere((~seen).float(), (1, 1), (1, 1)), 3, stride=1)
    return (magnitude > threshold) & (hidden == 0)
