"""What a run of the three-stage pipeline is, and the presets. What the paper does not say is a choice, and named so.

DAP (arXiv 2512.16913): stage 1, the Scene-Invariant Labeler, learns from labelled panoramas; a discriminator learns to
tell true depth from what stage 1 predicts, and scores its pseudo-labels; stage 2, the Realism-Invariant Labeler, learns
from the labelled panoramas and the best pseudo-labels; stage 3, DAP, from all of them, labelled by stage 2.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from pydantic import TypeAdapter

from dap.errors import TrainingError
from dap.model.config import NetworkConfig
from training.config import (
    LOSS_PRESETS,
    OPTIMIZER_PRESETS,
    AugmentationConfig,
    DiscriminatorConfig,
    OptimizerConfig,
    ParameterGroup,
    PerturbationConfig,
    Phase,
    ReportConfig,
    StreamConfig,
    TrainingConfig,
    read_json,
)
from training.synthetic.sampling import Domain, Kind


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes that stand in for a data set that is not at hand; the pipeline packs them itself.

    Attributes:
        count: how many.
        first_seed: the others follow; no two data sets of a run share any.
        height: of the panoramas.
        kind: of scene.
        domain: how they look.
        shard_size: scenes a shard.
    """

    count: int
    first_seed: int
    height: int
    kind: Kind = "mixed"
    domain: Domain = "standard"
    shard_size: int = 64


@dataclass(frozen=True)
class ShardData:
    """A folder of shards.

    Attributes:
        name: of the folder, below the folder of data.
        weight: how often it is seen, in proportion to the others of its kind.
        scenes: what it holds if it is rendered; None for one that `dap data pack` wrote.
        curation: of unlabelled panoramas, name of the folder that `dap data curate` wrote; empty to take all of them,
            which then must say whether they are indoor or outdoor.
    """

    name: str
    weight: float = 1.0
    scenes: Scenes | None = None
    curation: str = ""


@dataclass(frozen=True)
class Selected:
    """How many of the best pseudo-labels join the labelled data in stage 2."""

    indoor: int = 300_000
    outdoor: int = 300_000


@dataclass(frozen=True)
class LabellingConfig:
    """How pseudo-labels are made.

    Attributes:
        batch: panoramas at a time.
        precision: of the network.
        ray: by Ray Data, on one machine or a cluster; else in this process, for a few.
    """

    batch: int = 8
    precision: Literal["fp32", "bf16"] = "fp32"
    ray: bool = True


