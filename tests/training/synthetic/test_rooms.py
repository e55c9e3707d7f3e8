"""Outlines of rooms, and what roofs and trims do to them."""

import math
import random

import numpy as np
import pytest
import torch

from dap.sphere import rays
from training.synthetic.builder import SceneBuilder
from training.synthetic.render import render
from training.synthetic.rooms import Room, bare_ceiling, joists, rectangle, room_outline, slanted_ceiling, wall_relief
from training.synthetic.scene import Faults, Sky
from training.synthetic.walls import Finish, Opening, Wall, polygon_walls

OUTLINES = [room_outline(SceneBuilder(random.Random(seed)), 5.0, 7.0) for seed in range(200)]
HEIGHT = 3.0


def area(corners: tuple[tuple[float, float], ...]) -> float:
    x, y = np.array(corners).T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def bare_room(builder: SceneBuilder, openings: tuple[Opening, ...] = ()) -> Room:
    """Walls without thickness between corners 4 m and 6 m apart; nothing of it is drawn."""
    paint = builder.material("plain", 1.0, (0.5, 0.5, 0.5))
    finish = Finish(paint, paint, paint, paint, paint, paint, HEIGHT)
    walls = polygon_walls(builder, rectangle(4.0, 6.0), HEIGHT, 0.0, 0.0)
    walls = [Wall(wall.frame, wall.length, openings) for wall in walls]
    return Room(rectangle(4.0, 6.0), tuple(walls), finish, (-2.0, -3.0, 2.0, 3.0))


def test_rooms_are_rectangles_ls_ts_and_have_niches_breasts_and_slanted_corners() -> None:
    assert {len(outline) for outline in OUTLINES} == {4, 5, 6, 8}
    plain = np.mean([len(outline) == 4 for outline in OUTLINES])
    assert 0.3 < plain < 0.6


def test_outlines_run_counter_clockwise_and_keep_most_of_the_floor() -> None:
    for outline in OUTLINES:
        assert 0.35 * 35 < area(outline) < 35 + 0.8 * 5
        assert min(math.dist(p, q) for p, q in zip(outline, outline[1:] + outline[:1], strict=True)) > 0.1


def test_a_small_room_is_a_rectangle() -> None:
    assert all(len(room_outline(SceneBuilder(random.Random(seed)), 2.0, 4.0)) == 4 for seed in range(20))


def test_under_a_roof_the_ceiling_comes_down_evenly_to_the_wall() -> None:
    builder = SceneBuilder(random.Random(5), camera=(0.0, 0.0, 1.0))
    room = bare_room(builder)
    slanted_ceiling(builder, room)
    scene = builder.scene(
        0,
        "test",
        ambient=((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
        occlusion_reach=1.0,
        heading=0.0,
        tilt=0.0,
        tilt_towards=0.0,
        sky=Sky(),
        faults=Faults(),
    )
    picture = render([scene], 64, 128)
    met = ~picture.sky[0].numpy()
    points = np.asarray(scene.camera) + rays(64, 128) * picture.depth[0].numpy()[..., None]
    roof = points[met & (picture.normals[0, ..., 2].numpy() < -0.1)]
    assert len(roof) > 100
    below = roof[roof[:, 2] < HEIGHT]
    flat = np.c_[below, np.ones(len(below))]
    assert np.linalg.svd(flat - flat.mean(0), compute_uv=False)[2] < 1e-3, "its lower side is one plane"
    assert below[:, 2].min() > 0.9


@pytest.mark.parametrize("relief", [joists, bare_ceiling])
def test_what_hangs_under_the_ceiling_spans_the_room_and_leaves_room_to_stand(relief) -> None:  # type: ignore[no-untyped-def]
    for seed in range(10):
        builder = SceneBuilder(random.Random(seed))
        relief(builder, bare_room(builder))
        rows = np.array(builder.solids)
        reach = np.einsum("nij,nj->ni", np.abs(rows[:, 7:16].reshape(-1, 3, 3)), rows[:, 4:7])
        low, high = rows[:, 1:4] - reach, rows[:, 1:4] + reach
        assert np.allclose(high[:, 0] - low[:, 0], 4.0)
        assert low[:, 2].min() > 2.3
        assert high[:, 2].max() <= HEIGHT + 1e-9
        assert np.abs(rows[:, 2]).max() < 3.0


def test_no_ceiling_slants_down_over_a_door() -> None:
    for seed in range(20):
        builder = SceneBuilder(random.Random(seed))
        slanted_ceiling(builder, bare_room(builder, (Opening(0.5, 1.4, 0.0, 2.0, "door"),)))
        assert not builder.solids


@pytest.mark.parametrize("seed", range(12))
def test_trims_stay_off_doors(seed: int) -> None:
    builder = SceneBuilder(random.Random(seed))
    door = Opening(1.6, 2.5, 0.0, 2.0, "door")
    room = bare_room(builder, (door,))
    wall_relief(builder, room)
    middles = torch.tensor([wall.frame.point(2.05, 0.05, 1.0) for wall in room.walls])
    for row in builder.solids:
        offset = (middles - torch.tensor(row[1:4])) @ torch.tensor(row[7:16]).reshape(3, 3)
        assert (offset.abs() > torch.tensor(row[4:7])).any(1).all()
