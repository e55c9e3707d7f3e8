"""Arrays in one file, read back by numpy without pickle."""

from dataclasses import replace
from io import BytesIO

import numpy as np

from dap.formats import npz
from tests.dap.formats.maps import some_depth


def read(data: bytes) -> dict[str, np.ndarray]:
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


def test_it_holds_what_is_known_of_a_depth_map() -> None:
    source = replace(some_depth(), scale_factor=1.25)
    arrays = read(npz.encode(source))
    assert arrays.keys() == {"depth", "valid", "rays", "range", "range_mask", "model", "scale_factor"}
    np.testing.assert_array_equal(arrays["valid"], source.valid)
    assert (arrays["depth"].dtype, arrays["valid"].dtype) == (np.float32, np.bool_)
    assert (arrays["range"], arrays["scale_factor"]) == (100.0, 1.25)
    assert (str(arrays["range_mask"]), str(arrays["model"])) == ("head", "dap-s")


def test_no_range_is_not_a_number() -> None:
    assert np.isnan(read(npz.encode(replace(some_depth(), range=None, range_mask="none")))["range"])


def test_the_probabilities_come_with_their_thresholds_where_they_were_kept() -> None:
    in_range = np.random.default_rng(0).random((2, 40, 80), np.float32)
    arrays = read(npz.encode(replace(some_depth(), in_range=in_range, thresholds=(20.0, 100.0))))
    np.testing.assert_array_equal(arrays["in_range"], in_range)
    np.testing.assert_array_equal(arrays["thresholds"], [20.0, 100.0])


def test_rays_are_unit_vectors_that_look_forward_in_the_middle_and_up_at_the_top() -> None:
    rays = read(npz.encode(some_depth()))["rays"]
    assert (rays.dtype, rays.shape) == (np.float32, (40, 80, 3))
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(rays[19:21, 39:41].mean(axis=(0, 1)), [1, 0, 0], atol=2e-3)
    assert (rays[0, :, 2] > 0.99).all()
    # A quarter of the way from the left is the left: y.
    assert rays[20, 20, 1] > 0.99
