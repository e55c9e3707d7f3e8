"""The PatchGAN that tells true depth from predicted depth, and so scores pseudo-labels.

DAP (arXiv 2512.16913) trains it on synthetic truth and the predictions of stage 1, scores all pseudo-labels and keeps
the best for stage 2. It must learn what is wrong with a prediction and not where it came from, so:

- of depth it sees what is normalised, of truth and prediction alike (`alike`): the same blocks averaged, the same holes
  cut into both, the same levels; and where they have sky, unless its configuration says that sky is a hole;
- a prediction is not simply false: what each patch of it should be called is how right it is (`patch_targets`), unless
  its configuration says zero. All predictions of a labeler are a little soft; a discriminator that is to call all of
  them false looks for that, and no longer for what is wrong;
- beside it stands the same picture (`grey_images`), unless its configuration says that it sees depth alone;
- nothing tells it where it looks: no zero padding anywhere, columns wrap, rows go on over the poles;
- no statistics leak from one class to the other: instance norm, not batch norm.
"""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from dap.errors import ModelFileInvalid, ModelFileMissing, TrainingError
from training.augmentation import LUMA, step_generator, turned_columns
from training.config import DiscriminatorConfig
from training.losses.truth import DEPTH_LIMIT_M
from training.losses.weighting import weighted_mean
from training.run_log import RunLog
from training.run_record import RECORDS, record_run
from training.sphere import pad_sphere, solid_angle_weights

RESUME_FILE = "discriminator-resume.pt"
FINAL_FILE = "discriminator.safetensors"
_CONFIG_KEY = "dap.discriminator"
_KERNEL = 4
_STRIDES = (2, 2, 2, 1, 1)
_PATCH_STEP = 8
_SLOPE = 0.2
_FLATTEST_M = 1e-3
_DULLEST = 0.02

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DepthPairs:
    """The same panoramas, measured and predicted.

    Attributes:
        true: float32 (B, H, W), metres along the ray. Beyond 100 m is sky; what is not above zero, or NaN, is a hole.
        predicted: likewise, by the labeler; its sky should be infinite.
        pictures: uint8 (B, H, W, 3); None will do for a discriminator that sees depth alone.
    """

    true: Tensor
    predicted: Tensor
    pictures: Tensor | None = None

    def to(self, device: torch.device) -> "DepthPairs":
        true, predicted = (depth.to(device, non_blocking=True) for depth in (self.true, self.predicted))
        pictures = None if self.pictures is None else self.pictures.to(device, non_blocking=True)
        return DepthPairs(true, predicted, pictures)


class Discriminator(nn.Module):
    """PatchGAN (Isola et al., arXiv 1611.07004): 4x4 convolutions with strides 2 2 2 1 1, leaky ReLU, instance norm.

    Circular: a roll by 8 columns rolls the answer by one.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        """Parameters come from the configuration's seed: weights from N(0, 0.02) as the field has it, biases zero."""
        super().__init__()
        self.config = config
        sizes = (config.planes, *config.channels, 1)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, _KERNEL, stride, bias=index in (0, len(_STRIDES) - 1))
            for index, (before, after, stride) in enumerate(zip(sizes[:-1], sizes[1:], _STRIDES, strict=True))
        )
        generator = Generator().manual_seed(config.seed)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=0.02, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        """How true each patch looks: one for truth, less for predictions.

        Args:
            images: float32 (B, P, h, w), P the configuration's `planes`: depth as `alike` and `depth_images` give it,
                beside it the picture as `grey_images` gives it.

        Returns:
            float32 (B, h / 8, w / 8).
        """
        features = images
        last = len(_STRIDES) - 1
        for index, (convolution, stride) in enumerate(zip(self.convolutions, _STRIDES, strict=True)):
            # So that as many come out as went in, over the stride.
            reach = (1, _KERNEL - stride - 1)
            features = convolution(pad_sphere(features, reach, reach))
            if 0 < index < last:
                features = F.instance_norm(features)
            if index < last:
                features = F.leaky_relu(features, _SLOPE)
        return features[:, 0]


