"""What a training run is: frozen dataclasses, read and written as JSON, and the presets.

A run is a function of its configuration: the same one gives the same parameters, whatever the timing of its workers
and however often it was stopped and resumed (on the same machine, with as many threads).
"""

import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from dap.errors import TrainingError
from dap.model.config import PATCH, NetworkConfig
from training.synthetic.sampling import Kind

Config = TypeVar("Config")

Initial = Literal["random", "imagenet", "dinov3", "model"]
ScenesIn = Literal["auto", "disk", "memory"]


@dataclass(frozen=True)
class LossWeights:
    """The factor of each loss of `training.losses.LOSSES`, and the settings of these losses; zero leaves a loss out.

    The defaults are what the bundled `dap-s` is trained with; `LOSS_PRESETS` has the paper's.

    Attributes:
        silog: scale-invariant loss of log depth.
        scale_invariance: its lambda, also on the edges: 0 the root mean square, 1 forgets the scale.
        log_l1: absolute error of log depth.
        gradient: multi-scale gradient matching of log depth.
        gradient_scales: number of its scales.
        sobel: `silog` on the edges of the true depth alone.
        sobel_threshold: what makes an edge, log depth per pixel. Too low: slanted floors are edges; too high: only
            silhouettes are.
        dense_fidelity: Gram matrices of 12 perspective views.
        fidelity_fov_deg: field of view of these.
        fidelity_size: their height and width in pixels.
        fidelity_norm: what they are normalised by: each view by its `own` norm, or both by that of the `truth`.
        normal: L1 of surface normals.
        normal_latitude_deg: rows farther from the horizon have no normals.
        points: L1 of points, in units of 100 m.
        range_cross_entropy: of the range mask.
        range_balance: how much more its rarer class counts, from 0 (not) to 1 (as much as the other).
        range_squared: squared error of the range mask.
        range_dice: Dice of the range mask.
        distortion_map: pixels count by their solid angle; without it, all alike.
    """

    silog: float = 1.0
    scale_invariance: float = 0.5
    log_l1: float = 0.5
    gradient: float = 0.5
    gradient_scales: int = 4
    sobel: float = 0.0
    sobel_threshold: float = 0.05
    dense_fidelity: float = 0.0
    fidelity_fov_deg: float = 90.0
    fidelity_size: int = 64
    fidelity_norm: Literal["own", "truth"] = "own"
    normal: float = 0.0
    normal_latitude_deg: float = 75.0
    points: float = 0.0
    range_cross_entropy: float = 0.5
    range_balance: float = 0.0
    range_squared: float = 0.0
    range_dice: float = 0.25
    distortion_map: bool = True

    def __post_init__(self) -> None:
        limits = {
            "scale_invariance": 0 <= self.scale_invariance <= 1,
            "gradient_scales": self.gradient_scales >= 1,
            "fidelity_fov_deg": 0 < self.fidelity_fov_deg < 180,
            "fidelity_size": self.fidelity_size >= 1,
            "normal_latitude_deg": 0 < self.normal_latitude_deg <= 90,
            "range_balance": 0 <= self.range_balance <= 1,
        }
        for name, within in limits.items():
            if not within:
                raise TrainingError(f"the loss setting {name} cannot be {getattr(self, name)}")


