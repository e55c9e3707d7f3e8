import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Generator, Tensor

from dap import sphere
from dap.errors import ModelFileInvalid, ModelFileMissing, TrainingError
from tests.training import killed_run
from training import discriminator as module
from training.config import DiscriminatorConfig
from training.discriminator import (
    DepthPairs,
    Discriminator,
    adversarial_loss,
    alike,
    depth_images,
    grey_images,
    instance_noise,
    load_discriminator,
    masked_quantile,
    patch_targets,
    patch_weights,
    resume,
    save_discriminator,
    score,
    steps_done,
    train_discriminator,
    turned,
    usable,
    visible,
)
from training.run_record import git_revision
from training.sphere import pad_sphere

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
H, W = 32, 64
RAYS = torch.from_numpy(sphere.rays(H, W))
SMALL = DiscriminatorConfig(
    height=H, picture="none", sky=False, target="zero", channels=(8, 16, 32, 64), steps=6, learning_rate=2e-3,
    checkpoint=3, log=1,
)  # fmt: skip
BESIDE = replace(SMALL, picture="grey")
SEEING_SKY = replace(BESIDE, sky=True, target="graded")


DATA = {"source": "boxes"}


class Killed(BaseException):
    """What a run cannot catch."""


def rooms(count: int, seed: int) -> Tensor:
    """Depth (count, H, W) of rooms of plane walls with six boxes each."""
    generator = Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 3, generator=generator)

    half, camera = uniform(1, 4), uniform(-0.5, 0.5)
    depth = (torch.where(RAYS > 0, half - camera, half + camera) / RAYS.abs()).amin(-1)
    for _ in range(6):
        size, middle = uniform(0.1, 0.6), uniform(-2.5, 2.5)
        middle = middle + 0.7 * middle.sign()
        one, other = (middle - size) / RAYS, (middle + size) / RAYS
        enter, leave = torch.minimum(one, other).amax(-1), torch.maximum(one, other).amin(-1)
        depth = torch.where((enter < leave) & (enter > 0.1), torch.minimum(depth, enter), depth)
    return depth


def spoiled(depth: Tensor, seed: int) -> Tensor:
    """Blurred, bent and noisy, each panorama by a degree of its own between not at all and badly."""
    generator = Generator().manual_seed(seed)
    degree = torch.rand(len(depth), 1, 1, generator=generator)
    blurred = depth
    for _ in range(2):
        blurred = F.avg_pool2d(pad_sphere(blurred, (1, 1), (1, 1)), 3, 1)
    bend = F.interpolate(torch.randn(len(depth), 1, 4, 8, generator=generator), (H, W), mode="bicubic")[:, 0]
    noise = torch.randn(depth.shape, generator=generator)
    return depth.lerp(blurred, degree) * (degree * (0.25 * bend + 0.05 * noise)).exp()


def pictures_of(depth: Tensor) -> Tensor:
    """The nearer the brighter, uint8 (B, H, W, 3)."""
    return (255 / (1 + depth)).to(torch.uint8)[..., None].repeat(1, 1, 1, 3)


def pairs(step: int) -> DepthPairs:
    true = rooms(4, step)
    return DepthPairs(true, spoiled(true, step), pictures_of(true))


def blocks(count: int, seed: int) -> Tensor:
    """Depth (count, 16, 32) of random blocks: from one of them nothing follows for another."""
    metres = 1 + 9 * torch.rand(count, 4, 8, generator=Generator().manual_seed(seed))
    return metres.repeat_interleave(4, 1).repeat_interleave(4, 2)


def spearman(one: Tensor, other: Tensor) -> float:
    """Correlation of ranks; there are no ties among real numbers."""
    ranks = torch.stack([values.argsort().argsort().double() for values in (one, other)])
    return torch.corrcoef(ranks)[0, 1].item()


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


@pytest.mark.parametrize("target", ["zero", "graded"])
def test_it_learns_to_rank_predictions_that_it_never_saw_by_their_true_error(
    tmp_path: Path, target: Literal["zero", "graded"]
) -> None:
    config = replace(SMALL, target=target, steps=120, checkpoint=120)
    discriminator = train_discriminator(pairs, config, CPU, tmp_path, DATA)
    true = rooms(64, 10**6)
    predicted = spoiled(true, 10**6)
    error = ((predicted - true).abs() / true).mean((1, 2))
    scores = score(discriminator, predicted)
    assert spearman(scores, -error) > 0.5
    best = scores.argsort(descending=True)[:16]
    assert error[best].mean() < 0.85 * error.mean()
    assert score(discriminator, true).mean() > scores.mean() + (0.2 if target == "zero" else 0.01)


