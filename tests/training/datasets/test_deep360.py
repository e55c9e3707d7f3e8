from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dap.errors import DatasetError, NotAPanorama
from training.datasets.deep360 import Deep360, cassini_to_erp, cassini_to_erp_nearest

N = 32
# Where the axes of the camera are: rows go round the left-right axis from behind over the top, columns from the left.
CASSINI = {"forward": (N, N // 2), "up": (N // 2, N // 2), "down": (3 * N // 2, N // 2), "backward": (0, N // 2)}
ERP = {"forward": (N // 2, N), "up": (0, N), "down": (N - 1, N), "backward": (N // 2, 0)}


def marked(row: int, column: int) -> npt.NDArray[np.float32]:
    """Ones, but a four by four pixel mark of 7 at a place (pixel edges)."""
    numbers = np.ones((2 * N, N), np.float32)
    rows = np.arange(row - 2, row + 2) % (2 * N)
    numbers[rows, column - 2 : column + 2] = 7
    return numbers


def add(root: Path, folder: str = "ep1_500frames/training", number: int = 0) -> None:
    rgb, depth = root / folder / "rgb", root / folder / "depth"
    rgb.mkdir(parents=True, exist_ok=True)
    depth.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((2 * N, N, 3), np.uint8)
    pixels[: N // 2] = (0, 0, 255)
    Image.fromarray(pixels).save(rgb / f"{number:06d}_12_rgb1.png")
    Image.fromarray(pixels[::-1]).save(rgb / f"{number:06d}_13_rgb1.png")
    metres = np.full((2 * N, N), 4.5, np.float32)
    metres[:2] = 1000.0
    np.savez(depth / f"{number:06d}_depth.npz", metres)


@pytest.mark.parametrize("direction", CASSINI)
def test_a_mark_is_where_the_ray_of_its_direction_meets_the_panorama(direction: str) -> None:
    erp = cassini_to_erp_nearest(marked(*CASSINI[direction]))
    assert erp.shape == (N, 2 * N)
    row, column = ERP[direction]
    assert erp[row, column] == 7
    opposite = {"forward": "backward", "backward": "forward", "up": "down", "down": "up"}[direction]
    assert erp[ERP[opposite]] == 1


def test_left_stays_left() -> None:
    numbers = np.ones((2 * N, N), np.float32)
    numbers[:, 0] = 7
    erp = cassini_to_erp_nearest(numbers)
    assert erp[N // 2, N // 2] == 7, "a quarter of the width is 90 degrees to the left"
    assert erp[N // 2, 3 * N // 2] == 1


def test_depth_takes_no_value_that_was_not_there() -> None:
    numbers = np.random.default_rng(3).choice(np.array([1.5, 80.0, 1000.0], np.float32), (2 * N, N))
    assert set(np.unique(cassini_to_erp_nearest(numbers))) <= {1.5, 80.0, 1000.0}


def test_a_smooth_picture_is_the_function_of_direction_that_it_was() -> None:
    """A picture that is linear in how far forward a ray goes: known in both projections by a formula."""
    turn = (0.5 - (np.arange(2 * N) + 0.5) / (2 * N)) * 2 * np.pi
    side = (0.5 - (np.arange(N) + 0.5) / N) * np.pi
    forward = np.cos(side) * np.cos(turn)[:, None]
    cassini = np.repeat(np.rint(128 + 100 * forward)[..., None], 3, axis=2).astype(np.uint8)
    longitude = ((np.arange(2 * N) + 0.5) / (2 * N) - 0.5) * 2 * np.pi
    latitude = (0.5 - (np.arange(N) + 0.5) / N) * np.pi
    expected = 128 + 100 * np.cos(latitude)[:, None] * np.cos(longitude)
    erp = cassini_to_erp(cassini)
    assert erp.shape == (N, 2 * N, 3)
    assert np.abs(erp[..., 0] - expected).max() < 1.5


def test_a_picture_that_is_not_twice_as_high_as_wide_is_none() -> None:
    with pytest.raises(NotAPanorama, match="twice as high as wide; this one is 64x32"):
        cassini_to_erp(np.zeros((32, 64, 3), np.uint8))


def test_samples_are_panoramas_in_metres_with_the_sky_out_of_range(tmp_path: Path) -> None:
    add(tmp_path)
    dataset = Deep360(tmp_path)
    (entry,) = dataset.entries("train")
    sample = dataset.read(entry)
    assert sample.rgb.shape == (N, 2 * N, 3)
    assert sample.depth is not None
    assert sample.depth[N // 2, N] == 4.5
    assert np.isposinf(sample.depth[N // 2 - 1, 0]), "1000 m, right behind and just above the horizon"
    assert sample.depth[N // 2, 0] == 4.5, "just below it"
    assert sample.rgb[N // 4, 0].tolist() == [0, 0, 255], "behind and above, blue"
    assert sample.rgb[N // 4, N].tolist() == [0, 0, 0], "in front"


def test_the_first_camera_of_the_first_pair_of_each_folder_is_read(tmp_path: Path) -> None:
    for folder in ("training", "validation", "testing"):
        add(tmp_path, f"ep1_500frames/{folder}")
    for split, folder in {"train": "training", "val": "validation", "test": "testing"}.items():
        (entry,) = Deep360(tmp_path).entries(split)
        assert entry.rgb == tmp_path / "ep1_500frames" / folder / "rgb" / "000000_12_rgb1.png"
        assert entry.depth == tmp_path / "ep1_500frames" / folder / "depth" / "000000_depth.npz"


def test_a_list_may_begin_its_paths_with_a_slash_and_lack_the_last_line_end(tmp_path: Path) -> None:
    for number in range(2):
        add(tmp_path, number=number)
    folder = "/ep1_500frames/training"
    lines = [f"{folder}/rgb/{i:06d}_12_rgb1.png {folder}/depth/{i:06d}_depth.npz" for i in range(2)]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    listed = Deep360(tmp_path, tmp_path / "train.txt").entries("train")
    assert listed == [Deep360(tmp_path).entry(entry.rgb, entry.depth) for entry in Deep360(tmp_path).entries("train")]
    assert not any(entry.missing() for entry in listed)


def test_an_npz_without_its_array_is_refused_with_its_path(tmp_path: Path) -> None:
    add(tmp_path)
    (entry,) = Deep360(tmp_path).entries("train")
    assert entry.depth is not None
    np.savez(entry.depth, depth=np.ones((2 * N, N)))
    with pytest.raises(DatasetError, match=r"000000_depth\.npz: .*arr_0"):
        Deep360(tmp_path).read(entry)
