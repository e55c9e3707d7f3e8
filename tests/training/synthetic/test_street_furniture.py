"""What stands in streets stands on the ground, is of a usual size, and is detailed only near by."""

import math
import random

import numpy as np
import pytest

from training.synthetic import street_furniture
from training.synthetic.builder import SceneBuilder
from training.synthetic.scene import WORLD, Frame

THINGS = [thing for _, thing in street_furniture.KERB_THINGS] + [street_furniture.car, street_furniture.cafe_table]


def built(thing, seed: int, at: Frame = WORLD) -> SceneBuilder:  # type: ignore[no-untyped-def]
    b = SceneBuilder(random.Random(seed), camera=(5.0, 0.0, 1.6))
    thing(b, at)
    return b


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: thing.__name__)
def test_things_stand_on_the_ground(thing) -> None:  # type: ignore[no-untyped-def]
    for seed in range(8):
        rows = np.array(built(thing, seed).solids)
        reach = np.einsum("nij,nj->ni", np.abs(rows[:, 7:16].reshape(-1, 3, 3)), rows[:, 4:7])
        low = (rows[:, 3] - reach[:, 2]).min()
        assert -0.1 < low < 0.1


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: thing.__name__)
def test_things_may_be_left_out_when_they_touch_the_camera(thing) -> None:  # type: ignore[no-untyped-def]
    assert all(owner > 0 for owner in built(thing, 3).owners)


def test_a_car_is_as_long_and_as_high_as_cars_are() -> None:
    for seed in range(10):
        rows = np.array(built(street_furniture.car, seed).solids)
        reach = np.einsum("nij,nj->ni", np.abs(rows[:, 7:16].reshape(-1, 3, 3)), rows[:, 4:7])
        size = (rows[:, 1:4] + reach).max(0) - (rows[:, 1:4] - reach).min(0)
        assert 3.8 < size[0] < 5.2
        assert 1.5 < size[1] < 2.4
        assert 1.3 < size[2] < 2.1


def test_far_cars_are_plainer() -> None:
    near, far = (built(street_furniture.car, 5, Frame(x)) for x in (0.0, 60.0))
    assert len(far.solids) < 0.5 * len(near.solids)


def test_markings_lie_along_the_street_on_the_ground() -> None:
    b = SceneBuilder(random.Random(6))
    street_furniture.lane_markings(b, Frame(yaw=math.pi / 2), 4.0)
    rows = np.array(b.solids)
    assert (rows[:, 3] + rows[:, 6]).max() < 0.01
    assert np.abs(rows[:, 1]).max() < 4.0, "across the street they stay within it"
    assert np.abs(rows[:, 2]).max() > 10.0
