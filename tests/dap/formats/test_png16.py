"""16-bit PNG: read back by Pillow, by ours, and what it says of itself."""

import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dap import headers
from dap.depth import DepthMap
from dap.errors import BrokenImage, UnsupportedMediaType
from dap.formats import png16
from tests.dap.formats.maps import some_depth
from tests.dap.images import picture, saved, with_png_chunks


def test_another_reader_finds_the_depth_within_half_a_step_and_zero_where_not_valid() -> None:
    source = some_depth()
    with Image.open(BytesIO(png16.encode(source))) as image:
        assert (image.format, image.size) == ("PNG", (80, 40))
        values = np.asarray(image).astype(np.int64)
    np.testing.assert_array_equal(values == 0, ~source.valid)
    np.testing.assert_allclose(values[source.valid] / 512, source.depth[source.valid], atol=0.5 / 512 + 1e-6)


def test_the_file_says_what_it_holds() -> None:
    with Image.open(BytesIO(png16.encode(some_depth()))) as image:
        assert image.info == {
            "Unit": "metre", "Scale": "512", "Invalid": "0", "Model": "dap-s", "Range": "100", "Range-Mask": "head",
        }  # fmt: skip


def test_every_chunk_of_the_file_has_its_checksum() -> None:
    kinds = [kind for kind, _ in headers.png_chunks(png16.encode(some_depth()))]
    assert kinds == [b"IHDR", *[b"tEXt"] * 6, b"IDAT", b"IEND"]


def test_what_was_written_is_read_back() -> None:
    source = some_depth()
    found = png16.decode(png16.encode(source))
    np.testing.assert_array_equal(found.valid, source.valid)
    np.testing.assert_allclose(found.depth[found.valid], source.depth[source.valid], atol=0.5 / 512 + 1e-6)
    assert (found.range, found.range_mask, found.model) == (100.0, "head", "dap-s")
    assert found.depth.dtype == np.float32
    no_range = replace(source, range=None, range_mask="none", model="räume №5")
    found = png16.decode(png16.encode(no_range))
    assert (found.range, found.range_mask, found.model) == (None, "none", "räume ?5")


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32))
def test_writing_what_was_read_changes_nothing(height: int, width: int, seed: int) -> None:
    steps = np.random.default_rng(seed).integers(0, 65536, (height, width), dtype=np.uint16)
    source = DepthMap((steps / 512).astype(np.float32), steps > 0, range=None, range_mask="none", model="")
    data = png16.encode(source)
    np.testing.assert_array_equal(png16.decode(data).quantised(), steps)
    assert png16.encode(png16.decode(data)) == data


def test_the_scale_of_another_writer_is_taken() -> None:
    millimetres = Image.frombytes("I;16", (2, 1), np.array([1500, 0], np.uint16).tobytes())
    data = with_png_chunks(saved(millimetres, "PNG"), (b"tEXt", b"Scale\x001000"), before=b"IDAT")
    found = png16.decode(data)
    assert found.depth[0, 0] == pytest.approx(1.5)
    np.testing.assert_array_equal(found.valid, [[True, False]])


@pytest.mark.parametrize("text", [b"Scale\x000", b"Scale\x00-1", b"Scale\x00nan", b"Scale\x00much", b"Range\x00far"])
def test_numbers_that_are_none_are_refused(text: bytes) -> None:
    grey = Image.frombytes("I;16", (2, 1), bytes(4))
    with pytest.raises(BrokenImage, match=re.escape(f"says {text.decode()[6:]!r}")):
        png16.decode(with_png_chunks(saved(grey, "PNG"), (b"tEXt", text), before=b"IDAT"))


def test_other_pictures_are_refused() -> None:
    for data, what in ((saved(picture(), "PNG"), "PNG RGB"), (saved(picture(), "JPEG"), "JPEG RGB")):
        with pytest.raises(UnsupportedMediaType, match=f"16-bit grey PNG; this is {what}"):
            png16.decode(data)
    with pytest.raises(UnsupportedMediaType):
        png16.decode(b"\x93NUMPY")
    with pytest.raises(BrokenImage, match="truncated"):
        png16.decode(png16.encode(some_depth())[:-20])
