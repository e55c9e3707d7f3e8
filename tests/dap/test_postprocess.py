"""From what an engine says to the depth map that was asked for."""

import numpy as np
import pytest

from dap.errors import InvalidParameter
from dap.postprocess import DepthOptions, engine_inputs, finish

SIZE = (16, 32)
THRESHOLDS = (10.0, 20.0, 50.0, 100.0)


def output(metres: object) -> tuple[np.ndarray, np.ndarray]:
    """Depth, and for each threshold whether it is nearer."""
    depth = np.broadcast_to(np.asarray(metres, np.float32), SIZE).copy()
    return depth, np.stack([depth < threshold for threshold in THRESHOLDS]).astype(np.float32)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"range": 30}, "range is one of 10, 20, 50 or 100 metres or none; got 30"),
        ({"seam": "sew"}, "seam is one of none, blend; got sew"),
        ({"upsample": "cubic"}, "upsample is one of nearest, bilinear, guided; got cubic"),
        ({"nadir_mask": 91}, "nadir_mask is 0 to 90 degrees; got 91"),
        ({"nadir_mask": float("nan")}, "nadir_mask"),
        ({"camera_height": 0}, "camera_height is above 0 and at most 1000 metres; got 0"),
        ({"camera_height": float("inf")}, "camera_height"),
        ({"camera_height": float("nan")}, "camera_height"),
    ],
)
def test_options_say_what_they_expect(wrong: dict, expected: str) -> None:
    with pytest.raises(InvalidParameter, match=expected):
        DepthOptions(**wrong)


def test_a_panorama_is_seen_once_and_for_a_blend_once_more_from_behind() -> None:
    pixels = np.arange(16 * 32 * 3, dtype=np.uint8).reshape(16, 32, 3)
    (only,) = engine_inputs(pixels, DepthOptions())
    assert only is pixels
    straight, turned = engine_inputs(pixels, DepthOptions(seam="blend"))
    assert straight is pixels
    np.testing.assert_array_equal(turned, np.concatenate([pixels[:, 16:], pixels[:, :16]], axis=1))


def test_without_options_the_depth_is_what_the_engine_said() -> None:
    found = finish([output(15)], THRESHOLDS, DepthOptions(range=20), "m", None, SIZE)
    np.testing.assert_array_equal(found.depth, 15)
    assert found.valid.all()
    assert (found.range, found.range_mask, found.model, found.scale_factor) == (20, "head", "m", 1)
    assert found.in_range is None
    assert found.thresholds == ()
