import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork, PixelNetwork
from training.augmentation import (
    add_noise,
    augment,
    augment_each,
    blur,
    compress,
    jitter_colours,
    normalise,
    relit,
    soften,
    step_generator,
    veil,
)
from training.batches import Batch
from training.config import AugmentationConfig
from training.losses import Truth

B, H, W = 4, 8, 16
STILL = AugmentationConfig(flip=0, strength=0)
STRONG = AugmentationConfig(strength=1)


def labelled_batch() -> Batch:
    """A panorama whose red and green name the pixel, and whose depth repeats both; one hole."""
    rows, columns = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    rgb = torch.stack([rows, columns, torch.zeros_like(rows)], -1).to(torch.uint8).expand(B, H, W, 3)
    depth = (rows * W + columns + 1.0).expand(B, H, W)
    known = torch.ones(B, H, W, dtype=torch.bool)
    known[:, 5, 3] = False
    return Batch(rgb, Truth(depth, known))


def pixels(seed: int = 0) -> Tensor:
    return torch.rand(B, 3, H, W, generator=torch.Generator().manual_seed(seed))


def named(images: Tensor) -> Tensor:
    """Row and column that the colours of normalised images name."""
    blank = normalise(torch.zeros(1, 3, 1, 1))
    scale = 255 / (normalise(torch.ones(1, 3, 1, 1)) - blank)
    return ((images - blank) * scale).round()[:, :2].long()


def test_the_truth_follows_every_roll_and_flip_of_the_picture() -> None:
    example = augment(labelled_batch(), replace(STILL, flip=0.5), step_generator(0, 3))
    rows, columns = named(example.images).unbind(1)
    assert torch.equal(example.truth.depth, rows * W + columns + 1.0)
    assert torch.equal(example.truth.known, ~((rows == 5) & (columns == 3)))


def test_without_a_flip_columns_are_rolled_by_any_number() -> None:
    steps = []
    for step in range(40):
        columns = named(augment(labelled_batch(), STILL, step_generator(0, step)).images)[:, 1, 0]
        assert ((columns.roll(-1, -1) - columns) % W == 1).all()
        steps += columns[:, 0].tolist()
    assert set(steps) == set(range(W))


def test_flips_mirror_about_half_of_the_samples() -> None:
    mirrored = 0
    for step in range(100):
        columns = named(augment(labelled_batch(), replace(STILL, flip=0.5), step_generator(0, step)).images)[:, 1, 0]
        mirrored += int(((columns.roll(-1, -1) - columns) % W == W - 1).all(-1).sum())
    standard_deviation = math.sqrt(100 * B) / 2
    assert abs(mirrored - 50 * B) < 4 * standard_deviation


def test_the_same_seed_and_step_give_the_same_example_and_others_do_not() -> None:
    first, again, other_step, other_seed = (
        augment(labelled_batch(), STRONG, step_generator(*key)).images for key in ((1, 2), (1, 2), (1, 3), (2, 2))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other_step)
    assert not torch.equal(first, other_seed)


def test_images_are_normalised_as_the_exported_network_normalises_them() -> None:
    rgb = torch.randint(0, 256, (B, H, W, 3), dtype=torch.uint8)
    network = PixelNetwork(DapNetwork(NetworkConfig(encoder="hybrid-xs")))
    assert torch.allclose(normalise(rgb), network.normalise(rgb), atol=1e-6)


def test_a_picture_in_another_light_is_where_it_was_and_still_a_picture() -> None:
    rgb = (pixels() * 255).to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(relit(rgb, STILL, step_generator(0, 0)), rgb)
    colours = replace(STRONG, soften=0, blur=0, noise=0)
    changed = relit(rgb, colours, step_generator(0, 0))
    assert (changed.dtype, changed.shape) == (torch.uint8, rgb.shape)
    generator = step_generator(0, 0)
    sharp = blur(soften(rgb.permute(0, 3, 1, 2) / 255, 0, generator), 0, generator)
    expected = jitter_colours(sharp, colours, generator).permute(0, 2, 3, 1)
    assert (changed / 255 - expected).abs().max() <= 0.5001 / 255
    assert (changed != rgb).float().mean() > 0.5


def test_no_strength_changes_no_colour() -> None:
    example = augment(labelled_batch(), STILL, step_generator(0, 0))
    assert named(example.images)[:, 0].equal(torch.arange(H)[None, :, None].expand(B, H, W))


@pytest.mark.parametrize("change", [blur, soften])
def test_a_plain_picture_stays_plain_when_it_loses_sharpness(change: object) -> None:
    plain = torch.full((B, 3, H, W), 0.3)
    assert callable(change)
    assert torch.allclose(change(plain, 1.0, step_generator(0, 0)), plain)


