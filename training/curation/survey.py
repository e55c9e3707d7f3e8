"""Measure every panorama of a folder of shards, then judge all of them: `dap data curate`.

Measuring is done shard by shard, once; it may be stopped at any moment and run again. Judging takes all that was
measured, since a duplicate is one of another, and is repeated whole: it costs no more than reading the measures.
"""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dap import panorama
from dap.errors import InputError, InvalidParameter, NotAPanorama
from dap.progress import progress
from training.curation.duplicates import MAX_DISTANCE, duplicates, perceptual_hash
from training.curation.horizon import ROWS, Lean, lean
from training.curation.places import PlaceClassifier, PlaceOptions
from training.curation.verdicts import SUMMARY, Verdict, Verdicts, encode, fingerprint_of
from training.datasets.base import Place
from training.datasets.packing import alone_in
from training.datasets.shards import Member, ShardReader, write_atomically
from training.shard_pipeline import Row, Team, finish, finished, run
from training.throughput import Throughput

# Of what is measured, and how: raise it with any change, and shards are measured anew.
VERSION = 1
BROKEN, NOT_2_TO_1, LEANING, DUPLICATE = "broken", "not 2:1", "leaning", "duplicate"


@dataclass(frozen=True)
class Rules:
    """What is left out.

    Attributes:
        max_lean_deg: degrees that a camera may lean. The paper drops bad horizons and does not tell what is one.
        duplicate_bits: of 256, in which a near-duplicate may differ. More finds more copies that were changed much,
            and at some point different places: those of 34 real panoramas differed in 82 and more, their copies
            (turned, compressed, half the size, lighter) in 23 and less.
    """

    max_lean_deg: float = 10.0
    duplicate_bits: int = 26

    def __post_init__(self) -> None:
        if self.max_lean_deg <= 0 or not 0 <= self.duplicate_bits <= MAX_DISTANCE:
            raise InvalidParameter(f"expected a lean above 0 and 0 to {MAX_DISTANCE} bits; got {self}")


@dataclass(frozen=True)
class SurveyWork:
    """Measuring of one shard; see `training.shard_pipeline.Work`."""

    shards: Path
    folder: Path
    places: PlaceOptions | None

    @cached_property
    def reader(self) -> ShardReader:
        return ShardReader(self.shards)

    def measured(self, index: int) -> list[dict[str, Any]] | None:
        """What was measured of each panorama of a shard, if it was."""
        found = finished(self._record(index), self._key(index))
        return None if found is None else found["panoramas"]

    def read(self, row: Row) -> Row:
        members = self.reader.members(row["index"], verify=True)
        measured, pictures = zip(*map(self._measured, members), strict=True)
        told: Row = {"index": row["index"], "measured": json.dumps(measured)}
        if self.places is not None:
            shown = [picture for picture in pictures if picture is not None]
            # One more, so that a shard of broken pictures is no array of nothing.
            told["pictures"] = np.stack([*shown, np.zeros((*self._size, 3), np.uint8)])
        return told

    def model(self, device: str, threads: int) -> "PlacesOfShard":
        return PlacesOfShard(self.places, device, threads)

    def write(self, row: Row) -> Row:
        measured = json.loads(row["measured"])
        if self.places is not None:
            for one, outdoor in zip((one for one in measured if not one["fault"]), row["outdoor"], strict=True):
                one["outdoor"] = float(outdoor)
        finish(self._record(row["index"]), self._key(row["index"]), {"panoramas": measured})
        return {"index": row["index"], "panoramas": len(measured)}

    @property
    def _size(self) -> tuple[int, int]:
        rows = ROWS if self.places is None else self.places.rows
        return rows, 2 * rows

    def _measured(self, member: Member) -> tuple[dict[str, Any], np.ndarray[Any, np.dtype[np.uint8]] | None]:
        measured: dict[str, Any] = {"id": member.id, "place": member.metadata().get("place"), "fault": None}
        try:
            header = panorama.read_header(member.picture)
            pixels = panorama.decode(header, size=self._size).pixels
        except InputError as error:
            return {**measured, "fault": NOT_2_TO_1 if isinstance(error, NotAPanorama) else BROKEN}, None
        if not header.crop.is_full:
            return {**measured, "fault": NOT_2_TO_1}, None
        small = panorama.resize_pixels(pixels, (ROWS, 2 * ROWS))
        leaning = lean(small)
        measured |= {"lean_deg": leaning.degrees, "prominence": leaning.prominence}
        return {**measured, "hash": perceptual_hash(small).tobytes().hex()}, pixels

    def _record(self, index: int) -> Path:
        return (self.folder / self.reader.manifest.shards[index].name).with_suffix(".json")

    def _key(self, index: int) -> dict[str, Any]:
        places = None if self.places is None else {"weights": self.places.weights, "rows": self.places.rows}
        source = self.reader.manifest.shards[index].sha256
        return {"source_sha256": source, "version": VERSION, "places": places}


