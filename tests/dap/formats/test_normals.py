"""Normals as PNG, read by Pillow, and as .npy, read by numpy."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dap import sphere
from dap.formats.normals import NORMAL_FORMATS
from dap.normals import NormalMap


def some_normals(height: int = 12, width: int = 24, seed: int = 0, frame: sphere.Frame = "ros") -> NormalMap:
    random = np.random.default_rng(seed)
    towards = random.normal(0, 1, (height, width, 3))
    valid = random.random((height, width)) < 0.7
    unit = towards / np.linalg.norm(towards, axis=-1, keepdims=True) * valid[..., None]
    return NormalMap(unit.astype(np.float32), valid, frame, "dap-s")


def png(normal_map: NormalMap) -> Image.Image:
    return Image.open(BytesIO(NORMAL_FORMATS["png"].encode(normal_map)))


def npy(normal_map: NormalMap) -> npt.NDArray[np.float32]:
    return np.load(BytesIO(NORMAL_FORMATS["npy"].encode(normal_map)), allow_pickle=False)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_a_png_turns_no_normal_by_more_than_its_steps_are_wide(height: int, width: int, seed: int) -> None:
    normal_map = some_normals(height, width, seed)
    image = png(normal_map)
    assert (image.mode, image.size) == ("RGB", (width, height))
    values = np.array(image)
    np.testing.assert_array_equal(values.any(axis=-1), normal_map.valid)
    found = values[normal_map.valid] / 255 * 2 - 1
    np.testing.assert_allclose(found, normal_map.normals[normal_map.valid], atol=1.01 / 255)


@pytest.mark.parametrize(("normal", "color"), [((1, 0, 0), (255, 128, 128)), ((0, -1, 0), (128, 0, 128))])
def test_a_png_has_the_colours_that_normal_maps_have(normal: tuple[int, ...], color: tuple[int, ...]) -> None:
    one = NormalMap(np.array([[normal]], np.float32), np.ones((1, 1), np.bool_), "ros", "")
    assert png(one).getpixel((0, 0)) == color


def test_a_png_says_what_its_colours_mean() -> None:
    text = png(replace(some_normals(frame="opencv"), model="dap\u2028s")).info
    assert text == {
        "Normal": "(value / 255) * 2 - 1",
        "Invalid": "0 0 0",
        "Frame": "opencv: x right, y down, z forward",
        "Model": "dap?s",
    }


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_an_npy_is_exact_and_nan_where_there_is_no_normal(height: int, width: int, seed: int) -> None:
    normal_map = some_normals(height, width, seed)
    found = npy(normal_map)
    assert found.dtype == np.float32
    expected = np.where(normal_map.valid[..., None], normal_map.normals, np.nan)
    np.testing.assert_array_equal(found, expected)
