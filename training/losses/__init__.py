"""Losses on the sphere: small pure functions of tensors, each with its equation and its source.

Every loss takes a `weight` (B, ...) that already holds the mask: the solid angle of the pixel where the truth counts,
zero elsewhere. It divides by the sum of the weights of one image (never by the pixel count), takes the mean over the
batch, is zero at the truth, and has a finite gradient whatever is masked out: values of masked pixels, infinities
included, never enter an expression that is differentiated. All of it runs in float32.

`registry` puts them together: `LOSSES` says which there are and what labels each needs, `training_loss` adds those that
`training.config.LossWeights` gives a factor.
"""

from training.losses.fidelity import dense_fidelity
from training.losses.geometry import normal_l1, point_l1, surface_normals
from training.losses.log_depth import edges, gradient_matching, log_l1, silog
from training.losses.range_mask import range_cross_entropy, range_dice, range_squared_error
from training.losses.registry import LOSSES, Comparison, Loss, training_loss
from training.losses.truth import DEPTH_LIMIT_M, Label, Truth
from training.sphere import solid_angle_weights

__all__ = [
    "DEPTH_LIMIT_M",
    "LOSSES",
    "Comparison",
    "Label",
    "Loss",
    "Truth",
    "dense_fidelity",
    "edges",
    "gradient_matching",
    "log_l1",
    "normal_l1",
    "point_l1",
    "range_cross_entropy",
    "range_dice",
    "range_squared_error",
    "silog",
    "solid_angle_weights",
    "surface_normals",
    "training_loss",
]
