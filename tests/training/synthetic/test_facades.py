"""Fronts of buildings: windows lie behind the wall, and everything is as far as it stands out."""

import random

import numpy as np
import pytest

from dap.sphere import rays
from training.synthetic import facades
from training.synthetic.builder import SceneBuilder
from training.synthetic.render import render
from training.synthetic.scene import WORLD, Faults, Frame, Sky

WIDTH, HEIGHT, AWAY = 12.0, 9.0, 6.0


def front(seed: int) -> SceneBuilder:
    """A front 6 m before the camera, seen straight on."""
    b = SceneBuilder(random.Random(seed), camera=(AWAY, 0.0, 3.0))
    facades.front(b, WORLD, WIDTH, HEIGHT, b.material("plain", 1.0, (0.6, 0.6, 0.6)))
    return b


@pytest.mark.parametrize("seed", range(4))
def test_windows_are_set_back_behind_the_wall(seed: int) -> None:
    scene = front(seed).scene(
        0,
        "test",
        ambient=((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
        occlusion_reach=1.0,
        heading=np.pi,
        tilt=0.0,
        tilt_towards=0.0,
        sky=Sky(),
        faults=Faults(),
    )
    picture = render([scene], 64, 128)
    directions = rays(64, 128).astype(np.float64) @ scene.camera_rotation.T.astype(np.float64)
    depth = picture.depth[0].numpy().astype(np.float64)
    x = AWAY + directions[..., 0] * depth
    seen = np.isfinite(depth)
    assert seen.mean() > 0.05
    assert x[seen].min() > -0.31
    glass = np.abs(x[seen]) < 1e-3
    assert 0.05 < glass.mean() < 0.9
    assert (x[seen] > 0.05).mean() > 0.1


@pytest.mark.parametrize("seed", range(20))
def test_a_front_reaches_from_side_to_side_and_stays_within_the_pavement(seed: int) -> None:
    rows = np.array(front(seed).solids)
    reach = np.einsum("nij,nj->ni", np.abs(rows[:, 7:16].reshape(-1, 3, 3)), rows[:, 4:7])
    low, high = (rows[:, 1:4] - reach).min(0), (rows[:, 1:4] + reach).max(0)
    assert high[1] >= WIDTH / 2
    assert low[1] <= -WIDTH / 2
    assert high[2] == pytest.approx(HEIGHT, abs=0.8)
    assert high[0] < 2.6


def test_what_stands_on_a_roof_stands_behind_its_edge() -> None:
    b = SceneBuilder(random.Random(4))
    for _ in range(10):
        facades.roof_things(b, Frame(), 10.0, WIDTH, HEIGHT)
    rows = np.array(b.solids)
    assert rows[:, 3].min() > HEIGHT
    assert (rows[:, 1] < 0).all()