@pytest.mark.parametrize("picture", ["none", "grey"])
def test_only_beside_its_picture_it_tells_right_from_wrong_where_both_are_as_likely(
    tmp_path: Path, picture: Literal["none", "grey"]
) -> None:
    """Each prediction is the truth of another panorama: as depth alone it is as good as any."""

    def swapped(step: int) -> DepthPairs:
        true = blocks(16, step)
        return DepthPairs(true, true.roll(1, 0), pictures_of(true))

    config = replace(SMALL, picture=picture, height=16, channels=(8, 8, 16, 16), steps=30, checkpoint=30)
    discriminator = train_discriminator(swapped, config, CPU, tmp_path, DATA)
    depth = blocks(64, 10**6)
    right, wrong = (score(discriminator, one, pictures_of(depth)) for one in (depth, depth.roll(1, 0)))
    told = (right > wrong).float().mean().item()
    if picture == "grey":
        assert told > 0.9
        assert (right - wrong).mean() > 0.5
    else:
        assert 0.3 < told < 0.7


@pytest.mark.parametrize("config", [SMALL, SEEING_SKY], ids=["alone", "beside"])
@pytest.mark.parametrize("killed_at", [3, 5])
def test_a_run_that_is_killed_and_resumed_gives_the_parameters_of_an_unbroken_one(
    tmp_path: Path, killed_at: int, config: DiscriminatorConfig
) -> None:
    def killing(step: int) -> DepthPairs:
        if step == killed_at:
            raise Killed
        return pairs(step)

    unbroken = train_discriminator(pairs, config, CPU, tmp_path / "unbroken", DATA)
    with pytest.raises(Killed):
        train_discriminator(killing, config, CPU, tmp_path / "broken", DATA)
    assert same(train_discriminator(pairs, config, CPU, tmp_path / "broken", DATA), unbroken)


def test_a_process_that_is_killed_and_resumed_gives_the_parameters_of_an_unbroken_one(tmp_path: Path) -> None:
    unbroken = killed_run.discriminate(tmp_path / "unbroken")
    folder = tmp_path / "broken"
    command = [sys.executable, "-m", "tests.training.killed_run", "discriminator", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT)
    log = folder / "log.jsonl"
    while not log.exists() or log.read_bytes().count(b"\n") < 8:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert steps_done(folder) >= 6, "two checkpoints, and steps after the second that are lost"
    assert same(killed_run.discriminate(folder), unbroken)


def test_a_finished_run_is_read_and_not_done_again(tmp_path: Path) -> None:
    def nothing_left(step: int) -> DepthPairs:
        raise Killed

    done = train_discriminator(pairs, SMALL, CPU, tmp_path, DATA)
    assert same(train_discriminator(nothing_left, SMALL, CPU, tmp_path, DATA), done)
    assert same(load_discriminator(tmp_path / "discriminator.safetensors", CPU), done)


def test_a_checkpoint_of_another_configuration_is_refused_and_of_more_steps_goes_on(tmp_path: Path) -> None:
    train_discriminator(pairs, SMALL, CPU, tmp_path, DATA)
    with pytest.raises(TrainingError, match=r"noise=0.1.*noise=0.2"):
        train_discriminator(pairs, replace(SMALL, noise=0.2), CPU, tmp_path, DATA)
    with pytest.raises(TrainingError, match=r"picture='none'.*picture='grey'"):
        resume_as(BESIDE, tmp_path)
    train_discriminator(pairs, replace(SMALL, steps=7), CPU, tmp_path, DATA)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 7


def test_a_run_says_what_it_depends_on_and_so_does_its_checkpoint(tmp_path: Path) -> None:
    train_discriminator(pairs, SMALL, CPU, tmp_path, DATA)
    state = torch.load(tmp_path / "discriminator-resume.pt", weights_only=True)
    for record in ("config", "data", "environment"):
        assert state[record] == (tmp_path / f"{record}.json").read_text()
    assert DiscriminatorConfig.from_json(state["config"]) == SMALL
    assert json.loads(state["data"]) == DATA
    assert json.loads(state["environment"])["revision"] == git_revision()


