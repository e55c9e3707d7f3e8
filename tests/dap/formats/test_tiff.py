"""TIFF, read back by tifffile (with imagecodecs) and by Pillow (with libtiff)."""

import json
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dap.depth import FILLS, DepthMap, Fill
from dap.formats import tiff
from dap.formats.base import EncodeOptions
from tests.dap.formats.maps import some_depth

Reader = Callable[[bytes], npt.NDArray[np.float32]]


def read_by_pillow(data: bytes) -> npt.NDArray[np.float32]:
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image)


READERS: dict[str, Reader] = {"tifffile": lambda data: tifffile.imread(BytesIO(data)), "Pillow": read_by_pillow}


def same_bits(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def first_page(data: bytes) -> tifffile.TiffPage:
    with tifffile.TiffFile(BytesIO(data)) as file:
        (page,) = file.pages
    assert isinstance(page, tifffile.TiffPage)
    return page


def test_another_reader_finds_zstandard_and_the_floating_point_predictor() -> None:
    page = first_page(tiff.encode(some_depth()))
    assert (page.compression, page.predictor) == (tifffile.COMPRESSION.ZSTD, tifffile.PREDICTOR.FLOATINGPOINT)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("size", [(130, 1001), (3, 70_000), (257, 256), (1, 1)])
def test_strips_that_do_not_divide_the_picture_are_read_back_bit_for_bit(
    size: tuple[int, int], fill: Fill, reader: str
) -> None:
    source = some_depth(*size)
    expected = np.where(source.valid, source.depth, np.float32({"nan": np.nan, "range": 100, "zero": 0}[fill]))
    same_bits(READERS[reader](tiff.encode(source, EncodeOptions(fill=fill))), expected)


@pytest.mark.parametrize("reader", READERS)
@given(size=st.tuples(st.integers(1, 40), st.integers(1, 3000)), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_any_32_bits_are_read_back(reader: str, size: tuple[int, int], seed: int) -> None:
    # All that float32 can be: subnormal numbers, infinities, NaN of every kind, both zeros.
    bits = np.random.default_rng(seed).integers(0, 2**32, size, dtype=np.uint32)
    source = DepthMap(bits.view(np.float32), np.ones(size, np.bool_), None, "none", "")
    same_bits(READERS[reader](tiff.encode(source)), source.depth)


def test_a_strip_has_at_most_256_kib_before_compression_and_after_it_the_bytes_that_the_file_says() -> None:
    data = tiff.encode(some_depth(200, 1000))
    page = first_page(data)
    assert page.rowsperstrip == 65  # 65 rows of 4000 bytes, not 66
    ends = np.add(page.dataoffsets, page.databytecounts)
    assert list(page.dataoffsets) == [8, *ends[:-1]]
    assert len(ends) == 4
    assert ends[-1] <= int.from_bytes(data[4:8], "little")


@pytest.mark.parametrize("width", range(1, 9))
def test_the_directory_is_where_tiff_wants_it(width: int) -> None:
    """At an even position, its tags in ascending order, and values that it points to at even positions too."""
    data = tiff.encode(some_depth(1, width))
    assert int.from_bytes(data[4:8], "little") % 2 == 0
    tags = list(first_page(data).tags)
    assert [tag.code for tag in tags] == sorted(tag.code for tag in tags)
    assert [tag.valueoffset % 2 for tag in tags] == [0] * len(tags)


def test_the_file_says_what_it_holds() -> None:
    source = replace(some_depth(), scale_factor=1.25)
    for fill, no_data in (("nan", "nan"), ("range", "100"), ("zero", "0")):
        tags = first_page(tiff.encode(source, EncodeOptions(fill=fill))).tags
        assert tags["GDAL_NODATA"].value == no_data
        said = json.loads(tags["ImageDescription"].value)
        assert float(said.pop("invalid")) == float(no_data) or fill == "nan"
        assert said == {
            "unit": "metre", "range": 100.0, "range_mask": "head", "model": "dap-s", "scale_factor": 1.25,
        }  # fmt: skip


def test_a_model_of_any_name_can_be_said() -> None:
    data = tiff.encode(replace(some_depth(), model="räume №5", range=None, range_mask="none"))
    said = json.loads(first_page(data).tags["ImageDescription"].value)
    assert (said["model"], said["range"]) == ("räume №5", None)
