"""Fine things: where they may be, and that they are there only where they are seen."""

import random

import numpy as np
import pytest

from training.synthetic import clutter
from training.synthetic.builder import SceneBuilder
from training.synthetic.scene import WORLD, Frame


def builder(seed: int) -> SceneBuilder:
    return SceneBuilder(random.Random(seed), camera=(1.5, 0.0, 1.6))


def bounds(b: SceneBuilder) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest coordinates of the boxes about the solids."""
    rows = np.array(b.solids)
    reach = np.einsum("nij,nj->ni", np.abs(rows[:, 7:16].reshape(-1, 3, 3)), rows[:, 4:7])
    return (rows[:, 1:4] - reach).min(0), (rows[:, 1:4] + reach).max(0)


@pytest.mark.parametrize("thing", [thing for _, thing in clutter.WALL_THINGS], ids=lambda thing: thing.__name__)
def test_things_on_a_wall_stand_out_from_it_and_end_below_the_ceiling(thing) -> None:  # type: ignore[no-untyped-def]
    for seed in range(10):
        b = builder(seed)
        thing(b, WORLD)
        low, high = bounds(b)
        assert low[0] > -0.01
        assert 0 < high[0] < 0.45
        assert low[2] > -0.01
        assert high[2] < 2.5


@pytest.mark.parametrize("thing", clutter.FLOOR_THINGS, ids=lambda thing: thing.__name__)
def test_things_on_the_floor_lie_on_it(thing) -> None:  # type: ignore[no-untyped-def]
    for seed in range(10):
        b = builder(seed)
        thing(b, WORLD)
        low, high = bounds(b)
        assert -0.02 < low[2] < 0.05
        assert high[2] < 1.7


def test_things_on_a_desk_stay_on_its_top() -> None:
    b = builder(1)
    clutter.desk_things(b, Frame(0.0, 0.0, 0.75), 0.8, 1.6, 30)
    low, high = bounds(b)
    assert low[2] > 0.74
    assert high[2] < 1.4
    assert abs(high[1]) < 1.2
    assert abs(low[1]) < 1.2


def test_books_fill_the_board_between_its_ends_and_no_more() -> None:
    for seed in range(10):
        b = builder(seed)
        clutter.row_of_books(b, WORLD, -0.5, 0.5, 0.25, 0.3)
        low, high = bounds(b)
        assert low[1] == pytest.approx(-0.5)
        assert 0.2 < high[1] <= 0.5 + 1e-9
        assert high[0] <= 0.25
        assert high[2] <= 0.3


def test_far_desks_have_fewer_things() -> None:
    near, far = builder(3), builder(3)
    clutter.desk_things(near, WORLD, 0.8, 1.6, 12)
    clutter.desk_things(far, Frame(20.0, 0.0, 0.0), 0.8, 1.6, 12)
    assert len(far.solids) < 0.6 * len(near.solids)


def test_a_wall_thing_that_touches_the_camera_is_left_out_whole() -> None:
    b = SceneBuilder(random.Random(2), camera=(0.1, 0.0, 1.5))
    b.begin()
    clutter.poster(b, WORLD)
    b.end()
    assert not b._kept(np.asarray(b.solids)).any()
