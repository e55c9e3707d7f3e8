"""Every format that holds depth: what is read back, by others and by ours, is what was written, within its quantum."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import OpenEXR
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from dap.depth import RANGES, DepthMap, Fill
from dap.formats.base import EncodeOptions
from dap.formats.depth import DEPTH_FORMATS
from tests.dap.formats.maps import some_depth

Numbers = np.ndarray[Any, Any]


def read_npz(data: bytes) -> Numbers:
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        return arrays["depth"]


def read_exr(data: bytes) -> Numbers:
    return OpenEXR.File(BytesIO(data), separate_channels=True).channels()["Z"].pixels


# The readers of others, and how far half a step of the format is: metres, and share of the depth.
READERS: dict[str, tuple[Callable[[bytes], Numbers], float, float]] = {
    "png": (imagecodecs.png_decode, 1 / 1024, 1e-6),
    "npy": (lambda data: np.load(BytesIO(data), allow_pickle=False), 0, 0),
    "npz": (read_npz, 0, 0),
    "tiff": (lambda data: tifffile.imread(BytesIO(data)), 0, 0),
    "exr": (read_exr, 0, 0),
    "exr-half": (read_exr, 0, 2**-11),
}
FLOATS = [name for name in READERS if name != "png"]


@st.composite
def depth_maps(draw: st.DrawFn) -> DepthMap:
    """Maps of any size and mask, depth from a centimetre to 120 m; what is not valid is anything."""
    size = draw(st.integers(1, 12)), draw(st.integers(1, 24))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    valid = random.random(size) < draw(st.sampled_from([0, 0.5, 1]))
    depth = np.exp(random.uniform(np.log(0.01), np.log(120), size)).astype(np.float32)
    depth[~valid] = random.choice([np.nan, np.inf, 0, -1, 7])
    range = draw(st.sampled_from([None, *RANGES]))
    return DepthMap(depth, valid, range, "none" if range is None else "head", draw(st.sampled_from(["", "dap-s"])))


def test_every_format_with_numbers_has_a_reader_here() -> None:
    assert {name for name, entry in DEPTH_FORMATS.items() if entry.numbers} == READERS.keys()


@pytest.mark.parametrize("name", READERS)
@given(source=depth_maps(), fill=st.sampled_from(["nan", "zero", "range"]))
@settings(max_examples=20, deadline=None)
def test_another_reader_finds_the_depth_and_what_stands_where_nothing_is_valid(
    name: str, source: DepthMap, fill: Fill
) -> None:
    fill = "nan" if source.range is None and fill == "range" else fill
    read, absolute, relative = READERS[name]
    entry = DEPTH_FORMATS[name]
    numbers = read(entry.encode(source, EncodeOptions(fill)))
    assert entry.numbers is not None
    assert numbers.shape == source.size
    invalid = float(entry.numbers.invalid_text(fill, source.range))
    np.testing.assert_array_equal(numbers[~source.valid], np.full((~source.valid).sum(), invalid, np.float32))
    metres = numbers[source.valid] / entry.numbers.scale
    np.testing.assert_allclose(metres, source.depth[source.valid], atol=absolute, rtol=relative)


@pytest.mark.parametrize("name", [name for name, entry in DEPTH_FORMATS.items() if entry.decode])
@given(source=depth_maps())
@settings(max_examples=20, deadline=None)
def test_our_reader_finds_the_depth_and_the_mask(name: str, source: DepthMap) -> None:
    _, absolute, relative = READERS[name]
    entry = DEPTH_FORMATS[name]
    assert entry.decode is not None
    found = entry.decode(entry.encode(source))
    np.testing.assert_array_equal(found.valid, source.valid)
    assert found.depth.dtype == np.float32
    np.testing.assert_allclose(
        found.depth[found.valid], source.depth[source.valid], atol=absolute + 1e-6 * (absolute > 0), rtol=relative
    )


@pytest.mark.parametrize("name", FLOATS)
def test_a_fill_of_100_m_is_what_the_official_code_gives(name: str) -> None:
    # DAP's own test code writes the network's output, which is metres / 100, and 1 where its mask says sky.
    source = some_depth()
    numbers = READERS[name][0](DEPTH_FORMATS[name].encode(source, EncodeOptions(fill="range")))
    official = np.where(source.valid, source.depth / np.float32(100), np.float32(1))
    if name == "exr-half":
        np.testing.assert_allclose(numbers.astype(np.float32) / np.float32(100), official, rtol=2**-11)
        assert (numbers[~source.valid] == 100).all()
    else:
        np.testing.assert_array_equal(numbers / np.float32(100), official)


@pytest.mark.parametrize("name", [*READERS, "json", "jpeg", "png-preview"])
def test_the_same_map_is_the_same_bytes(name: str) -> None:
    assert DEPTH_FORMATS[name].encode(some_depth()) == DEPTH_FORMATS[name].encode(some_depth())


def test_files_of_all_formats_lie_side_by_side() -> None:
    extensions = [entry.extension for entry in DEPTH_FORMATS.values()]
    assert len(set(extensions)) == len(extensions)
