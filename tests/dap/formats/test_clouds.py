"""Clouds in every format: what another reader finds is what was written."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dap import sphere
from dap.formats.clouds import CLOUD_FORMATS
from tests.dap.formats.some_clouds import READERS, some_cloud

# Half of a millimetre, and what float32 has not at 100 m.
QUANTUM = {"las": 0.00051, "laz": 0.00051}


def test_there_is_a_reader_for_each_format() -> None:
    assert set(READERS) == set(CLOUD_FORMATS)


@pytest.mark.parametrize("name", CLOUD_FORMATS)
@given(st.integers(0, 40), st.sampled_from(sphere.FRAMES), st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_another_reader_finds_the_points_that_were_written(
    name: str, count: int, frame: sphere.Frame, normals: bool, seed: int
) -> None:
    cloud = some_cloud(count, frame, normals=normals, seed=seed)
    found = READERS[name](CLOUD_FORMATS[name].encode(cloud))
    np.testing.assert_allclose(found.points, cloud.points, rtol=0, atol=QUANTUM.get(name, 0))
    np.testing.assert_array_equal(found.colors, cloud.colors)
    if cloud.normals is not None and count:
        np.testing.assert_array_equal(found.normals, cloud.normals)
    else:
        assert found.normals is None or len(found.normals) == 0


@pytest.mark.parametrize("name", CLOUD_FORMATS)
def test_the_same_cloud_is_the_same_bytes(name: str) -> None:
    first, second = (CLOUD_FORMATS[name].encode(some_cloud(normals=True)) for _ in range(2))
    assert first == second
