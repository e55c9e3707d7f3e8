import numpy as np
import numpy.typing as npt
import pytest

from dap import sphere
from training.curation.horizon import ROWS, lean

Vectors = npt.NDArray[np.float64]


def turned(axis_deg: float, lean_deg: float) -> Vectors:
    """Rotation (3, 3) about a horizontal axis at a longitude: what leans a camera."""
    longitude, angle = np.radians([axis_deg, lean_deg])
    x, y = np.cos(longitude), np.sin(longitude)
    cross = np.array([[0, 0, y], [0, 0, -x], [-y, x, 0]])
    matrix: Vectors = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return matrix


def room(rotation: Vectors) -> npt.NDArray[np.uint8]:
    """A box room with striped walls, a dark floor and a light ceiling, seen by a camera that is turned.

    Rendered four times as large and averaged, as a camera does.
    """
    rays = sphere.rays(4 * ROWS, 8 * ROWS).astype(np.float64) @ rotation.T
    half = np.array([2.6, 3.4, 1.4])
    distance = (half / np.maximum(np.abs(rays), 1e-9)).min(-1)
    x, y, z = np.moveaxis(rays * distance[..., None], -1, 0)
    along = np.where(np.abs(x) > half[0] - 1e-6, y, x)
    wall = np.where(np.floor(along / 0.55) % 2 == 0, 170.0, 110.0) + np.where(np.abs(z - 0.2) < 0.02, -50.0, 0.0)
    grey = np.where(z > half[2] - 1e-6, 225.0, np.where(z < 1e-6 - half[2], 60.0, wall))
    small = grey.reshape(ROWS, 4, 2 * ROWS, 4).mean((1, 3))
    noisy = small + np.random.default_rng(0).normal(0, 2, small.shape)
    return np.repeat(np.clip(noisy, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize(("axis_deg", "lean_deg"), [(0, 0), (20, 6), (115, 12), (200, 25), (310, 40)])
def test_the_lean_of_a_camera_in_a_room_is_found(axis_deg: float, lean_deg: float) -> None:
    found = lean(room(turned(axis_deg, lean_deg)))
    assert found.certain
    assert found.degrees == pytest.approx(lean_deg, abs=1.5)


def test_a_roll_of_the_panorama_changes_nothing() -> None:
    leaning = room(turned(75, 15))
    assert lean(sphere.roll_yaw(leaning, 130)).degrees == pytest.approx(lean(leaning).degrees, abs=1.0)


def test_where_no_direction_stands_out_it_cannot_be_told() -> None:
    assert not lean(np.random.default_rng(1).integers(0, 256, (ROWS, 2 * ROWS, 3), dtype=np.uint8)).certain
    assert not lean(np.full((ROWS, 2 * ROWS, 3), 90, np.uint8)).certain