def usable(depth: Tensor) -> Tensor:
    """Bool (B, H, W): a surface, in (0, 100] m."""
    return (depth > 0) & (depth <= DEPTH_LIMIT_M)


def visible(depth: Tensor, config: DiscriminatorConfig) -> Tensor:
    """Bool (B, H, W): no hole: a surface, or sky if the discriminator sees that."""
    return depth > 0 if config.sky else usable(depth)


def alike(true: Tensor, predicted: Tensor, config: DiscriminatorConfig) -> tuple[Tensor, Tensor, Tensor]:
    """True and predicted depth with nothing left that tells them apart but how good they are.

    Both get the holes of either, the same reduction to the size that the discriminator sees, each its own
    normalisation, and the same levels.

    Args:
        true: float32 (B, H, W), metres.
        predicted: likewise.
        config: see there for each setting.

    Returns:
        The images of truth and prediction as `depth_images` has them, and where they are valid, bool (B, h, w).

    Raises:
        TrainingError: the two differ in size, or their size is no whole multiple of what the discriminator sees.
    """
    if true.shape != predicted.shape:
        raise TrainingError(
            f"truth and prediction are of one size, not {tuple(true.shape)} and {tuple(predicted.shape)}"
        )
    shared = visible(true, config) & visible(predicted, config)
    image, valid = depth_images(true, shared, config)
    return image, depth_images(predicted, shared, config)[0], valid


def depth_images(depth: Tensor, mask: Tensor, config: DiscriminatorConfig) -> tuple[Tensor, Tensor]:
    """What the discriminator sees of a depth: (d - near) / (q - near), q its quantile, clipped to [lowest, 1]; holes 0.

    Choices: d is in metres; it is the mean of the surfaces in a block of pixels, of which at least half must be no
    holes; a block with more sky than surface is sky, which is one, and one in a plane of its own; the quantile is that
    of the surfaces' pixels, whatever their solid angle.

    Args:
        depth: float32 (B, H, W), metres, any value where not `mask`.
        mask: bool (B, H, W), where it is no hole.
        config: see there.

    Returns:
        float32 (B, 1, h, w), or (B, 2, h, w) with the sky, and where it is valid, bool (B, h, w).

    Raises:
        TrainingError: H and W are no whole multiple of h and w.
    """
    block = _block("depth", depth.shape[1:], config)
    surfaces = mask & usable(depth)
    known, solid = (F.avg_pool2d(share.float(), block) for share in (mask, surfaces))
    mean = F.avg_pool2d(torch.where(surfaces, depth, 0.0), block) / solid.clamp_min(1 / block**2)
    valid = known >= 0.5
    surface = valid & (solid >= known / 2)
    far = masked_quantile(mean, surface, config.far_quantile)[:, None, None]
    normalised = (mean - config.near_m) / (far - config.near_m).clamp_min(_FLATTEST_M)
    levels = (normalised.clamp(config.lowest, 1.0) * config.levels).round() / config.levels
    planes = [torch.where(surface, levels, valid.float())]
    return torch.stack([*planes, (valid & ~surface).float()] if config.sky else planes, 1), valid


def patch_targets(true: Tensor, predicted: Tensor, config: DiscriminatorConfig) -> Tensor:
    """What the discriminator is taught to answer to a prediction, float32 (B, h / 8, w / 8).

    Zero, or how right the prediction is: the mean over a patch's pixels that are no holes in either of
    exp(-steepness |ln(predicted / true)|); of sky one where both have it and zero where one has.

    Args:
        true: float32 (B, H, W), metres.
        predicted: likewise.
        config: see there.
    """
    step = _PATCH_STEP * _block("depth", true.shape[1:], config)
    if config.target == "zero":
        return F.avg_pool2d(torch.zeros_like(true), step)
    shared = visible(true, config) & visible(predicted, config)
    both = usable(true) & usable(predicted)
    ratio = torch.where(both, predicted, 1.0) / torch.where(both, true, 1.0)
    right = torch.where(
        both, (-config.steepness * ratio.log().abs()).exp(), (~usable(true) & ~usable(predicted)).float()
    )
    total = F.avg_pool2d(torch.where(shared, right, 0.0), step)
    return total / F.avg_pool2d(shared.float(), step).clamp_min(1 / step**2)