# The paper's factors (arXiv 2512.16913). Its text has a mask loss of weighted cross-entropy + Dice, its formula one of
# squared error + 0.5 Dice; how the cross-entropy is weighted is not published, and half-way is a choice.
_PAPER = LossWeights(
    silog=1.0,
    log_l1=0.0,
    gradient=0.0,
    sobel=5.0,
    dense_fidelity=0.4,
    fidelity_size=128,
    normal=2.0,
    points=2.0,
    range_cross_entropy=2.0,
    range_balance=0.5,
    range_dice=2.0,
)
LOSS_PRESETS: dict[str, LossWeights] = {
    "dap-s": LossWeights(),
    "paper": _PAPER,
    "paper-formula": replace(_PAPER, range_cross_entropy=0.0, range_squared=2.0, range_dice=1.0),
}


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The discriminator of the second stage: what it sees, what it is, and how it is trained.

    The paper (arXiv 2512.16913) says PatchGAN and no more: the channels and the loss are the field's, what it sees is
    what the loaders of the official code suggest, and the rest is a choice.

    Attributes:
        height: of the depth that it sees, in pixels; the width is twice as much. True and predicted depth are reduced
            to it by the mean of whole blocks of pixels. Too low: fine faults are gone; too high: it may learn how the
            labels were stored and enlarged.
        picture: what it sees beside depth: `grey`, the panorama in grey, as the PatchGAN of pix2pix (arXiv 1611.07004)
            sees what its image was made from; or `none`. The paper does not say, its loaders suggest `none`. A
            prediction looks like the mean of what could be there, and depth alone does not tell whether more was there:
            on rendered scenes, labelled by a small labeler at 64x128, the scores of `none` hardly rank its labels
            (Spearman with their true AbsRel 0.0 indoors, +0.05 outdoors; below zero is right), those of `grey` do
            outdoors (-0.24 to -0.33; the best quarter has 24 to 32% less AbsRel than a random one) and not indoors
            (+0.07).
        sky: whether it sees where sky is, in a plane of its own; else sky is a hole, as the loaders suggest, and a
            labeler that takes a white ceiling for sky is wrong where nobody looks.
        target: what it is taught to answer to the patches of a prediction: `zero`, as a GAN's discriminator, or
            `graded`, how right each is; see `training.discriminator.patch_targets`. Choices, both: the paper says that
            it tells truth from prediction. On rendered scenes the labels that it selects have 18% less error than as
            many at random if it is graded, and 8% more if it is not (docs/training-results.md).
        steepness: how fast a graded target falls with the logarithm of the ratio of prediction and truth: 2 gives half
            for a depth that is wrong by a factor of 1.4.
        augmentation: how the light, colour and sharpness of a picture change before the labeler says its depth and the
            discriminator sees them both. What is scored is another domain than what this is trained on.
        near_m: what becomes zero when depth is normalised.
        far_quantile: the quantile of an image's depth that becomes one.
        lowest: normalised depth is clipped to this and one; zero is a hole.
        levels: steps of normalised depth from zero to one; coarser than the codecs of labels.
        channels: of the four convolutions before the last.
        noise: standard deviation of the noise on all that it sees in training, in units of normalised depth, and of the
            standard deviation of a grey picture. Without it the discriminator soon tells the best prediction from truth
            by some trifle, answers zero to all of them alike, and ranks no longer (measured on a toy, 450 steps:
            Spearman .5 with the true error without noise, .8 with). Too high: fine faults do not count.
        steps: optimizer steps.
        learning_rate, betas: of Adam; as the field trains its PatchGANs. The rate falls to zero in the last third.
        flip: probability that a pair is mirrored. It is always rolled.
        seed: of the initial parameters and of rolls and flips.
        log: steps a line of losses.
        checkpoint: steps between what a resume starts from.
    """

    height: int = 256
    picture: Literal["none", "grey"] = "grey"
    sky: bool = True
    target: Literal["zero", "graded"] = "graded"
    steepness: float = 2.0
    augmentation: "AugmentationConfig" = field(default_factory=lambda: AugmentationConfig(strength=1.0))
    near_m: float = 0.01
    far_quantile: float = 0.98
    lowest: float = 0.01
    levels: int = 1024
    channels: tuple[int, int, int, int] = (64, 128, 256, 512)
    noise: float = 0.1
    steps: int = 10_000
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    flip: float = 0.5
    seed: int = 0
    log: int = 20
    checkpoint: int = 250

    def __post_init__(self) -> None:
        if self.height < 16 or self.height % 8:
            raise TrainingError(f"a discriminator sees a height that is a multiple of 8, from 16 on; not {self.height}")

    @property
    def planes(self) -> int:
        """Channels of what it sees: depth, the sky and the picture if it sees them."""
        return 1 + self.sky + (self.picture != "none")

    def to_json(self) -> str:
        return _DISCRIMINATOR.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "DiscriminatorConfig":
        """Read what `to_json` wrote; a discriminator that does not say what it sees is from before there was a choice.

        Raises:
            TrainingError: a field is missing its type or its name is unknown.
        """
        config = read_json(_DISCRIMINATOR, text, "discriminator")
        said = json.loads(text)
        return replace(config, **{name: value for name, value in _FIRST_DISCRIMINATORS.items() if name not in said})


@dataclass(frozen=True)
class Phase:
    """A stretch of the run at one resolution.

    Attributes:
        height: of the panoramas in pixels; the width is twice as much.
        steps: optimizer steps.
        batch: samples a step.
        lr_scale: factor on the learning rate.
    """

    height: int
    steps: int
    batch: int
    lr_scale: float = 1.0

    @property
    def samples(self) -> int:
        return self.steps * self.batch


@dataclass(frozen=True)
class StreamConfig:
    """The stream of rendered scenes.

    Attributes:
        kind: which scenes, as `training.synthetic` names them.
        passes: how often a scene is seen, with other augmentation each time. Few: scenes are fresh and rendering is
            the bottleneck; many: the scenes are learnt by heart.
        shard_size: scenes a file; in memory, scenes rendered together: too few leave a GPU idle, too many hold up the
            step that wants the first of them.
        window: shards that are mixed with one another. Too few: neighbouring batches resemble each other; too many:
            memory (a scene takes 5 bytes a pixel) and, from disk, a late start.
        scenes_in: where scenes wait for the training. `disk`: files that processes on the CPU write ahead; `memory`:
            rendered by the process and on the device that train, no file; `auto`: memory on a GPU, disk on a CPU.
        workers: processes that render to disk ahead. With 0 the training renders each shard when it needs it.
        ahead: shards rendered to disk beyond the window.
        cache_gb: shards that were used up are deleted, oldest first, when a size's shards take more than this many GB.
    """

    kind: Kind = "mixed"
    passes: int = 2
    shard_size: int = 32
    window: int = 16
    scenes_in: ScenesIn = "auto"
    workers: int = 1
    ahead: int = 8
    cache_gb: float = 8.0

    def in_memory(self, device_type: str) -> bool:
        """Whether scenes wait in memory when a device of that type (`cpu`, `cuda`) trains."""
        return self.scenes_in == "memory" or (self.scenes_in == "auto" and device_type == "cuda")


@dataclass(frozen=True)
class AugmentationConfig:
    """How a sample changes each time it is seen. Yaw roll by any number of columns is always done.

    Attributes:
        flip: probability of a left-right flip.
        strength: factor on all photometric ranges and probabilities below; a prototype found 1 too much and 0 too
            little for short runs.
        exposure, contrast, saturation, hue, gamma, white_balance: half width of the range of the natural logarithm of
        the factor (hue: of the
            turn in radians around the grey axis; white balance: each channel by itself).
        blur, noise: probability; blur has up to 1 pixel of standard deviation, noise up to 0.04 of full scale.
        soften: probability that the picture is halved and doubled again, as a small photograph is when the network is
            fed at a larger size.
        veil, compression: probability of white light of up to 35% over the picture, and of its being a JPEG of quality
            15 to 60, as poor cameras and collections have them.
    """

    flip: float = 0.5
    strength: float = 0.5
    exposure: float = 0.6
    contrast: float = 0.4
    saturation: float = 0.6
    hue: float = 0.3
    gamma: float = 0.4
    white_balance: float = 0.25
    blur: float = 0.4
    noise: float = 0.6
    soften: float = 0.4
    veil: float = 0.0
    compression: float = 0.0


@dataclass(frozen=True)
class PerturbationConfig:
    """What is done to pseudo-labelled panoramas before the next labeler learns from them; their labels stay.

    A student that sees what its labeler saw learns the labeler's mistakes, too. One that sees far worse pictures with
    the same labels has to find what does not depend on the picture's quality: Depth Anything's strong perturbations
    (arXiv 2401.10891, 3.2), with bands of longitude in place of rectangles. Numbers are choices.

    Attributes:
        augmentation: light, colour and sharpness, on top of the stage's own; neither rolled nor flipped.
        mixed: probability that a band of longitudes, with its labels, comes from another panorama.
        narrowest, widest: of such a band, as shares of the width.
        labelled: share of the panoramas with true depth that are changed so, too, in the stages that see both.
    """

    augmentation: AugmentationConfig = field(
        default_factory=lambda: AugmentationConfig(strength=2.0, veil=0.25, compression=0.25)
    )
    mixed: float = 0.5
    narrowest: float = 0.2
    widest: float = 0.5
    labelled: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.mixed <= 1 and 0 <= self.labelled <= 1 and 0 < self.narrowest <= self.widest < 1):
            raise TrainingError(f"mixed, labelled, narrowest and widest are shares between 0 and 1; not {self}")


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with a learning rate of their own.

    Attributes:
        pattern: regular expression that their names begin with; a parameter belongs to the first group that it fits.
        lr_scale: factor on the learning rate.
    """

    pattern: str
    lr_scale: float


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW under a warm-up, constant, cool-down schedule.

    Attributes:
        learning_rate: at the plateau.
        weight_decay: of matrices and kernels; never of biases, norms and scales.
        betas: of AdamW.
        warmup_steps: the rate rises linearly over these.
        cooldown_steps: the rate falls linearly to zero over the last steps. The plateau before it can be extended, or
            cut short, at any resume.
        clip: largest norm of the gradient.
        ema: decay of the running mean of the parameters that is evaluated and exported; shorter at the beginning of
            each phase, since what was learnt at another size is soon out of date (measured 300 steps into a second
            phase, when the mean ran on: delta1 on rendered scenes .42 of the mean, .72 of the parameters).
        bad_steps: a step whose loss or gradient is not finite is skipped; more of them than this end the run.
        pretrained_lr_scale: factor on the learning rate of weights that were learnt on photographs (`initial`), which
            also do not decay: what they know is not to be unlearnt on rendered scenes.
        groups: take the place of `pretrained_lr_scale`. All that is trained belongs to one of them.
        frozen: regular expressions; parameters whose names begin with one keep their values.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int = 200
    cooldown_steps: int = 2000
    clip: float = 1.0
    ema: float = 0.999
    bad_steps: int = 20
    pretrained_lr_scale: float = 0.1
    groups: tuple[ParameterGroup, ...] = ()
    frozen: tuple[str, ...] = ()


