from pathlib import Path

import numpy as np
import pytest

from tests.training.datasets.files import depth_of, write_exr, write_png16, write_rgb
from training.datasets.matterport3d import Matterport3DPano3D, Matterport3DUniFuse, split_of_house

TRAIN_HOUSE, VAL_HOUSE, TEST_HOUSE = "17DRP5sb8fy", "2azQ1b91cZZ", "wc2JMjhGNzB"


def add_render(root: Path, house: str, channel: str = "Y") -> None:
    write_rgb(root / house / "85_spherical_1_emission_center_0.png")
    values = {(1, 1): np.inf, (1, 2): 1e10, (1, 3): 99.5, (1, 4): np.nan, (1, 5): -1.0}
    write_exr(root / house / "85_spherical_1_depth_center_0.exr", depth_of(values, 3.25, np.float32), channel)


def add_stitch(root: Path, house: str) -> None:
    write_rgb(root / house / "pano_skybox_color" / "df21.jpg")
    write_png16(root / house / "pano_depth" / "df21.png", depth_of({(1, 1): 0, (1, 2): 65535}, 8000, np.uint16))


@pytest.mark.parametrize("channel", ["Y", "Z", "R"])
def test_renders_hold_metres_and_holes_are_unknown_not_sky(tmp_path: Path, channel: str) -> None:
    add_render(tmp_path, TRAIN_HOUSE, channel)
    dataset = Matterport3DPano3D(tmp_path)
    depth = dataset.read(dataset.entries("train")[0]).depth
    assert depth is not None
    assert depth[0, 0] == 3.25
    assert depth[1, 1:6].tolist() == [0, 0, 99.5, 0, 0]


def test_stitches_hold_4000ths_of_a_metre_and_zero_is_unknown(tmp_path: Path) -> None:
    add_stitch(tmp_path, TRAIN_HOUSE)
    dataset = Matterport3DUniFuse(tmp_path)
    depth = dataset.read(dataset.entries("train")[0]).depth
    assert depth is not None
    assert depth[0, 0] == 2.0
    assert depth[1, 1] == 0
    assert depth[1, 2] == pytest.approx(16.38375), "65535 is a depth here"


@pytest.mark.parametrize("kind", [Matterport3DPano3D, Matterport3DUniFuse])
def test_a_house_belongs_to_one_split(tmp_path: Path, kind: type[Matterport3DPano3D | Matterport3DUniFuse]) -> None:
    for house in (TRAIN_HOUSE, VAL_HOUSE, TEST_HOUSE):
        add_render(tmp_path, house)
        add_stitch(tmp_path, house)
    buildings = {split: [e.metadata["building"] for e in kind(tmp_path).entries(split)] for split in kind.splits}
    assert buildings == {"train": [TRAIN_HOUSE], "val": [VAL_HOUSE], "test": [TEST_HOUSE]}


def test_the_two_never_mix(tmp_path: Path) -> None:
    add_render(tmp_path, TRAIN_HOUSE)
    add_stitch(tmp_path, TRAIN_HOUSE)
    (render,) = Matterport3DPano3D(tmp_path).entries("train")
    (stitch,) = Matterport3DUniFuse(tmp_path).entries("train")
    assert render.rgb.name.endswith("emission_center_0.png")
    assert stitch.rgb.parent.name == "pano_skybox_color"
    assert Matterport3DPano3D.name != Matterport3DUniFuse.name


def test_a_house_that_is_in_no_list_of_the_benchmark_trains() -> None:
    assert split_of_house("1LXtFkjw3qL") == "train"
