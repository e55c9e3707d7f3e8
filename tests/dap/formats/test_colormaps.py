"""Named colours: against the published tables, and in lightness."""

import numpy as np
import numpy.typing as npt
import pytest

from dap.formats.colormaps import COLORMAPS, colors


def lightness(srgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """CIE L* of sRGB under D65 (IEC 61966-2-1, CIE 15)."""
    encoded = srgb / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(luminance > (6 / 29) ** 3, 116 * np.cbrt(luminance) - 16, luminance * (29 / 3) ** 3)


@pytest.mark.parametrize("name", ["viridis", "cividis", "grey"])
def test_lightness_falls_with_depth_and_evenly(name: str) -> None:
    steps = -np.diff(lightness(colors(name, 64)))
    assert steps.min() > 0
    assert steps.max() < 3 * steps.mean()


def test_turbo_is_brightest_in_the_middle() -> None:
    light = lightness(colors("turbo", 63))
    assert light[31] > light[0] + 40
    assert light[31] > light[-1] + 40


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # Rows 255, 191, 127, 63 and 0 of the published tables of 256, in 255ths.
        ("viridis", [(253, 231, 37), (92, 200, 99), (33, 144, 141), (59, 81, 139), (68, 1, 84)]),
        ("cividis", [(254, 232, 56), (187, 173, 109), (124, 123, 120), (66, 78, 108), (0, 34, 78)]),
        ("turbo", [(122, 4, 3), (251, 129, 34), (161, 253, 61), (42, 185, 238), (48, 18, 59)]),
    ],
)
def test_the_colours_are_those_published(name: str, published: list[tuple[int, int, int]]) -> None:
    np.testing.assert_allclose(colors(name, 256)[[0, 64, 128, 192, 255]].astype(int), published, atol=8)


@pytest.mark.parametrize("name", COLORMAPS)
def test_colours_are_as_many_as_asked_for_and_cannot_be_changed(name: str) -> None:
    table = colors(name, 254)
    assert (table.shape, table.dtype) == ((254, 3), np.uint8)
    assert len(np.unique(table, axis=0)) > 150
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 0
