import numpy as np
import pytest
import torch

from dap import sphere
from dap.errors import TrainingError
from training.sphere import pad_sphere, solid_angle_weights


def test_a_padded_map_goes_on_where_the_rays_do() -> None:
    """Rays are a map of the sphere that knows where each of its pixels is: beyond an edge they go on by an angle."""
    H, W = 6, 12
    padded = pad_sphere(torch.from_numpy(sphere.rays(H, W)).permute(2, 0, 1), (2, 3), (1, 4)).permute(1, 2, 0)
    longitude = ((np.arange(-1, W + 4) + 0.5) / W - 0.5) * 2 * np.pi
    latitude = (0.5 - (np.arange(-2, H + 3) + 0.5) / H) * np.pi
    np.testing.assert_allclose(padded, sphere.directions(longitude, latitude[:, None]), atol=1e-6)


def test_a_map_of_anything_can_be_padded_by_nothing() -> None:
    mask = torch.tensor([[[True, False], [False, False]]])
    assert torch.equal(pad_sphere(mask, (0, 0), (0, 0)), mask)


def test_half_a_turn_of_an_odd_width_is_refused() -> None:
    with pytest.raises(TrainingError, match="even width, not 7"):
        pad_sphere(torch.zeros(3, 7), (1, 1), (0, 0))


@pytest.mark.parametrize("height", [4, 64])
def test_solid_angle_weights_have_a_mean_of_one_and_a_polar_row_the_share_of_its_cap(height: int) -> None:
    weights = solid_angle_weights(height, 2 * height)
    assert weights.mean().item() == pytest.approx(1)
    assert weights[0].item() / height == pytest.approx((1 - np.cos(np.pi / height)) / 2, rel=1e-5)
