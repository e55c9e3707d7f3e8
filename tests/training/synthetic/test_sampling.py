"""Scenes are functions of their seed, and like reality in what a model learns scale from."""

import numpy as np
import pytest

from training.synthetic.sampling import sample_scene
from training.synthetic.scene import BOX

INDOOR = [sample_scene(seed, "indoor") for seed in range(150)]
OUTDOOR = [sample_scene(seed, "outdoor") for seed in range(60)]


def signature(seed: int) -> tuple[bytes, ...]:
    scene = sample_scene(seed)
    return scene.centers.tobytes(), scene.materials.tobytes(), scene.camera.tobytes(), repr(scene.faults).encode()


def test_a_seed_always_gives_the_same_scene() -> None:
    assert [signature(seed) for seed in range(30)] == [signature(seed) for seed in range(30)]


def test_about_a_fifth_of_mixed_scenes_are_outdoors() -> None:
    places = {scene.kind for scene in OUTDOOR}
    outdoors = np.mean([sample_scene(seed).kind in places for seed in range(400)])
    assert 0.16 < outdoors < 0.28


def test_every_recipe_comes_up() -> None:
    assert len({scene.kind for scene in INDOOR}) == 11
    assert len({scene.kind for scene in OUTDOOR}) == 7


@pytest.mark.parametrize("scenes", [INDOOR, OUTDOOR], ids=["indoor", "outdoor"])
def test_solids_have_a_size_a_turn_and_materials(scenes: list) -> None:  # type: ignore[type-arg]
    for scene in scenes:
        assert (scene.half_sizes > 0).all()
        assert scene.materials_of.min() >= 0
        assert scene.materials_of.max() < len(scene.materials)
        np.testing.assert_allclose(
            scene.rotations @ scene.rotations.swapaxes(1, 2), [np.eye(3)] * len(scene.kinds), atol=1e-5
        )


def test_colours_reflect_no_more_light_than_comes() -> None:
    for scene in INDOOR + OUTDOOR:
        assert scene.materials[:, 2:8].min() >= 0
        assert scene.materials[:, 2:8].max() <= 1.001


def test_the_camera_stands_in_no_solid() -> None:
    for scene in INDOOR + OUTDOOR:
        local = np.abs(np.einsum("ni,nij->nj", scene.camera - scene.centers, scene.rotations)) / scene.half_sizes
        inside = np.where(scene.kinds == BOX, local.max(1) < 1, (local**2).sum(1) < 1)
        assert not inside.any(), (scene.seed, scene.kind)


def test_the_camera_is_at_the_height_of_a_head() -> None:
    """Real scans: median 1.63 m to the floor below."""
    rooms = [scene for scene in INDOOR if scene.kind not in ("auditorium", "staircase")]
    assert 1.5 < np.median([scene.camera[2] for scene in rooms]) < 1.8


def test_tilt_stays_within_twenty_degrees() -> None:
    tilts = [np.degrees(np.arccos(np.clip(scene.camera_rotation[2, 2], -1, 1))) for scene in INDOOR + OUTDOOR]
    assert max(tilts) < 20.1
    assert 0.3 < np.mean(np.array(tilts) > 3) < 0.7
