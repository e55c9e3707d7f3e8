import numpy as np
import pytest

from dap.error_picture import error_picture


def picture(error: np.ndarray) -> np.ndarray:
    return np.asarray(error_picture(error.astype(np.float32)))


def test_too_near_is_blue_too_far_is_red_and_right_is_white() -> None:
    near, right, far = picture(np.array([[-0.4, 0, 0.4]]))[0].astype(int)
    assert near[2] > near[0] + 80
    assert far[0] > far[2] + 80
    assert np.ptp(right) <= 4
    assert right.min() > 240


def test_both_ends_are_reached_at_50_percent() -> None:
    colors = picture(np.array([[-9, -0.5, 0.5, 9]]))[0]
    assert colors[0].tolist() == colors[1].tolist()
    assert colors[2].tolist() == colors[3].tolist()


def test_an_error_of_a_percent_can_be_seen() -> None:
    colors = picture(np.array([[0, 0.01, -0.01]]))[0].tolist()
    assert len({tuple(color) for color in colors}) == 3


def test_what_is_not_compared_is_striped_grey() -> None:
    colors = picture(np.full((32, 64), np.nan)).reshape(-1, 3)
    assert np.unique(colors, axis=0).tolist() == [[34, 34, 34], [58, 58, 58]]


@pytest.mark.parametrize(("height", "has_legend"), [(127, False), (128, True), (512, True)])
def test_the_legend_is_below_where_there_is_room(height: int, has_legend: bool) -> None:
    rows = picture(np.zeros((height, 2 * height)))
    assert rows.shape == (height, 2 * height, 3)
    assert bool((rows[-1] == 0).all()) == has_legend
    bar = rows[height - 2 * max(10, height // 36)]
    assert (len(np.unique(bar, axis=0)) > 50) == has_legend
