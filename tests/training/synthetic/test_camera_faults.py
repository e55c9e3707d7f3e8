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
