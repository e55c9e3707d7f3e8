"""Rendered samples to the network's input, changed a little each time: tensors in, tensors out, on any device.

All numbers are drawn on the CPU from the generator given, so that the same generator gives the same change on every
device.
"""

import io
import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

from dap.model.dap import IMAGENET_MEAN, IMAGENET_STD
from training.batches import Batch, joined
from training.config import AugmentationConfig
from training.losses import Truth

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey (ITU-R BT.601)."""

_BLUR_RADIUS = 2
_LONGEST_BLUR = 1.0
_STRONGEST_NOISE = 0.04
_THICKEST_VEIL = 0.35
_JPEG_QUALITIES = range(15, 61)


@dataclass(frozen=True)
class Example:
    """What a training step takes.

    Attributes:
        images: float32 (B, 3, H, W), ImageNet-normalised.
        truth: their depth and what of it is known.
    """

    images: Tensor
    truth: Truth


def step_generator(seed: int, step: int) -> Generator:
    """The random numbers of one step, the same in an unbroken run and in a resumed one."""
    # The generator reads the low 32 bits of a seed; runs of up to a million steps do not meet.
    return Generator().manual_seed((seed * 1_000_003 + step) % 2**32)


def sample_generator(seed: int, step: int, place: int) -> Generator:
    """The random numbers of one sample of a step's batch, whichever process it falls to."""
    return Generator().manual_seed(int(np.random.SeedSequence([seed, step, place]).generate_state(1)[0]))


def normalise(rgb: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) or float (B, 3, H, W) in [0, 1] to the network's input, float32 (B, 3, H, W)."""
    pixels = rgb.permute(0, 3, 1, 2).float() / 255 if rgb.dtype == torch.uint8 else rgb
    mean, std = (torch.tensor(values, device=rgb.device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels - mean) / std


def augment_each(batch: Batch, config: AugmentationConfig, seed: int, step: int, first: int) -> Example:
    """`augment`, with random numbers for each sample that follow from its place in the step's batch alone.

    So a batch may be cut anyhow, over processes or in time, and its samples stay the same.

    Args:
        batch: a part of the step's batch.
        config: how it changes.
        seed: of the run.
        step: of the run.
        first: place of the part's first sample in the batch.
    """
    each = [
        augment(sample, config, sample_generator(seed, step, first + index))
        for index, sample in enumerate(batch.parts(len(batch)))
    ]
    return Example(torch.cat([one.images for one in each]), joined([one.truth for one in each]))


def augment(batch: Batch, config: AugmentationConfig, generator: Generator) -> Example:
    """Roll, flip, change light, colour and sharpness; then normalise. The truth follows the geometry alone."""
    columns = turned_columns(len(batch.rgb), batch.rgb.shape[2], config.flip, generator).to(batch.rgb.device)
    rgb = batch.rgb.gather(2, columns[:, None, :, None].expand_as(batch.rgb))
    index = columns[:, None, :].expand_as(batch.truth.depth)
    depth, known = batch.truth.depth.gather(2, index), batch.truth.known.gather(2, index)
    truth = replace(batch.truth, depth=depth, known=known)
    return Example(normalise(_changed(rgb, config, generator)).contiguous(), truth)


def relit(rgb: Tensor, config: AugmentationConfig, generator: Generator) -> Tensor:
    """Pictures in another light, of other colours and sharpness, uint8 (B, H, W, 3) like those given; not turned."""
    pixels = _changed(rgb, config, generator).clamp(0, 1)
    return (pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _changed(rgb: Tensor, config: AugmentationConfig, generator: Generator) -> Tensor:
    pixels = rgb.permute(0, 3, 1, 2).float() / 255
    if config.strength:
        pixels = soften(pixels, config.soften, generator)
        pixels = blur(pixels, config.blur * config.strength, generator)
        pixels = jitter_colours(pixels, config, generator)
        if config.veil:
            pixels = veil(pixels, config.veil * config.strength, generator)
        pixels = add_noise(pixels, config.noise * config.strength, generator)
        if config.compression:
            pixels = compress(pixels, config.compression * config.strength, generator)
    return pixels


def turned_columns(samples: int, width: int, flip: float, generator: Generator) -> Tensor:
    """For each column of the new panoramas the column of the old, int64 (samples, width): rolled, some mirrored."""
    shift = torch.randint(width, (samples, 1), generator=generator)
    columns = (torch.arange(width)[None] + shift) % width
    mirrored = torch.rand(samples, 1, generator=generator) < flip
    return torch.where(mirrored, width - 1 - columns, columns)


def jitter_colours(pixels: Tensor, config: AugmentationConfig, generator: Generator) -> Tensor:
    """Gamma, exposure and white balance, hue, saturation, contrast of (B, 3, H, W) in [0, 1]; by sample."""

    def spread(half_width: float, channels: int = 1) -> Tensor:
        numbers = torch.rand(len(pixels), channels, 1, 1, generator=generator) * 2 - 1
        return (numbers * half_width * config.strength).to(pixels.device)

    pixels = pixels.clamp(1e-3, 1) ** spread(config.gamma).exp()
    pixels = pixels * (spread(config.exposure) + spread(config.white_balance, 3)).exp()
    colours = _colour_matrices(spread(config.hue)[:, 0, 0, 0], spread(config.saturation).exp()[:, 0, 0, 0])
    pixels = torch.einsum("bij,bjhw->bihw", colours, pixels)
    mean = pixels.mean((1, 2, 3), keepdim=True)
    return (mean + (pixels - mean) * spread(config.contrast).exp()).clamp(0, 1)


def _colour_matrices(turn: Tensor, saturation: Tensor) -> Tensor:
    """(B, 3, 3): a turn around the grey axis (radians; Rodrigues' formula), then saturation around the luma."""
    grey = torch.tensor(LUMA, device=turn.device)
    third = 1 / math.sqrt(3)
    cross = third * torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=turn.device)
    cosine, sine = turn.cos()[:, None, None], turn.sin()[:, None, None]
    eye = torch.eye(3, device=turn.device)
    rotation = cosine * eye + sine * cross + (1 - cosine) / 3
    amount = saturation[:, None, None]
    return torch.matmul(amount * eye + (1 - amount) * grey.expand(3, 3), rotation)


def blur(pixels: Tensor, probability: float, generator: Generator) -> Tensor:
    """A Gaussian of up to one pixel on some of the samples; longitude is a circle, the last rows repeat."""
    chosen = _chosen(len(pixels), probability, generator)
    sigmas = torch.rand(len(pixels), generator=generator) * _LONGEST_BLUR + 0.1
    if not len(chosen):
        return pixels
    offsets = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1)
    kernels = (-(offsets**2) / (2 * sigmas[chosen, None] ** 2)).exp()
    kernels = (kernels / kernels.sum(1, keepdim=True)).to(pixels.device)[:, :, None, None, None]
    part = pixels[chosen]
    part = torch.stack([kernels[:, k] * part.roll(int(offset), -1) for k, offset in enumerate(offsets)]).sum(0)
    padded = F.pad(part, (0, 0, _BLUR_RADIUS, _BLUR_RADIUS), mode="replicate")
    height = pixels.shape[2]
    part = torch.stack([kernels[:, k] * padded[:, :, k : k + height] for k in range(len(offsets))]).sum(0)
    return _replaced(pixels, chosen, part)


