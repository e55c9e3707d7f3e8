"""Points and normals of surfaces whose equations are known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dap import sphere
from training.losses import Truth, normal_l1, point_l1, solid_angle_weights, surface_normals

H, W = 32, 64
LATITUDE = torch.from_numpy(sphere.latitudes(H)).float()
BELOW = slice(H // 2 + 1, H)
"""Rows that see a floor, and whose neighbours do."""


def globe(metres: float = 3.0) -> Tensor:
    return torch.full((1, H, W), metres)


def rows(depth: Tensor) -> Tensor:
    return depth[None, :, None].expand(1, H, W)


def floor(metres: float = 1.6) -> Tensor:
    """Infinite ground below the camera; anything above the horizon."""
    return rows(torch.where(LATITUDE < 0, metres / LATITUDE.sin().abs(), 1.0))


def ceiling(metres: float = 1.6) -> Tensor:
    return floor(metres).flip(1)


def column_axes(normals: Tensor) -> Tensor:
    """Normals (..., H, W, 3) in the axes of their columns as they are in frame ros."""
    longitude = torch.from_numpy(sphere.longitudes(W)).float()
    x, y, z = normals.unbind(-1)
    return torch.stack([longitude.cos() * x + longitude.sin() * y, -longitude.sin() * x + longitude.cos() * y, z], -1)


def test_the_normals_of_a_globe_look_at_its_centre_in_every_row() -> None:
    expected = torch.stack([-LATITUDE.cos(), torch.zeros(H), -LATITUDE.sin()], -1)
    torch.testing.assert_close(surface_normals(globe().log())[0, :, 7], expected, atol=1e-4, rtol=0)


def test_the_normals_of_a_floor_look_up_and_of_a_ceiling_down_at_the_poles_as_well() -> None:
    up = torch.tensor([0.0, 0.0, 1.0])
    below, above = surface_normals(floor().log())[:, BELOW], surface_normals(ceiling().log())[:, : H // 2 - 1]
    torch.testing.assert_close(below, up.expand_as(below), atol=1e-4, rtol=0)
    torch.testing.assert_close(above, -up.expand_as(above), atol=1e-4, rtol=0)


@pytest.mark.parametrize("towards", [(1.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.5, 0.7, -0.4), (-0.2, -0.3, 0.9)])
def test_the_normals_of_a_plane_look_back_along_the_way_to_it_wherever_it_stands(
    towards: tuple[float, float, float],
) -> None:
    direction = torch.tensor(towards) / np.linalg.norm(towards)
    facing = torch.from_numpy(sphere.rays(H, W)) @ direction
    normals = column_axes(surface_normals((2.0 / facing.clamp_min(0.1))[None].log()))[0]
    inner = facing > 0.3
    assert inner.any()
    torch.testing.assert_close(normals[inner], -direction.expand_as(normals[inner]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("factor", [0.01, 3.0])
def test_normals_do_not_know_the_scale(factor: float) -> None:
    one, other = surface_normals(floor().log()), surface_normals((factor * floor()).log())
    torch.testing.assert_close(other, one, atol=1e-4, rtol=0)


def test_the_normal_loss_of_a_globe_for_a_floor_is_the_angle_between_them_weighted_by_solid_angle() -> None:
    """|n - n'| at latitude -a: cos a outwards, and 1 - sin a upwards."""
    truth = Truth(floor(), rows(LATITUDE < 0))
    weight = (solid_angle_weights(H, W) * truth.measured).float()
    counted = (LATITUDE.abs() <= math.radians(60)) & (torch.arange(H) > H // 2)
    band = torch.from_numpy(sphere.solid_angles(H, W)).float() * counted
    expected = (band * (LATITUDE.cos() + 1 - LATITUDE.sin().abs())).sum() / band.sum()
    assert normal_l1(globe().log(), truth, weight, 60.0).item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_pixel_beside_one_that_is_not_measured_has_no_normal() -> None:
    truth = Truth(floor(), rows(LATITUDE < 0).clone())
    truth.known[:, 20, 10] = False
    log_depth = floor().log().clone()
    log_depth[:, 20, 10] = 9.0
    weight = (solid_angle_weights(H, W) * truth.measured).float()
    assert normal_l1(log_depth, truth, weight).item() == 0
    log_depth[:, 24, 10] = 9.0
    assert normal_l1(log_depth, truth, weight).item() > 0


def test_the_gradient_of_a_normal_is_finite_where_the_depth_falls_off_a_cliff() -> None:
    log_depth = torch.zeros(1, H, W)
    log_depth[..., ::2], log_depth[:, ::3] = 60.0, -60.0
    log_depth.requires_grad_()
    surface_normals(log_depth).abs().sum().backward()  # type: ignore[no-untyped-call]
    assert log_depth.grad is not None
    assert log_depth.grad.isfinite().all()


def test_points_that_are_two_metres_off_lose_the_mean_length_of_the_rays_along_the_axes() -> None:
    """The mean of cos a + |sin a| over the sphere is (pi / 2 + 1) / 2."""
    weight = solid_angle_weights(H, W).expand(1, H, W)
    expected = 2.0 / 100 * (math.pi / 2 + 1) / 2
    assert point_l1(torch.full((1, H, W), -2.0), weight).item() == pytest.approx(expected, rel=1e-3)


def test_points_of_one_row_lose_the_length_of_its_ray_along_the_axes() -> None:
    weight = torch.zeros(1, H, W)
    weight[:, 3, 5] = 7.0
    expected = 0.01 * (LATITUDE[3].cos() + LATITUDE[3].sin())
    assert point_l1(torch.ones(1, H, W), weight).item() == pytest.approx(expected.item(), rel=1e-5)