@pytest.mark.parametrize(("change", "columns"), [(blur, 5), (soften, 6)])
def test_sharpness_is_lost_alike_at_the_border_and_in_the_middle(change: object, columns: int) -> None:
    assert callable(change)
    rolled_after = change(pixels(), 1.0, step_generator(0, 0)).roll(columns, -1)
    rolled_before = change(pixels().roll(columns, -1), 1.0, step_generator(0, 0))
    assert torch.allclose(rolled_after, rolled_before, atol=1e-6)
    assert rolled_after.std() < pixels().std()


def test_softening_is_the_mean_of_four_pixels_doubled_bilinearly() -> None:
    """A lone bright pixel: its quarter goes to the 2x2 cell, of which the nearest of each axis keeps 3/4."""
    picture = torch.zeros(1, 3, H, W)
    picture[..., 4, 4] = 1.0
    soft = soften(picture, 1.0, step_generator(0, 0))
    assert soft[0, 0, 4, 4].item() == pytest.approx(0.25 * 0.75**2)
    assert soft[0, 0, 3, 4].item() == pytest.approx(0.25 * 0.25 * 0.75)
    assert soft.sum().item() == pytest.approx(3)


@pytest.mark.parametrize("change", [blur, soften, veil, add_noise, compress])
def test_a_probability_of_zero_changes_nothing(change: object) -> None:
    assert callable(change)
    assert torch.equal(change(pixels(), 0.0, step_generator(0, 0)), pixels())


def test_a_veil_is_white_light_over_all_of_a_picture_up_to_a_third_of_it() -> None:
    behind = pixels() * 0.9
    share = ((veil(behind, 1.0, step_generator(0, 0)) - behind) / (1 - behind)).flatten(1)
    assert torch.allclose(share, share[:, :1].expand_as(share), atol=1e-4), "the same everywhere"
    assert 0 <= share.min() < share.max() <= 0.35


def test_compression_keeps_the_mean_of_blocks_and_loses_what_is_fine() -> None:
    fine = pixels()
    coded = compress(fine, 1.0, step_generator(0, 0))
    assert not torch.equal(coded, fine)
    blocks, before = coded.mean(1).unflatten(2, (2, 8)).mean((1, 3)), fine.mean(1).unflatten(2, (2, 8)).mean((1, 3))
    assert (blocks - before).abs().max() < 0.05
    assert (coded.diff(dim=-1).abs().mean() / fine.diff(dim=-1).abs().mean()) < 0.9
    assert torch.equal(coded, (coded * 255).round() / 255), "eight bits, as a file has them"


def test_hue_and_saturation_leave_grey_alone() -> None:
    config = AugmentationConfig(strength=1, exposure=0, contrast=0, gamma=0, white_balance=0)
    grey = pixels()[:, :1].expand(B, 3, H, W).clamp(0.01, 1)
    assert torch.allclose(jitter_colours(grey, config, step_generator(0, 0)), grey, atol=1e-5)


@pytest.mark.parametrize("field", ["exposure", "gamma", "white_balance"])
def test_factors_stay_within_their_range_and_differ_by_sample(field: str) -> None:
    alone = dict.fromkeys(("exposure", "contrast", "saturation", "hue", "gamma", "white_balance"), 0.0)
    config = AugmentationConfig(strength=0.5, **(alone | {field: 0.4}))
    level = 0.5
    values = jitter_colours(torch.full((64, 3, 1, 1), level), config, step_generator(0, 0))[:, 0, 0, 0]
    logs = (values.log() / math.log(level)).log() if field == "gamma" else (values / level).log()
    assert logs.abs().max() <= 0.2 + 1e-5
    assert logs.max() > 0.1
    assert logs.min() < -0.1


def test_colours_stay_within_what_a_picture_can_hold() -> None:
    for step in range(20):
        generator = step_generator(0, step)
        changed = add_noise(jitter_colours(pixels(), replace(STRONG, strength=3), generator), 1.0, generator)
        assert changed.min() >= 0
        assert changed.max() <= 1


def test_a_sample_changes_alike_whatever_part_of_the_batch_it_comes_in() -> None:
    whole = augment_each(labelled_batch(), STRONG, 0, 5, 0)
    first = 0
    for part in labelled_batch().parts(3):
        example = augment_each(part, STRONG, 0, 5, first)
        assert torch.equal(example.images, whole.images[first : first + len(part)])
        assert torch.equal(example.truth.depth, whole.truth.depth[first : first + len(part)])
        first += len(part)
    assert not torch.equal(whole.truth.depth[0], whole.truth.depth[1])
    assert not torch.equal(augment_each(labelled_batch(), STRONG, 0, 6, 0).images, whole.images)
