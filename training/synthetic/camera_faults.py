"""What stands between light and file: exposure, white balance, uneven brightness, tone, blur, noise, JPEG, scan holes.

Strengths are about a third of a full photometric randomisation; more than that was measured to hurt short trainings.
Two looks, because reality has two: pictures put together from room scans, and photographs of consumer cameras.
"""

import functools
import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from training.synthetic.scene import Faults

# ITU-T T.81 (JPEG), Annex K, table K.1: luminance quantisation
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
NOISE_TABLE = 1 << 18
SEAM_HALF_WIDTH = math.radians(4.0)  # of the strip in which consumer cameras blend the pictures of two lenses


def scanner_faults(rng: random.Random) -> Faults:
    """The look of pictures put together from a room scan: dark, contrasty, crisp, warm, uneven, often with holes."""
    warmth = rng.gauss(0.1, 0.1)
    return replace(
        _lens_and_file(rng),
        blur=rng.uniform(0.1, 0.5),  # scans are kept large and made small: sharper than a camera's picture at its size
        sharpening=rng.uniform(0.0, 0.8),
        local_contrast=rng.uniform(0.0, 0.9) if rng.random() < 0.7 else 0.0,
        exposure=math.exp(rng.gauss(math.log(0.04), 0.45)),
        gains=(math.exp(warmth), math.exp(rng.gauss(0, 0.03)), math.exp(-warmth)),
        gamma=math.exp(rng.gauss(0.08, 0.12)),
        saturation=math.exp(rng.gauss(0.2, 0.25)),
        contrast=math.exp(rng.gauss(0.28, 0.15)),
        shading_strength=rng.uniform(0.1, 0.4),
        hole_share=rng.uniform(0.002, 0.05) if rng.random() < 0.4 else 0.0,
    )


def photo_faults(rng: random.Random, exposure: float) -> Faults:
    """The look of a consumer camera's pictures, a third with seams; `exposure` is their usual mean brightness."""
    warmth = rng.gauss(0.02, 0.08)
    stitched = rng.random() < 0.35
    return replace(
        _lens_and_file(rng),
        exposure=math.exp(rng.gauss(math.log(exposure), 0.4)),
        gains=(math.exp(warmth), math.exp(rng.gauss(0, 0.03)), math.exp(-warmth)),
        gamma=math.exp(rng.gauss(0, 0.12)),
        saturation=math.exp(rng.gauss(-0.05, 0.2)),
        contrast=math.exp(rng.gauss(0.05, 0.12)),
        haze=rng.uniform(0, 0.05) if rng.random() < 0.3 else 0.0,
        shading_strength=rng.uniform(0.05, 0.25) if rng.random() < 0.4 else 0.0,
        lens_mismatch=rng.gauss(0, 0.1) if stitched else 0.0,
        seam_ghosting=rng.uniform(0.7, 2.5) if stitched else 0.0,
        sharpening=rng.uniform(0.1, 0.7) if rng.random() < 0.4 else 0.0,
    )


def two_lens_faults(rng: random.Random, exposure: float) -> Faults:
    """The look of a cheap camera of two lenses in poor light: they disagree, noise, strong compression, a veil."""
    warmth = rng.gauss(-0.08, 0.15)
    return Faults(
        exposure=math.exp(rng.gauss(math.log(exposure), 0.5)),
        gains=(math.exp(warmth), math.exp(rng.gauss(0, 0.05)), math.exp(-warmth)),
        gamma=math.exp(rng.gauss(-0.1, 0.15)),
        saturation=math.exp(rng.gauss(-0.25, 0.3)),
        contrast=math.exp(rng.gauss(-0.1, 0.15)),
        haze=rng.uniform(0, 0.18),
        shading_strength=rng.uniform(0.1, 0.35),
        blur=rng.uniform(0.5, 1.1),
        noise=rng.uniform(0.01, 0.045),
        jpeg_quality=int(rng.uniform(18, 60)),
        lens_mismatch=rng.gauss(0, 0.3),
    )


def faults_in_the_wild(rng: random.Random, exposure: float) -> Faults:
    """The look of pictures collected from anywhere: from a good camera's by day to a poor one's, dark, veiled, resaved.

    Colours vary with all of them as with two lenses; what is poor is so together.
    """
    look, poor = two_lens_faults(rng, exposure), rng.random()
    return replace(
        look,
        exposure=look.exposure * math.exp(-poor * rng.uniform(0, 1.2)),
        haze=poor * rng.uniform(0, 0.35),
        shading_strength=poor * look.shading_strength,
        blur=poor * 1.3 * look.blur,
        noise=poor * 1.6 * look.noise,
        jpeg_quality=round(95 - poor * (95 - rng.uniform(15, 45))),
        lens_mismatch=poor * look.lens_mismatch,
    )


def _lens_and_file(rng: random.Random) -> Faults:
    return Faults(
        blur=rng.uniform(0.3, 0.8),
        noise=rng.uniform(0, 0.016) if rng.random() < 0.7 else 0.0,
        jpeg_quality=int(rng.uniform(40, 95)) if rng.random() < 0.4 else 0,
    )


