"""Where on the sphere a picture lies, and GPano data that lie."""

import pytest

from dap import gpano as gpano_module
from dap.errors import NotAPanorama
from tests.dap.images import GPANO, gpano, xmp

# A quarter turn wide, a third of the height, its upper left corner in the middle of the sphere.
FIELDS = gpano(full=(600, 1200), crop=(200, 300), at=(300, 600))


def test_a_two_to_one_picture_without_gpano_is_the_whole_sphere() -> None:
    for xmp_packet in (None, b"", b"<x/>", xmp(UsePanoramaViewer="True", ProjectionType="equirectangular")):
        crop = gpano_module.locate(xmp_packet, (512, 1024))
        assert crop.is_full
        assert crop.sphere_size == (512, 1024)


@pytest.mark.parametrize(("width", "taken"), [(1021, False), (1022, True), (1026, True), (1027, False)])
def test_two_to_one_holds_within_two_pixels_of_width(width: int, taken: bool) -> None:
    assert gpano_module.is_two_to_one((512, width)) is taken


def test_another_picture_is_refused_with_what_was_expected_and_what_came() -> None:
    with pytest.raises(NotAPanorama, match=r"twice as wide as high .* has 800x600 pixels and it has no GPano data"):
        gpano_module.locate(None, (600, 800))


def test_a_crop_lies_where_its_fields_say() -> None:
    crop = gpano_module.locate(xmp(**FIELDS), (200, 300))
    assert crop.sphere_size == (600, 1200)
    assert not crop.is_full
    assert (crop.left, crop.top, crop.right, crop.bottom) == pytest.approx((1 / 2, 1 / 2, 3 / 4, 5 / 6))


def test_a_crop_that_was_scaled_since_lies_at_the_same_place() -> None:
    crop = gpano_module.locate(xmp(**FIELDS), (100, 150))
    assert crop.sphere_size == (300, 600)
    assert (crop.left, crop.top, crop.right, crop.bottom) == pytest.approx((1 / 2, 1 / 2, 3 / 4, 5 / 6))


def test_a_crop_of_everything_is_the_whole_sphere() -> None:
    assert gpano_module.locate(xmp(**gpano((600, 1200), (600, 1200), (0, 0))), (600, 1200)).is_full


def test_fields_may_be_elements_and_have_decimals() -> None:
    elements = "".join(f"<GPano:{name}> {value}.0 </GPano:{name}>" for name, value in FIELDS.items())
    packet = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:GPano="{GPANO}">{elements}</x:xmpmeta>'
    assert gpano_module.locate(packet.encode(), (200, 300)).sphere_size == (600, 1200)


def test_missing_fields_are_named() -> None:
    fields = {name: value for name, value in FIELDS.items() if name != "CroppedAreaTopPixels"}
    with pytest.raises(NotAPanorama, match="its GPano data lack CroppedAreaTopPixels"):
        gpano_module.locate(xmp(**fields), (200, 300))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"FullPanoWidthPixels": -1200}, "a full panorama is 2:1; the GPano data say -1200x600"),
        ({"FullPanoWidthPixels": 0, "FullPanoHeightPixels": 0}, "a full panorama is 2:1"),
        ({"FullPanoWidthPixels": 900}, "a full panorama is 2:1"),
        ({"CroppedAreaLeftPixels": -1}, "not inside"),
        ({"CroppedAreaLeftPixels": 901}, "not inside"),
        ({"CroppedAreaTopPixels": 401}, "not inside"),
        ({"CroppedAreaImageWidthPixels": 0}, "not inside"),
        ({"CroppedAreaImageHeightPixels": -200}, "not inside"),
        ({"CroppedAreaImageHeightPixels": 210}, "other proportions"),
        ({"CroppedAreaTopPixels": "many"}, "number of pixels; got 'many'"),
        ({"CroppedAreaTopPixels": "9" * 5000}, "number of pixels"),
        ({"CroppedAreaTopPixels": "1e3"}, "number of pixels"),
        ({"ProjectionType": "cylindrical"}, "is equirectangular; the GPano data of this one say 'cylindrical'"),
    ],
)
def test_gpano_data_that_lie_are_refused(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(NotAPanorama, match=complaint):
        gpano_module.locate(xmp(**FIELDS | change), (200, 300))


@pytest.mark.parametrize(
    "packet",
    [
        GPANO.encode() + b"<not xml",
        f'<!DOCTYPE x [<!ENTITY a "b">]><x xmlns:g="{GPANO}" g:FullPanoWidthPixels="&a;"/>'.encode(),
        f'<?xml version="1.0" encoding="no-such"?><x xmlns:g="{GPANO}"/>'.encode(),
        f'<x xmlns:g="{GPANO}">\xff</x>'.encode("latin-1"),
        b"<a>" * 100_000 + GPANO.encode(),
        f'<x xmlns:g="{GPANO}" g:FullPanoWidthPixels="1">'.encode() + b" " * 2_000_000 + b"</x>",
    ],
    ids=["not xml", "entities", "unknown encoding", "broken text", "deep", "huge"],
)
def test_xmp_that_is_hostile_or_no_xml_says_nothing(packet: bytes) -> None:
    assert gpano_module.locate(packet, (512, 1024)).is_full
