"""The three stages and what is between them, each a folder of the run; see `training.pipeline_config` for their why.

    RUN/config.json            the configuration
    RUN/state.json             how each stage stands, see `training.pipeline_state`
    RUN/stage-1-labeler/       a training run: model.safetensors, checkpoints, log
    RUN/discriminator/         discriminator.safetensors, log
    RUN/labels-1/NAME/         pseudo-labels of the unlabelled data NAME by stage 1, with their scores
    RUN/selection/NAME.jsonl   the best of them
    RUN/stage-2-labeler/       a training run
    RUN/labels-2/NAME/         pseudo-labels by stage 2
    RUN/stage-3-dap/           a training run: its model.safetensors is the result

A stage depends on its settings, its data, the weights it starts from and what earlier stages made, all by hashes. One
that is done is not done again unless one of these changed; what it had made is then moved aside. One that was stopped
goes on.
"""

import hashlib
import json
import logging
import operator
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from dap.checksums import sha256_of
from dap.errors import DatasetError, TrainingError
from dap.progress import progress
from training.augmentation import relit, step_generator
from training.config import Phase, TrainingConfig
from training.curation.verdicts import Verdicts
from training.datasets import depth_codes
from training.datasets.packing import PackOptions, alone_in, pack
from training.datasets.rendered import Rendered, RenderedPictures
from training.datasets.shards import ShardReader
from training.discriminator import FINAL_FILE, DepthPairs, steps_done, train_discriminator
from training.distributed import Process, same_everywhere
from training.evaluate import LabelledPanorama
from training.labelling import EngineModel, Labeler, label
from training.labels import HASH_DIGITS
from training.mixture import Mixture, Part, PerturbedPart, RenderedPart, ShardPart
from training.pipeline_config import PipelineConfig, ShardData
from training.pipeline_state import RunState, StageRecord
from training.scoring import Score, read_scores, score_labels
from training.selection import Selection, best
from training.shard_pipeline import Team, Workers, in_this_process, started
from training.trainer import latest_checkpoint, read_progress, train, write_whole

CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"