@dataclass(frozen=True)
class PipelineConfig:
    """A whole run.

    Attributes:
        labelled: what stage 1 learns from.
        unlabelled: what is pseudo-labelled.
        tests: labelled and never trained on; each stage is evaluated on them.
        stage_1: the Scene-Invariant Labeler.
        discriminator: see there.
        discriminator_batch: pairs of truth and prediction a step.
        held_out: share of each labelled data set's shards, the last ones, that stages 1 and 2 never see. The
            discriminator is trained on them: predictions for panoramas that a labeler has learnt by heart are better
            than pseudo-labels are. The paper does not say how it did that.
        selected: for stage 2.
        stage_2: the Realism-Invariant Labeler.
        stage_2_from: what it starts from: the weights of stage 1 or, as `stage_2` says, its own. Not published.
        pseudo_share_2: share of pseudo-labels in what stage 2 sees. Not published.
        stage_3: DAP.
        stage_3_from: what it starts from: the weights of stage 2 or, as `stage_3` says, its own. Not published.
        pseudo_share_3: share of pseudo-labels in what stage 3 sees. Not published.
        stage_3_sees_held_out: whether stage 3 learns from what was held out, too: the more labels the better. Without
            it, stages 1 and 3 have the same labels, and what sets them apart are the pseudo-labels.
        perturbation: of pseudo-labelled panoramas, and of labelled ones if it says so, in stages 2 and 3; None for none
            but the stages' own augmentation, as in the paper.
        fresh_scenes: weight of scenes rendered as they are needed, never twice, beside the labelled data; 0 for none.
        labelling: see there.
        window: shards that are mixed with one another while they are read.
    """

    labelled: tuple[ShardData, ...]
    unlabelled: tuple[ShardData, ...]
    tests: tuple[ShardData, ...]
    stage_1: TrainingConfig
    stage_2: TrainingConfig
    stage_3: TrainingConfig
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    discriminator_batch: int = 16
    held_out: float = 0.1
    selected: Selected = field(default_factory=Selected)
    stage_2_from: Literal["stage-1", "own"] = "stage-1"
    pseudo_share_2: float = 0.5
    stage_3_from: Literal["stage-2", "own"] = "own"
    pseudo_share_3: float = 0.5
    stage_3_sees_held_out: bool = True
    perturbation: PerturbationConfig | None = None
    fresh_scenes: float = 0.0
    labelling: LabellingConfig = field(default_factory=LabellingConfig)
    window: int = 4

    def __post_init__(self) -> None:
        names = [data.name for data in (*self.labelled, *self.unlabelled, *self.tests)]
        if not self.labelled or not self.unlabelled or len(set(names)) != len(names):
            raise TrainingError(f"a run has labelled and unlabelled data, each of its own name; not {names}")
        if not (0 < self.held_out < 1 and 0 < self.pseudo_share_2 < 1 and 0 < self.pseudo_share_3 < 1):
            raise TrainingError("held_out, pseudo_share_2 and pseudo_share_3 are between 0 and 1")
        ranges = sorted(
            (data.scenes.first_seed, data.scenes.first_seed + data.scenes.count, data.name)
            for data in (*self.labelled, *self.unlabelled, *self.tests)
            if data.scenes is not None
        )
        for (_, end, one), (begin, _, other) in pairwise(ranges):
            if begin < end:
                raise TrainingError(f"{one} and {other} share seeds of scenes")

    def with_seed(self, seed: int) -> "PipelineConfig":
        """The same run with another seed in everything that is drawn but the data."""
        return replace(
            self,
            stage_1=replace(self.stage_1, seed=seed),
            stage_2=replace(self.stage_2, seed=seed),
            stage_3=replace(self.stage_3, seed=seed),
            discriminator=replace(self.discriminator, seed=seed),
        )

    def to_json(self) -> str:
        return _PIPELINE.dump_json(self, indent=2).decode()

    @classmethod
    def from_json(cls, text: str) -> "PipelineConfig":
        """Read what `to_json` wrote.

        Raises:
            TrainingError: a field is missing its type or its name is unknown.
        """
        return read_json(_PIPELINE, text, "pipeline")


_PIPELINE = TypeAdapter(PipelineConfig)


# Always, by factors of up to 1.2 and a tenth of a turn of hue; the paper does so to every other panorama.
_PAPER_AUGMENTATION = AugmentationConfig(
    strength=1.0, exposure=0.18, contrast=0.18, saturation=0.18, hue=0.63, gamma=0.0, white_balance=0.0,
    blur=0.0, noise=0.0, soften=0.0,
)  # fmt: skip

# What goes on from an earlier stage has convolutions that ImageNet taught, and are still to be changed little.
_GENTLE = (ParameterGroup(r"encoder\.(stem|stages)\.", 0.1), ParameterGroup("", 1.0))


def _paper() -> PipelineConfig:
    """The sizes are the paper's. Not published, so choices: epochs, batch, what is spherical, how data are mixed.

    Data are mixed by their sizes, as if each panorama were drawn alike. About ten passes over the labelled panoramas in
    stage 1, three over those of stage 2, two over those of stage 3, 32 at a time.
    """
    stage = TrainingConfig(
        network=NetworkConfig("vit-l", thresholds=(100.0,), spherical=False, depth_activation="linear"),
        phases=(Phase(height=512, steps=34_000, batch=32),),
        loss=LOSS_PRESETS["paper"],
        augmentation=_PAPER_AUGMENTATION,
        optimizer=OPTIMIZER_PRESETS["paper"],
        report=ReportConfig(log=50, evaluate=2000, checkpoint=1000),
        initial="dinov3",
        weights="dinov3_vitl16_pretrain_lvd1689m.pth",
        precision="bf16",
        checkpoint_activations=True,
    )
    return PipelineConfig(
        labelled=(ShardData("structured3d", 18_298), ShardData("airsim360", 90_000)),
        unlabelled=(
            ShardData("web-videos", 1_700_000, curation="web-videos-curation"),
            ShardData("dit360-indoor", 200_000, curation="dit360-indoor-curation"),
        ),
        tests=(ShardData("stanford2d3d-test"), ShardData("deep360-test")),
        stage_1=stage,
        stage_2=replace(stage, phases=(Phase(height=512, steps=66_000, batch=32),)),
        stage_3=replace(stage, phases=(Phase(height=512, steps=126_000, batch=32),)),
        pseudo_share_2=0.85,
        pseudo_share_3=0.95,
        # Of the discriminator the paper says that it tells truth from prediction. Taken at its word, with depth alone,
        # `DiscriminatorConfig(picture="none", sky=False, target="zero")`, it selects worse labels than chance wherever
        # that was measured (docs/training-results.md); so here it is what selects better ones.
        discriminator=DiscriminatorConfig(augmentation=_PAPER_AUGMENTATION),
        labelling=LabellingConfig(precision="bf16"),
    )


