"""Losses of the surface: its points, and its normals.

Points and normals are written in axes that turn with the column: x horizontally out through the middle of the column,
y left, z up. So an L1 distance, which depends on its axes, stays the same when the panorama is rolled.
"""

import math

import torch
from torch import Tensor

from dap import sphere
from training.losses.truth import DEPTH_LIMIT_M, Truth
from training.losses.weighting import weighted_mean
from training.sphere import pad_sphere

_LARGEST_LOG_RATIO = 20.0
_EPSILON = 1e-8


def point_l1(error: Tensor, weight: Tensor) -> Tensor:
    """Mean of |P - P'| (L1, sum over the axes), P = depth x unit ray, in units of `DEPTH_LIMIT_M`.

    The point loss of DAP (arXiv 2512.16913) on depth / 100. The axes are a choice: they turn with the column, see the
    top of this file.

    Args:
        error: predicted minus true depth, (B, H, W), metres, finite everywhere.
        weight: (B, H, W), solid angle times mask.
    """
    latitude = _row_latitudes(error.shape[-2], error.device)
    length = latitude.cos() + latitude.sin().abs()
    return weighted_mean(error.abs() * (length / DEPTH_LIMIT_M), weight).mean()


def surface_normals(log_depth: Tensor) -> Tensor:
    """Unit normals of the surface seen, pointing at the camera, float32 (B, H, W, 3), from points by a cross product.

    The difference of the points of the rows below and above, times that of the columns right and left. Columns wrap;
    the row above the first is the first row rolled by half its width, and so at the other pole. Only ratios of
    neighbouring depths enter, so the normals do not change with the scale, gradients included.

    Args:
        log_depth: natural logarithm of the depth, (B, H, W), finite everywhere.
    """
    log_depth = log_depth.float()
    height, width = log_depth.shape[-2:]
    row, column = math.pi / height, 2 * math.pi / width
    here = _row_latitudes(height, log_depth.device)
    around = pad_sphere(log_depth, (1, 1), (1, 1))
    centre = log_depth.detach()
    north, south, west, east = (
        (neighbour - centre).clamp(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO).exp()
        for neighbour in (around[:, :-2, 1:-1], around[:, 2:, 1:-1], around[:, 1:-1, :-2], around[:, 1:-1, 2:])
    )
    # Per radian of arc, so that the cross product is about one whatever the resolution and the latitude.
    slope = (east - west) / (2 * column)
    right_x, right_y = slope * math.cos(column), -(east + west) * (math.sin(column) / (2 * column))
    right_z = slope * here.tan()
    above, below = here + row, here - row
    down_x = (south * below.cos() - north * above.cos()) / (2 * row)
    down_z = (south * below.sin() - north * above.sin()) / (2 * row)
    normal = torch.stack([-down_z * right_y, down_z * right_x - down_x * right_z, down_x * right_y], -1)
    return normal * (normal.square().sum(-1, keepdim=True) + _EPSILON).rsqrt()


def normal_l1(log_depth: Tensor, truth: Truth, weight: Tensor, latitude_deg: float = 75.0) -> Tensor:
    """Mean of |n - n'| (L1, sum over the axes) of the normals of prediction and truth.

    The normal loss of DAP (arXiv 2512.16913). Choices: the axes turn with the column, see the top of this file; and the
    latitudes that are left out, since columns crowd there and a normal is mostly noise.

    Args:
        log_depth: predicted, (B, H, W), finite everywhere.
        truth: the batch's.
        weight: (B, H, W), solid angle times mask; a pixel counts if its four neighbours are measured as well.
        latitude_deg: rows farther than this from the horizon are left out.
    """
    near = _row_latitudes(log_depth.shape[-2], log_depth.device).abs() <= math.radians(latitude_deg)
    measured = truth.measured
    around = pad_sphere(measured, (1, 1), (1, 1))
    whole = around[:, :-2, 1:-1] & around[:, 2:, 1:-1] & around[:, 1:-1, :-2] & around[:, 1:-1, 2:] & near
    error = surface_normals(torch.where(measured, log_depth, 0.0)) - surface_normals(truth.log_depth)
    return weighted_mean(error.abs().sum(-1), weight * whole).mean()


def _row_latitudes(height: int, device: torch.device) -> Tensor:
    """Float32 (height, 1), radians."""
    return torch.from_numpy(sphere.latitudes(height)).float()[:, None].to(device)
