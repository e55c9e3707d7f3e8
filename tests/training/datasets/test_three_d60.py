from pathlib import Path

import numpy as np

from tests.training.datasets.files import depth_of, write_exr, write_rgb
from training.datasets.three_d60 import ThreeD60

NAMES = "86_fa5f_color_0_Left_Down_0.0.png", "86_fa5f_depth_0_Left_Down_0.0.exr"


def test_pairs_differ_in_one_word_and_metres_beyond_100_are_unknown(tmp_path: Path) -> None:
    folder = tmp_path / "Matterport3D"
    write_rgb(folder / NAMES[0])
    write_exr(folder / NAMES[1], depth_of({(3, 3): 1e6, (3, 4): np.inf}, 1.75, np.float32))
    dataset = ThreeD60(tmp_path)
    (entry,) = dataset.entries("all")
    assert entry.depth == folder / NAMES[1]
    depth = dataset.read(entry).depth
    assert depth is not None
    assert depth[3, 2:5].tolist() == [1.75, 0, 0]


def test_no_id_has_a_dot_which_would_end_a_key_of_webdataset(tmp_path: Path) -> None:
    write_rgb(tmp_path / "Stanford2D3D" / "area3" / NAMES[0])
    (entry,) = ThreeD60(tmp_path).entries("all")
    assert entry.id == "Stanford2D3D/area3/86_fa5f_color_0_Left_Down_0%2E0"
