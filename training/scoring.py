"""How true pseudo-labels look to a discriminator: a pass over label shards after labelling, part of `dap label`.

A second pass, not the same: a discriminator that was trained anew scores again without labelling again, and scores are
of what is stored, whoever computes them. A discriminator that sees depth beside its picture has the panoramas read
again, too, from the shards that were labelled.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dap import panorama
from dap.checksums import sha256_of
from dap.errors import DatasetError, InputError, ModelFileInvalid
from dap.progress import progress
from training.datasets.packing import alone_in
from training.datasets.shards import ShardReader, write_atomically
from training.labels import HASH_DIGITS, Label, label_of
from training.shard_pipeline import Row, Team, finish, finished, run
from training.throughput import Throughput

_BATCH = 16


@dataclass(frozen=True)
class Score:
    """What a discriminator says of a pseudo-label: a line of the file of scores.

    Attributes:
        id: of the panorama.
        shard: that its label lies in.
        place: where it was taken, `indoor` or `outdoor` where somebody said so.
        score: higher looks truer; None for a label without any depth.
    """

    id: str
    shard: str
    place: str
    score: float | None


@dataclass(frozen=True)
class ScoreWork:
    """Scoring of one label shard; see `training.shard_pipeline.Work`.

    Attributes:
        labels: folder of the label shards.
        panoramas: folder of the shards that were labelled; None for a discriminator that sees depth alone.
        discriminator: its file.
        sha256: of that file; a worker that finds another in its place refuses to work.
    """

    labels: Path
    panoramas: Path | None
    discriminator: Path
    sha256: str

    @property
    def folder(self) -> Path:
        """Where the scores of each shard are."""
        return self.labels / f"scores-{self.sha256[:HASH_DIGITS]}"

    @cached_property
    def reader(self) -> ShardReader:
        return ShardReader(self.labels)

    @cached_property
    def source(self) -> ShardReader | None:
        """The shards that were labelled, one for each label shard, if they are needed.

        Raises:
            DatasetError: these are others, or none.
        """
        if self.panoramas is None:
            return None
        source = ShardReader(self.panoramas)
        if self.reader.manifest.config.get("source") != source.manifest.fingerprint:
            raise DatasetError(f"{self.labels} holds labels of other shards than those of {self.panoramas}")
        return source

    def written(self, index: int) -> list[Score] | None:
        """The scores of a shard, if they are finished."""
        found = finished(self._record(index), self._key(index))
        name = self.reader.manifest.shards[index].name
        return None if found is None else [Score(shard=name, **one) for one in found["scores"]]

    def read(self, row: Row) -> Row:
        index: int = row["index"]
        labels = [label_of(member) for member in self.reader.members(index, verify=True)]
        about = [{"id": label.id, "place": label.metadata["place"]} for label in labels]
        read = {"index": index, "about": json.dumps(about), "depth": np.stack([label.depth for label in labels])}
        return read if self.source is None else {**read, "pictures": self._pictures(self.source, index, labels)}

    def _pictures(self, source: ShardReader, index: int, labels: Sequence[Label]) -> npt.NDArray[np.uint8]:
        """The panoramas of labels, uint8 (B, H, W, 3), as the labeler saw them; curation may have left out others."""
        sizes = {label.id: label.depth.shape for label in labels}
        name = source.manifest.shards[index].name
        found = {}
        for member in source.members(index, verify=True):
            if member.id not in sizes:
                continue
            try:
                found[member.id] = panorama.decode(member.picture, size=sizes[member.id]).pixels
            except (InputError, LookupError) as error:
                raise DatasetError(f"{name}: {member.id}: {error}") from error
        without = [label.id for label in labels if label.id not in found]
        if without:
            raise DatasetError(f"{name} holds no panorama of the label {without[0]}")
        return np.stack([found[label.id] for label in labels])

    def model(self, device: str, threads: int) -> "DiscriminatorModel":
        return DiscriminatorModel(self.discriminator, self.sha256, device, threads)

    def write(self, row: Row) -> Row:
        finite = [float(score) if math.isfinite(score) else None for score in row["scores"]]
        scores = [{**one, "score": score} for one, score in zip(json.loads(row["about"]), finite, strict=True)]
        finish(self._record(row["index"]), self._key(row["index"]), {"scores": scores})
        return {"index": row["index"], "panoramas": len(scores)}

    def _record(self, index: int) -> Path:
        return (self.folder / self.reader.manifest.shards[index].name).with_suffix(".json")

    def _key(self, index: int) -> dict[str, str]:
        key = {"labels_sha256": self.reader.manifest.shards[index].sha256, "discriminator_sha256": self.sha256}
        return key if self.source is None else {**key, "source_sha256": self.source.manifest.shards[index].sha256}


class DiscriminatorModel:
    """The discriminator in a worker."""

    def __init__(self, path: Path, sha256: str, device: str, threads: int) -> None:
        """Load it.

        Raises:
            ModelFileInvalid: the file here is not the one that scoring began with, or no discriminator.
        """
        import torch

        from training.discriminator import load_discriminator

        found = sha256_of(path)
        if found != sha256:
            raise ModelFileInvalid(f"{path.name} should have the SHA-256 {sha256}; on a worker it has {found}")
        torch.set_num_threads(threads)
        self._device = torch.device(device)
        self._discriminator = load_discriminator(path, self._device)

    def __call__(self, row: Row) -> Row:
        import torch

        from training.discriminator import score

        # Rows that come through Ray may not be written to, which torch warns of.
        seen = [torch.from_numpy(row.pop(name).copy()) for name in ("depth", "pictures") if name in row]
        scores = []
        for first in range(0, len(seen[0]), _BATCH):
            batch = (tensor[first : first + _BATCH].to(self._device) for tensor in seen)
            scores.append(score(self._discriminator, *batch).cpu())
        return {**row, "scores": torch.cat(scores).numpy()}


def score_labels(labels: ShardReader, panoramas: Path, discriminator: Path, team: Team) -> tuple[Path, Throughput]:
    """Score the labels that have no score of this discriminator yet, and write all scores in one file.

    The file has a line of JSON a label, see `Score`, ascending by id: the same whoever scored what, and in what order.

    Args:
        labels: of a model.
        panoramas: folder of the shards that were labelled; not looked at by a discriminator that sees depth alone.
        discriminator: as `training.discriminator.save_discriminator` writes it.
        team: from `training.shard_pipeline.started`.

    Returns:
        The file, and how fast the scores were computed.

    Raises:
        DatasetError: a shard of labels or panoramas is not what it should be; the panoramas are others than those that
            were labelled; two labels have one id; another process scores.
        ModelError: it is no discriminator.
        TrainingError: labels are no multiple of the size it sees; the workers cannot go on.
    """
    from training.discriminator import read_config

    source = None if read_config(discriminator).picture == "none" else panoramas.absolute()
    work = ScoreWork(labels.folder.absolute(), source, discriminator.absolute(), sha256_of(discriminator))
    throughput = Throughput(team.count)
    work.folder.mkdir(exist_ok=True)
    shards = labels.manifest.shards
    indices = [index for index, shard in enumerate(shards) if shard.samples]
    with alone_in(work.folder):
        waiting = [index for index in indices if work.written(index) is None]
        with _progress(sum(shards[index].samples for index in waiting)) as advance:
            for done in run(work, [{"index": index} for index in waiting], team):
                throughput.add(done["panoramas"])
                advance(done["panoramas"])
        scores = [score for index in indices for score in work.written(index) or ()]
        path = work.folder.with_suffix(".jsonl")
        write_atomically(path, _lines(scores))
    return path, throughput


def read_scores(path: Path) -> Iterator[Score]:
    """The scores of a file that `score_labels` wrote.

    Raises:
        DatasetError: it is none.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield Score(**json.loads(line))
    except (OSError, ValueError, TypeError) as error:
        raise DatasetError(f"{path} is no file of scores: {error}") from error


def _progress(labels: int) -> AbstractContextManager[Any]:
    return progress("scoring", labels)


def _lines(scores: list[Score]) -> bytes:
    by_id = {score.id: score for score in scores}
    if len(by_id) != len(scores):
        raise DatasetError(f"{len(scores)} labels have {len(by_id)} ids: an id is of one panorama")
    lines = (json.dumps(vars(by_id[identity]), sort_keys=True) for identity in sorted(by_id))
    return "".join(f"{line}\n" for line in lines).encode()