def test_a_run_shows_its_steps_in_tensorboard_and_tells_of_each(tmp_path: Path) -> None:
    told: list[int] = []
    train_discriminator(pairs, replace(SMALL, steps=4), CPU, tmp_path, DATA, lambda: told.append(steps_done(tmp_path)))
    assert told == [0, 0, 3, 4], "a checkpoint after the third step, and after the last"
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"step/loss", "step/true", "step/predicted", "step/target"} <= set(board.Tags()["scalars"])
    assert [scalar.step for scalar in board.Scalars("step/loss")] == [1, 2, 3, 4]


def resume_as(config: DiscriminatorConfig, folder: Path) -> int:
    discriminator = Discriminator(config)
    return resume(folder / "discriminator-resume.pt", discriminator, torch.optim.Adam(discriminator.parameters()))


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "adversarial_loss", lambda *_: torch.tensor(torch.nan, requires_grad=True))
    with pytest.raises(TrainingError, match="step 0 is nan"):
        train_discriminator(pairs, SMALL, CPU, tmp_path, DATA)


def test_a_patch_sees_seventy_pixels_and_answers_each_eight() -> None:
    """Isola et al.: 4x4 convolutions with strides 2 2 2 1 1 see 70x70. Without norms, which look at the whole image."""
    discriminator = Discriminator(replace(SMALL, height=128))
    image = torch.rand(1, 1, 128, 256, requires_grad=True)
    features = image
    for convolution, reach in zip(discriminator.convolutions, [(1, 1)] * 3 + [(1, 2)] * 2, strict=True):
        features = convolution(pad_sphere(features, reach, reach))
    assert features.shape == (1, 1, 16, 32)
    assert discriminator(image).shape == (1, 16, 32)
    features[0, 0, 8, 16].backward()
    assert image.grad is not None
    assert image.grad[0, 0].any(1).sum() == image.grad[0, 0].any(0).sum() == 70


