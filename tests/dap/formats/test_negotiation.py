"""Which format an Accept header gets."""

import pytest

from dap.errors import InvalidParameter, NotAcceptable
from dap.formats.clouds import CLOUD_FORMATS
from dap.formats.depth import DEPTH_FORMATS
from dap.formats.negotiation import choose, choose_many, negotiate


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        (None, "png"),
        ("", "png"),
        ("*/*", "png"),
        ("image/*", "png"),
        ("image/png", "png"),
        ("image/jpeg", "jpeg"),
        ("application/json", "json"),
        ("application/x-npy", "npy"),
        ("APPLICATION/X-NPY", "npy"),
        # Browsers.
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", "png"),
        # Quality decides, then the order of the registry, never that of the header.
        ("image/png;q=0.5, application/json", "json"),
        ("application/json, image/jpeg", "jpeg"),
        ("application/json;q=0.9, image/*;q=0.8, */*;q=0.1", "json"),
        # The most specific range counts, even where it says less.
        ("image/*, image/png;q=0.1", "jpeg"),
        ("*/*, image/*;q=0", "npy"),
        ("image/png;q=0, */*", "npy"),
        # Other parameters and spaces are nothing to us.
        ("image/jpeg;foo=bar;q=0.7 , image/png ; q=0.6", "jpeg"),
        # Of formats of one media type, the first.
        ("image/x-exr", "exr"),
        ("image/x-exr, image/png;q=0.9", "exr"),
        ("image/tiff", "tiff"),
        # What cannot be read is left out.
        ("nonsense, ;;, image/jpeg", "jpeg"),
    ],
)
def test_the_format_that_an_accept_header_prefers(accept: str | None, name: str) -> None:
    assert negotiate(DEPTH_FORMATS, accept).name == name


@pytest.mark.parametrize("accept", ["text/html", "image/webp", "image/*;q=0, application/*;q=0", "*/*;q=0", "png"])
def test_what_cannot_be_written_is_refused_with_what_can(accept: str) -> None:
    offers = r"image/png \(png\), application/x-npy \(npy\), image/jpeg \(jpeg\), application/json \(json\)"
    with pytest.raises(NotAcceptable, match=offers):
        negotiate(DEPTH_FORMATS, accept)


def test_a_cloud_is_ply_unless_something_else_is_asked_for() -> None:
    assert negotiate(CLOUD_FORMATS, "*/*").name == "ply"
    with pytest.raises(NotAcceptable):
        negotiate(CLOUD_FORMATS, "image/png")


def test_a_name_goes_before_the_header() -> None:
    assert choose(DEPTH_FORMATS, "exr-half", "image/png").name == "exr-half"
    assert choose(DEPTH_FORMATS, None, "image/jpeg").name == "jpeg"


def test_several_formats_are_named_with_commas() -> None:
    assert [entry.name for entry in choose_many(DEPTH_FORMATS, "exr, png,json")] == ["exr", "png", "json"]
    assert [entry.name for entry in choose_many(DEPTH_FORMATS, "npz")] == ["npz"]


@pytest.mark.parametrize("names", ["", "png,", "png,webp", "png,npy,png", "png;npy"])
def test_a_list_with_what_there_is_not_or_twice_the_same_is_refused(names: str) -> None:
    with pytest.raises(InvalidParameter, match=r"format is one of png, npy|each format is named once"):
        choose_many(DEPTH_FORMATS, names)
