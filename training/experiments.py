"""Does it work? A table for each question, from runs of the pipeline by one command: `dap train experiments`.

Each experiment is a set of runs, over several seeds: a run is a folder, goes on where it was stopped, and is not made
again by another experiment that needs it too. What an experiment prints is a table in Markdown: the mean over seeds,
and their standard deviation.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dap.errors import TrainingError
from training.config import LOSS_PRESETS, LossWeights
from training.datasets.packing import PackOptions, pack
from training.datasets.rendered import Rendered
from training.datasets.shards import ShardReader
from training.labels import HASH_DIGITS, label_of
from training.losses import DEPTH_LIMIT_M
from training.pipeline_config import PipelineConfig, ShardData
from training.scoring import Score, read_scores
from training.selection import Selection
from training.stages import STAGES, Place, Run, begun_with, run_pipeline, selection_file

Depth = npt.NDArray[np.float32]
Numbers = Mapping[str, float]
Rows = Mapping[str, Numbers]
"""For each row of a table its numbers by column."""

_ONE_SHARD = 1e-6  # one at least is always held out
_STAGE_1 = ("data", "stage-1-labeler")
_TRAININGS = {"stage 1": "stage-1-labeler", "stage 2": "stage-2-labeler", "stage 3": "stage-3-dap"}


@dataclass(frozen=True)
class Experiment:
    """A table.

    Attributes:
        title: what it shows.
        preset: what is varied, unless another is asked for.
        variants: configurations by the ending of their runs' names, made from a preset; the empty ending is the preset.
        stages: of the pipeline that are run.
        measure: what one run adds, by its variant's name.
    """

    title: str
    preset: str
    variants: Callable[[PipelineConfig], Mapping[str, PipelineConfig]]
    stages: Sequence[str]
    measure: Callable[[str, Run], Rows]


def run_experiment(
    experiment: Experiment, preset: str, base: PipelineConfig, seeds: int, place: Callable[[str], Place]
) -> list[Rows]:
    """Make the runs that are not made yet, and measure them.

    Args:
        experiment: which.
        preset: the name of `base`, with which runs' names begin.
        base: what is varied.
        seeds: how many, from 0 on.
        place: of a run by its name.

    Returns:
        The table's numbers for each seed.

    Raises:
        TrainingError: a run was begun with another configuration; see `run_pipeline`.
    """
    found: list[Rows] = []
    for seed in range(seeds):
        rows: dict[str, Numbers] = {}
        for variant, config in experiment.variants(base).items():
            name = "-".join(part for part in (preset, variant, f"seed-{seed}") if part)
            run = Run(config.with_seed(seed), place(name))
            _hold_to(run)
            run_pipeline(run, experiment.stages)
            rows |= experiment.measure(variant, run)
        found.append(rows)
    return found


def _hold_to(run: Run) -> None:
    begun = begun_with(run.place.folder)
    if begun is not None and begun != run.config:
        raise TrainingError(f"{run.place.folder} was begun with another configuration: move it away, or give --runs")


def markdown(experiment: Experiment, found: Sequence[Rows]) -> str:
    """The table: mean over seeds, and standard deviation where there are several."""
    columns = list(dict.fromkeys(column for row in found[0].values() for column in row))
    lines = [
        f"**{experiment.title}** ({len(found)} seed{'s' * (len(found) > 1)})",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for row in found[0]:
        cells = [_cell([rows[row][column] for rows in found if column in rows[row]]) for column in columns]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "-"
    spread = f" ± {statistics.stdev(finite):.4f}" if len(finite) > 1 else ""
    return f"{statistics.fmean(finite):.4f}{spread}"


# ---- what stages score


def scores_of(run: Run, stage: str, columns: Mapping[str, str]) -> dict[str, float]:
    """Scores of a training stage on every test set; a column each, named for the set and the score.

    Args:
        run: which.
        stage: of it.
        columns: titles of scores, by the names that `training.evaluate.Scores.flat` gives them.
    """
    found = {}
    for name, scores in run.state.of(stage).result["scores"].items():
        for score, title in columns.items():
            value = scores.get(score)
            found[f"{name}: {title}"] = math.nan if value is None else float(value)
    return found


_DEPTH = {"absrel": "AbsRel", "delta1": "delta1"}


def _domain_gap(_: str, run: Run) -> Rows:
    rows = {name: scores_of(run, stage, _DEPTH) for name, stage in _TRAININGS.items()}
    first, last = rows["stage 1"], rows["stage 3"]
    return rows | {"stage 3 / stage 1 - 1": {column: last[column] / first[column] - 1 for column in first}}


def _ablation(variant: str, run: Run) -> Rows:
    return {variant: scores_of(run, "stage-1-labeler", _DEPTH)}


def _masked(variant: str, run: Run) -> Rows:
    (threshold,) = run.config.stage_1.network.thresholds
    mask = {f"out_of_range_iou_{threshold:g}": "IoU out of range", f"lost_{threshold:g}": "lost in range"}
    return {variant: scores_of(run, "stage-1-labeler", _DEPTH | mask)}


# ---- what the discriminator selects


@dataclass(frozen=True)
class LabelError:
    """How wrong a pseudo-label is, where it says that there is a surface within 100 m.

    Attributes:
        absrel: mean of |label - truth| / truth, where the truth has a surface there too.
        delta1: share of these with max(label / truth, truth / label) below 1.25.
        not_there: share of the label's surfaces where the truth is sky or farther.
    """

    absrel: float
    delta1: float
    not_there: float


def label_error(label: Depth, truth: Depth) -> LabelError | None:
    """The error of a label, (H, W) metres as shards have them; None where the two have no surface in common."""
    said = (label > 0) & (label <= DEPTH_LIMIT_M) & (truth > 0)
    both = said & (truth <= DEPTH_LIMIT_M)
    if not both.any():
        return None
    ratio = label[both].astype(np.float64) / truth[both]
    delta1 = float((np.maximum(ratio, 1 / ratio) < 1.25).mean())
    return LabelError(float(np.abs(ratio - 1).mean()), delta1, 1 - float(both.sum() / said.sum()))


def label_errors(labels: ShardReader, truth: ShardReader) -> dict[str, LabelError]:
    """The errors of all labels that have one, by id; labels and truth are shard by shard of the same panoramas."""
    found = {}
    for index in range(len(labels.manifest.shards)):
        true = {sample.id: sample.depth for sample in truth.samples(index)}
        for label in map(label_of, labels.members(index)):
            depth = true[label.id]
            error = None if depth is None else label_error(label.depth, depth)
            if error is not None:
                found[label.id] = error
    return found


def true_shards(run: Run, data: ShardData) -> ShardReader:
    """The truth of unlabelled scenes, which no stage sees: rendered again, with their depth.

    Raises:
        TrainingError: they are not rendered.
    """
    if data.scenes is None:
        raise TrainingError(f"the truth of {data.name} is not known: it is not rendered")
    folder = run.place.data / f"{data.name}-truth"
    scenes = Rendered(data.scenes.count, data.scenes.kind, data.scenes.first_seed, data.scenes.domain)
    pack(scenes, "all", folder, PackOptions(data.scenes.height, shard_size=data.scenes.shard_size))
    return ShardReader(folder)


def _selection(_: str, run: Run) -> Rows:
    scores: list[Score] = []
    chosen: set[str] = set()
    errors: dict[str, LabelError] = {}
    discriminator = run.state.of("discriminator").output
    for data in run.config.unlabelled:
        labels = run.labels("labels-1", data, "stage-1-labeler")
        selection = Selection.read(selection_file(run, data))
        errors |= label_errors(labels, true_shards(run, data))
        scores += read_scores(labels.folder / f"scores-{discriminator[:HASH_DIGITS]}.jsonl")
        chosen |= {one.id for one in selection.chosen}
    return selection_rows(scores, chosen, errors)


def selection_rows(scores: Sequence[Score], chosen: set[str], errors: Mapping[str, LabelError]) -> Rows:
    """True errors of the chosen labels, of as many of each place at random (in expectation), and of the truly best."""
    places = ("indoor", "outdoor")
    groups = {place: [one.id for one in scores if one.place == place and one.id in errors] for place in places}
    picked = {place: [name for name in names if name in chosen] for place, names in groups.items()}
    counts = {place: len(names) for place, names in picked.items()}
    ranked = {place: sorted(names, key=lambda name: errors[name].absrel) for place, names in groups.items()}
    best = [name for place, names in ranked.items() for name in names[: counts[place]]]
    selected = _mean([errors[name] for names in picked.values() for name in names])
    # The mean of a random choice of each place is, in expectation, the mean of the place.
    means = {place: _mean([errors[name] for name in groups[place]]) for place in places if counts[place]}
    at_random = {
        column: sum(means[place][column] * counts[place] for place in means) / sum(counts.values())
        for column in selected
    }
    scored = [(one.score, errors[one.id].absrel) for one in scores if one.score is not None and one.id in errors]
    return {
        "selected by the discriminator": selected,
        "as many at random": at_random,
        "the truly best": _mean([errors[name] for name in best]),
        "selected / random - 1": {column: selected[column] / at_random[column] - 1 for column in ("AbsRel", "delta1")},
        "rank correlation of score and error": {"AbsRel": rank_correlation(*zip(*scored, strict=True))},
    }


def _mean(errors: Sequence[LabelError]) -> dict[str, float]:
    columns = {"AbsRel": "absrel", "delta1": "delta1", "surfaces where there is none": "not_there"}
    return {title: statistics.fmean(getattr(one, name) for one in errors) for title, name in columns.items()}


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's: the correlation of the ranks, equal values sharing the mean of theirs; NaN where all are equal."""
    ranks = [_ranks(np.asarray(values, np.float64)) for values in (first, second)]
    if min(np.ptp(values) for values in ranks) == 0:
        return math.nan
    first_ranks, second_ranks = ((values - values.mean()) / values.std() for values in ranks)
    return float((first_ranks * second_ranks).mean())


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    shared: npt.NDArray[np.float64] = (last - (counts - 1) / 2)[places]
    return shared