def grey_images(pictures: Tensor, config: DiscriminatorConfig) -> Tensor:
    """What the discriminator sees of a picture: (g - mean) / (deviation + 0.02), both over the image.

    Choices: g is luma in [0, 1], the mean of a block of pixels, as it is stored (gamma and all); the 0.02 leaves the
    noise of a dull picture small; a hole in depth is none in the picture.

    Args:
        pictures: uint8 (B, H, W, 3).
        config: see there.

    Returns:
        float32 (B, 1, h, w).

    Raises:
        TrainingError: H and W are no whole multiple of h and w.
    """
    block = _block("pictures", pictures.shape[1:3], config)
    luma = pictures.float() @ torch.tensor(LUMA, device=pictures.device) / 255
    grey = F.avg_pool2d(luma[:, None], block)
    deviation, mean = torch.std_mean(grey, (1, 2, 3), correction=0, keepdim=True)
    return (grey - mean) / (deviation + _DULLEST)


def _block(what: str, given: torch.Size, config: DiscriminatorConfig) -> int:
    """Rows and columns that become one pixel of what the discriminator sees."""
    size = (config.height, 2 * config.height)
    block = given[0] // size[0]
    if not block or given != (block * size[0], block * size[1]):
        raise TrainingError(f"the discriminator takes {what} of a whole multiple of {size}, not {tuple(given)}")
    return block


def _condition(pictures: Tensor | None, config: DiscriminatorConfig) -> Tensor | None:
    """What stands beside depth, (B, 1, h, w); None for a discriminator that sees depth alone, whatever there is."""
    if config.picture == "none":
        return None
    if pictures is None:
        raise TrainingError(f"this discriminator sees depth beside its picture ({config.picture}), and got no pictures")
    return grey_images(pictures, config)


def _beside(images: Tensor, condition: Tensor | None) -> Tensor:
    return images if condition is None else torch.cat([images, condition], 1)


def masked_quantile(values: Tensor, mask: Tensor, quantile: float) -> Tensor:
    """The value (B,) below which that share of an image's masked-in pixels lies; zero where there are none.

    One of the values, never between two. Unlike torch.quantile it has no largest input.
    """
    ascending = torch.where(mask, values, torch.inf).flatten(1).sort(1).values
    count = mask.flatten(1).sum(1, keepdim=True)
    index = ((count - 1).clamp_min(0) * quantile).long()
    return torch.where(count > 0, ascending.gather(1, index), 0.0)[:, 0]


def patch_weights(valid: Tensor) -> Tensor:
    """What a patch counts, (B, h / 8, w / 8): the solid angle of its centre times the share of it that is valid."""
    share = F.avg_pool2d(valid.float(), _PATCH_STEP)
    return share * solid_angle_weights(*share.shape[-2:], share.device)


