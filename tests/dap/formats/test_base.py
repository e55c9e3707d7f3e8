"""The registries of formats."""

from dataclasses import replace

import pytest

from dap.errors import InvalidParameter
from dap.formats.base import EncodeOptions, Numbers, find
from dap.formats.clouds import CLOUD_FORMATS
from dap.formats.depth import DEPTH_FORMATS
from tests.dap.formats.maps import some_depth


def test_a_format_is_found_by_its_name() -> None:
    assert find(DEPTH_FORMATS, "npy").media_type == "application/x-npy"
    with pytest.raises(InvalidParameter, match=r"one of png, npy, jpeg, json, exr, .*; got 'webp'"):
        find(DEPTH_FORMATS, "webp")


def test_a_long_name_is_not_said_back_in_full() -> None:
    with pytest.raises(InvalidParameter) as refusal:
        find(CLOUD_FORMATS, "x" * 10_000)
    assert len(str(refusal.value)) < 100


@pytest.mark.parametrize("formats", [DEPTH_FORMATS, CLOUD_FORMATS])
def test_each_format_goes_by_its_name_and_its_extension(formats: dict) -> None:
    for name, entry in formats.items():
        assert entry.name == name
        assert entry.extension.startswith(".")
    assert len({entry.extension for entry in formats.values()}) == len(formats)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fill": "none"}, "fill is one of nan, range, zero; got 'none'"),
        ({"fill": "NaN"}, "fill is one of nan, range, zero; got 'NaN'"),
        ({"colormap": "jet"}, "colormap is one of turbo, viridis, cividis, grey; got 'jet'"),
        ({"colormap": "x" * 10_000}, f"colormap is one of turbo, viridis, cividis, grey; got '{'x' * 40}'"),
    ],
)
def test_options_that_are_none_are_refused_with_what_there_is(options: dict, said: str) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        EncodeOptions(**options)
    assert str(refusal.value) == said


def test_the_number_that_is_no_depth_is_the_formats_own_or_the_fill() -> None:
    assert Numbers(scale=512, invalid=0).invalid_text("nan", 20.0) == "0"
    floats = Numbers()
    assert [floats.invalid_text(fill, 20.0) for fill in ("nan", "zero", "range")] == ["NaN", "0", "20"]
    with pytest.raises(InvalidParameter, match="needs a range"):
        floats.invalid_text("range", None)


@pytest.mark.parametrize("name", ["npy", "exr", "exr-half", "tiff", "npz"])
def test_a_fill_of_the_range_is_refused_where_there_is_none(name: str) -> None:
    with pytest.raises(InvalidParameter, match="range"):
        DEPTH_FORMATS[name].encode(replace(some_depth(), range=None), EncodeOptions(fill="range"))
