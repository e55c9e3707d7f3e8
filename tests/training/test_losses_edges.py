"""The edges of the true depth, and SILog on them."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dap.model.dap import NetworkOutput
from training.config import LossWeights
from training.losses import LOSSES, Truth, edges, training_loss

H, W = 8, 16
ONLY_EDGES = replace(LossWeights(), **dict.fromkeys(LOSSES, 0.0) | {"sobel": 1.0})  # type: ignore[arg-type]


def halves(left: float, right: float) -> Tensor:
    """Depth (1, H, W): one half of the columns and the other."""
    depth = torch.full((1, H, W), left)
    depth[..., W // 2 :] = right
    return depth


def measured(depth: Tensor) -> Truth:
    return Truth(depth, torch.ones_like(depth, dtype=torch.bool))


def columns(mask: Tensor, row: int) -> list[int]:
    return torch.nonzero(mask[0, row]).flatten().tolist()


BORDERS = [0, W // 2 - 1, W // 2, W - 1]


def test_a_step_is_an_edge_on_both_of_its_sides_also_across_the_border_of_the_image() -> None:
    assert columns(edges(measured(halves(2.0, 3.0))), H // 2) == BORDERS


@pytest.mark.parametrize("metres", [0.5, 4.0, 40.0])
def test_a_step_counts_half_of_its_logarithm_at_any_distance(metres: float) -> None:
    step = measured(halves(metres, 2 * metres))
    assert columns(edges(step, math.log(2) / 2 - 1e-4), H // 2) == BORDERS
    assert columns(edges(step, math.log(2) / 2 + 1e-4), H // 2) == []


def test_a_slope_is_its_change_from_a_row_to_the_next() -> None:
    slope = measured((0.1 * torch.arange(float(H))).exp()[None, :, None].expand(1, H, W))
    assert edges(slope, 0.0999)[:, 1:-1].all()
    assert not edges(slope, 0.1001)[:, 1:-1].any()


def test_the_row_beyond_the_pole_is_the_same_row_half_a_turn_away() -> None:
    """Each half of a globe of two halves meets the other at the poles, in every column."""
    mask = edges(measured(halves(2.0, 3.0)))
    assert mask[:, [0, -1]].all()


def test_a_silhouette_before_the_sky_is_an_edge_as_if_the_sky_were_100_m_away() -> None:
    step = measured(halves(10.0, torch.inf))
    assert columns(edges(step, math.log(10) / 2 - 1e-4), H // 2) == BORDERS
    assert columns(edges(step, math.log(10) / 2 + 1e-4), H // 2) == []


def test_beside_an_unknown_pixel_there_is_no_edge() -> None:
    truth = measured(halves(2.0, 3.0))
    truth.known[0, H // 2, W // 2] = False
    mask = edges(truth)
    assert columns(mask, H // 2) == [0, W - 1]
    assert columns(mask, H // 2 + 1) == [0, W - 1]
    assert columns(mask, H // 2 + 2) == BORDERS


@pytest.mark.parametrize("scale_invariance", [0.0, 0.5, 0.85])
def test_only_errors_on_edges_count(scale_invariance: float) -> None:
    truth = measured(halves(2.0, 3.0))
    wrong = torch.where(edges(truth), math.log(1.5), -5.0)
    prediction = truth.log_depth + wrong
    output = NetworkOutput(prediction.exp(), prediction, torch.zeros(1, 1, H, W))
    weights = replace(ONLY_EDGES, scale_invariance=scale_invariance)
    expected = math.sqrt((1 - scale_invariance) * math.log(1.5) ** 2 + 1e-6) - 1e-3
    assert training_loss(output, truth, (100.0,), weights)[0].item() == pytest.approx(expected, rel=1e-4)
