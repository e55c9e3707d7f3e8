"""The range mask against rendered places: areas pooled by solid angle, by kind of place."""

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from dap.depth import DepthMap
from training.commands import train
from training.evaluate import LabelledPanorama
from training.range_mask_table import ALL, MaskScores, Predict, markdown, mask_scores, places

SHAPE = (8, 16)


def says(in_range: npt.NDArray[np.float32]) -> Predict:
    """A model that says the same in-range probabilities for 10 and 100 m of everything."""

    def predict(rgb: npt.NDArray[np.uint8]) -> DepthMap:
        depth = np.ones(rgb.shape[:2], np.float32)
        return DepthMap(depth, depth > 0, 100.0, "head", "says", in_range, (10.0, 100.0))

    return predict


def place(kind: str, depth: npt.NDArray[np.float32]) -> LabelledPanorama:
    return LabelledPanorama(kind, np.zeros((*SHAPE, 3), np.uint8), depth)


def upper_half_sky() -> npt.NDArray[np.float32]:
    depth = np.full(SHAPE, 5, np.float32)
    depth[:4] = np.inf
    return depth


def test_a_mask_that_is_right_everywhere_has_iou_one_and_loses_nothing() -> None:
    sky = upper_half_sky()
    scores = mask_scores(says(np.stack([sky < 10, sky < 100]).astype(np.float32)), [place("street", sky)])
    assert scores["street"] == scores[ALL] == MaskScores(1, {"10": 1.0, "100": 1.0}, {"10": 0.0, "100": 0.0})


def test_rows_count_by_their_solid_angle_and_holes_not_at_all() -> None:
    sky = upper_half_sky()
    sky[:, 0] = 0
    said = np.ones((2, *SHAPE), np.float32)
    said[:, :2] = 0
    scores = mask_scores(says(said), [place("street", sky)])
    rows = np.sin((np.arange(8) + 0.5) / 8 * np.pi)
    assert scores[ALL].iou["100"] == pytest.approx(rows[:2].sum() / rows[:4].sum(), rel=1e-5)


def test_places_of_one_kind_are_pooled_and_those_without_anything_beyond_have_no_iou() -> None:
    room = np.full(SHAPE, 3, np.float32)
    said = np.ones((2, *SHAPE), np.float32)
    said[1, 0] = 0
    scores = mask_scores(says(said), [place("street", upper_half_sky()), place("office", room), place("office", room)])
    assert [*scores] == ["office", "street", ALL]
    assert scores["office"].panoramas == 2
    assert np.isnan(scores["office"].iou["10"])
    assert scores["office"].iou["100"] == 0
    top = np.sin(np.pi / 16) / np.sin((np.arange(8) + 0.5) / 8 * np.pi).sum()
    assert scores["office"].lost["100"] == pytest.approx(top, rel=1e-5)
    assert "| office | 2 | - | 0.000 |" in markdown(scores)


def test_rendered_places_say_their_kind_and_have_infinite_sky() -> None:
    (found,) = places(range(90_000_000, 90_000_001), 16, "outdoor", "standard")
    assert found.name
    assert np.isinf(found.depth).any()


def test_the_command_prints_a_row_for_each_kind() -> None:
    result = CliRunner().invoke(train, ["range-mask", "--count", "3", "--height", "32", "--threads", "1"])
    assert result.exit_code == 0, result.output
    assert "| all | 3 |" in result.output
