"""The PNG writer, read back by Pillow and by imagecodecs."""

from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dap.formats import png


@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    channels=st.sampled_from([(), (3,)]),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None)
def test_another_reader_finds_every_pixel(shape: tuple, channels: tuple, dtype: type, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape + channels, dtype)
    found = imagecodecs.png_decode(png.encode(pixels))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize(("channels", "mode"), [((), "L"), ((3,), "RGB")])
def test_a_picture_has_its_text(channels: tuple, mode: str) -> None:
    data = png.encode(np.zeros((2, 4, *channels), np.uint8), {"Unit": "metre", "Model": "räume №5"})
    with Image.open(BytesIO(data)) as image:
        image.load()
        assert (image.mode, image.size) == (mode, (4, 2))
        assert image.info == {"Unit": "metre", "Model": "räume ?5"}


def test_rows_that_are_not_contiguous_are_written_as_they_look() -> None:
    wide = np.arange(24, dtype=np.uint16).reshape(2, 12)
    np.testing.assert_array_equal(imagecodecs.png_decode(png.encode(wide[:, ::3])), wide[:, ::3])
