"""What a run of the pipeline would take, before it runs: FLOP, memory, hours and storage of every stage.

Shapes, FLOP and bytes are computed (`training.step_trace`), counts come from the configuration, from shards that are at
hand or from what was published. All else is an assumption, and `Plan.assumptions` names each.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from dap import headers
from dap.errors import TrainingError
from training.config import Phase, TrainingConfig
from training.datasets.shards import DEPTH, PICTURES, Member, ShardReader
from training.pipeline_config import PipelineConfig, ShardData
from training.step_trace import StepTrace, trace_discriminator, trace_step

PUBLISHED = {
    "structured3d": 18_298,
    "airsim360": 90_000,
    "web-videos": 1_700_000,
    "dit360-indoor": 200_000,
    "stanford2d3d-test": 373,
    "deep360-test": 600,
}
"""Panoramas of the data of the paper preset (arXiv 2512.16913; the test sets as published with them)."""

HEADROOM = 0.1
"""Share of a device's memory that is left to kernels, allocator and exchange of gradients: an assumption."""

_FLOAT32 = 4
_TAR_BLOCK = 512
_MEASURED_PANORAMAS = 64


@dataclass(frozen=True)
class PackedSize:
    """What a panorama takes in shards.

    Attributes:
        picture: bytes a pixel of the picture.
        depth: of true depth.
        label: of the depth of a pseudo-label.
        rest: bytes of metadata, and of the tar around the members.
        decoding: seconds in which one core decodes picture and depth of a megapixel; None where it was not measured.
        source: where these numbers are from.
    """

    picture: float
    depth: float
    label: float
    rest: float
    decoding: float | None
    source: str

    def of(self, panoramas: int, height: int, *members: Literal["picture", "depth", "label"]) -> int:
        """Bytes of so many panoramas with these members."""
        a_pixel: float = sum(getattr(self, member) for member in members)
        return round(panoramas * (a_pixel * 2 * height**2 + self.rest))


ASSUMED_SIZE = PackedSize(
    0.31,
    0.37,
    0.85,
    2560.0,
    None,
    "0.31 a pixel of a picture, as five real ones had at 512x1024 (JPEG, quality 95), 0.37 of true depth, as 40 "
    "rendered scenes had there, 0.85 of a pseudo-label, as those of dap-s had at 256x512",
)


@dataclass(frozen=True)
class Means:
    """What a run would be done with.

    Attributes:
        devices: GPUs that share a training, and that label.
        memory_gb: of each, in units of 10^9 bytes.
        size: of panoramas in shards.
        data: folder of the folders of shards: those that are there are counted.
    """

    devices: int = 8
    memory_gb: float = 80.0
    size: PackedSize = ASSUMED_SIZE
    data: Path | None = None

    def __post_init__(self) -> None:
        if self.devices < 1 or self.memory_gb <= 0:
            raise TrainingError(f"a plan needs a device and memory; got {self.devices} with {self.memory_gb} GB")


@dataclass(frozen=True)
class Fit:
    """How a device's share of a batch fits into its memory.

    Attributes:
        checkpoint_activations: whether activations are computed again in the backward pass.
        once: bytes of a step whatever the batch.
        per_sample: bytes of each sample.
        step_flop: FLOP of a sample.
        most: samples that fit at a time; 0 if not even one does.
        accumulate: parts that the share has to be cut into; None if not even one sample fits.
        bytes: in use then, all counted.
    """

    checkpoint_activations: bool
    once: int
    per_sample: int
    step_flop: int
    most: int
    accumulate: int | None
    bytes: int | None


@dataclass(frozen=True)
class PhasePlan:
    """A stretch of a training at one resolution.

    Attributes:
        height: of the panoramas.
        steps: of the optimizer.
        batch: samples a step.
        share: of these, those of one device.
        flop: of all of it, as configured.
        fits: with activations kept, and computed again where the network can do that.
    """

    height: int
    steps: int
    batch: int
    share: int
    flop: int
    fits: tuple[Fit, ...]


