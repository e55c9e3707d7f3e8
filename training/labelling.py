"""Depth of every panorama of a folder of shards by a model, as pseudo-labels: `dap label`.

Any model and engine that `dap predict` knows. A shard of panoramas becomes a shard of labels (`training.labels`); one
that is finished is not done again. Batches are cut within a shard, so a label depends on its shard and on the model,
never on the other shards, the workers, or how often labelling was stopped.
"""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dap import panorama
from dap.checksums import sha256_of
from dap.engines import Engine, EngineName, Precision, create_engine
from dap.errors import DatasetError, InputError, ModelFileInvalid
from dap.models import Model, find_model, model_file
from dap.progress import progress
from training.curation.verdicts import Verdicts
from training.datasets import depth_codes
from training.datasets.base import SKY
from training.datasets.packing import alone_in, hold_to
from training.datasets.shards import (
    DEPTH,
    METADATA,
    Manifest,
    ShardReader,
    ShardRecord,
    encode_depth,
    write_shard,
)
from training.labels import HASH_DIGITS
from training.shard_pipeline import Row, Team, finish, finished, run
from training.throughput import Throughput


@dataclass(frozen=True)
class Labeler:
    """The model that labels, and how it is run.

    Attributes:
        model: from `dap.models.find_model`.
        sha256: of its file; a worker that finds another file in its place refuses to work.
        engine: that runs it.
        precision: of the torch engine.
        batch: panoramas at a time. Too few leave a GPU idle, too many do not fit into its memory.
    """

    model: Model
    sha256: str
    engine: EngineName = "auto"
    precision: Precision = "fp32"
    batch: int = 8

    @classmethod
    def of(
        cls, name_or_path: str | Path, engine: EngineName = "auto", precision: Precision = "fp32", batch: int = 8
    ) -> "Labeler":
        """The labeler of a model that `dap models` lists, or of a file.

        Raises:
            ModelError: there is none, or its file is not here.
        """
        path = Path(name_or_path)
        model = find_model(path.absolute() if path.is_file() else name_or_path)
        return cls(model, sha256_of(model_file(model)), engine, precision, batch)

    def said_of(self) -> dict[str, Any]:
        """What each label says of it."""
        return {
            "model": self.model.name,
            "model_sha256": self.sha256,
            "precision": self.precision,
            "thresholds": list(self.model.thresholds),
            "range": self.model.thresholds[-1],
        }

    def folder(self, out: Path) -> Path:
        """Where its labels are below `out`."""
        return out / self.sha256[:HASH_DIGITS]


@dataclass(frozen=True)
class LabelWork:
    """Labelling of one shard; see `training.shard_pipeline.Work`."""

    labeler: Labeler
    shards: Path
    folder: Path
    curation: Path | None = None

    @cached_property
    def reader(self) -> ShardReader:
        return ShardReader(self.shards)

    def record(self, index: int) -> Path:
        """The record of the labels of a shard."""
        return (self.folder / self.reader.manifest.shards[index].name).with_suffix(".json")

    def key(self, index: int) -> dict[str, str]:
        """What they are made from, beside what the whole folder is."""
        return {"source_sha256": self.reader.manifest.shards[index].sha256}

    def written(self, index: int) -> ShardRecord | None:
        """The labels of a shard, if they are finished; the hash is not computed again."""
        found = finished(self.record(index), self.key(index))
        try:
            record = None if found is None else ShardRecord.of(found)
            whole = record is not None and (self.folder / record.name).stat().st_size == record.size
        except (OSError, TypeError, LookupError):
            return None
        return record if whole else None

    def read(self, row: Row) -> Row:
        index: int = row["index"]
        places: dict[str, str] = {}
        pictures = []
        kept = None if self.curation is None else Verdicts(self.curation).kept(self.reader.manifest.shards[index].name)
        for member in self.reader.members(index, verify=True):
            if kept is not None and member.id not in kept:
                continue
            try:
                pictures.append(panorama.decode(member.picture, size=self.labeler.model.input_size).pixels)
            except InputError as error:
                raise DatasetError(f"{self.reader.manifest.shards[index].name}: {member.id}: {error}") from error
            places[member.id] = member.metadata()["place"] if kept is None else kept[member.id]
        shape = (0, *self.labeler.model.input_size, 3)
        stacked = np.stack(pictures) if pictures else np.empty(shape, np.uint8)
        return {"index": index, "places": json.dumps(places), "pictures": stacked}

    def model(self, device: str, threads: int) -> "EngineModel":
        return EngineModel(self.labeler, device, threads)

    def write(self, row: Row) -> Row:
        index: int = row["index"]
        places: Mapping[str, str] = json.loads(row["places"])
        said = {**self.labeler.said_of(), "depth": depth_codes.DESCRIPTION}
        members = (
            (
                identity,
                {
                    DEPTH: encode_depth(depth),
                    METADATA: json.dumps({"id": identity, "place": place, **said}, sort_keys=True).encode(),
                },
            )
            for (identity, place), depth in zip(places.items(), row["depth"], strict=True)
        )
        record = write_shard(self.folder / self.reader.manifest.shards[index].name, members)
        finish(self.record(index), self.key(index), asdict(record))
        return {"index": index, "panoramas": record.samples}