def _dap_s() -> PipelineConfig:
    """The bundled model: 82 minutes of two cores once its scenes are rendered; of one domain it sees pictures only."""
    stage = TrainingConfig(
        network=NetworkConfig("efficientnet-lite0"),
        phases=(Phase(height=128, steps=900, batch=8),),
        optimizer=OptimizerConfig(cooldown_steps=225),
        report=ReportConfig(log=20, evaluate=450, checkpoint=100),
        initial="imagenet",
        precision="bf16",
    )
    further = replace(stage.optimizer, learning_rate=5e-4, warmup_steps=50, cooldown_steps=150, groups=_GENTLE)
    return PipelineConfig(
        labelled=(ShardData("dap-s-labelled", scenes=Scenes(2880, 50_000_000, 256)),),
        unlabelled=(ShardData("dap-s-real-like", scenes=Scenes(1280, 60_000_000, 256, domain="real-like")),),
        tests=(
            ShardData("dap-s-test-standard", scenes=Scenes(96, 70_000_000, 256)),
            ShardData("dap-s-test-real-like", scenes=Scenes(96, 80_000_000, 256, domain="real-like")),
        ),
        stage_1=stage,
        # What was learnt at one size is worth little at another (docs/decisions/0014): the first labels are made at 128
        # rows, whatever learns from them goes on to 256.
        stage_2=replace(
            stage,
            phases=(Phase(height=128, steps=200, batch=8), Phase(height=256, steps=150, batch=4)),
            optimizer=replace(further, cooldown_steps=100),
            report=replace(stage.report, evaluate=350),
        ),
        stage_3=replace(
            stage,
            phases=(Phase(height=256, steps=850, batch=4),),
            optimizer=replace(further, cooldown_steps=300),
            report=replace(stage.report, evaluate=425),
        ),
        stage_3_from="stage-2",
        # As it was when the bundled weights were made, but that its learning rate did not fall then.
        discriminator=DiscriminatorConfig(
            height=128,
            sky=False,
            target="zero",
            augmentation=AugmentationConfig(strength=0.0),
            channels=(32, 64, 128, 128),
            steps=200,
            checkpoint=100,
        ),
        discriminator_batch=8,
        selected=Selected(indoor=320, outdoor=100),
        pseudo_share_2=0.3,
        pseudo_share_3=0.25,
        labelling=LabellingConfig(ray=False),
    )


def _small() -> PipelineConfig:
    """Half an hour on one CPU core, all rendered: the three stages from clean labelled scenes to found photographs.

    As in the paper, what has labels looks as synthetic data do, and stage 1 changes its colours as little; a third of
    the pseudo-labels is selected, as many indoor as outdoor ones; stage 3 has all labels, a quarter more than stage 1,
    and is the longest. The later stages go on from the earlier, and perturb what is pseudo-labelled and half of the
    rest: a true depth under a poor picture is worth more than a labeler's. What the same labels and steps come to
    without pseudo-labels, perturbed or not, `labels-alone` of `training.experiments` says.
    """
    first = TrainingConfig(
        network=NetworkConfig("efficientnet-lite0"),
        phases=(Phase(height=64, steps=600, batch=8),),
        augmentation=_PAPER_AUGMENTATION,
        optimizer=OptimizerConfig(warmup_steps=100, cooldown_steps=200),
        report=ReportConfig(log=50, evaluate=500, checkpoint=250),
        initial="imagenet",
        precision="bf16",
    )

    def further(steps: int, cooldown: int) -> TrainingConfig:
        optimizer = replace(
            first.optimizer, learning_rate=5e-4, warmup_steps=50, cooldown_steps=cooldown, groups=_GENTLE
        )
        return replace(first, phases=(Phase(height=64, steps=steps, batch=8),), optimizer=optimizer)

    return replace(
        _rendered_small("clean", "in-the-wild"),
        stage_1=first,
        stage_2=further(1500, 500),
        pseudo_share_2=0.3,
        stage_3=further(1500, 500),
        stage_3_from="stage-2",
        stage_3_sees_held_out=True,
        pseudo_share_3=0.5,
        discriminator=DiscriminatorConfig(height=64, channels=(32, 64, 128, 128), steps=500),
        held_out=0.2,
        perturbation=PerturbationConfig(labelled=0.5),
        selected=Selected(indoor=930, outdoor=930),
    )


