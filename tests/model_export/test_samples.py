"""What models are tried on and calibrated with: panoramas, all of the size that the model sees."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import model_export
from dap.errors import InvalidParameter
from model_export import samples
from model_export.samples import read_panoramas, sample_panoramas, scene_panoramas

SIZE = (32, 64)
SCENES = Path(model_export.__file__).parent / "scenes"


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


def test_no_scene_that_a_model_is_calibrated_on_is_one_that_it_is_checked_with() -> None:
    """Seeds of the renderer tell its scenes apart; in the wild they are those of real-like, through other cameras."""
    names = {part: [file.stem for file in (SCENES / part).glob("*.jpg")] for part in ("calibration", "check")}
    assert {part: len(found) for part, found in names.items()} == {"calibration": 12, "check": 6}
    drawn = {part: {(kind_of(name), name[-6:]) for name in found} for part, found in names.items()}
    assert drawn["calibration"].isdisjoint(drawn["check"])
    for found in drawn.values():
        assert {kind for kind, _ in found} == {"indoor", "outdoor"}


def kind_of(name: str) -> str:
    return "indoor" if "indoor" in name else "outdoor"


def test_all_scenes_of_a_set_come_before_any_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_varied", lambda scene, rng: scene)
    seen: set[bytes] = set()
    for scenes, number in (("calibration", 12), ("check", 6)):
        found = [scene.tobytes() for scene in scene_panoramas(SIZE, number + 1, seed=0, scenes=scenes)]
        assert found[number] == found[0]
        assert len(set(found)) == number
        assert seen.isdisjoint(found)
        seen.update(found)


def test_the_scenes_take_little_room() -> None:
    files = list(SCENES.rglob("*.jpg"))
    for file in files:
        with Image.open(file) as picture:
            assert picture.size == (512, 256)
    assert sum(file.stat().st_size for file in files) < 500_000


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