# Adam at 5e-6 in the encoder and 5e-5 in the rest, as the paper has it (arXiv 2512.16913). Schedule, clipping and
# averaging are not published: a constant rate after a warm-up is a choice, and a cool-down can be had at any resume.
OPTIMIZER_PRESETS: dict[str, OptimizerConfig] = {
    "dap-s": OptimizerConfig(),
    "paper": OptimizerConfig(
        learning_rate=5e-5,
        weight_decay=0.0,
        betas=(0.9, 0.999),
        warmup_steps=1000,
        cooldown_steps=0,
        groups=(ParameterGroup(r"encoder\.", 0.1), ParameterGroup(r"depth_head\.|(added_)?mask_heads?\.", 1.0)),
    ),
}


@dataclass(frozen=True)
class ReportConfig:
    """How often the run tells of itself, in steps.

    Attributes:
        log: a line of losses.
        evaluate: metrics on the validation scenes (and the development folder), with a preview picture.
        checkpoint: what a resume starts from.
        keep: checkpoints kept, the newest.
        validation_scenes: rendered scenes of fixed seeds that are never trained on.
    """

    log: int = 20
    evaluate: int = 500
    checkpoint: int = 250
    keep: int = 2
    validation_scenes: int = 64


@dataclass(frozen=True)
class TrainingConfig:
    """A whole run.

    Attributes:
        network: what is trained.
        phases: resolutions, one after the other.
        initial: what the network starts from: `random` numbers; in the encoder the weights that `imagenet` taught its
            convolutions, or those of a `dinov3` file; or a whole `model` of ours.
        weights: file of the `dinov3` weights or the `model`.
        seed: of the initial parameters, the order of the samples and the augmentation. Scenes have seeds of their own.
        precision: `bf16` runs the network under autocast; parameters and losses stay float32. `auto` does so on a GPU
            and computes in float32 on a CPU.
        channels_last: memory layout of the network.
        compile: run the network through torch.compile.
        accumulate: parts of a process's share of a batch that run one after the other, for the memory of one; the
            gradient is that of the whole.
        checkpoint_activations: keep only what goes into each transformer block, and compute the rest again in the
            backward pass: about a third more time for a fraction of the memory.
        sharded: spread parameters, gradients and optimizer over the processes (FSDP2), for encoders that one device
            does not hold; otherwise each process has all of them (DDP).
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    phases: tuple[Phase, ...] = (Phase(height=128, steps=10_000, batch=16),)
    loss: LossWeights = field(default_factory=LossWeights)
    stream: StreamConfig = field(default_factory=StreamConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    initial: Initial = "random"
    weights: str = ""
    seed: int = 0
    precision: Literal["auto", "float32", "bf16"] = "auto"
    channels_last: bool = False
    compile: bool = False
    accumulate: int = 1
    checkpoint_activations: bool = False
    sharded: bool = False

    def __post_init__(self) -> None:
        if not self.phases:
            raise TrainingError("a run has at least one phase")
        for phase in self.phases:
            if min(phase.height, phase.steps, phase.batch) < 1 or phase.height % PATCH:
                raise TrainingError(
                    f"a phase has a height that is a multiple of {PATCH}, a step and a sample at least; not {phase}"
                )
            if phase.batch < self.accumulate or self.accumulate < 1:
                raise TrainingError(f"a batch of {phase.batch} cannot be accumulated in {self.accumulate} parts")
        if (self.initial in ("dinov3", "model")) != bool(self.weights):
            raise TrainingError(f"dinov3 and model start from a file of weights: {self.initial}, {self.weights!r}")
        if self.sharded and self.channels_last:
            raise TrainingError("sharded parameters are contiguous: they cannot be channels_last")
        stream = self.stream
        if stream.passes < 1 or stream.window < 1 or stream.window % stream.passes:
            raise TrainingError(
                f"the window ({stream.window} shards) must be a positive multiple of the passes ({stream.passes})"
            )

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> tuple[int, Phase]:
        """How many samples of a step's size were drawn before it, and its phase (beyond the end, the last one)."""
        index, begin = self._phase_index(step)
        phase = self.phases[index]
        earlier = sum(before.samples for before in self.phases[:index] if before.height == phase.height)
        return earlier + (step - begin) * phase.batch, phase

    def _phase_index(self, step: int) -> tuple[int, int]:
        """Which phase a step belongs to, and the step at which that phase begins."""
        begin = 0
        for index, phase in enumerate(self.phases[:-1]):
            if step < begin + phase.steps:
                return index, begin
            begin += phase.steps
        return len(self.phases) - 1, begin

    def learning_rate_at(self, step: int) -> float:
        """Warm-up, plateau and cool-down (arXiv 2405.18392), times the scale of the phase."""
        optimizer = self.optimizer
        _, phase = self.phase_at(step)
        rise = min(1.0, (step + 1) / max(1, optimizer.warmup_steps))
        fall = min(1.0, (self.steps - step) / max(1, optimizer.cooldown_steps))
        return optimizer.learning_rate * phase.lr_scale * min(rise, fall)

    def uses_bf16(self, device_type: str) -> bool:
        """Whether the network runs in bf16 on a device of that type (`cpu`, `cuda`)."""
        return self.precision == "bf16" or (self.precision == "auto" and device_type == "cuda")

    def average_decay_at(self, step: int) -> float:
        """Decay of the running mean at a step: that of a plain mean at the beginning of its phase, at most `ema`."""
        _, begin = self._phase_index(step)
        return min(self.optimizer.ema, (1 + step - begin) / (10 + step - begin))

    def finishing(self, step: int) -> "TrainingConfig":
        """The same run with its cool-down beginning at `step`, in the phase of that step, and its end after it."""
        index, begin = self._phase_index(step)
        last = replace(self.phases[index], steps=step - begin + self.optimizer.cooldown_steps)
        return replace(self, phases=(*self.phases[:index], last))

    def to_json(self) -> str:
        return _TRAINING.dump_json(self, indent=2).decode()

    @classmethod
    def from_json(cls, text: str) -> "TrainingConfig":
        """Read what `to_json` wrote.

        Raises:
            TrainingError: a field is missing its type or its name is unknown.
        """
        return read_json(_TRAINING, text, "training")