@dataclass(frozen=True)
class StagePlan:
    """A stage.

    Attributes:
        name: of it.
        panoramas: that it packs, sees, labels or scores, each as often as it does so.
        steps: of the optimizer; 0 where nothing is trained.
        flop: of all of it.
        devices: that work on it.
        storage: bytes that it leaves or, in a training, has on disk at most.
        phases: of a training.
        held_bytes: of a training, on each device: parameters, gradients, optimizer state and running mean.
        hours: at a rate, see `Plan.at`; None without one.
        cost: of these.
    """

    name: str
    panoramas: int
    steps: int
    flop: int
    devices: int
    storage: int
    phases: tuple[PhasePlan, ...] = ()
    held_bytes: int | None = None
    hours: float | None = None
    cost: float | None = None


@dataclass(frozen=True)
class Plan:
    """A run on paper.

    Attributes:
        stages: in order.
        traces: of each network and size that is trained, by stage and height, as `stage-1-labeler at 512`.
        label_flop: of one panorama that is labelled.
        data: panoramas of each data set.
        assumptions: what is neither computed nor measured, in words.
    """

    stages: tuple[StagePlan, ...]
    traces: dict[str, StepTrace]
    label_flop: int
    data: dict[str, int]
    assumptions: tuple[str, ...]

    def at(self, tflops: float, source: str, price: float | None = None) -> "Plan":
        """The plan with hours, stage after stage.

        Args:
            tflops: 10^12 counted FLOP a second that a device achieves.
            source: where this number is from.
            price: of an hour of a device, for the cost.

        Raises:
            TrainingError: the rate is not above zero.
        """
        if tflops <= 0:
            raise TrainingError(f"a rate above zero was expected, not {tflops} TFLOP/s")
        stages = []
        for stage in self.stages:
            hours = stage.flop / (stage.devices * tflops * 1e12) / 3600
            cost = None if price is None else hours * stage.devices * price
            stages.append(replace(stage, hours=hours, cost=cost))
        said = [f"each device achieves {tflops:.3g} TFLOP/s in every stage: {source}"]
        said += [] if price is None else [f"an hour of a device costs {price:g}: given, not looked up"]
        return replace(self, stages=tuple(stages), assumptions=(*self.assumptions, *said))

    @property
    def flop(self) -> int:
        """Of the whole."""
        return sum(stage.flop for stage in self.stages)

    @property
    def storage(self) -> int:
        """Bytes of the whole."""
        return sum(stage.storage for stage in self.stages)

    @property
    def hours(self) -> float | None:
        """Of the whole, one stage after the other."""
        return _sum([stage.hours for stage in self.stages])

    @property
    def cost(self) -> float | None:
        """Of the whole."""
        return _sum([stage.cost for stage in self.stages])


def make_plan(config: PipelineConfig, means: Means) -> Plan:
    """Plan a run.

    Raises:
        TrainingError: how many panoramas a data set has is not known; a batch is smaller than the number of devices.
        DatasetError: shards that are at hand cannot be read.
    """
    return _Planner(config, means).plan()


def packed_size(shards: Sequence[ShardReader], labels: Sequence[ShardReader]) -> PackedSize:
    """Measure what panoramas take in shards, and how long a core decodes one, on the first of each folder.

    Args:
        shards: of panoramas; some have depth.
        labels: of pseudo-labels.

    Raises:
        TrainingError: there is no picture, no depth or no pseudo-label among them.
        DatasetError: a sample cannot be decoded.
    """
    sizes: dict[str, list[tuple[int, int]]] = {"picture": [], "depth": [], "label": []}
    rest, seconds = [], 0.0
    for reader, kind in (*((one, "depth") for one in shards), *((one, "label") for one in labels)):
        for member in islice(_every_member(reader), _MEASURED_PANORAMAS):
            if kind == "depth":
                begun = time.perf_counter()
                member.decode()
                seconds += time.perf_counter() - begun
            packed = 0
            for ending, content in member.files.items():
                packed += _TAR_BLOCK + math.ceil(len(content) / _TAR_BLOCK) * _TAR_BLOCK
                if ending == DEPTH or ending in PICTURES:
                    height, width = headers.read(content).stored_size
                    sizes["picture" if ending in PICTURES else kind].append((len(content), height * width))
                    packed -= len(content)
            rest.append(packed)
    missing = [kind for kind, found in sizes.items() if not found]
    if missing:
        raise TrainingError(f"sizes are measured on panoramas, depth and pseudo-labels; there is no {missing[0]}")
    per_pixel = {kind: sum(size for size, _ in found) / sum(n for _, n in found) for kind, found in sizes.items()}
    decoding = seconds / sum(pixels for _, pixels in sizes["picture"]) * 1e6
    source = ", ".join(f"{per_pixel[kind]:.2f} a pixel of {len(found)} x {kind}" for kind, found in sizes.items())
    source += f", measured in {', '.join(str(reader.folder) for reader in (*shards, *labels))}"
    return PackedSize(**per_pixel, rest=sum(rest) / len(rest), decoding=decoding, source=source)


