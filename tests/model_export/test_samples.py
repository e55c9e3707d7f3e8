"""What models are tried on and calibrated with: panoramas, all of the size that the model sees."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dap.errors import InvalidParameter
from model_export.samples import read_panoramas, sample_panoramas, scene_panoramas

SIZE = (32, 64)


def test_the_samples_go_from_flat_to_noise() -> None:
    samples = sample_panoramas(SIZE)
    assert [sample.shape for sample in samples] == [(32, 64, 3)] * 6
    roughness = [float(np.abs(np.diff(sample.astype(float), axis=1)).mean()) for sample in samples]
    assert roughness[0] == roughness[1] == roughness[2] == 0
    assert 0 < roughness[3] < roughness[4] <= roughness[5]


def test_scenes_are_the_same_every_time_and_differ_in_light_and_direction() -> None:
    scenes = scene_panoramas(SIZE, 8, seed=0)
    np.testing.assert_array_equal(scenes, scene_panoramas(SIZE, 8, seed=0))
    assert [(scene.shape, scene.dtype) for scene in scenes] == [((32, 64, 3), np.uint8)] * 8
    brightness = [scene.mean() for scene in scenes]
    assert max(brightness) > 1.5 * min(brightness)
    brightest_column = {int(scene.mean(axis=(0, 2)).argmax()) for scene in scenes}
    assert len(brightest_column) > 4


def test_files_and_the_files_of_folders_are_read_at_the_models_size(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for index, path in enumerate((tmp_path / "one.png", folder / "b.png", folder / "a.PNG")):
        Image.new("RGB", (128, 64), (10 * index, 0, 0)).save(path)
    (folder / "notes.txt").write_text("no panorama")
    found = read_panoramas([tmp_path / "one.png", folder], SIZE)
    assert [int(panorama[0, 0, 0]) for panorama in found] == [0, 20, 10]
    assert {panorama.shape for panorama in found} == {(32, 64, 3)}


def test_of_rendered_panoramas_only_the_pictures_are_read(tmp_path: Path) -> None:
    for name, red in (("000001.rgb.png", 1), ("000002.rgb.png", 2), ("000001.sky.png", 3), ("contact_sheet.png", 4)):
        Image.new("RGB", (128, 64), (red, 0, 0)).save(tmp_path / name)
    assert [int(panorama[0, 0, 0]) for panorama in read_panoramas([tmp_path], SIZE)] == [1, 2]


def test_a_folder_without_panoramas_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"has no panoramas in it: expected files that end in \.jpg"):
        read_panoramas([tmp_path], SIZE)
