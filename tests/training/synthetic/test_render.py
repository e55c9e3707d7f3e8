"""What a rendered batch promises: shapes, units, frames, determinism."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dap.sphere import rays
from training.synthetic.render import Rendered, render, render_batch
from training.synthetic.sampling import sample_scene
from training.synthetic.scene import Faults, rotation

SEEDS = range(40, 52)


@pytest.fixture(scope="module")
def mixed() -> Rendered:
    return render_batch(SEEDS, 32, 64)


def test_a_batch_has_the_shapes_and_types_it_promises(mixed: Rendered) -> None:
    shape = (len(SEEDS), 32, 64)
    assert mixed.rgb.shape == (*shape, 3)
    assert mixed.rgb.dtype == torch.uint8
    assert mixed.depth.shape == mixed.sky.shape == mixed.known.shape == shape
    assert mixed.depth.dtype == torch.float32
    assert mixed.sky.dtype == mixed.known.dtype == torch.bool
    assert mixed.normals.shape == (*shape, 3)
    assert mixed.normals.dtype == torch.float32


def test_depth_is_infinite_on_the_sky_and_positive_elsewhere(mixed: Rendered) -> None:
    assert torch.equal(torch.isinf(mixed.depth), mixed.sky)
    assert (mixed.depth > 0).all()
    assert not mixed.depth.isnan().any()


def test_normals_are_unit_vectors_that_face_the_camera(mixed: Rendered) -> None:
    towards = (mixed.normals * torch.from_numpy(rays(32, 64))).sum(-1)
    surface = ~mixed.sky
    torch.testing.assert_close(mixed.normals.norm(dim=-1)[surface], torch.ones(int(surface.sum())))
    assert (towards[surface] < 1e-3).all()
    assert (mixed.normals[mixed.sky] == 0).all()


def test_a_seed_gives_the_same_panorama_in_any_batch(mixed: Rendered) -> None:
    alone = render_batch([SEEDS[5]], 32, 64)
    reversed_ = render_batch(SEEDS[::-1], 32, 64)
    for other, index in ((alone, 0), (reversed_, len(SEEDS) - 1 - 5)):
        assert torch.equal(other.depth[index], mixed.depth[5])
        assert torch.equal(other.known[index], mixed.known[5])
        assert (other.rgb[index].int() - mixed.rgb[5].int()).abs().max() <= 1


def test_other_seeds_give_other_panoramas(mixed: Rendered) -> None:
    depths = {tuple(depth.flatten().tolist()) for depth in mixed.depth}
    assert len(depths) == len(SEEDS)


def test_batches_larger_than_a_group_keep_their_order(monkeypatch: pytest.MonkeyPatch, mixed: Rendered) -> None:
    monkeypatch.setattr("training.synthetic.render.CPU_PIXELS", 2 * 32 * 64)
    again = render_batch(SEEDS, 32, 64)
    assert torch.equal(again.depth, mixed.depth)


@pytest.mark.parametrize(("height", "width"), [(8, 16), (31, 62), (50, 100)])
def test_any_size_can_be_rendered(height: int, width: int) -> None:
    rendered = render_batch([7, 8], height, width)
    assert rendered.rgb.shape == (2, height, width, 3)
    assert rendered.rgb.float().std() > 5


def test_turning_the_camera_by_whole_columns_rolls_the_depth() -> None:
    scene = sample_scene(3, "indoor")
    columns = 24
    turn = np.array(rotation(2 * math.pi * columns / 128)).reshape(3, 3)
    turned = replace(scene, camera_rotation=(scene.camera_rotation @ turn).astype(np.float32))
    plain, rolled = (render([s], 64, 128).depth[0].numpy() for s in (scene, turned))
    # turning to the left brings what was on the left to the middle: columns move to the right
    same = np.isclose(rolled, np.roll(plain, columns, axis=1), rtol=1e-4)
    assert same.mean() > 0.998  # the rest are pixels on an edge, told apart by rounding


def test_indoor_and_outdoor_are_what_was_asked_for() -> None:
    indoor, outdoor = (render_batch(SEEDS, 16, 32, kind) for kind in ("indoor", "outdoor"))
    assert (outdoor.sky.float().mean((1, 2)) > 0.02).float().mean() > 0.9
    assert (indoor.sky.float().mean((1, 2)) < 0.02).float().mean() > 0.6


def test_the_sky_is_above() -> None:
    outdoor = render_batch(SEEDS, 32, 64, "outdoor").sky.float().mean((0, 2))
    assert outdoor[:8].mean() > 0.4
    assert outdoor[24:].max() == 0


def test_only_holes_are_unknown_and_they_are_black() -> None:
    scene = sample_scene(11, "indoor")
    whole = render([replace(scene, faults=replace(scene.faults, hole_share=0.0))], 64, 128)
    assert whole.known.all()
    torn = render([replace(scene, faults=replace(scene.faults, hole_share=0.05))], 64, 128)
    share = 1 - float(torn.known.float().mean())
    assert 0.02 < share < 0.09
    assert (torn.rgb[~torn.known] == 0).all()
    assert torch.equal(torn.depth, whole.depth)


def test_exposure_says_how_bright_the_picture_is() -> None:
    scene = sample_scene(9, "indoor")
    dark, bright = (render([replace(scene, faults=Faults(exposure=e))], 32, 64).rgb.float().mean() for e in (0.05, 0.3))
    assert bright > 1.5 * dark


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_draws_what_a_cpu_draws(mixed: Rendered) -> None:
    there = render_batch(SEEDS, 32, 64, device="cuda")
    same = torch.isclose(there.depth.cpu(), mixed.depth, rtol=1e-4)
    assert same.float().mean() > 0.998
    assert (there.rgb.cpu().int() - mixed.rgb.int()).abs().float().mean() < 1