def adversarial_loss(on_true: Tensor, on_predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Least-squares GAN loss of the discriminator: half the mean of (D(true) - 1)^2 + (D(predicted) - target)^2.

    Mao et al., arXiv 1611.04076, where the target is zero; see `patch_targets`. Each patch counts by its weight.
    """
    return 0.5 * weighted_mean((on_true - 1).square() + (on_predicted - target).square(), weight).mean()


@torch.no_grad()
def score(discriminator: Discriminator, depth: Tensor, pictures: Tensor | None = None) -> Tensor:
    """How true pseudo-labels look, float32 (B,): about one like truth, lower like the predictions trained on.

    The mean response of the patches, each by its solid angle and the share of it that is no hole: a choice, the paper
    has no formula. A label without any surface gets minus infinity and is so never chosen.

    Args:
        discriminator: a trained one.
        depth: float32 (B, H, W), metres; beyond 100 m is sky, what is not above zero a hole. Larger than what the
            discriminator sees by a whole factor.
        pictures: uint8 (B, H, W, 3), the panoramas; needed unless the discriminator sees depth alone.

    Raises:
        TrainingError: of another size, or pictures are needed and there are none.
    """
    condition = _condition(pictures, discriminator.config)
    images, valid = depth_images(depth, visible(depth, discriminator.config), discriminator.config)
    images = _beside(images, condition)
    weight = patch_weights(valid)
    answered = weight.flatten(1).any(1) & usable(depth).flatten(1).any(1)
    return torch.where(answered, weighted_mean(discriminator(images), weight), -torch.inf)


def train_discriminator(
    pairs: Callable[[int], DepthPairs],
    config: DiscriminatorConfig,
    device: torch.device,
    folder: Path,
    data: Mapping[str, object],
    on_step: Callable[[], None] = lambda: None,
) -> Discriminator:
    """Train until the last step, from where the folder's last checkpoint stands if there is one.

    Args:
        pairs: the batch of a step, a function of the step alone.
        config: of the run.
        device: where the discriminator runs.
        folder: of the run: configuration, log, checkpoint, and at the end `discriminator.safetensors`.
        data: what the pairs are made from, by fingerprints, for the records of the run.
        on_step: called after each step.

    Returns:
        The discriminator, in evaluation mode.

    Raises:
        TrainingError: a loss was not finite, the checkpoint is that of another configuration, or the discriminator is
            to see pictures and the pairs have none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    discriminator = Discriminator(config).to(device)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=config.learning_rate, betas=config.betas)
    begin = resume(folder / RESUME_FILE, discriminator, optimizer)
    record_run(folder, config.to_json(), data, device)
    with RunLog.of_run(folder, config.log, begin + 1) as log:
        for step in range(begin, config.steps):
            with log.waiting():
                generator = step_generator(config.seed, step)
                batch = turned(pairs(step), config.flip, generator).to(device)
            loss, answers = judge(discriminator, batch, generator)
            if not loss.isfinite():
                raise TrainingError(f"the discriminator's loss at step {step} is {loss.item()}")
            optimizer.param_groups[0]["lr"] = config.learning_rate * _cooldown(step, config.steps)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

            log.step(step + 1, len(batch.true), {"loss": loss.detach(), **answers}, {})
            if (step + 1) % config.checkpoint == 0 or step + 1 == config.steps:
                checkpoint(folder / RESUME_FILE, discriminator, optimizer, step + 1)
            on_step()
    save_discriminator(discriminator, folder / FINAL_FILE)
    return discriminator.eval()