def test_each_parameter_is_learnt(tmp_path: Path) -> None:
    before = Discriminator(SMALL).state_dict()
    after = train_discriminator(pairs, replace(SMALL, steps=1), CPU, tmp_path, DATA).state_dict()
    assert len(before) == 5 + 2, "weights of five convolutions, biases of those without a norm"
    assert all(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("columns", [8, W // 2])
def test_a_roll_of_the_panorama_rolls_the_answer_and_leaves_the_score(columns: int) -> None:
    discriminator, depth = Discriminator(SMALL), rooms(2, 0)
    images, _ = depth_images(depth, usable(depth), SMALL)
    answer = discriminator(images)
    torch.testing.assert_close(discriminator(images.roll(columns, -1)), answer.roll(columns // 8, -1))
    torch.testing.assert_close(score(discriminator, depth.roll(columns, -1)), score(discriminator, depth))


@pytest.mark.parametrize("columns", [8, W // 2])
def test_a_roll_of_depth_and_picture_leaves_the_score_and_a_roll_of_one_does_not(columns: int) -> None:
    discriminator, depth = Discriminator(BESIDE), rooms(2, 0)
    pictures = pictures_of(depth)
    expected = score(discriminator, depth, pictures)
    rolled = depth.roll(columns, -1)
    torch.testing.assert_close(score(discriminator, rolled, pictures.roll(columns, 2)), expected)
    assert not torch.isclose(score(discriminator, rolled, pictures), expected, rtol=1e-3).any()


def test_one_panorama_has_the_answer_that_it_has_among_others() -> None:
    discriminator, depth = Discriminator(SMALL), rooms(3, 0)
    torch.testing.assert_close(score(discriminator, depth)[1:2], score(discriminator, depth[1:2]))


def test_perfect_answers_lose_nothing_and_not_knowing_loses_a_quarter() -> None:
    one, zero, weight = torch.ones(2, 4, 8), torch.zeros(2, 4, 8), torch.rand(2, 4, 8)
    assert adversarial_loss(one, zero, zero, weight).item() == 0
    assert adversarial_loss(0.5 * one, 0.5 * one, zero, weight).item() == pytest.approx(0.25)
    assert adversarial_loss(zero, one, zero, weight).item() == pytest.approx(1)
    assert adversarial_loss(one, 0.5 * one, 0.5 * one, weight).item() == 0


def test_a_patch_is_called_as_right_as_its_pixels_are_on_average() -> None:
    """At steepness 2 a factor of r counts 1 / r^2, too far or too near alike; of sky one where both have it, else zero.

    Pixels that are holes in either do not count.
    """
    true = torch.full((1, H, W), 2.0)
    predicted = true.clone()
    predicted[:, :8, 8:16] *= 2
    predicted[:, :8, 16:24] /= 2
    predicted[:, :4, 24:32] = torch.inf
    true[:, :8, 32:40], predicted[:, :8, 32:36] = torch.inf, 1000.0
    true[:, :8, 40:44], predicted[:, :8, 44:48] = torch.nan, 8.0
    true[:, :8, 48:56] = 0
    expected = torch.ones(1, H // 8, W // 8)
    expected[0, 0, :7] = torch.tensor([1, 1 / 4, 1 / 4, 1 / 2, 1 / 2, 1 / 16, 0])
    torch.testing.assert_close(patch_targets(true, predicted, SEEING_SKY), expected)
    assert not patch_targets(true, predicted, BESIDE).any()
    large = [depth.repeat_interleave(2, 1).repeat_interleave(2, 2) for depth in (true, predicted)]
    torch.testing.assert_close(patch_targets(*large, SEEING_SKY), expected)


def test_where_sky_is_no_part_of_what_is_seen_it_is_a_hole_in_the_target_too() -> None:
    true, predicted = torch.full((1, H, W), 2.0), torch.full((1, H, W), 4.0)
    predicted[:, :4] = torch.inf
    targets = patch_targets(true, predicted, replace(SEEING_SKY, sky=False))
    torch.testing.assert_close(targets, torch.full((1, H // 8, W // 8), 0.25))


def test_a_patch_counts_by_its_solid_angle_and_by_what_of_it_is_valid() -> None:
    weight = patch_weights(torch.ones(1, H, W, dtype=torch.bool))
    zones = torch.tensor([1 - 0.5**0.5, 0.5**0.5, 0.5**0.5, 1 - 0.5**0.5]) * 2
    torch.testing.assert_close(weight[0], zones[:, None].expand(4, 8))
    valid = torch.ones(1, H, W, dtype=torch.bool)
    valid[:, 8:12, :8] = False
    valid[:, 16:24, 8:16] = False
    assert patch_weights(valid)[0, 1, 0] == weight[0, 1, 0] / 2
    assert patch_weights(valid)[0, 2, 1] == 0


CODECS: dict[str, Callable[[Tensor], Tensor]] = {
    "millimetres": lambda metres: (metres * 1000).round() / 1000,
    "1/512 m": lambda metres: (metres * 512).round() / 512,
    "float16": lambda metres: metres.half().float(),
}


@pytest.mark.parametrize("codec", CODECS)
def test_a_depth_that_was_stored_differently_looks_alike(codec: str) -> None:
    """At most one level apart, and few pixels at that: where it fell beside the border of two levels."""
    depth = rooms(2, 0)
    stored = CODECS[codec](depth)
    assert (stored != depth).float().mean() > 0.9
    one, other, _ = alike(depth, stored, SMALL)
    # Two levels where the quantile, too, fell on the other side.
    assert (one - other).abs().max().item() <= 2.001 / SMALL.levels
    assert (one != other).float().mean() < 0.25


def test_both_have_the_holes_of_either() -> None:
    true, predicted = rooms(1, 0), rooms(1, 1)
    for value, column in ((torch.inf, 3), (torch.nan, 5), (0.0, 7), (-1.0, 9), (100.5, 11)):
        true[..., column], predicted[..., column + 20] = value, value
    images = alike(true, predicted, SMALL)
    holes = [3, 5, 7, 9, 11, 23, 25, 27, 29, 31]
    for image in (images[0][:, 0], images[1][:, 0], images[2]):
        assert torch.nonzero((image == 0).all(1)[0]).flatten().tolist() == holes
        assert (image != 0).sum() == H * (W - len(holes))


def test_larger_depth_is_the_mean_of_its_blocks_without_the_holes() -> None:
    small = rooms(1, 0)
    large = small.repeat_interleave(2, 1).repeat_interleave(2, 2)
    large[:, ::2, ::2] = torch.nan
    large[:, :2, :2] = torch.tensor([[torch.nan, torch.inf], [0.0, 5.0]])
    image, valid = depth_images(large, usable(large), SMALL)
    expected, _ = depth_images(small, usable(small), SMALL)
    assert not valid[0, 0, 0]
    assert valid.sum() == H * W - 1
    torch.testing.assert_close(image[0, 0, 1:], expected[0, 0, 1:], atol=1.01 / SMALL.levels, rtol=0)


def test_normalised_depth_is_clipped_at_the_quantile_and_near_the_camera() -> None:
    """Of the values 0.01 k m, k = 1 ... 2048, the 98% quantile is number 2007, counted from one."""
    depth = 0.01 * torch.arange(1.0, H * W + 1).reshape(1, H, W)
    image = depth_images(depth, usable(depth), SMALL)[0].flatten()
    far = 0.01 * (1 + int(0.98 * (H * W - 1)))
    expected = ((depth.flatten() - 0.01) / (far - 0.01)).clamp(0.01, 1)
    torch.testing.assert_close(image, expected, atol=0.51 / SMALL.levels, rtol=0)
    assert image[0] > 0


def test_sky_is_as_far_as_can_be_and_stands_in_a_plane_of_its_own() -> None:
    """A block is sky where more of what is known of it is."""
    depth = rooms(1, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
    depth[:, :2, :2] = torch.inf
    depth[:, :2, 2:4] = torch.tensor([[torch.inf, torch.inf], [1000.0, 3.0]])
    depth[:, :2, 4:6] = torch.tensor([[torch.inf, 3.0], [torch.nan, 3.0]])
    depth[:, :2, 6:8] = torch.tensor([[torch.inf, torch.nan], [0.0, 0.0]])
    image, valid = depth_images(depth, visible(depth, SEEING_SKY), SEEING_SKY)
    assert image.shape == (1, 2, H, W)
    assert image[0, 1, 0, :4].tolist() == [1, 1, 0, 0]
    assert image[0, 1].sum() == 2
    assert image[0, 0, 0, :2].tolist() == [1, 1]
    assert 0 < image[0, 0, 0, 2] < 1
    assert image[0, 0, 0, 3] == 0
    assert valid.sum() == H * W - 1
    assert not valid[0, 0, 3]


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_the_scale_of_a_depth_is_hardly_seen(factor: float) -> None:
    """All that is left of it is the near end of 1 cm."""
    depth = rooms(1, 0)
    one, other, _ = alike(depth, factor * depth, SMALL)
    torch.testing.assert_close(one, other, atol=0.02, rtol=0)


def test_a_picture_is_seen_as_its_luma_in_its_own_mean_and_deviation() -> None:
    """Of two equal halves with luma a and b: +-d / (d + 0.02), d = |a - b| / 2; red has 0.299 of white, blue 0.114."""
    white, red, blue = ((255, 255, 255), (255, 0, 0), (0, 0, 255))
    for one, other, half in ((white, (0, 0, 0), 0.5), (red, blue, (0.299 - 0.114) / 2), (blue, blue, 0.0)):
        picture = torch.tensor([one, other], dtype=torch.uint8).repeat_interleave(W // 2, 0).expand(1, H, W, 3)
        expected = half / (half + 0.02)
        grey = grey_images(picture, BESIDE)
        assert grey.shape == (1, 1, H, W)
        torch.testing.assert_close(grey[..., : W // 2], torch.full((1, 1, H, W // 2), expected), atol=1e-5, rtol=0)
        torch.testing.assert_close(grey[..., W // 2 :], torch.full((1, 1, H, W // 2), -expected), atol=1e-5, rtol=0)


def test_a_larger_picture_is_the_mean_of_its_blocks() -> None:
    small = torch.randint(4, 252, (1, H, W, 3), generator=Generator().manual_seed(0))
    large = small.repeat_interleave(2, 1).repeat_interleave(2, 2)
    large[:, ::2, ::2] += 4
    large[:, 1::2, 1::2] -= 4
    seen = (grey_images(picture.to(torch.uint8), BESIDE) for picture in (small, large))
    torch.testing.assert_close(*seen, atol=1e-5, rtol=0)


def test_a_masked_quantile_is_one_of_the_values_that_count() -> None:
    values = torch.tensor([[[5.0, 1.0, 99.0, 3.0]], [[7.0, 8.0, 9.0, 2.0]]])
    mask = torch.tensor([[[True, True, False, True]], [[False] * 4]])
    assert [masked_quantile(values, mask, q).tolist() for q in (0.0, 0.5, 1.0)] == [[1, 0], [3, 0], [5, 0]]


def test_labels_without_any_depth_are_scored_last_and_others_as_ever() -> None:
    discriminator, depth = Discriminator(SMALL), rooms(3, 0)
    alone = score(discriminator, depth)
    depth[1] = torch.inf
    scores = score(discriminator, depth)
    assert scores[1] == -torch.inf
    assert torch.equal(scores[[0, 2]], alone[[0, 2]])
    scores = score(Discriminator(SEEING_SKY), depth, pictures_of(rooms(3, 0)))
    assert scores.isinf().tolist() == [False, True, False]


def test_truth_prediction_and_picture_are_turned_together() -> None:
    batch = pairs(0)
    rolled = turned(batch, 0.5, Generator().manual_seed(0))
    assert not torch.equal(rolled.true, batch.true)
    assert rolled.pictures is not None
    assert torch.equal(rolled.pictures, pictures_of(rolled.true))
    torch.testing.assert_close(spoiled_error(rolled), spoiled_error(batch))


def spoiled_error(batch: DepthPairs) -> Tensor:
    return (batch.true - batch.predicted).abs().mean((1, 2))


def test_noise_has_its_deviation_and_leaves_holes_of_depth_what_they_are() -> None:
    images = torch.full((1, 2, 64, 128), 0.5)
    images[..., :64] = 0
    noise = instance_noise(images, 0.1, Generator().manual_seed(0)) - images
    assert not noise[:, 0, :, :64].any()
    for noisy in (noise[:, 0, :, 64:], noise[:, 1, :, :64], noise[:, 1, :, 64:]):
        assert noisy.std().item() == pytest.approx(0.1, rel=0.05)
    assert torch.equal(noise + images, instance_noise(images, 0.1, Generator().manual_seed(0)))


@pytest.mark.parametrize("size", [(16, 32), (48, 96), (32, 32), (64, 64)])
def test_depth_of_a_size_that_would_be_enlarged_or_cut_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(TrainingError, match=rf"multiple of \(32, 64\), not \({size[0]}, {size[1]}\)"):
        score(Discriminator(SMALL), torch.ones(1, *size))


def test_pictures_of_such_a_size_are_refused_and_so_are_none(tmp_path: Path) -> None:
    discriminator, depth = Discriminator(BESIDE), torch.ones(1, H, W)
    with pytest.raises(TrainingError, match=r"pictures of a whole multiple of \(32, 64\), not \(48, 96\)"):
        score(discriminator, depth, torch.zeros(1, 48, 96, 3, dtype=torch.uint8))
    with pytest.raises(TrainingError, match="got no pictures"):
        score(discriminator, depth)
    with pytest.raises(TrainingError, match="got no pictures"):
        train_discriminator(lambda step: replace(pairs(step), pictures=None), BESIDE, CPU, tmp_path, DATA)


def test_truth_and_prediction_of_two_sizes_are_refused() -> None:
    with pytest.raises(TrainingError, match="one size"):
        alike(torch.ones(1, H, W), torch.ones(1, 2 * H, 2 * W), SMALL)


@pytest.mark.parametrize("height", [8, 20])
def test_a_height_that_has_no_patches_is_refused(height: int) -> None:
    with pytest.raises(TrainingError, match=f"not {height}"):
        DiscriminatorConfig(height=height)


@pytest.mark.parametrize("config", [SMALL, BESIDE, SEEING_SKY], ids=["alone", "beside", "with sky"])
def test_a_saved_discriminator_comes_back_with_its_configuration(tmp_path: Path, config: DiscriminatorConfig) -> None:
    saved = Discriminator(config)
    save_discriminator(saved, tmp_path / "d.safetensors")
    loaded = load_discriminator(tmp_path / "d.safetensors", CPU)
    assert loaded.config == config
    assert same(loaded, saved)


def test_a_file_from_before_there_was_a_choice_is_of_one_that_sees_depth_alone(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    said = json.loads(SMALL.to_json())
    older = json.dumps({name: value for name, value in said.items() if name not in ("picture", "sky", "target")})
    module.save_file(Discriminator(SMALL).state_dict(), path, metadata={"dap.discriminator": older})
    assert load_discriminator(path, CPU).config == SMALL
    module.save_file(Discriminator(BESIDE).state_dict(), path, metadata={"dap.discriminator": older})
    with pytest.raises(ModelFileInvalid, match="size mismatch"):
        load_discriminator(path, CPU)


def test_what_is_no_discriminator_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    with pytest.raises(ModelFileMissing):
        load_discriminator(path, CPU)
    path.write_bytes(b"no safetensors")
    with pytest.raises(ModelFileInvalid, match="not a safetensors file"):
        load_discriminator(path, CPU)
    module.save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(ModelFileInvalid, match="header"):
        load_discriminator(path, CPU)
    module.save_file({"weight": torch.zeros(1)}, path, metadata={"dap.discriminator": SMALL.to_json()})
    with pytest.raises(ModelFileInvalid, match="convolutions"):
        load_discriminator(path, CPU)