def soften(pixels: Tensor, probability: float, generator: Generator) -> Tensor:
    """Halve some of the samples by area and double them again, bilinearly around the circle of longitude."""
    chosen = _chosen(len(pixels), probability, generator)
    if not len(chosen):
        return pixels
    small = F.pad(F.avg_pool2d(pixels[chosen], 2), (1, 1, 0, 0), mode="circular")
    large = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)[..., 2:-2]
    return _replaced(pixels, chosen, large)


def add_noise(pixels: Tensor, probability: float, generator: Generator) -> Tensor:
    """White noise of up to 4% of full scale on some of the samples."""
    chosen = _chosen(len(pixels), probability, generator)
    strengths = torch.rand(len(pixels), 1, 1, 1, generator=generator)[chosen] * _STRONGEST_NOISE
    if not len(chosen):
        return pixels
    part = pixels[chosen]
    noise = torch.randn(part.shape, generator=generator) * strengths
    return _replaced(pixels, chosen, (part + noise.to(pixels.device)).clamp(0, 1))


def veil(pixels: Tensor, probability: float, generator: Generator) -> Tensor:
    """White light of up to 35% over some of the samples, as of haze and of stray light in a lens."""
    chosen = _chosen(len(pixels), probability, generator)
    strengths = torch.rand(len(pixels), 1, 1, 1, generator=generator)[chosen].to(pixels.device) * _THICKEST_VEIL
    return _replaced(pixels, chosen, torch.lerp(pixels[chosen], torch.ones_like(strengths), strengths))


def compress(pixels: Tensor, probability: float, generator: Generator) -> Tensor:
    """Some of the samples as JPEGs of qualities from 15 to 60 have them; coded on the CPU."""
    chosen = _chosen(len(pixels), probability, generator)
    qualities = torch.randint(_JPEG_QUALITIES.start, _JPEG_QUALITIES.stop, (len(pixels),), generator=generator)[chosen]
    if not len(chosen):
        return pixels
    pictures = (pixels[chosen].clamp(0, 1) * 255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
    coded = [_as_jpeg(picture, int(quality)) for picture, quality in zip(pictures, qualities, strict=True)]
    part = torch.from_numpy(np.stack(coded)).to(pixels.device).permute(0, 3, 1, 2).float() / 255
    return _replaced(pixels, chosen, part)


def _as_jpeg(picture: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def _chosen(samples: int, probability: float, generator: Generator) -> Tensor:
    return (torch.rand(samples, generator=generator) < probability).nonzero()[:, 0]


def _replaced(pixels: Tensor, chosen: Tensor, part: Tensor) -> Tensor:
    return pixels.index_copy(0, chosen.to(pixels.device), part)
