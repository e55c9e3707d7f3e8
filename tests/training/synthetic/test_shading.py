"""Light: shadows, occlusion, lamps."""

import random

import torch

from training.synthetic.builder import SceneBuilder
from training.synthetic.render import render
from training.synthetic.scene import WORLD, Faults, Scene, Sky

SIZE = 128, 256


def floor_under_a_lamp(roof: bool, lamps: int = 1) -> Scene:
    builder = SceneBuilder(random.Random(0))
    white = builder.material("plain", 1.0, (0.8, 0.8, 0.8), (0.8, 0.8, 0.8))
    builder.camera = (0.0, 0.0, 1.0)
    builder.slab(WORLD, (-5, -5, -0.1), (5, 5, 0), white)
    if roof:
        builder.slab(WORLD, (1.0, -1.0, 1.9), (3.0, 1.0, 2.0), white)
    for _ in range(lamps):
        builder.lamp((2.0, 0.0, 3.0), 0.1, (10.0, 10.0, 10.0))
    return builder.scene(
        0,
        "test",
        ambient=((0.1, 0.1, 0.1), (0.1, 0.1, 0.1)),
        occlusion_reach=0.5,
        heading=0.0,
        tilt=0.0,
        tilt_towards=0.0,
        sky=Sky(horizon=(0, 0, 0), zenith=(0, 0, 0), clouds=0.0),
        faults=Faults(exposure=0.02),
    )


def floor_patch(scene: Scene) -> float:
    """Brightness of the floor below the lamp: 1 m down and 2 m forward is 26.6 degrees below the horizon."""
    rgb = render([scene], *SIZE).rgb[0].float()
    row = round((0.5 + 26.6 / 180) * SIZE[0])
    return float(rgb[row, SIZE[1] // 2 - 1 : SIZE[1] // 2 + 1].mean() / rgb[row, : SIZE[1] // 4].mean())


def test_a_thing_between_lamp_and_floor_throws_a_shadow() -> None:
    assert floor_patch(floor_under_a_lamp(roof=True)) < 0.7 * floor_patch(floor_under_a_lamp(roof=False))


def test_a_corner_is_darker_than_the_open_floor() -> None:
    builder = SceneBuilder(random.Random(0))
    white = builder.material("plain", 1.0, (0.8, 0.8, 0.8), (0.8, 0.8, 0.8))
    builder.camera = (0.0, 0.0, 1.0)
    builder.slab(WORLD, (-5, -5, -0.1), (5, 5, 0), white)
    builder.slab(WORLD, (2.0, -5, 0), (2.2, 5, 3), white)
    lit = ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    scene = builder.scene(
        0, "test", ambient=lit, occlusion_reach=1.0, heading=0, tilt=0, tilt_towards=0, sky=Sky(), faults=Faults()
    )
    column = render([scene], *SIZE).rgb[0, :, SIZE[1] // 2].float().mean(-1)
    corner = round((0.5 + 26.6 / 180) * SIZE[0])
    assert column[corner] < 0.95 * column[-3]


def test_a_glowing_thing_is_bright_without_a_lamp() -> None:
    builder = SceneBuilder(random.Random(0))
    wall = builder.material("plain", 1.0, (0.5, 0.5, 0.5))
    glow = builder.material("plain", 1.0, (1.0, 1.0, 1.0), emission=5.0)
    builder.camera = (0.0, 0.0, 0.0)
    builder.slab(WORLD, (2.0, -50, -50), (2.1, 50, 50), wall)
    builder.slab(WORLD, (1.8, -0.3, -0.3), (1.9, 0.3, 0.3), glow)
    dim = ((0.2, 0.2, 0.2), (0.2, 0.2, 0.2))
    dark = Sky(horizon=(0.1, 0.1, 0.1), zenith=(0.1, 0.1, 0.1), clouds=0.0)
    scene = builder.scene(
        0,
        "test",
        ambient=dim,
        occlusion_reach=0.1,
        heading=0,
        tilt=0,
        tilt_towards=0,
        sky=dark,
        faults=Faults(exposure=0.05),
    )
    rgb = render([scene], *SIZE).rgb[0].float().mean(-1)
    middle = rgb[SIZE[0] // 2, SIZE[1] // 2]
    assert middle == rgb.max()
    assert middle > 1.5 * torch.median(rgb[:, SIZE[1] // 2])