class PlacesOfShard:
    """The classifier in a worker, where one is asked for."""

    def __init__(self, options: PlaceOptions | None, device: str, threads: int) -> None:
        self._classifier = None if options is None else PlaceClassifier(options, device, threads)

    def __call__(self, row: Row) -> Row:
        if self._classifier is None:
            return row
        return {**row, "outdoor": self._classifier.outdoor(row.pop("pictures")[:-1])}


def curate(
    shards: Path, folder: Path, rules: Rules, places: PlaceOptions | None, team: Team
) -> tuple[Verdicts, Throughput]:
    """Measure what is not measured yet, and judge everything.

    Args:
        shards: folder of a pack of panoramas.
        folder: of the verdicts; made if it is not there.
        rules: what is left out.
        places: how indoor is told from outdoor; None leaves what the data set says.
        team: from `training.shard_pipeline.started`.

    Returns:
        The verdicts, and how fast panoramas were measured.

    Raises:
        DatasetError: a shard is not what it should be, or another process works in the folder.
        ModelError: the weights that tell places are not here.
        TrainingError: the workers cannot go on.
    """
    work = SurveyWork(shards.absolute(), folder.absolute(), places)
    throughput = Throughput(team.count)
    folder.mkdir(parents=True, exist_ok=True)
    names = [shard.name for shard in work.reader.manifest.shards]
    with alone_in(folder):
        waiting = [index for index in range(len(names)) if work.measured(index) is None]
        with _progress(work, waiting) as advance:
            for done in run(work, [{"index": index} for index in waiting], team):
                throughput.add(done["panoramas"])
                advance(done["panoramas"])
        by_shard = judge([work.measured(index) or [] for index in range(len(names))], rules)
        lines = [(name, encode(verdicts)) for name, verdicts in zip(names, by_shard, strict=True)]
        for name, data in lines:
            write_atomically((folder / name).with_suffix(".jsonl"), data)
        summary = {
            "source": work.reader.manifest.fingerprint,
            "rules": asdict(rules),
            "classifier": None if places is None else asdict(places),
            "fingerprint": fingerprint_of(lines),
            **_counts(by_shard),
        }
        write_atomically(folder / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())
    return Verdicts(folder), throughput


def judge(measured: list[list[dict[str, Any]]], rules: Rules) -> list[list[Verdict]]:
    """The verdicts on all panoramas of all shards.

    Of near-duplicates the first is kept, in the order of shards and of samples in them; one that is left out for
    another reason has no duplicates.

    Args:
        measured: as `SurveyWork` writes it, for each shard.
        rules: what is left out.
    """
    panoramas = [one for shard in measured for one in shard]
    reasons = [_reason(one, rules) for one in panoramas]
    passed = [index for index, reason in enumerate(reasons) if reason is None]
    hashes = [np.frombuffer(bytes.fromhex(panoramas[index]["hash"]), np.uint64) for index in passed]
    originals: dict[int, str] = {}
    if hashes:
        for index, original in zip(passed, duplicates(np.stack(hashes), rules.duplicate_bits), strict=True):
            if original >= 0:
                originals[index], reasons[index] = panoramas[passed[original]]["id"], DUPLICATE
    verdicts = iter(
        _verdict(one, reason, originals.get(index))
        for index, (one, reason) in enumerate(zip(panoramas, reasons, strict=True))
    )
    return [[next(verdicts) for _ in shard] for shard in measured]


def _reason(measured: Mapping[str, Any], rules: Rules) -> str | None:
    """Why a panorama is left out for itself."""
    if measured["fault"]:
        return str(measured["fault"])
    leaning = Lean(measured["lean_deg"], measured["prominence"])
    return LEANING if leaning.certain and leaning.degrees > rules.max_lean_deg else None


def _verdict(measured: Mapping[str, Any], reason: str | None, duplicate_of: str | None) -> Verdict:
    outdoor = measured.get("outdoor")
    place: Place = measured["place"] if outdoor is None else "outdoor" if outdoor >= 0.5 else "indoor"
    certain = not measured["fault"] and Lean(measured["lean_deg"], measured["prominence"]).certain
    lean_deg = round(measured["lean_deg"], 1) if certain else None
    return Verdict(measured["id"], reason, place, outdoor, lean_deg, duplicate_of)


def _counts(by_shard: list[list[Verdict]]) -> dict[str, Any]:
    verdicts = [verdict for shard in by_shard for verdict in shard]
    left_out = Counter(verdict.reason for verdict in verdicts if verdict.reason)
    kept = Counter(verdict.place for verdict in verdicts if verdict.kept)
    return {
        "panoramas": len(verdicts),
        "kept": kept.total(),
        "left_out": dict(sorted(left_out.items())),
        "places": dict(sorted(kept.items())),
    }


def _progress(work: SurveyWork, waiting: list[int]) -> AbstractContextManager[Any]:
    return progress("measuring", sum(work.reader.manifest.shards[index].samples for index in waiting))