def _every_member(reader: ShardReader) -> Iterator[Member]:
    return (member for index in range(len(reader.manifest.shards)) for member in reader.members(index))


def panoramas_of(data: ShardData, folder: Path | None) -> int:
    """How many a data set has: as its shards say, or its scenes, or as published.

    Raises:
        TrainingError: none of them does.
        DatasetError: the shards cannot be read.
    """
    if folder is not None and (folder / data.name).is_dir():
        return len(ShardReader(folder / data.name))
    if data.scenes is not None:
        return data.scenes.count
    if data.name not in PUBLISHED:
        raise TrainingError(f"how many panoramas {data.name} has is known when its shards are there: give --data")
    return PUBLISHED[data.name]


class _Planner:
    """Makes one plan; traces each step once."""

    def __init__(self, config: PipelineConfig, means: Means) -> None:
        self._config = config
        self._means = means
        self._traced: list[tuple[TrainingConfig, int, StepTrace]] = []
        self._traces: dict[str, StepTrace] = {}
        every = (*config.labelled, *config.unlabelled, *config.tests)
        self._counts = {data.name: panoramas_of(data, means.data) for data in every}

    def plan(self) -> Plan:
        config = self._config
        discriminator, score_flop, discriminator_flop = trace_discriminator(config.discriminator)
        first, second, third = (
            self._training(name, training)
            for name, training in (
                ("stage-1-labeler", config.stage_1),
                ("stage-2-labeler", config.stage_2),
                ("stage-3-dap", config.stage_3),
            )
        )
        label_flop = [self._forward_flop(training) for training in (config.stage_1, config.stage_2)]
        pairs = config.discriminator.steps * config.discriminator_batch
        stages = (
            self._data(),
            first,
            # One process trains it; a file with Adam's state, and one without.
            StagePlan(
                "discriminator",
                pairs,
                config.discriminator.steps,
                pairs * (2 * discriminator_flop + label_flop[0]),
                1,
                4 * _FLOAT32 * discriminator.all,
            ),
            self._labels("labels-1", label_flop[0], config.stage_1),
            StagePlan("selection", self._unlabelled, 0, self._unlabelled * score_flop, self._means.devices, 0),
            second,
            self._labels("labels-2", label_flop[1], config.stage_2),
            third,
        )
        return Plan(stages, self._traces, label_flop[0], self._counts, self._assumptions())

    @property
    def _unlabelled(self) -> int:
        return sum(self._counts[data.name] for data in self._config.unlabelled)

    def _data(self) -> StagePlan:
        size, last = self._means.size, self._config.stage_3.phases[-1].height
        storage = 0
        for data in (*self._config.labelled, *self._config.unlabelled, *self._config.tests):
            height = last if data.scenes is None else data.scenes.height
            storage += size.of(self._counts[data.name], height, "picture")
            if data not in self._config.unlabelled:
                storage += size.of(self._counts[data.name], height, "depth")
        return StagePlan("data", sum(self._counts.values()), 0, 0, self._means.devices, storage)

    def _labels(self, name: str, flop: int, labeler: TrainingConfig) -> StagePlan:
        count = self._unlabelled
        storage = self._means.size.of(count, labeler.phases[-1].height, "label")
        return StagePlan(name, count, 0, count * flop, self._means.devices, storage)

    def _training(self, name: str, config: TrainingConfig) -> StagePlan:
        phases = tuple(self._phase(name, config, phase) for phase in config.phases)
        numbers = self._trace(config, config.phases[-1].height).parameters.values()
        every, trained = sum(n.all for n in numbers), sum(n.trained for n in numbers)
        # The network and its running mean, and two numbers of Adam; one checkpoint more while the oldest is removed.
        checkpoint = _FLOAT32 * (2 * every + 2 * trained)
        storage = (config.report.keep + 1) * checkpoint + _FLOAT32 * every
        samples, flop = sum(phase.samples for phase in config.phases), sum(phase.flop for phase in phases)
        return StagePlan(
            name, samples, config.steps, flop, self._means.devices, storage, phases, held_bytes(every, trained)
        )

    def _phase(self, name: str, config: TrainingConfig, phase: Phase) -> PhasePlan:
        if phase.batch < self._means.devices:
            raise TrainingError(f"{name}: a batch of {phase.batch} cannot be shared by {self._means.devices} devices")
        trace = self._traces[f"{name} at {phase.height}"] = self._trace(config, phase.height)
        share = math.ceil(phase.batch / self._means.devices)
        fits = fits_of(trace, share, self._means.memory_gb)
        chosen = fits[-1] if config.checkpoint_activations else fits[0]
        flop = phase.samples * chosen.step_flop
        return PhasePlan(phase.height, phase.steps, phase.batch, share, flop, fits)

    def _forward_flop(self, config: TrainingConfig) -> int:
        return sum(self._trace(config, config.phases[-1].height).forward_flop.values())

    def _trace(self, config: TrainingConfig, height: int) -> StepTrace:
        for known, at, trace in self._traced:
            if at == height and _step_settings(known) == _step_settings(config):
                return trace
        trace = trace_step(config, height, "cuda")
        self._traced.append((config, height, trace))
        return trace

    def _assumptions(self) -> tuple[str, ...]:
        means = self._means
        published = [name for name, count in self._counts.items() if PUBLISHED.get(name) == count]
        said = [
            f"panoramas of {', '.join(published)}: as published, not counted here" if published else "",
            f"bytes in shards: {means.size.source}; at the height that stage 3 ends with",
            f"{HEADROOM:.0%} of a device's memory is left to kernels, allocator and exchange",
            "devices share batches with no loss, and never wait for data",
            "each device is a GPU, has the whole network (DDP), and computes in bf16 where precision is auto",
        ]
        return tuple(one for one in said if one)