class EngineModel:
    """The model in a worker."""

    def __init__(self, labeler: Labeler, device: str, threads: int) -> None:
        """Load it.

        Raises:
            ModelFileInvalid: the file here is not the one that labelling began with.
        """
        found = sha256_of(model_file(labeler.model))
        if found != labeler.sha256:
            raise ModelFileInvalid(
                f"{labeler.model.path.name} should have the SHA-256 {labeler.sha256}; on a worker it has {found}"
            )
        self._batch = labeler.batch
        self._engine: Engine = create_engine(
            labeler.model, labeler.engine, device=device, threads=threads, precision=labeler.precision
        )

    def __call__(self, row: Row) -> Row:
        pictures = row.pop("pictures")
        depth = np.empty(pictures.shape[:3], np.float32)
        for first in range(0, len(pictures), self._batch):
            inference = self._engine.infer(pictures[first : first + self._batch])
            near = inference.in_range[:, -1] > 0.5
            depth[first : first + self._batch] = np.where(near, inference.depth, SKY)
        return {**row, "depth": depth}


def label(
    shards: Path, out: Path, labeler: Labeler, team: Team, curation: Path | None = None
) -> tuple[ShardReader, Throughput]:
    """Label what is not labelled yet.

    It can be killed at any moment and run again, and a worker may die at any time: nothing is lost or doubled.

    Args:
        shards: folder of a pack of panoramas.
        out: the labels will be in a folder of it that is named for the model's hash.
        labeler: the model.
        team: from `training.shard_pipeline.started`.
        curation: folder of verdicts, see `training.curation`: only what they keep is labelled, and they say where it
            was taken; None labels everything.

    Returns:
        The labels, and how fast they were made.

    Raises:
        DatasetError: the shards or the verdicts are not what they should be; the folder holds labels of other shards,
            or another process works in it.
        ModelError: the model cannot be loaded on a worker.
        EngineError: it failed there.
        TrainingError: the workers cannot go on.
    """
    folder = labeler.folder(out)
    work = LabelWork(labeler, shards.absolute(), folder.absolute(), curation and curation.absolute())
    manifest = Manifest(_config(work), {"shards": str(shards), "curation": str(curation or "")})
    throughput = Throughput(team.count)
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        hold_to(manifest, folder)
        indices = range(len(work.reader.manifest.shards))
        waiting = [index for index in indices if work.written(index) is None]
        with _progress(work, waiting) as advance:
            for done in run(work, [{"index": index} for index in waiting], team):
                throughput.add(done["panoramas"])
                advance(work.reader.manifest.shards[done["index"]].samples)
        records = tuple(record for index in indices if (record := work.written(index)) is not None)
        Manifest(manifest.config, manifest.source, records, complete=len(records) == len(indices)).write(folder)
    return ShardReader(folder), throughput


def _progress(work: LabelWork, waiting: list[int]) -> AbstractContextManager[Any]:
    panoramas = sum(work.reader.manifest.shards[index].samples for index in waiting)
    return progress(f"labelling with {work.labeler.model.name}", panoramas)


def _config(work: LabelWork) -> dict[str, Any]:
    """What the labels of the whole folder depend on."""
    curation = None if work.curation is None else Verdicts(work.curation).fingerprint
    source = work.reader.manifest.fingerprint
    return {
        "kind": "pseudo-labels",
        "labelled": True,
        **work.labeler.said_of(),
        "source": source,
        "curation": curation,
        "depth": depth_codes.DESCRIPTION,
    }
