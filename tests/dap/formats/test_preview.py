"""The coloured picture: which colour means what, to the eye of a test."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dap.depth import DepthMap
from dap.formats import preview
from dap.formats.base import EncodeOptions


def colored(depth: npt.ArrayLike, valid: npt.ArrayLike | None = None) -> npt.NDArray[np.int64]:
    metres = np.array(depth, np.float32)
    mask = np.ones(metres.shape, np.bool_) if valid is None else np.array(valid, np.bool_)
    data = preview.encode(DepthMap(metres, mask, range=100.0, range_mask="head", model="test"))
    with Image.open(BytesIO(data)) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        return np.asarray(image).astype(np.int64)


def ramp(height: int, width: int, near: float, far: float) -> npt.NDArray[np.float64]:
    return np.broadcast_to(np.geomspace(near, far, width), (height, width))


@pytest.mark.parametrize(("near", "far"), [(0.5, 6), (2, 100)])
def test_near_is_warm_and_far_is_cool_indoors_and_outdoors(near: float, far: float) -> None:
    pixels = colored(ramp(64, 512, near, far))
    warmth = (pixels[..., 0] - pixels[..., 2])[32]
    assert warmth[60] > 100
    assert warmth[400] < -100
    # Halfway in the logarithm is the middle of the colours: green.
    assert pixels[32, 256].argmax() == 1


def test_the_picture_has_the_size_of_the_map() -> None:
    assert colored(ramp(256, 512, 1, 9)).shape == (256, 512, 3)


def test_what_is_not_valid_is_striped_dark_grey() -> None:
    valid = np.ones((64, 128), np.bool_)
    valid[16:48, 32:96] = False
    hole = colored(ramp(64, 128, 1, 9), valid)[20:44, 36:92]
    assert np.ptp(hole, axis=-1).max() < 20
    assert hole.max() < 90
    assert np.ptp(hole[..., 0]) > 12


def test_depth_under_the_mask_does_not_change_the_colours() -> None:
    valid = np.ones((64, 128), np.bool_)
    valid[:, :64] = False
    depth = ramp(64, 128, 1, 9).copy()
    depth[:, :64] = 1
    first = colored(depth, valid)
    depth[:, :64] = np.nan
    np.testing.assert_array_equal(colored(depth, valid), first)


@pytest.mark.parametrize("valid", [True, False])
def test_a_map_of_one_depth_or_of_none_is_a_picture_too(valid: bool) -> None:
    assert colored(np.full((256, 512), 3), np.full((256, 512), valid)).shape == (256, 512, 3)


def test_a_legend_lies_over_the_lowest_rows_of_a_picture_large_enough_to_read_it() -> None:
    constant = np.full((256, 512), 3.0)
    near, far = constant.copy(), constant.copy()
    near[:128], far[:128] = 1, 3.5
    small, large = colored(constant[::4, ::4]), colored(near)
    assert np.ptp(small[40:], axis=(0, 1)).max() < 12
    legend = large[-14:]
    assert (legend < 30).all(axis=-1).mean() > 0.3
    assert (legend > 200).all(axis=-1).any()


def test_the_legend_has_round_metres_at_their_places() -> None:
    # 1 to 100 m over 400 columns: 10 m is in the middle, and its tick is a dark line in a bright bar.
    depth = np.broadcast_to(np.geomspace(1, 100, 400), (200, 400))
    source = DepthMap(depth.astype(np.float32), np.ones(depth.shape, np.bool_), None, "none", "test")
    with Image.open(BytesIO(preview.encode(replace(source)))) as image:
        bar = np.asarray(image.convert("L")).astype(int)[-18]
    middle = bar[195:206]
    assert middle.min() < middle.max() - 60
    assert abs(int(middle.argmin()) - 5) <= 2


def with_colors(colormap: str, near: float = 1, far: float = 9) -> npt.NDArray[np.int64]:
    depth = ramp(64, 512, near, far).astype(np.float32)
    source = DepthMap(depth, np.ones(depth.shape, np.bool_), None, "none", "test")
    with Image.open(BytesIO(preview.PNG.encode(source, EncodeOptions(colormap=colormap)))) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image).astype(np.int64)


@pytest.mark.parametrize(
    ("colormap", "nearest", "farthest"),
    [
        ("turbo", (122, 4, 3), (48, 18, 59)),
        ("viridis", (253, 231, 37), (68, 1, 84)),
        ("cividis", (254, 232, 56), (0, 34, 78)),
        ("grey", (255, 255, 255), (80, 80, 80)),
    ],
)
def test_each_named_colour_map_runs_from_its_nearest_to_its_farthest_colour(
    colormap: str, nearest: tuple[int, int, int], farthest: tuple[int, int, int]
) -> None:
    row = with_colors(colormap)[32]
    np.testing.assert_array_equal(row[[0, -1]], [nearest, farthest])


def test_png_is_the_picture_that_jpeg_is_without_its_loss() -> None:
    depth = ramp(256, 512, 1, 9).astype(np.float32)
    source = DepthMap(depth, np.arange(256)[:, None] + np.arange(512) > 300, 20.0, "head", "test")
    pictures = [
        np.asarray(Image.open(BytesIO(entry.encode(source)))).astype(int) for entry in (preview.JPEG, preview.PNG)
    ]
    assert pictures[0].shape == pictures[1].shape == (256, 512, 3)
    assert np.abs(pictures[0] - pictures[1]).mean() < 4


def test_grey_depth_is_brighter_than_what_is_not_valid() -> None:
    assert with_colors("grey").min() > max(max(color) for color in preview.STRIPES_RGB)
