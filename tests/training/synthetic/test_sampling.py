"""Scenes are functions of their seed, and like reality in what a model learns scale from."""

import numpy as np
import pytest

from training.synthetic import RENDERER_VERSION
from training.synthetic.sampling import is_outdoors, sample_scene
from training.synthetic.scene import BOX, Faults
from training.synthetic.textures import TEXTURES

INDOOR = [sample_scene(seed, "indoor") for seed in range(150)]
OUTDOOR = [sample_scene(seed, "outdoor") for seed in range(60)]
REAL_LIKE = [sample_scene(seed, "mixed", "real-like") for seed in range(120)]
STANDARD_SUM = 287604.0858085798


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
    assert len({scene.kind for scene in REAL_LIKE}) == 8


def test_scenes_change_only_with_the_version_of_the_renderer() -> None:
    """Rendered scenes are kept on disk under their seed and RENDERER_VERSION: count it up when this fails."""
    scenes = [*INDOOR[:40], *OUTDOOR[:40]]
    numbers = [
        np.sum(np.round(part, 3), dtype=np.float64) for s in scenes for part in (s.centers, s.materials, s.lamps)
    ]
    assert RENDERER_VERSION == 7
    assert np.sum(numbers) == pytest.approx(STANDARD_SUM, rel=1e-6)


def test_the_real_like_domain_has_layouts_and_textures_that_the_standard_one_never_shows() -> None:
    standard, real_like = INDOOR + OUTDOOR, REAL_LIKE
    assert not {scene.kind for scene in standard} & {scene.kind for scene in real_like}
    shown, new = ({int(row[0]) for scene in scenes for row in scene.materials} for scenes in (standard, real_like))
    alone = {
        number for family in ("plaster", "terrazzo", "herringbone", "hexagons", "weave") for number in TEXTURES[family]
    }
    assert alone <= new
    assert not alone & shown
    mismatch = [np.std([scene.faults.lens_mismatch for scene in scenes]) for scenes in (standard, real_like)]
    assert mismatch[1] > 3 * mismatch[0], "every real-like camera has two lenses that disagree, and by far more"


def test_a_clean_scene_is_the_standard_one_through_a_camera_without_a_fault() -> None:
    standard, clean = INDOOR[3], sample_scene(3, "indoor", "clean")
    assert clean.faults == Faults() != standard.faults
    assert clean.centers.tobytes() == standard.centers.tobytes()
    assert clean.materials.tobytes() == standard.materials.tobytes()
    assert clean.lamps.tobytes() == standard.lamps.tobytes()


def test_in_the_wild_the_same_scenes_are_seen_through_cameras_from_good_to_poor() -> None:
    wild = [sample_scene(scene.seed, "mixed", "in-the-wild") for scene in REAL_LIKE]
    for there, here in zip(wild, REAL_LIKE, strict=True):
        assert there.kind == here.kind
        assert there.centers.tobytes() == here.centers.tobytes()
        assert there.lamps.tobytes() == here.lamps.tobytes()
    noise, quality, haze = (
        np.array([getattr(scene.faults, fault) for scene in wild]) for fault in ("noise", "jpeg_quality", "haze")
    )
    assert quality.min() < 30
    assert quality.max() > 90
    assert noise.min() < 0.005 < 0.04 < noise.max()
    good, poor = quality > np.quantile(quality, 0.8), quality < np.quantile(quality, 0.2)
    assert noise[poor].mean() > 3 * noise[good].mean(), "what is poor is so together"
    assert haze[poor].mean() > 3 * haze[good].mean()


def test_a_seed_is_outdoors_in_both_domains_or_in_none() -> None:
    rooms = {"attic", "rotunda", "cross_room", "vault"}
    assert [scene.kind not in rooms for scene in REAL_LIKE] == [is_outdoors(scene.seed) for scene in REAL_LIKE]


@pytest.mark.parametrize("scenes", [INDOOR, OUTDOOR, REAL_LIKE], ids=["indoor", "outdoor", "real-like"])
def test_solids_have_a_size_a_turn_and_materials(scenes: list) -> None:  # type: ignore[type-arg]
    for scene in scenes:
        assert (scene.half_sizes > 0).all()
        assert scene.materials_of.min() >= 0
        assert scene.materials_of.max() < len(scene.materials)
        np.testing.assert_allclose(
            scene.rotations @ scene.rotations.swapaxes(1, 2), [np.eye(3)] * len(scene.kinds), atol=1e-5
        )


def test_colours_reflect_no_more_light_than_comes() -> None:
    for scene in INDOOR + OUTDOOR + REAL_LIKE:
        assert scene.materials[:, 2:8].min() >= 0
        assert scene.materials[:, 2:8].max() <= 1.001


def test_the_camera_stands_in_no_solid() -> None:
    for scene in INDOOR + OUTDOOR + REAL_LIKE:
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
