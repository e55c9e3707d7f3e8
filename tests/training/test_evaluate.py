import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from dap.errors import TrainingError
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork, NetworkOutput
from training.evaluate import LabelledPanorama, evaluate, mean_scores, predict, read_folder, resize, score_depth

H, W = 16, 32
FloatImage = npt.NDArray[np.float32]


class KnowsHowFar(DapNetwork):
    """Says the same depth everywhere, in range in the lower half of the sphere and out of range above it."""

    def __init__(self, metres: float) -> None:
        super().__init__(NetworkConfig(encoder="hybrid-xs"))
        self.metres = metres

    def forward(self, images: torch.Tensor) -> NetworkOutput:
        depth = torch.full((len(images), *images.shape[-2:]), self.metres)
        logits = torch.full((len(images), 4, *images.shape[-2:]), 5.0)
        logits[:, :, : images.shape[-2] // 2] = -5.0
        return NetworkOutput(depth, depth.log(), logits)


def panorama(depth: FloatImage, name: str = "room") -> LabelledPanorama:
    return LabelledPanorama(name, np.zeros((*depth.shape, 3), np.uint8), depth)


def room(metres: float = 2.0) -> FloatImage:
    return np.full((H, W), metres, np.float32)


def test_twice_the_depth_is_all_scale_and_no_shape() -> None:
    truth = np.random.default_rng(0).uniform(1, 9, (H, W)).astype(np.float32)
    scores = score_depth(2 * truth, truth)
    assert scores.absrel == pytest.approx(1)
    assert scores.absrel_sphere == pytest.approx(1)
    assert scores.delta1 == 0
    assert scores.absrel_aligned == pytest.approx(0, abs=1e-6)
    assert scores.delta1_aligned == 1
    assert scores.scale_error == pytest.approx(math.log(2))


def test_sky_holes_and_what_is_beyond_100_m_are_not_compared() -> None:
    truth = room()
    truth[:2], truth[2:4], truth[4:6] = np.inf, 0, 120
    assert score_depth(room(2.2), truth).absrel == pytest.approx(0.1)


def test_the_mean_counts_each_panorama_once() -> None:
    scores = mean_scores([score_depth(room(2.2), room()), score_depth(room(2.6), room())])
    assert scores.absrel == pytest.approx(0.2)
    assert scores.delta1 == pytest.approx(0.5)


def test_the_constant_that_a_network_must_beat_is_the_median_of_all_true_depths() -> None:
    near, far = panorama(room(2.0)), panorama(room(4.0))
    scores = evaluate(KnowsHowFar(3.0), [near, near, far], (H, W))
    assert scores.constant.absrel == pytest.approx((0 + 0 + 0.5) / 3)
    assert scores.depth.absrel == pytest.approx((0.5 + 0.5 + 0.25) / 3)
    assert scores.panoramas == 3


def test_the_range_mask_is_judged_by_area_of_the_sphere() -> None:
    """Predicted out of range: the upper half. Truly so: the cap above 45 degrees, of (1 - sin 45) / 2 of the sphere."""
    truth = room()
    truth[: H // 4] = np.inf
    scores = evaluate(KnowsHowFar(2.0), [panorama(truth)], (H, W))
    cap = (1 - math.sin(math.pi / 4)) / 2
    assert scores.out_of_range_iou == pytest.approx(dict.fromkeys(("10", "20", "50", "100"), cap / 0.5), rel=1e-6)
    assert scores.lost == pytest.approx(dict.fromkeys(("10", "20", "50", "100"), (0.5 - cap) / (1 - cap)), rel=1e-6)


def test_each_threshold_has_its_own_truth() -> None:
    truth = room()
    truth[: H // 2] = 30
    scores = evaluate(KnowsHowFar(2.0), [panorama(truth)], (H, W))
    assert scores.out_of_range_iou == pytest.approx({"10": 1, "20": 1, "50": 0, "100": 0})
    assert scores.lost == pytest.approx({"10": 0, "20": 0, "50": 0.5, "100": 0.5})


def test_evaluating_leaves_the_network_as_it_was_and_is_not_disturbed_by_training_mode() -> None:
    network = KnowsHowFar(2.0).train()
    evaluate(network, [panorama(room())], (H, W))
    assert network.training


def test_a_panorama_of_sky_alone_counts_for_the_mask_and_not_for_the_depth() -> None:
    scores = evaluate(KnowsHowFar(2.0), [panorama(room(np.inf)), panorama(room(2.5))], (H, W))
    assert scores.depth.absrel == pytest.approx(0.2)
    assert scores.out_of_range_iou["100"] == pytest.approx(0.5 / 1.5)


def test_a_prediction_has_the_size_of_the_panorama_whatever_the_network_is_fed() -> None:
    depth, logits = predict(KnowsHowFar(7.0), np.zeros((24, 48, 3), np.uint8), (H, W))
    assert depth.shape == (24, 48)
    assert logits.shape == (4, 24, 48)
    assert depth == pytest.approx(np.full((24, 48), 7.0))


@pytest.mark.parametrize("size", [(32, 64), (8, 16), (20, 36)])
def test_resizing_knows_no_border_in_longitude(size: tuple[int, int]) -> None:
    """A quarter turn is a whole number of columns before and after."""
    maps = torch.rand(1, 2, H, W, generator=torch.Generator().manual_seed(0))
    rolled = resize(maps.roll(W // 4, -1), size)
    assert rolled.shape[-2:] == size
    assert torch.allclose(rolled, resize(maps, size).roll(size[1] // 4, -1), atol=1e-5)


def write_pair(folder: Path, name: str, depth: FloatImage) -> None:
    Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(folder / f"{name}.rgb.png")
    np.save(folder / f"{name}.depth_m.npy", depth)


def test_a_folder_is_read_by_name_and_not_a_number_is_not_known(tmp_path: Path) -> None:
    holes = room()
    holes[0, 0] = np.nan
    write_pair(tmp_path, "b", room())
    write_pair(tmp_path, "a", holes)
    panoramas = read_folder(tmp_path)
    assert [p.name for p in panoramas] == ["a", "b"]
    assert panoramas[0].depth[0, :2].tolist() == [0, 2]


def test_a_folder_without_pairs_says_what_it_looks_for(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"NAME\.rgb\.png with NAME\.depth_m\.npy"):
        read_folder(tmp_path)


def test_a_panorama_without_its_depth_is_an_error(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", room())
    (tmp_path / "a.depth_m.npy").unlink()
    with pytest.raises(TrainingError, match=r"no a\.depth_m\.npy"):
        read_folder(tmp_path)


def test_a_depth_of_another_size_is_an_error(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", np.ones((4, 8), np.float32))
    with pytest.raises(TrainingError, match=r"\(16, 32\).*it is \(4, 8\)"):
        read_folder(tmp_path)
