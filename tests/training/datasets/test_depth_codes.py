import numpy as np
import pytest

from training.datasets import depth_codes


def test_unknown_and_sky_have_codes_of_their_own() -> None:
    depth = np.array([[0, -1, np.nan, -np.inf, np.inf, 1]], np.float32)
    codes = depth_codes.encode(depth)
    assert codes.dtype == np.uint16
    assert codes[0, :5].tolist() == [0, 0, 0, 0, 65535]
    assert depth_codes.decode(codes)[0, :5].tolist() == [0, 0, 0, 0, np.inf]


@pytest.mark.parametrize(
    ("code", "metres"), [(1, 0.01), (65534, 1000.0), (1 + 65533 * 2 / 5, 1.0), (1 + 65533 * 0.8, 100.0)]
)
def test_codes_are_steps_of_equal_ratio_from_a_centimetre_to_a_kilometre(code: float, metres: float) -> None:
    """At 0, 2/5, 4/5 and all of the way through five powers of ten."""
    found = depth_codes.decode(np.array([round(code)], np.uint16))[0]
    assert found == pytest.approx(metres, rel=1.0e-4)


def test_what_is_read_back_is_within_half_a_step_of_what_was_written() -> None:
    metres = np.geomspace(0.0101, 999, 5000).astype(np.float32)
    error = np.abs(depth_codes.decode(depth_codes.encode(metres)) / metres - 1)
    half_a_step = (1000 / 0.01) ** (0.5 / 65533) - 1
    assert half_a_step == pytest.approx(8.8e-5, rel=0.01), "as the module says"
    assert error.max() <= half_a_step + 2e-7


def test_nearer_than_the_first_and_farther_than_the_last_code_stay_surfaces() -> None:
    depth = np.array([1e-6, 0.00999, 1000.5, 3e38], np.float32)
    assert depth_codes.encode(depth).tolist() == [1, 1, 65534, 65534]


def test_every_code_is_written_back_as_itself() -> None:
    codes = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(depth_codes.encode(depth_codes.decode(codes)), codes)


def test_the_description_is_enough_to_decode() -> None:
    said = depth_codes.DESCRIPTION
    near, far, first, last = (float(str(said[key])) for key in ("near", "far", "first", "last"))
    code = 40000
    metres = near * (far / near) ** ((code - first) / (last - first))
    assert depth_codes.decode(np.array([code], np.uint16))[0] == pytest.approx(metres, rel=1e-6)
