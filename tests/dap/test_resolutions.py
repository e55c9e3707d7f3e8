"""Resolutions: how they are written, which of them are offered, and how many panoramas of one run together."""

import pytest

from dap.errors import InvalidParameter, ResolutionNotOffered
from dap.resolutions import batch_limit, check_resolution, choose_resolution, parse_resolution, resolution_text


def test_a_resolution_is_written_width_first() -> None:
    assert parse_resolution("1024x512") == (512, 1024)
    assert resolution_text((512, 1024)) == "1024x512"


@pytest.mark.parametrize("text", ["", "1024", "1024x", "x512", "0x0", "-32x-16", "1024X512", "1024x512 ", "1e3x512"])
def test_what_is_not_of_that_form_is_none(text: str) -> None:
    with pytest.raises(InvalidParameter, match="WxH in pixels, such as 1024x512"):
        parse_resolution(text)


def test_a_network_is_asked_for_two_to_one_in_multiples_of_16() -> None:
    assert check_resolution((48, 96)) == (48, 96)
    for height, width in ((512, 512), (500, 1000), (24, 48), (16, 16)):
        with pytest.raises(InvalidParameter, match=f"W = 2 H, both multiples of 16; got {width}x{height}"):
            check_resolution((height, width))


def test_who_does_not_ask_gets_the_first() -> None:
    assert choose_resolution(None, [(256, 512), (512, 1024)], "m") == (256, 512)
    assert choose_resolution((512, 1024), [(256, 512), (512, 1024)], "m") == (512, 1024)


def test_a_refusal_lists_what_is_offered() -> None:
    with pytest.raises(ResolutionNotOffered, match=r"m is offered at 512x256, 1024x512; .* is 64x32") as refused:
        choose_resolution((32, 64), [(256, 512), (512, 1024)], "m")
    assert (refused.value.status, refused.value.slug) == (422, "resolution-not-offered")


@pytest.mark.parametrize(
    ("size", "limit"),
    [((256, 512), 8), ((512, 1024), 2), ((384, 768), 3), ((1024, 2048), 1), ((128, 256), 8)],
)
def test_of_larger_panoramas_as_many_fewer_run_together(size: tuple[int, int], limit: int) -> None:
    assert batch_limit(8, size, default=(256, 512)) == limit
