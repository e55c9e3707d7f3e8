"""Dense fidelity: Gram matrices of perspective views of the depth."""

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dap import sphere
from training.losses.weighting import TINY
from training.sphere import pad_sphere

FidelityNorm = Literal["own", "truth"]
# A pixel of a view counts where it was drawn from measured pixels alone; the rest is rounding.
_WHOLE = 1 - 1e-4


@lru_cache(maxsize=8)
def icosahedral_grid(fov_deg: float, size: int, device: torch.device | None = None) -> Tensor:
    """Where the pixels of the 12 square views fall in a panorama, float32 (12, size, size, 2)."""
    grids = [sphere.perspective_grid(camera, fov_deg, (size, size)) for camera in sphere.icosahedral_cameras()]
    return torch.from_numpy(np.stack(grids)).to(device)


def perspective_views(maps: Tensor, grid: Tensor) -> Tensor:
    """Bilinear samples of a panorama, across its border and its poles as well.

    Args:
        maps: (B, C, H, W).
        grid: (V, h, w, 2), as `dap.sphere.perspective_grid` has it.

    Returns:
        (B, V, C, h, w).
    """
    height, width = maps.shape[-2:]
    views, h, w, _ = grid.shape
    # The panorama ends at -1 and 1; one more pixel all around moves these edges inwards.
    inner = torch.tensor([width / (width + 2), height / (height + 2)], device=grid.device)
    flat = (grid * inner).reshape(1, views * h, w, 2).expand(len(maps), -1, -1, -1)
    samples = F.grid_sample(pad_sphere(maps, (1, 1), (1, 1)), flat, mode="bilinear", align_corners=False)
    return samples.reshape(len(maps), -1, views, h, w).transpose(1, 2)


def dense_fidelity(
    depth: Tensor, true_depth: Tensor, mask: Tensor, fov_deg: float = 90.0, size: int = 64, norm: FidelityNorm = "own"
) -> Tensor:
    """Mean over views of ||D D^T - D' D'^T||_F^2: D is a view of the prediction, D' of the truth.

    DF of DAP (arXiv 2512.16913): 12 views from cameras at the vertices of an icosahedron, each masked and normalised.
    Choices, since the paper names none of these: views are square with 90 degrees, as in a related code base of the
    field; a pixel of a view counts where it was drawn from measured pixels alone and is zero elsewhere; D and D' are
    divided by their Frobenius norms, so that the loss lies between 0 and 2 whatever the size of the view, and judges
    the shape, not the scale; the mean is over the views in which something counts. No solid angle enters: a
    perspective view has no poles.

    The cameras repeat after half a turn: only when it is rolled by that is the loss of a panorama exactly the same.
    On a GPU the gradient of the sampling is summed in no fixed order.

    Args:
        depth: predicted, (B, H, W), in any unit.
        true_depth: in the same unit; both finite everywhere.
        mask: bool (B, H, W), where the truth is measured.
        fov_deg: field of view.
        size: of a view, pixels.
        norm: `own` as above; `truth` divides both by the norm of the true view, so that the scale counts as well and
            the loss has no upper end.
    """
    maps = torch.stack([torch.where(mask, depth, 0.0), torch.where(mask, true_depth, 0.0), mask.float()], 1)
    predicted, true, covered = perspective_views(maps, icosahedral_grid(fov_deg, size, depth.device)).unbind(2)
    counts = covered >= _WHOLE
    predicted, true = torch.where(counts, predicted, 0.0), torch.where(counts, true, 0.0)
    true_norm = _frobenius(true)
    predicted, true = predicted / (_frobenius(predicted) if norm == "own" else true_norm), true / true_norm
    gap = predicted @ predicted.mT - true @ true.mT
    seen = counts.flatten(2).any(2)
    return ((gap.square().sum((2, 3)) * seen).sum(1) / seen.sum(1).clamp_min(1)).mean()


def _frobenius(views: Tensor) -> Tensor:
    return (views.square().sum((2, 3), keepdim=True) + TINY).sqrt()