# ---- what is varied


def _as_it_is(base: PipelineConfig) -> dict[str, PipelineConfig]:
    return {"": base}


def _longer(base: PipelineConfig) -> dict[str, PipelineConfig]:
    """Stage 1 with the labels of stage 3, the steps of all three and a last descent as long: no pseudo-labels.

    And once more with the light, colour and sharpness of these panoramas changed as those of pseudo-labelled ones are.
    """
    stages = (base.stage_1, base.stage_2, base.stage_3)
    stage = replace(
        base.stage_1,
        phases=tuple(phase for stage in stages for phase in stage.phases),
        optimizer=replace(base.stage_1.optimizer, cooldown_steps=base.stage_3.optimizer.cooldown_steps),
    )
    held_out = _ONE_SHARD if base.stage_3_sees_held_out else base.held_out
    alone = {"labels-alone": replace(base, stage_1=stage, held_out=held_out)}
    if base.perturbation is None:
        return alone
    perturbed = replace(stage, augmentation=replace(base.perturbation.augmentation, flip=stage.augmentation.flip))
    return alone | {"labels-perturbed": replace(alone["labels-alone"], stage_1=perturbed)}


def _losses(base: PipelineConfig) -> dict[str, PipelineConfig]:
    """The rows of the paper's ablation, each with what the one before it has. The losses of the range mask stay."""
    paper = LOSS_PRESETS["paper"]
    steps = {
        "silog": replace(paper, sobel=0.0, dense_fidelity=0.0, normal=0.0, points=0.0, distortion_map=False),
        "distortion": replace(paper, sobel=0.0, dense_fidelity=0.0, normal=0.0, points=0.0),
        "normal-points": replace(paper, sobel=0.0, dense_fidelity=0.0),
        "fidelity-gradient": paper,
    }
    return {name: _with_stage_1(base, loss) for name, loss in steps.items()}