def _column(values: list[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None, None]


def _waves(
    seeds: Sequence[int], salt: int, rows: int, columns: int, height: int, width: int, device: torch.device
) -> Tensor:
    """A smooth random field of unit variance or less per scene, (B, 1, height, width), without a seam at the border."""
    draws = [
        np.random.default_rng([seed, salt]).standard_normal((rows, columns + 1), dtype=np.float32) for seed in seeds
    ]
    coarse = torch.from_numpy(np.stack(draws))[:, None]
    coarse[..., -1] = coarse[..., 0]
    return torch.nn.functional.interpolate(coarse.to(device), (height, width), mode="bicubic", align_corners=True)


def _lens_gains(faults: Sequence[Faults], width: int, device: torch.device) -> Tensor:
    """(B, 1, 1, width): brightness of the lens that sees each column, one looking forward and one back."""
    longitude = (torch.arange(width, device=device) + 0.5) / width * 2 * math.pi - math.pi
    side = torch.tanh(torch.cos(longitude) / 0.05)
    return torch.exp(_column([f.lens_mismatch / 2 for f in faults], device) * side)


def _ghosted(picture: Tensor, faults: Sequence[Faults]) -> Tensor:
    """Both lenses' pictures, one shifted, laid over each other in the strips where they meet."""
    width = picture.shape[3]
    longitude = (torch.arange(width, device=picture.device) + 0.5) / width * 2 * math.pi - math.pi
    share = 0.5 * ((longitude.abs() - math.pi / 2).abs() < SEAM_HALF_WIDTH)
    for i, fault in enumerate(faults):
        if fault.seam_ghosting > 0:
            columns = max(1, round(fault.seam_ghosting / 360 * width))
            picture[i] += share * (torch.roll(picture[i], columns, 2) - picture[i])
    return picture


def _tone(light: Tensor, faults: Sequence[Faults], known_mean: Tensor) -> Tensor:
    """Linear light (B, 3, H, W) -> display values in [0, 1]: exposure, white balance, soft shoulder, gamma."""
    device = light.device
    gains = torch.tensor([f.gains for f in faults], dtype=torch.float32, device=device)[:, :, None, None]
    scaled = light * (gains * (_column([f.exposure for f in faults], device) / known_mean))
    rolled = torch.where(scaled > 0.6, 0.6 + 0.4 * (1 - torch.exp((0.6 - scaled) / 0.4)), scaled)
    power = _column([f.gamma / 2.2 for f in faults], device)
    return rolled.clamp_min_(1e-6).pow(power)


def _colour(picture: Tensor, faults: Sequence[Faults]) -> Tensor:
    device = picture.device
    gray = picture.mean(1, keepdim=True)
    picture = gray + (picture - gray) * _column([f.saturation for f in faults], device)
    middle = picture.mean((1, 2, 3), keepdim=True)
    picture = middle + (picture - middle) * _column([f.contrast for f in faults], device)
    haze = _column([f.haze for f in faults], device)
    return picture * (1 - haze) + haze


def _blur(picture: Tensor, faults: Sequence[Faults]) -> Tensor:
    """A 3 x 3 kernel of standard deviation `blur` pixels; rows near the poles are blurred like the others."""
    edge = torch.tensor(
        [math.exp(-0.5 / max(f.blur, 0.05) ** 2) for f in faults], dtype=torch.float32, device=picture.device
    )[:, None, None, None]
    wide = picture + edge * (torch.roll(picture, 1, 3) + torch.roll(picture, -1, 3))
    tall = torch.cat([wide[:, :, :1], wide, wide[:, :, -1:]], 2)
    height = picture.shape[2]
    return (wide + edge * (tall[:, :, :height] + tall[:, :, 2:])) / (1 + 2 * edge).square()


def _crisp(picture: Tensor, faults: Sequence[Faults]) -> Tensor:
    """Unsharp masking, narrow and wide, as scanners' tone mapping and cameras' sharpening do it."""
    if any(f.sharpening for f in faults):
        detail = picture - _blur(picture, [Faults(blur=1.0)] * len(faults))
        picture = torch.addcmul(picture, detail, _column([f.sharpening for f in faults], picture.device))
    if any(f.local_contrast for f in faults):
        gray = picture.mean(1, keepdim=True)
        wide = gray
        for step in (64, 32, 16):  # three kernels [1 1 1] of growing stride make one bell without a seam
            wide = _stride_blur(wide, max(1, gray.shape[2] // step))
        picture = torch.addcmul(picture, gray - wide, _column([f.local_contrast for f in faults], picture.device))
    return picture


def _stride_blur(picture: Tensor, stride: int) -> Tensor:
    """The mean of each pixel and its eight neighbours `stride` away; round in longitude, repeated at the poles."""
    across = picture + torch.roll(picture, stride, 3) + torch.roll(picture, -stride, 3)
    height = picture.shape[2]
    tall = torch.nn.functional.pad(across, (0, 0, stride, stride), mode="replicate")
    return (across + tall[:, :, :height] + tall[:, :, 2 * stride :]) / 9


@functools.lru_cache(maxsize=4)
def _normal_table(device: torch.device) -> Tensor:
    table = torch.from_numpy(np.random.default_rng(11).standard_normal(NOISE_TABLE, dtype=np.float32))
    return torch.cat([table, table]).to(device)


def _add_noise(picture: Tensor, faults: Sequence[Faults], seeds: Sequence[int]) -> Tensor:
    table = _normal_table(picture.device)
    count = picture[0].numel()
    windows = []
    for seed in seeds:
        start = (seed * 69069 + 1) % NOISE_TABLE
        window = table[start : start + min(count, NOISE_TABLE)]
        windows.append(window if count <= NOISE_TABLE else window.repeat(-(-count // NOISE_TABLE))[:count])
    return torch.addcmul(
        picture, torch.stack(windows).reshape(picture.shape), _column([f.noise for f in faults], picture.device)
    )


@functools.lru_cache(maxsize=4)
def _cosines(device: torch.device) -> Tensor:
    """The orthonormal 8 x 8 cosine transform (type II)."""
    index = np.arange(8)
    basis = np.sqrt(np.where(index == 0, 1, 2) / 8)[:, None] * np.cos(
        (2 * index[None] + 1) * index[:, None] * np.pi / 16
    )
    return torch.from_numpy(basis.astype(np.float32)).to(device)


def _jpeg(picture: Tensor, quality: Sequence[int]) -> Tensor:
    """The loss of a baseline JPEG (4:4:4, every component with the luminance table), without the file."""
    height, width = picture.shape[-2:]
    device = picture.device
    padded = torch.nn.functional.pad(picture, (0, -width % 8, 0, -height % 8), mode="replicate") * 255 - 128
    red, green, blue = padded.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = torch.stack([luma, (blue - luma) * 0.564, (red - luma) * 0.713], 1)
    scale = [(5000 / q if q < 50 else 200 - 2 * q) / 100 for q in quality]
    steps = torch.tensor(_LUMINANCE, dtype=torch.float32, device=device)
    table = (steps * torch.tensor(scale, device=device)[:, None, None]).round_().clamp_min_(1.0)[:, None, None, :, None]
    basis = _cosines(device)
    blocks = planes.reshape(len(quality), 3, padded.shape[2] // 8, 8, padded.shape[3] // 8, 8)
    coefficients = torch.einsum("ij,bcyjxk,lk->bcyixl", basis, blocks, basis)
    kept = torch.round(coefficients / table) * table
    luma, blueness, redness = torch.einsum("ji,bcyjxk,kl->bcyixl", basis, kept, basis).reshape(planes.shape).unbind(1)
    red, blue = luma + redness / 0.713, luma + blueness / 0.564
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    return (torch.stack([red, green, blue], 1)[..., :height, :width] + 128) / 255


def scan_holes(seeds: Sequence[int], faults: Sequence[Faults], height: int, width: int, device: torch.device) -> Tensor:
    """Bool (B, height, width), True in the holes of a scan: blobs that cover about `hole_share` of the picture."""
    holes = torch.zeros((len(seeds), height, width), dtype=torch.bool, device=device)
    for i, (seed, fault) in enumerate(zip(seeds, faults, strict=True)):
        if fault.hole_share > 0:
            field = _waves([seed], 3, 12, 24, height, width, device)[0, 0]
            holes[i] = field > torch.quantile(field.flatten()[:: max(1, field.numel() // 4096)], 1 - fault.hole_share)
    return holes


def photograph(light: Tensor, faults: Sequence[Faults], seeds: Sequence[int], known: Tensor) -> Tensor:
    """Linear light (B, 3, H, W) -> sRGB-like uint8 (B, H, W, 3); black where not `known` (B, H, W)."""
    height, width = light.shape[-2:]
    mean = light.clamp_min(1e-3).log_().mean((1, 2, 3), keepdim=True).exp_()
    if any(f.shading_strength for f in faults):
        strength = _column([f.shading_strength for f in faults], light.device)
        light = light * torch.exp(_waves(seeds, 1, 4, 8, height, width, light.device) * strength)
    if any(f.lens_mismatch for f in faults):
        light = light * _lens_gains(faults, width, light.device)
    picture = _colour(_tone(light, faults, mean), faults)
    if any(f.seam_ghosting for f in faults):
        picture = _ghosted(picture, faults)
    picture = _add_noise(_crisp(_blur(picture, faults), faults), faults, seeds).clamp_(0, 1)
    coded = [i for i, f in enumerate(faults) if f.jpeg_quality]
    if coded:
        picture[coded] = _jpeg(picture[coded], [faults[i].jpeg_quality for i in coded])
    picture = picture * known[:, None]
    return (picture.clamp_(0, 1) * 255).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