def judge(discriminator: Discriminator, batch: DepthPairs, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch; and what the discriminator says of truth and of predictions, and should say of these.

    Raises:
        TrainingError: it is to see pictures and there are none, or the size of a depth is not for it.
    """
    config = discriminator.config
    true, predicted, valid = alike(batch.true, batch.predicted, config)
    condition = _condition(batch.pictures, config)
    seen = torch.cat([_beside(images, condition) for images in (true, predicted)])
    on_true, on_predicted = discriminator(instance_noise(seen, config.noise, generator)).chunk(2)
    target, weight = patch_targets(batch.true, batch.predicted, config), patch_weights(valid)
    answers = {"true": on_true, "predicted": on_predicted, "target": target}
    means = {name: weighted_mean(answer, weight).mean().detach() for name, answer in answers.items()}
    return adversarial_loss(on_true, on_predicted, target, weight), means


def _cooldown(step: int, steps: int) -> float:
    """Factor on the learning rate: one, and in the last third down to zero. Without it the last batches decide."""
    return min(1.0, 3 * (1 - step / steps))


def turned(pairs: DepthPairs, flip: float, generator: Generator) -> DepthPairs:
    """The pairs of a step rolled by any number of columns, some mirrored; truth, prediction and picture by the same."""
    samples, _, width = pairs.true.shape
    columns = turned_columns(samples, width, flip, generator).to(pairs.true.device)
    index = columns[:, None, :].expand_as(pairs.true)
    pictures = pairs.pictures
    if pictures is not None:
        pictures = pictures.gather(2, columns[:, None, :, None].expand_as(pictures))
    return DepthPairs(pairs.true.gather(2, index), pairs.predicted.gather(2, index), pictures)


def instance_noise(images: Tensor, deviation: float, generator: Generator) -> Tensor:
    """Instance noise (Sønderby et al., arXiv 1610.04490), normal, on all but the holes of depth, the first channel."""
    noise = deviation * torch.randn(images.shape, generator=generator).to(images.device)
    noise[:, 0] = torch.where(images[:, 0] > 0, noise[:, 0], 0.0)
    return images + noise


def checkpoint(path: Path, discriminator: Discriminator, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write all that a resume needs, and the records of the run, in one file beside them, whole or not at all."""
    unfinished = path.with_name(f".{path.name}")
    state = {
        **{Path(name).stem: path.with_name(name).read_text() for name in RECORDS},
        "step": step,
        "discriminator": discriminator.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with unfinished.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def resume(path: Path, discriminator: Discriminator, optimizer: torch.optim.Optimizer) -> int:
    """Bring both to where a checkpoint stands; the steps done, 0 if there is none.

    Its `config`, `data` and `environment` are the records of the run, JSON as `training.run_record` writes it.

    Raises:
        TrainingError: its configuration differs in more than the number of steps and how often the run reports.
    """
    if not path.exists():
        return 0
    state = torch.load(path, map_location=next(discriminator.parameters()).device, weights_only=True)
    asked, held = discriminator.config, DiscriminatorConfig.from_json(state["config"])
    if replace(held, steps=asked.steps, log=asked.log, checkpoint=asked.checkpoint) != asked:
        raise TrainingError(f"{path.name} holds {held}; the run asks for {asked}")
    discriminator.load_state_dict(state["discriminator"])
    optimizer.load_state_dict(state["optimizer"])
    step: int = state["step"]
    _log.info("resumed the discriminator at step %d of %d", step, asked.steps)
    return step


def steps_done(folder: Path) -> int:
    """At which step a training in this folder would go on; 0 in a fresh one."""
    path = folder / RESUME_FILE
    if not path.exists():
        return 0
    step: int = torch.load(path, map_location="cpu", weights_only=True)["step"]
    return step


def save_discriminator(discriminator: Discriminator, path: Path) -> None:
    """Write safetensors with the configuration in the header."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in discriminator.state_dict().items()}
    unfinished = path.with_name(f".{path.name}")
    save_file(tensors, unfinished, metadata={_CONFIG_KEY: discriminator.config.to_json()})
    unfinished.replace(path)


def read_config(path: Path) -> DiscriminatorConfig:
    """The configuration in the header of what `save_discriminator` wrote; cheap.

    Raises:
        ModelFileMissing: there is no such file.
        ModelFileInvalid: it is no discriminator.
    """
    if not path.is_file():
        raise ModelFileMissing(f"There is no file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            config = (file.metadata() or {}).get(_CONFIG_KEY)
    except SafetensorError as error:
        raise ModelFileInvalid(f"{path.name} is not a safetensors file: {error}.") from error
    if config is None:
        raise ModelFileInvalid(f"{path.name} has no {_CONFIG_KEY} in its header: it is not a discriminator.")
    return DiscriminatorConfig.from_json(config)


def load_discriminator(path: Path, device: torch.device) -> Discriminator:
    """What `save_discriminator` wrote, in evaluation mode.

    Raises:
        ModelFileMissing: there is no such file.
        ModelFileInvalid: it is no discriminator.
    """
    discriminator = Discriminator(read_config(path))
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a file, not a mapping
    try:
        discriminator.load_state_dict(state)
    except RuntimeError as error:
        raise ModelFileInvalid(f"{path.name} is not the discriminator of its header: {error}") from error
    return discriminator.to(device).eval()
