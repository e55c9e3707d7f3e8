"""The registries of formats."""

import pytest

from dap.errors import InvalidParameter
from dap.formats.base import find
from dap.formats.clouds import CLOUD_FORMATS
from dap.formats.depth import DEPTH_FORMATS
from dap.formats.negotiation import negotiate


def test_a_format_is_found_by_its_name() -> None:
    assert find(DEPTH_FORMATS, "npy").media_type == "application/x-npy"
    with pytest.raises(InvalidParameter, match="one of png, npy, jpeg, json; got 'exr'"):
        find(DEPTH_FORMATS, "exr")


def test_a_long_name_is_not_said_back_in_full() -> None:
    with pytest.raises(InvalidParameter) as refusal:
        find(CLOUD_FORMATS, "x" * 10_000)
    assert len(str(refusal.value)) < 100


@pytest.mark.parametrize("formats", [DEPTH_FORMATS, CLOUD_FORMATS])
def test_each_format_goes_by_its_name_its_media_type_and_its_extension(formats: dict) -> None:
    for name, entry in formats.items():
        assert entry.name == name
        assert negotiate(formats, entry.media_type) is entry
        assert entry.extension.startswith(".")
    assert len({entry.extension for entry in formats.values()}) == len(formats)
