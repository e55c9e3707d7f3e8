import numpy as np
import pytest
import torch

from dap.error_picture import LIMIT
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork
from training import preview as module
from training.evaluate import LabelledPanorama
from training.preview import ROWS, grey_depth, preview

H, W = 16, 32


def panorama(number: int) -> LabelledPanorama:
    """One colour; 2 m everywhere but for sky above and a hole below."""
    depth = np.full((H, W), 2.0, np.float32)
    depth[0], depth[-1] = np.inf, 0
    return LabelledPanorama(str(number), np.full((H, W, 3), number, np.uint8), depth)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> DapNetwork:
    """A network that sees 2 m in the left half, far too much in the right, and the sky."""

    def predict(*_: object) -> tuple[np.ndarray, np.ndarray]:
        depth = np.full((H, W), 2.0, np.float32)
        depth[:, W // 2 :] = 2 * (1 + 2 * LIMIT)
        logits = np.full((4, H, W), 50.0, np.float32)
        logits[-1, 0] = -50
        return depth, logits

    monkeypatch.setattr(module, "predict", predict)
    return DapNetwork(NetworkConfig(encoder="hybrid-xs"))


def test_a_row_is_picture_prediction_truth_error_and_range(exact: DapNetwork) -> None:
    picture = preview(exact, [panorama(7)], (H, W))
    assert picture.shape == (H, 5 * W, 3)
    rgb, predicted, true, error, in_range = np.split(picture.astype(int), 5, axis=1)
    assert (rgb == 7).all()
    assert (predicted[1:-1, : W // 2] == true[1:-1, : W // 2]).all()
    assert (predicted[1:-1, W // 2 :] < true[1:-1, W // 2 :]).all(), "farther is darker"
    assert (true[[0, -1]] == 0).all(), "sky and holes are black"
    neither, far = error[5, 5], error[5, W - 5]
    assert np.ptp(neither) < 10, "no error has no colour"
    assert far[0] > far[1] + 50, "too far is red"
    assert np.ptp(error[[0, -1]], axis=-1).max() == 0, "what is not compared is grey"
    assert (in_range[0] == 0).all()
    assert (in_range[1:] == 255).all()


def test_it_shows_some_of_many_and_leaves_the_network_in_its_mode(exact: DapNetwork) -> None:
    exact.train()
    picture = preview(exact, [panorama(number) for number in range(20)], (H, W))
    assert picture.shape == (ROWS * H, 5 * W, 3)
    assert len(np.unique(picture[::H, 0, 0])) == ROWS
    assert exact.training


def test_a_network_is_asked_for_depth_in_metres_at_the_size_of_the_panorama() -> None:
    torch.manual_seed(0)
    picture = preview(DapNetwork(NetworkConfig(encoder="hybrid-xs")), [panorama(1)], (16, 32))
    assert picture.shape == (H, 5 * W, 3)


def test_depth_is_light_where_it_is_near() -> None:
    grey = grey_depth(np.array([[0.5, 5, 50, 500, 0, np.inf]], np.float32))[0].astype(int)
    assert (grey[0], grey[2], grey[3]) == (255, 20, 20)
    assert 20 < grey[1] < 255
    assert (grey[4:] == 0).all()