def _selection() -> PipelineConfig:
    """For what the discriminator is worth: a labeler of minutes, and a long look at its labels.

    The labelled panoramas that the labeler learns from are few, 384, and all others are held out: from 68 pairs of
    truth and prediction a discriminator learns nothing that ranks, from 1,600 it does.
    """
    return replace(
        _rendered_small("standard", "real-like"),
        held_out=0.8,
        discriminator=DiscriminatorConfig(height=64, channels=(32, 64, 128, 128), steps=1000),
        selected=Selected(indoor=300, outdoor=300),
    )


def _rendered_small(labelled: Domain, unlabelled: Domain) -> PipelineConfig:
    """Scenes of 64 rows, some with labels and many without, and stages of half a million parameters."""
    stage = TrainingConfig(
        network=NetworkConfig("hybrid-xs"),
        phases=(Phase(height=64, steps=1500, batch=8),),
        optimizer=OptimizerConfig(warmup_steps=100, cooldown_steps=375),
        report=ReportConfig(log=50, evaluate=750, checkpoint=250),
    )
    return PipelineConfig(
        labelled=(ShardData(f"small-{labelled}", scenes=Scenes(2000, 10_000_000, 64, domain=labelled)),),
        unlabelled=(ShardData(f"small-{unlabelled}", scenes=Scenes(6000, 20_000_000, 64, domain=unlabelled)),),
        tests=(
            ShardData(f"small-test-{labelled}", scenes=Scenes(192, 30_000_000, 64, domain=labelled)),
            ShardData(f"small-test-{unlabelled}", scenes=Scenes(192, 40_000_000, 64, domain=unlabelled)),
        ),
        stage_1=stage,
        stage_2=stage,
        stage_3=stage,
        discriminator_batch=8,
        stage_3_sees_held_out=False,
        pseudo_share_3=0.5,
        labelling=LabellingConfig(ray=False),
    )


def _ablation() -> PipelineConfig:
    """For what the first stage tells apart alone, and needs many runs of it: two minutes each, with more labels."""
    selection = _selection()
    stage = replace(
        selection.stage_1,
        phases=(Phase(height=64, steps=1000, batch=8),),
        optimizer=OptimizerConfig(warmup_steps=100, cooldown_steps=250),
        report=replace(selection.stage_1.report, evaluate=1000),
    )
    return replace(selection, stage_1=stage, held_out=0.2)


def _smoke() -> PipelineConfig:
    """Every stage in seconds: shows that it runs, and nothing about how well."""
    stage = TrainingConfig(
        network=NetworkConfig("hybrid-xs"),
        phases=(Phase(height=32, steps=4, batch=2),),
        stream=StreamConfig(shard_size=4, window=2, ahead=0, workers=0),
        optimizer=OptimizerConfig(warmup_steps=1, cooldown_steps=2),
        report=ReportConfig(log=1, evaluate=4, checkpoint=2, keep=1),
    )
    return PipelineConfig(
        labelled=(ShardData("smoke-labelled", scenes=Scenes(8, 10_000_000, 32, shard_size=4)),),
        unlabelled=(ShardData("smoke-real-like", scenes=Scenes(8, 20_000_000, 32, domain="real-like", shard_size=4)),),
        # One is outdoors: without sky there is no range mask to measure.
        tests=(
            ShardData("smoke-test-standard", scenes=Scenes(2, 30_000_002, 32)),
            ShardData("smoke-test-real-like", scenes=Scenes(2, 40_000_005, 32, domain="real-like")),
        ),
        stage_1=stage,
        stage_2=stage,
        stage_3=replace(stage, loss=LOSS_PRESETS["paper"]),
        discriminator=DiscriminatorConfig(height=32, channels=(4, 4, 8, 8), steps=4, log=1, checkpoint=2),
        discriminator_batch=2,
        held_out=0.5,
        selected=Selected(indoor=2, outdoor=1),
        fresh_scenes=0.5,
        labelling=LabellingConfig(batch=4, ray=False),
    )


PIPELINES: dict[str, PipelineConfig] = {
    "paper": _paper(),
    "dap-s": _dap_s(),
    "small": _small(),
    "selection": _selection(),
    "ablation": _ablation(),
    "smoke": _smoke(),
}