def held_bytes(parameters: int, trained: int) -> int:
    """What a device holds beside a step: float32 parameters and running mean, gradients and two numbers of Adam."""
    return _FLOAT32 * (2 * parameters + 3 * trained)


def fits_of(trace: StepTrace, share: int, memory_gb: float) -> tuple[Fit, ...]:
    """How a device's share of a batch fits: with activations kept, and computed again if the network can do that."""
    numbers = trace.parameters.values()
    held = held_bytes(sum(n.all for n in numbers), sum(n.trained for n in numbers))
    limit = memory_gb * 1e9 * (1 - HEADROOM) - held
    found = []
    for again, step, flop in (
        (False, trace.kept, trace.step_flop),
        (True, trace.recomputed, trace.recomputed_flop),
    ):
        if step is None or flop is None:
            continue
        most = max(0, int((limit - step.once) // step.per_sample))
        parts = math.ceil(share / most) if most else None
        used = None if parts is None else held + step.of(math.ceil(share / parts))
        found.append(Fit(again, step.once, step.per_sample, flop, most, parts, used))
    return tuple(found)


def _step_settings(config: TrainingConfig) -> tuple[object, ...]:
    """What a step's trace depends on, beside the height."""
    return config.network, config.loss, config.precision, config.optimizer.frozen


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