Weighted = dict[str, tuple[float, Part]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where and by whom a run is worked on.

    Attributes:
        folder: of the run.
        data: folder of the folders of shards; runs may share it.
        process: this one, of those that train.
        threads: of models on the CPU, and processes that render.
        workers: of Ray, which labels and scores, where the configuration says so.
    """

    folder: Path
    data: Path
    process: Process
    threads: int = 1
    workers: Workers = field(default_factory=Workers)


@dataclass(frozen=True)
class Made:
    """What a stage made.

    Attributes:
        output: hash of it.
        result: JSON values for people.
    """

    output: str
    result: Mapping[str, Any]


def begun_with(folder: Path) -> PipelineConfig | None:
    """The configuration that the run of a folder was begun with; None where there is none.

    Raises:
        TrainingError: it cannot be read.
    """
    path = folder / CONFIG_FILE
    return PipelineConfig.from_json(path.read_text()) if path.exists() else None


class Run:
    """A run of the pipeline, in its folder."""

    def __init__(self, config: PipelineConfig, place: Place) -> None:
        """Nothing is done yet."""
        self.config = config
        self.place = place
        self.state = RunState(place.folder)

    def folder(self, stage: str) -> Path:
        """Where a stage puts what it makes."""
        return self.place.folder / stage

    def model(self, stage: str) -> Path:
        """The model that a training stage made."""
        return self.folder(stage) / MODEL_FILE

    def reader(self, data: ShardData) -> ShardReader:
        """The shards of a data set.

        Raises:
            DatasetError: they are not there.
        """
        folder = self.place.data / data.name
        if not folder.is_dir():
            raise DatasetError(f"{folder} was expected: write it with `dap data pack ... --output {folder}`")
        return ShardReader(folder)

    def labels(self, stage: str, data: ShardData, labeler: str) -> ShardReader:
        """The pseudo-labels that a stage made of a data set with the model of another."""
        return ShardReader(self.folder(stage) / data.name / sha256_of(self.model(labeler))[:HASH_DIGITS])

    def inputs(self, stage: "Stage") -> dict[str, str]:
        """Hashes of all that a stage depends on, by name.

        Raises:
            TrainingError: an earlier stage that it needs is not done, or its data or its weights are not there.
        """
        settings = {name: _json(operator.attrgetter(name)(self.config)) for name in stage.settings}
        found = {"settings": _hash(settings)}
        for kind in stage.data:
            for data in getattr(self.config, kind):
                found[data.name] = self.reader(data).manifest.fingerprint
                if data.curation:
                    found[data.curation] = Verdicts(self.place.data / data.curation).fingerprint
        weights = stage.weights(self.config)
        if weights:
            found[weights] = self._weights(weights, stage)
        for name in stage.needs:
            record = self.state.of(name)
            if not self.up_to_date(STAGES[name]):
                stands = "outdated" if record.state == "done" else record.state
                raise TrainingError(f"{stage.name} needs {name}, which is {stands}: do that first")
            if record.output:
                found[name] = record.output
        return found

    def _weights(self, name: str, stage: "Stage") -> str:
        """Hash of a file that a stage starts from; one that is gone since then counts as unchanged."""
        path = self.place.data / name
        if path.is_file():
            stat = path.stat()
            return _hash_of_file(path, stat.st_size, stat.st_mtime_ns)
        before = self.state.of(stage.name).inputs.get(name)
        if before is None:
            raise TrainingError(f"{path} was expected: the weights that {stage.name} starts from")
        return before

    def up_to_date(self, stage: "Stage") -> bool:
        """Whether a stage is done with what it would be done with now."""
        record = self.state.of(stage.name)
        if record.state != "done":
            return False
        try:
            return record.inputs == self.inputs(stage)
        except TrainingError:
            return False

    def do(self, stage: "Stage") -> StageRecord:
        """Do a stage, go on with it, or leave it as it is if it is up to date.

        Raises:
            DapError: it cannot be done.
        """
        inputs = self.inputs(stage)
        due = stage.always or not self.up_to_date(stage)
        if due and self.place.process.leads:
            before = self.state.of(stage.name)
            if before.state != "waiting" and before.inputs != inputs:
                self._move_aside(stage.name, before.inputs)
            self.state.begin(stage.name, inputs)
        # Whoever shares the training waits here until the folder is as it should be.
        if not same_everywhere(int(due), self.place.process):
            raise TrainingError(f"the processes do not agree whether {stage.name} is to be done")
        if due:
            _log.info("%s: %s", stage.name, stage.summary)
            made = stage.do(self)
            if self.place.process.leads:
                self.state.finish(stage.name, made.output, made.result)
        return self.state.of(stage.name)

    def _move_aside(self, name: str, inputs: Mapping[str, str]) -> None:
        folder = self.folder(name)
        if folder.is_dir():
            aside = folder.with_name(f"{name}.{_hash(inputs)[:8]}")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            _log.warning("%s was made from other inputs: it is done again, what there was is now %s", name, aside.name)

    @contextmanager
    def team(self) -> Iterator[Team]:
        """Who labels and scores."""
        if self.config.labelling.ray:
            with started(self.place.workers) as team:
                yield team
        else:
            yield in_this_process(self.place.process.device.type, self.place.threads)


# ---- data


def provide_data(run: Run) -> Made:
    """Pack what is rendered; what is not must be there."""
    config = run.config
    samples = {}
    for data in (*config.labelled, *config.unlabelled, *config.tests):
        if data.scenes is not None:
            kind = RenderedPictures if data in config.unlabelled else Rendered
            scenes = kind(data.scenes.count, data.scenes.kind, data.scenes.first_seed, data.scenes.domain)
            options = PackOptions(data.scenes.height, shard_size=data.scenes.shard_size)
            pack(scenes, "all", run.place.data / data.name, options, run.place.threads)
        samples[data.name] = {"samples": len(run.reader(data))}
    return Made("", samples)


def held_out(run: Run, reader: ShardReader) -> int:
    """How many of the last shards of a labelled data set stages 1 and 2 never see.

    Raises:
        DatasetError: it has one shard only.
    """
    shards = len(reader.manifest.shards)
    if shards < 2:
        raise DatasetError(f"{reader.folder} has one shard: two at least are needed, to keep one back")
    return min(shards - 1, max(1, round(shards * run.config.held_out)))


def labelled_parts(run: Run, seed: int, which: Callable[[int, int], range]) -> Weighted:
    """The labelled data of a run.

    Args:
        run: of which.
        seed: of their order.
        which: the numbers of the shards that are read, by how many are for training and how many there are.
    """
    parts: Weighted = {}
    for data in run.config.labelled:
        reader = run.reader(data)
        count = len(reader.manifest.shards)
        among = which(count - held_out(run, reader), count)
        parts[data.name] = data.weight, ShardPart(reader, seed, among=among, window=run.config.window)
    return parts


def shared(labelled: Weighted, pseudo: Weighted, share: float) -> Weighted:
    """Both, with that share of the samples from the second."""
    sums = [sum(weight for weight, _ in parts.values()) for parts in (labelled, pseudo)]
    first = {name: (weight / sums[0] * (1 - share), part) for name, (weight, part) in labelled.items()}
    return first | {name: (weight / sums[1] * share, part) for name, (weight, part) in pseudo.items()}


# ---- trainings


def train_stage(run: Run, name: str, config: TrainingConfig, parts: Weighted) -> Made:
    """Train in the stage's folder, from its latest checkpoint if there is one."""
    process = run.place.process
    weights = config.weights and str(run.place.data / config.weights)
    config = replace(config, weights=weights)
    with Mixture(config, parts, process.share) as source:
        checkpoint = latest_checkpoint(run.folder(name))
        with steps_bar(run, name, config.steps, read_progress(checkpoint).step if checkpoint else 0) as on_step:
            train(config, run.folder(name), source, process, test_sets(run), on_step)
    if not process.leads:
        return Made("", {})
    result = {"steps": config.steps, "scores": last_scores(run.folder(name) / "log.jsonl")}
    return Made(sha256_of(run.model(name)), result)


@contextmanager
def steps_bar(run: Run, name: str, steps: int, done: int) -> Iterator[Callable[[], None]]:
    """The progress of a training that begins, or goes on, after some steps: what is to be called after each."""
    with progress(name, steps) if run.place.process.leads else nullcontext(lambda _: None) as advance:
        advance(done)
        yield lambda: advance(1)


def test_sets(run: Run) -> dict[str, list[LabelledPanorama]]:
    """What trainings are evaluated on, by the leader."""
    if not run.place.process.leads:
        return {}
    return {data.name: list(labelled_panoramas(run.reader(data))) for data in run.config.tests}


def labelled_panoramas(reader: ShardReader) -> Iterator[LabelledPanorama]:
    """The panoramas of shards, with their depth."""
    for sample in reader:
        if sample.depth is None:
            raise DatasetError(f"{reader.folder}: {sample.id} has no depth to compare with")
        yield LabelledPanorama(sample.id, sample.rgb, sample.depth)


def last_scores(log: Path) -> dict[str, dict[str, float | None]]:
    """The last evaluation on each set, from the log of a training."""
    found = {}
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "evaluation":
            found[event["set"]] = {name: v for name, v in event.items() if name not in ("event", "time", "step", "set")}
    return found


def last_event(log: Path) -> dict[str, Any]:
    """The last line of a log; empty where there is none yet, as in a training of fewer steps than a line has."""
    lines = log.read_text().splitlines() if log.exists() else []
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return found


def stage_1(run: Run) -> Made:
    """The labelled data without what is held out."""
    config = run.config.stage_1
    return train_stage(run, "stage-1-labeler", config, _with_fresh(run, config, _seen(run, config)))


def stage_2(run: Run) -> Made:
    """What stage 1 has seen, and the selected pseudo-labels of stage 1."""
    config = _from(run, run.config.stage_2, run.config.stage_2_from, "stage-1-labeler")
    pseudo: Weighted = {}
    for data in run.config.unlabelled:
        labels = run.labels("labels-1", data, "stage-1-labeler")
        chosen = Selection.read(selection_file(run, data)).ids(labels)
        if any(chosen.values()):
            part = ShardPart(run.reader(data), config.seed, labels, chosen, window=run.config.window)
            pseudo[data.name] = data.weight, part
    labelled, pseudo = _perturbed(run, config.seed, _with_fresh(run, config, _seen(run, config)), pseudo)
    return train_stage(run, "stage-2-labeler", config, shared(labelled, pseudo, run.config.pseudo_share_2))


def stage_3(run: Run) -> Made:
    """All labelled data, or what stage 1 has seen of it, and all pseudo-labels of stage 2."""
    config = _from(run, run.config.stage_3, run.config.stage_3_from, "stage-2-labeler")
    pseudo: Weighted = {}
    for data in run.config.unlabelled:
        labels = run.labels("labels-2", data, "stage-2-labeler")
        pseudo[data.name] = data.weight, ShardPart(run.reader(data), config.seed, labels, window=run.config.window)
    parts = labelled_parts(run, config.seed, lambda _, count: range(count))
    seen = parts if run.config.stage_3_sees_held_out else _seen(run, config)
    labelled, pseudo = _perturbed(run, config.seed, _with_fresh(run, config, seen), pseudo)
    return train_stage(run, "stage-3-dap", config, shared(labelled, pseudo, run.config.pseudo_share_3))


def _perturbed(run: Run, seed: int, labelled: Weighted, pseudo: Weighted) -> tuple[Weighted, Weighted]:
    """Both, in worse pictures where the configuration says so."""
    perturbation = run.config.perturbation
    if perturbation is None:
        return labelled, pseudo

    def worse(parts: Weighted, share: float) -> Weighted:
        return {
            name: (weight, PerturbedPart(part, perturbation, seed, share)) for name, (weight, part) in parts.items()
        }

    return worse(labelled, perturbation.labelled) if perturbation.labelled else labelled, worse(pseudo, 1.0)


def _seen(run: Run, config: TrainingConfig) -> Weighted:
    return labelled_parts(run, config.seed, lambda seen, _: range(seen))


def _with_fresh(run: Run, config: TrainingConfig, labelled: Weighted) -> Weighted:
    if not run.config.fresh_scenes:
        return labelled
    process = run.place.process
    fresh = RenderedPart(config.stream, config.seed, run.place.data / "scenes", process.share, process.device)
    return {**labelled, "fresh scenes": (run.config.fresh_scenes, fresh)}


def _from(run: Run, config: TrainingConfig, source: str, stage: str) -> TrainingConfig:
    """What a stage starts from: the model of another, or its own configuration's."""
    if source == "own":
        return config
    return replace(config, initial="model", weights=str(run.model(stage).absolute()))


# ---- discriminator, labels, selection


def discriminate(run: Run) -> Made:
    """Teach the discriminator to tell the truth of held-out panoramas from what stage 1 says of them."""
    config, place = run.config, run.place
    phases = (Phase(config.stage_1.phases[-1].height, config.discriminator.steps, config.discriminator_batch),)
    order = TrainingConfig(phases=phases, seed=config.discriminator.seed)
    labeler = labeler_of(run, "stage-1-labeler")
    model = EngineModel(labeler, place.process.device.type, place.threads)
    parts = labelled_parts(run, order.seed, lambda seen, count: range(seen, count))
    with Mixture(order, parts) as source:

        def pairs(step: int) -> DepthPairs:
            batch = source.batch(step)
            # So that it also sees what stage 1 says of pictures unlike those that are labelled.
            pictures = relit(batch.rgb, config.discriminator.augmentation, step_generator(order.seed, step))
            depth = model({"pictures": pictures.numpy()})["depth"]
            # Through the codes of shards, as the truth went, and the pseudo-labels that are to be scored will go.
            coded = depth_codes.decode(depth_codes.encode(depth))
            return DepthPairs(batch.truth.depth, torch.from_numpy(coded), pictures)

        folder = run.folder("discriminator")
        data = {**source.manifest(), "labeler": labeler.said_of()}
        with steps_bar(run, "discriminator", config.discriminator.steps, steps_done(folder)) as on_step:
            train_discriminator(pairs, config.discriminator, place.process.device, folder, data, on_step)
    last = last_event(folder / "log.jsonl")
    result: dict[str, Any] = {name: last[name] for name in ("loss", "true", "predicted") if name in last}
    return Made(sha256_of(folder / FINAL_FILE), result)


def labeler_of(run: Run, stage: str) -> Labeler:
    """The model of a stage, as it labels."""
    labelling = run.config.labelling
    return Labeler.of(run.model(stage), precision=labelling.precision, batch=labelling.batch)


def make_labels(run: Run, name: str, stage: str) -> Made:
    """Label all unlabelled data with the model of a stage."""
    result, fingerprints = {}, {}
    with run.team() as team:
        for data in run.config.unlabelled:
            curation = run.place.data / data.curation if data.curation else None
            shards, out = run.place.data / data.name, run.folder(name) / data.name
            labels, throughput = label(shards, out, labeler_of(run, stage), team, curation)
            fingerprints[data.name] = labels.manifest.fingerprint
            result[data.name] = {"labels": len(labels), "per_second": throughput.per_second}
    return Made(_hash(fingerprints), result)


def choose(run: Run) -> Made:
    """Score the pseudo-labels of stage 1, and select the best of all unlabelled data together."""
    discriminator = run.folder("discriminator") / FINAL_FILE
    files: dict[str, tuple[ShardReader, Path]] = {}
    with run.team() as team:
        for data in run.config.unlabelled:
            labels = run.labels("labels-1", data, "stage-1-labeler")
            panoramas = run.place.data / data.name
            files[data.name] = labels, score_labels(labels, panoramas, discriminator, team)[0]
    scores = {name: list(read_scores(path)) for name, (_, path) in files.items()}
    asked = {"indoor": run.config.selected.indoor, "outdoor": run.config.selected.outdoor}
    chosen = set(best((score for some in scores.values() for score in some), asked))
    if not chosen:
        raise DatasetError("nothing was selected: no label says that it is indoor or outdoor, or none has a score")
    run.folder("selection").mkdir(exist_ok=True)
    for data in run.config.unlabelled:
        labels, path = files[data.name]
        mine = tuple(score for score in scores[data.name] if score in chosen)
        Selection(labels.manifest.fingerprint, sha256_of(path), asked, mine).write(selection_file(run, data))
    output = _hash({data.name: sha256_of(selection_file(run, data)) for data in run.config.unlabelled})
    return Made(output, {place: _of_place(chosen, place) for place in asked})


def _of_place(chosen: set[Score], place: str) -> dict[str, float | None]:
    """How many there are, and the least score among them."""
    scores = [one.score for one in chosen if one.place == place and one.score is not None]
    return {"selected": len(scores), "least_score": min(scores, default=None)}


def selection_file(run: Run, data: ShardData) -> Path:
    """Where the selection of a data set is."""
    return run.folder("selection") / f"{data.name}.jsonl"


# ---- all of them


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline.

    Attributes:
        name: of it, and of its folder.
        summary: one line for people.
        do: does it.
        settings: the fields of the configuration that it depends on, beside the data.
        data: the fields that list its data.
        needs: earlier stages.
        weights: the file of weights that it starts from, by the configuration; empty where there is none.
        trains: whether several processes may share it.
        always: whether it is done, again, whenever it is its turn, because it sees for itself what there is.
    """

    name: str
    summary: str
    do: Callable[[Run], Made]
    settings: tuple[str, ...]
    data: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    weights: Callable[[PipelineConfig], str] = lambda _: ""
    trains: bool = False
    always: bool = False


_EVERY_DATA = ("labelled", "unlabelled", "tests")
_LABELLED = ("held_out", "window", "labelled")

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("data", "pack what is rendered, find the rest", provide_data, _EVERY_DATA, always=True),
        Stage(
            "stage-1-labeler",
            "the Scene-Invariant Labeler learns from labelled panoramas",
            stage_1,
            ("stage_1", "fresh_scenes", *_LABELLED),
            ("labelled",),
            ("data",),
            weights=lambda config: config.stage_1.weights,
            trains=True,
        ),
        Stage(
            "discriminator",
            "learns to tell true depth from that of stage 1",
            discriminate,
            ("discriminator", "discriminator_batch", *_LABELLED),
            ("labelled",),
            ("stage-1-labeler",),
        ),
        Stage(
            "labels-1",
            "stage 1 labels what has no labels",
            lambda run: make_labels(run, "labels-1", "stage-1-labeler"),
            ("labelling.precision",),
            ("unlabelled",),
            ("stage-1-labeler",),
        ),
        Stage(
            "selection",
            "the discriminator scores these labels, and the best are selected",
            choose,
            ("selected",),
            (),
            ("labels-1", "discriminator"),
        ),
        Stage(
            "stage-2-labeler",
            "the Realism-Invariant Labeler learns from labels and the best pseudo-labels",
            stage_2,
            ("stage_2", "stage_2_from", "pseudo_share_2", "perturbation", "unlabelled", "fresh_scenes", *_LABELLED),
            ("labelled", "unlabelled"),
            ("stage-1-labeler", "labels-1", "selection"),
            weights=lambda config: config.stage_2.weights if config.stage_2_from == "own" else "",
            trains=True,
        ),
        Stage(
            "labels-2",
            "stage 2 labels everything anew",
            lambda run: make_labels(run, "labels-2", "stage-2-labeler"),
            ("labelling.precision",),
            ("unlabelled",),
            ("stage-2-labeler",),
        ),
        Stage(
            "stage-3-dap",
            "DAP learns from labels and all pseudo-labels",
            stage_3,
            (
                "stage_3",
                "stage_3_from",
                "stage_3_sees_held_out",
                "pseudo_share_3",
                "perturbation",
                "unlabelled",
                "fresh_scenes",
                *_LABELLED,
            ),
            ("labelled", "unlabelled"),
            ("stage-2-labeler", "labels-2"),
            weights=lambda config: config.stage_3.weights if config.stage_3_from == "own" else "",
            trains=True,
        ),
    )
}

PAPER_STAGES: dict[str, tuple[str, ...]] = {
    "1": ("data", "stage-1-labeler"),
    "2": ("discriminator", "labels-1", "selection", "stage-2-labeler"),
    "3": ("labels-2", "stage-3-dap"),
}
"""The stages of the paper, as those here."""


def run_pipeline(run: Run, stages: Sequence[str] = tuple(STAGES)) -> None:
    """Do these stages in their order, each unless it is up to date.

    Raises:
        TrainingError: another process works on the run; several processes, and not a training alone; a stage that is
            needed is not done.
        DapError: a stage cannot be done.
    """
    place = run.place
    if not place.process.alone and not all(STAGES[name].trains for name in stages):
        raise TrainingError("several processes share a training only: give --stage, one of a labeler or of DAP")
    place.folder.mkdir(parents=True, exist_ok=True)
    with alone_in(place.folder) if place.process.leads else nullcontext():
        if place.process.leads:
            write_whole(place.folder / CONFIG_FILE, run.config.to_json())
        for name in STAGES:
            if name in stages:
                run.do(STAGES[name])


@lru_cache(maxsize=8)
def _hash_of_file(path: Path, size: int, modified_ns: int) -> str:  # noqa: ARG001 - another file has others
    """Asked for by every stage that comes after; the paper's weights take a second."""
    return sha256_of(path)


def _json(value: object) -> Any:
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
