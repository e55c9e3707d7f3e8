from pathlib import Path

import numpy as np

from tests.training.datasets.files import depth_of, write_png16, write_rgb
from training.datasets.structured3d import Structured3D


def add(root: Path, scene: int, room: str = "485142", variant: str = "full") -> None:
    folder = root / f"scene_{scene:05d}" / "2D_rendering" / room / "panorama" / variant
    write_rgb(folder / "rgb_rawlight.png")
    write_rgb(folder / "rgb_warmlight.png", shift=3)
    write_png16(folder / "depth.png", depth_of({(0, 1): 0, (0, 2): 65535}, 2750, np.uint16))


def scenes(dataset: Structured3D, split: str) -> list[str]:
    return [entry.metadata["scene"] for entry in dataset.entries(split)]


def test_a_number_is_a_millimetre_and_zero_is_unknown(tmp_path: Path) -> None:
    add(tmp_path, 0)
    dataset = Structured3D(tmp_path)
    depth = dataset.read(dataset.entries("train")[0]).depth
    assert depth is not None
    assert depth[0, :3].tolist() == [2.75, 0, np.float32(65.535)]


def test_scenes_belong_to_splits_by_number(tmp_path: Path) -> None:
    for scene in (0, 2999, 3000, 3249, 3250, 3499):
        add(tmp_path, scene)
    dataset = Structured3D(tmp_path)
    assert scenes(dataset, "train") == ["scene_00000", "scene_02999"]
    assert scenes(dataset, "val") == ["scene_03000", "scene_03249"]
    assert scenes(dataset, "test") == ["scene_03250", "scene_03499"]


def test_the_scenes_of_the_errata_are_left_out(tmp_path: Path) -> None:
    for scene in (1155, 1714, 1816, 3398, 1192, 1852, 1156, 3399):
        add(tmp_path, scene)
    dataset = Structured3D(tmp_path)
    assert scenes(dataset, "train") == ["scene_01156"]
    assert scenes(dataset, "test") == ["scene_03399"]


def test_only_the_furnished_variant_in_its_own_light_is_read(tmp_path: Path) -> None:
    for variant in ("empty", "simple", "full"):
        add(tmp_path, 1, variant=variant)
    (entry,) = Structured3D(tmp_path).entries("train")
    assert entry.rgb.parts[-2:] == ("full", "rgb_rawlight.png")