# They saw depth alone, sky was a hole, and all predictions were false.
_FIRST_DISCRIMINATORS: dict[str, Any] = {"picture": "none", "sky": False, "target": "zero"}
_TRAINING = TypeAdapter(TrainingConfig)
_DISCRIMINATOR = TypeAdapter(DiscriminatorConfig)


def read_json(adapter: TypeAdapter[Config], text: str, kind: str) -> Config:
    """A configuration from the JSON that its `to_json` wrote.

    Args:
        adapter: of its class.
        text: the JSON.
        kind: what the error calls it: `training`.

    Raises:
        TrainingError: a value has not the type of its field, or no field has its name.
    """
    try:
        return adapter.validate_json(text, extra="forbid")
    except ValidationError as error:
        raise TrainingError(f"not a {kind} configuration: {error}") from error


PRESETS: dict[str, TrainingConfig] = {
    "dap-s": TrainingConfig(
        phases=(Phase(height=128, steps=3700, batch=8), Phase(height=256, steps=1000, batch=4, lr_scale=0.5)),
        optimizer=OptimizerConfig(cooldown_steps=900),
        precision="bf16",
    ),
    "smoke": TrainingConfig(
        network=NetworkConfig(encoder="hybrid-xs"),
        phases=(Phase(height=32, steps=6, batch=2), Phase(height=64, steps=4, batch=2)),
        stream=StreamConfig(shard_size=4, window=2, ahead=1),
        optimizer=OptimizerConfig(warmup_steps=2, cooldown_steps=4),
        report=ReportConfig(log=2, evaluate=5, checkpoint=4, validation_scenes=4),
    ),
}
