"""Which losses there are, what labels each needs, and their weighted sum."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dap.errors import TrainingError
from dap.model.dap import NetworkOutput
from training.config import LossWeights
from training.losses.fidelity import dense_fidelity
from training.losses.geometry import normal_l1, point_l1
from training.losses.log_depth import edges, gradient_matching, log_l1, silog
from training.losses.range_mask import range_cross_entropy, range_dice, range_squared_error
from training.losses.truth import DEPTH_LIMIT_M, Label, Truth
from training.sphere import solid_angle_weights


@dataclass(frozen=True)
class Comparison:
    """A prediction beside its truth, float32: what the losses take.

    Attributes:
        truth: of the batch.
        depth: predicted, (B, H, W), metres.
        log_depth: its natural logarithm.
        residual: predicted minus true log depth where the truth is measured, zero elsewhere.
        range_logits: predicted, (B, T, H, W).
        in_range: the truth of it, 0 or 1.
        depth_weight: (B, H, W), distortion map where the truth is measured, zero elsewhere.
        range_weight: (B, H, W), distortion map where it is certain which ranges the truth is in, zero elsewhere.
    """

    truth: Truth
    depth: Tensor
    log_depth: Tensor
    residual: Tensor
    range_logits: Tensor
    in_range: Tensor
    depth_weight: Tensor
    range_weight: Tensor

    @classmethod
    def of(
        cls, prediction: NetworkOutput, truth: Truth, thresholds: tuple[float, ...], distortion_map: bool = True
    ) -> Self:
        log_depth = prediction.log_depth.float()
        height, width = log_depth.shape[-2:]
        distortion = (
            solid_angle_weights(height, width, log_depth.device)
            if distortion_map
            else torch.ones(height, 1, device=log_depth.device)
        )
        return cls(
            truth,
            prediction.depth.float(),
            log_depth,
            torch.where(truth.measured, log_depth - truth.log_depth, 0.0),
            prediction.range_logits.float(),
            truth.in_range(thresholds),
            distortion * truth.measured,
            distortion * truth.ranged,
        )

    @property
    def true_depth(self) -> Tensor:
        """(B, H, W), metres, where the truth is measured; one elsewhere."""
        return torch.where(self.truth.measured, self.truth.depth, 1.0)


@dataclass(frozen=True)
class Loss:
    """One term of the sum.

    Attributes:
        needs: the label without which a pixel does not count: `depth` where the truth is measured, `range` where it is
            certain what is sky and beyond the thresholds.
        compute: the loss itself, a scalar, with the settings that it has in `LossWeights`.
    """

    needs: Label
    compute: Callable[[Comparison, LossWeights], Tensor]


def _sobel_silog(both: Comparison, weights: LossWeights) -> Tensor:
    on_edges = edges(both.truth, weights.sobel_threshold)
    return silog(both.residual, both.depth_weight * on_edges, weights.scale_invariance)


def _dense_fidelity(both: Comparison, weights: LossWeights) -> Tensor:
    depth, true_depth = both.depth / DEPTH_LIMIT_M, both.true_depth / DEPTH_LIMIT_M
    view = (weights.fidelity_fov_deg, weights.fidelity_size, weights.fidelity_norm)
    return dense_fidelity(depth, true_depth, both.truth.measured, *view)


def _points(both: Comparison, _: LossWeights) -> Tensor:
    return point_l1(torch.where(both.truth.measured, both.depth - both.true_depth, 0.0), both.depth_weight)


# Each by the name that its factor has in LossWeights.
LOSSES: dict[str, Loss] = {
    "silog": Loss("depth", lambda c, w: silog(c.residual, c.depth_weight, w.scale_invariance)),
    "log_l1": Loss("depth", lambda c, _: log_l1(c.residual, c.depth_weight)),
    "gradient": Loss("depth", lambda c, w: gradient_matching(c.residual, c.depth_weight, w.gradient_scales)),
    "sobel": Loss("depth", _sobel_silog),
    "dense_fidelity": Loss("depth", _dense_fidelity),
    "normal": Loss("depth", lambda c, w: normal_l1(c.log_depth, c.truth, c.depth_weight, w.normal_latitude_deg)),
    "points": Loss("depth", _points),
    "range_cross_entropy": Loss(
        "range", lambda c, w: range_cross_entropy(c.range_logits, c.in_range, c.range_weight, w.range_balance)
    ),
    "range_squared": Loss("range", lambda c, _: range_squared_error(c.range_logits, c.in_range, c.range_weight)),
    "range_dice": Loss("range", lambda c, _: range_dice(c.range_logits, c.in_range, c.range_weight)),
}


def training_loss(
    prediction: NetworkOutput, truth: Truth, thresholds: tuple[float, ...], weights: LossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of all losses and, for the log, each of them unweighted and detached.

    Depth is learnt where the truth is `measured`: sky and all beyond 100 m belong to the range mask, which is learnt
    wherever the truth is known and its range is certain. An image that lacks a label has no such loss and no gradient
    from it, and changes nothing for the others of its batch.

    Args:
        prediction: the network's output at the size of the truth.
        truth: the batch's depth and what of it is known.
        thresholds: metres, the channels of `range_logits`.
        weights: the factor of each loss of `LOSSES`; a factor of zero leaves it out.

    Raises:
        TrainingError: all factors are zero.
    """
    with torch.autocast(prediction.log_depth.device.type, enabled=False):
        both = Comparison.of(prediction, truth, thresholds, weights.distortion_map)
        terms = {name: loss.compute(both, weights) for name, loss in LOSSES.items() if getattr(weights, name)}
        if not terms:
            raise TrainingError(f"one loss at least has a factor, of {', '.join(LOSSES)}; all of them are zero")
        total = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return total, {name: term.detach() for name, term in terms.items()}
