"""Dense fidelity: views that cross every edge of the panorama, and Gram matrices that can be worked out."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dap import sphere
from training.losses import dense_fidelity
from training.losses.fidelity import icosahedral_grid, perspective_views

H, W = 32, 64


def everywhere(value: float = 1.0) -> Tensor:
    return torch.full((2, H, W), value)


ALL = everywhere() > 0


def random_depth(seed: int) -> Tensor:
    return torch.rand(2, H, W, generator=torch.Generator().manual_seed(seed)) + 0.1


def test_the_views_show_what_lies_in_the_directions_of_their_pixels() -> None:
    """The rays of a panorama, seen through a camera, are the directions of that camera's pixels."""
    rays = torch.from_numpy(sphere.rays(128, 256)).permute(2, 0, 1)[None]
    views = perspective_views(rays, icosahedral_grid(90.0, 8))[0].permute(0, 2, 3, 1).numpy()
    along = (3.5 - np.arange(8)) / 4
    local = np.stack(np.broadcast_arrays(1.0, along, along[:, None]), -1)
    local /= np.linalg.norm(local, axis=-1, keepdims=True)
    expected = np.stack([local @ camera.T for camera in sphere.icosahedral_cameras()])
    np.testing.assert_allclose(views, expected, atol=1e-3)


@pytest.mark.parametrize("size", [4, 16])
@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_a_wrong_scale_of_a_globe_counts_only_beside_the_norm_of_the_truth(factor: float, size: int) -> None:
    """D = k D' with D' of norm one and rank one: ||D D^T - D' D'^T||_F is k^2 - 1."""
    loss = {n: dense_fidelity(everywhere(factor), everywhere(), ALL, 90.0, size, n).item() for n in ("own", "truth")}
    assert loss["truth"] == pytest.approx((factor**2 - 1) ** 2, rel=1e-4)
    assert loss["own"] == pytest.approx(0, abs=1e-6)


def test_no_depth_at_all_loses_the_whole_gram_matrix_of_the_truth() -> None:
    assert dense_fidelity(everywhere(0.0), everywhere(), ALL).item() == pytest.approx(1, rel=1e-4)


def test_the_loss_by_its_own_norm_ends_at_two_and_grows_with_the_fault() -> None:
    truth = random_depth(0)
    losses = [dense_fidelity(truth.lerp(random_depth(1), t), truth, ALL).item() for t in (0.0, 0.3, 0.6, 1.0)]
    assert losses == sorted(losses)
    assert losses[0] == 0
    assert 0 < losses[-1] < 2


def test_what_is_masked_does_not_count_and_does_not_bleed_into_what_is_not() -> None:
    mask = ALL.clone()
    mask[..., 10:20] = False
    prediction = torch.where(mask, random_depth(0), 1e6)
    assert dense_fidelity(prediction, random_depth(0), mask).item() == 0


def test_views_in_which_nothing_counts_are_left_out_of_the_mean() -> None:
    """A patch ahead is seen by a few of the 12 views. In each it loses 9 (a little less, where it is no rectangle)."""
    forward = torch.zeros_like(ALL)
    forward[:, H // 2 - 4 : H // 2 + 4, W // 2 - 4 : W // 2 + 4] = True
    loss = dense_fidelity(everywhere(2.0), everywhere(), forward, norm="truth").item()
    assert 8 < loss < 9


def test_the_views_repeat_after_half_a_turn() -> None:
    one, other = (
        dense_fidelity(random_depth(0).roll(c, -1), random_depth(1).roll(c, -1), ALL).item() for c in (0, W // 2)
    )
    assert other == pytest.approx(one, rel=1e-4)
