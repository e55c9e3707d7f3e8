"""The camera's faults, one at a time."""

import io
import random

import numpy as np
import pytest
import torch
from PIL import Image

from training.synthetic.camera_faults import photo_faults, photograph, scan_holes, scanner_faults
from training.synthetic.scene import Faults

SEEDS = [5]


def shot(light: torch.Tensor, faults: Faults) -> torch.Tensor:
    known = torch.ones(1, *light.shape[-2:], dtype=torch.bool)
    return photograph(light, [faults], SEEDS, known)[0].float()


def test_gray_light_at_exposure_a_fifth_is_the_gamma_value() -> None:
    picture = shot(torch.full((1, 3, 16, 32), 0.7), Faults(exposure=0.2))
    assert torch.equal(picture, torch.full((16, 32, 3), round(255 * 0.2 ** (1 / 2.2)), dtype=torch.float32))


def test_gains_shift_the_colours() -> None:
    picture = shot(torch.ones(1, 3, 16, 32), Faults(gains=(1.3, 1.0, 0.7)))
    red, green, blue = picture.mean((0, 1))
    assert red > green > blue


def test_no_saturation_is_gray() -> None:
    light = torch.rand(1, 3, 16, 32, generator=torch.Generator().manual_seed(1))
    picture = shot(light, Faults(saturation=0.0))
    assert (picture.amax(-1) - picture.amin(-1)).max() <= 1


def test_the_front_lens_may_be_brighter_than_the_back_one() -> None:
    picture = shot(torch.full((1, 3, 16, 32), 0.3), Faults(exposure=0.2, gamma=2.2, lens_mismatch=0.4))[..., 0]
    front, back = picture[:, 12:20].mean(), picture[:, [0, 1, 2, 29, 30, 31]].mean()
    assert torch.log(front / back) == pytest.approx(0.4, abs=0.03), "gamma 2.2 on top of 1 / 2.2 shows linear light"


def test_where_two_lenses_meet_things_show_twice_and_elsewhere_once() -> None:
    light = torch.rand(1, 1, 16, 180, generator=torch.Generator().manual_seed(4)).expand(-1, 3, -1, -1) * 0.3
    once, twice = shot(light, Faults()), shot(light, Faults(seam_ghosting=4.0))
    changed = ((once - twice).abs().amax((0, 2)) > 2).nonzero().flatten()
    longitude = (changed + 0.5) / 180 * 360 - 180
    assert len(changed) > 4
    assert ((longitude.abs() - 90).abs() <= 4).all()
    beside = (once[:, 135] + once[:, 133]) / 2  # 4 degrees are two columns
    assert (twice[:, 135] - beside).abs().max() <= 1


def test_sharpening_overshoots_at_an_edge_and_leaves_even_parts_alone() -> None:
    light = torch.full((1, 3, 16, 32), 0.2)
    light[..., 12:20] = 0.4
    plain, crisp = shot(light, Faults()), shot(light, Faults(sharpening=0.8))
    assert crisp[:, 12].mean() > plain[:, 12].mean() + 3
    assert crisp[:, 11].mean() < plain[:, 11].mean() - 3
    assert (crisp[:, 16] - plain[:, 16]).abs().max() <= 1


def test_local_contrast_lifts_what_is_brighter_than_its_surroundings_across_the_border_too() -> None:
    light = torch.full((1, 3, 64, 128), 0.2)
    light[..., 28:36, :2] = light[..., 28:36, -2:] = 0.3
    plain, lifted = shot(light, Faults()), shot(light, Faults(local_contrast=0.8))
    assert lifted[30:34, 0].mean() > plain[30:34, 0].mean() + 10
    assert torch.equal(lifted, lifted.flip(1)), "the patch lies about the border, so the picture is its own mirror"
    assert (lifted[0] - plain[0]).abs().max() <= 1


def test_a_third_of_the_photographs_are_stitched_and_no_scan_is() -> None:
    rng = random.Random(3)
    photos, scans = [photo_faults(rng, 0.17) for _ in range(300)], [scanner_faults(rng) for _ in range(100)]
    stitched = [bool(f.seam_ghosting) for f in photos]
    assert 0.25 < np.mean(stitched) < 0.45
    assert stitched == [bool(f.lens_mismatch) for f in photos]
    assert not any(f.seam_ghosting or f.lens_mismatch for f in scans)


def test_blur_keeps_the_brightness_and_takes_the_detail() -> None:
    light = torch.rand(1, 1, 32, 64, generator=torch.Generator().manual_seed(2)).expand(-1, 3, -1, -1) * 0.1 + 0.2
    sharp, soft = shot(light, Faults()), shot(light, Faults(blur=0.7))
    assert abs(float(sharp.mean() - soft.mean())) < 1
    assert soft.std() < 0.7 * sharp.std()


def test_blur_runs_on_across_the_border_of_longitude() -> None:
    light = torch.full((1, 3, 8, 16), 0.1)
    light[..., 0] = 1.0
    picture = shot(light, Faults(blur=0.7))
    assert torch.equal(picture[:, 1], picture[:, -1])


def test_noise_has_the_strength_asked_for() -> None:
    picture = shot(torch.ones(1, 3, 64, 128), Faults(noise=0.02))
    assert float(picture.std()) / 255 == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("quality", [40, 75])
def test_jpeg_of_a_gray_picture_is_what_a_real_encoder_makes_of_it(quality: int) -> None:
    light = torch.rand(1, 1, 24, 48, generator=torch.Generator().manual_seed(3)).expand(-1, 3, -1, -1) * 0.2 + 0.1
    clean, coded = shot(light, Faults()), shot(light, Faults(jpeg_quality=quality))
    stream = io.BytesIO()
    Image.fromarray(clean.to(torch.uint8).numpy()).save(stream, "JPEG", quality=quality, subsampling=0)
    real = np.asarray(Image.open(stream), np.float32)
    assert np.abs(coded.numpy() - real).mean() < 0.25 * np.abs(clean.numpy() - real).mean()


def test_jpeg_leaves_an_even_picture_alone() -> None:
    picture = shot(torch.ones(1, 3, 16, 32), Faults(jpeg_quality=50))
    assert picture.std() == 0


def test_holes_cover_the_share_asked_for() -> None:
    holes = scan_holes(SEEDS, [Faults(hole_share=0.1)], 128, 256, torch.device("cpu"))
    assert 0.07 < float(holes.float().mean()) < 0.13


def test_a_scene_without_holes_has_none() -> None:
    assert not scan_holes(SEEDS, [Faults()], 32, 64, torch.device("cpu")).any()


def test_only_scans_have_holes_and_scans_are_darker() -> None:
    rng = random.Random(0)
    scans, photos = [scanner_faults(rng) for _ in range(300)], [photo_faults(rng, 0.17) for _ in range(300)]
    assert all(f.hole_share == 0 for f in photos)
    assert any(f.hole_share > 0 for f in scans)
    assert sum(f.exposure for f in scans) < 0.6 * sum(f.exposure for f in photos)
