"""The weighted mean that every loss takes."""

from torch import Tensor

TINY = 1e-12


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean over all but the first axis, (B,); zero where the weights are all zero. `values` are finite."""
    total = weight.flatten(1).sum(1).clamp_min(TINY)
    return (values * weight).flatten(1).sum(1) / total
