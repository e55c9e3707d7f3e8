"""What counts as growth."""

import math

import pytest

from benchmarks.soak import growth


def test_growth_is_the_most_after_the_first_thousand_against_what_it_was_then() -> None:
    assert growth({500: 400.0, 1000: 200.0, 1500: 208.0, 2000: 190.0}) == pytest.approx(0.04)


def test_before_the_first_thousand_there_is_no_growth_to_tell() -> None:
    assert math.isnan(growth({500: 400.0}))