def _thresholds(base: PipelineConfig) -> dict[str, PipelineConfig]:
    """One range mask each, as in the paper's ablation, and none: a head that nothing teaches."""
    loss = base.stage_1.loss
    unmasked = replace(loss, range_cross_entropy=0.0, range_squared=0.0, range_dice=0.0)
    variants = {f"{metres}m": _with_stage_1(base, loss, (float(metres),)) for metres in (10, 20, 50, 100)}
    return variants | {"no-mask": _with_stage_1(base, unmasked, (100.0,))}


def _with_stage_1(
    base: PipelineConfig, loss: LossWeights, thresholds: tuple[float, ...] | None = None
) -> PipelineConfig:
    stage = base.stage_1
    network = stage.network if thresholds is None else replace(stage.network, thresholds=thresholds)
    return replace(base, stage_1=replace(stage, loss=loss, network=network))


EXPERIMENTS: dict[str, Experiment] = {
    "domain-gap": Experiment(
        "The domain gap: each stage on the domain that has labels and on the one that has none",
        "small",
        _as_it_is,
        tuple(STAGES),
        _domain_gap,
    ),
    "labels-alone": Experiment(
        "Labels alone, for as many steps as the three stages have together",
        "small",
        _longer,
        _STAGE_1,
        _ablation,
    ),
    "selection": Experiment(
        "The true error of the pseudo-labels that the discriminator selects",
        "selection",
        _as_it_is,
        ("data", "stage-1-labeler", "discriminator", "labels-1", "selection"),
        _selection,
    ),
    "losses": Experiment("Losses of stage 1, one after the other", "ablation", _losses, _STAGE_1, _ablation),
    "thresholds": Experiment(
        "Range masks that are learnt beside depth; depth is compared without them",
        "ablation",
        _thresholds,
        _STAGE_1,
        _masked,
    ),
}
