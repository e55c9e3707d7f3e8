"""What `dap.sphere` has in numpy, for the maps (..., H, W) of a training step in torch: neighbours and solid angles."""

from functools import lru_cache

import torch
from torch import Tensor

from dap import sphere
from dap.errors import TrainingError


@lru_cache(maxsize=16)
def solid_angle_weights(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Float32 (height, 1): the solid angle of a pixel of each row, divided by its mean over the rows.

    This is the distortion map M_distort of DAP (arXiv 2512.16913) with the formula that the paper leaves open.
    """
    weights = torch.from_numpy(sphere.solid_angles(height, width))
    return (weights / weights.mean()).float()[:, None].to(device)


def pad_sphere(maps: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """A map with its neighbourhood on the sphere instead of zeros around it.

    Columns go on around the circle. Beyond a pole lies the other side of the sphere: the same rows in reverse, half a
    turn away.

    Args:
        maps: (..., H, W), of any type.
        rows: how many to add above and below, at most H each.
        columns: how many to add left and right, at most W each.

    Returns:
        (..., above + H + below, left + W + right).

    Raises:
        TrainingError: the width is odd, so that half a turn is no whole number of columns.
    """
    width = maps.shape[-1]
    if width % 2:
        raise TrainingError(f"a map that goes on over the poles has an even width, not {width}")
    (above, below), (left, right) = rows, columns
    north = maps[..., :above, :].flip(-2).roll(width // 2, -1)
    south = maps[..., maps.shape[-2] - below :, :].flip(-2).roll(width // 2, -1)
    tall = torch.cat([north, maps, south], -2)
    return torch.cat([tall[..., width - left :], tall, tall[..., :right]], -1)
