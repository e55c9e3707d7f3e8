"""The pseudo-labels that the second stage learns from: the best indoor and the best outdoor, by their scores.

DAP (arXiv 2512.16913) takes the best 300,000 of each. A selection is a file of JSON lines: the first says what it was
made from, by hashes, the others are `training.scoring.Score`, ascending by id.
"""

import heapq
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dap.checksums import sha256_of
from dap.errors import DatasetError, InvalidParameter
from training.datasets.shards import ShardReader, write_atomically
from training.scoring import Score, read_scores

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Selection:
    """What was selected.

    Attributes:
        labels: fingerprint of the manifest of the labels.
        scores: SHA-256 of the file of scores.
        asked: how many of each place.
        chosen: ascending by id.
    """

    labels: str
    scores: str
    asked: Mapping[str, int]
    chosen: tuple[Score, ...]

    def counts(self) -> dict[str, int]:
        """How many of each place there are, which may be fewer than were asked for."""
        return {place: sum(one.place == place for one in self.chosen) for place in self.asked}

    def ids(self, labels: ShardReader) -> dict[str, frozenset[str]]:
        """Ids by shard: what a stage reads of these labels.

        Raises:
            DatasetError: the selection was made of other labels.
        """
        if labels.manifest.fingerprint != self.labels:
            raise DatasetError(f"the selection was made of other labels than those of {labels.folder}")
        found: dict[str, set[str]] = {shard.name: set() for shard in labels.manifest.shards}
        for one in self.chosen:
            found[one.shard].add(one.id)
        return {name: frozenset(ids) for name, ids in found.items()}

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        head = {"format": FORMAT_VERSION, "labels": self.labels, "scores": self.scores, "asked": dict(self.asked)}
        lines = [head, *(vars(one) for one in self.chosen)]
        write_atomically(path, "".join(f"{json.dumps(line, sort_keys=True)}\n" for line in lines).encode())

    @classmethod
    def read(cls, path: Path) -> "Selection":
        """What `write` wrote.

        Raises:
            DatasetError: it is none, or of another version.
        """
        try:
            first, *lines = path.read_text(encoding="utf-8").splitlines()
            head = json.loads(first)
            if head["format"] != FORMAT_VERSION:
                raise DatasetError(f"{path}: selections of format {FORMAT_VERSION} are read; this is {head['format']}")
            chosen = tuple(Score(**json.loads(line)) for line in lines)
            return cls(head["labels"], head["scores"], head["asked"], chosen)
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise DatasetError(f"{path} is no selection: {error!r}") from error


def best(scores: Iterable[Score], asked: Mapping[str, int]) -> tuple[Score, ...]:
    """The highest scores of each place, ascending by id; of equal scores the lower id.

    Args:
        scores: in any order; those without a score are never chosen.
        asked: how many of each place; where there are fewer, all of them.

    Raises:
        InvalidParameter: less than none is asked for.
    """
    if any(count < 0 for count in asked.values()):
        raise InvalidParameter(f"expected to select 0 or more of each place; got {dict(asked)}")
    by_place: dict[str, list[tuple[float, str, Score]]] = {place: [] for place in asked}
    for one in scores:
        if one.score is not None and one.place in by_place:
            by_place[one.place].append((-one.score, one.id, one))
    taken = (heapq.nsmallest(count, by_place[place], key=lambda found: found[:2]) for place, count in asked.items())
    return tuple(sorted((one for group in taken for _, _, one in group), key=lambda one: one.id))


def select(labels: ShardReader, scores: Path, indoor: int, outdoor: int) -> Selection:
    """The best so many indoor and so many outdoor labels.

    Args:
        labels: that were scored.
        scores: the file that `training.scoring.score_labels` wrote.
        indoor: how many.
        outdoor: how many.

    Raises:
        DatasetError: the scores are not of these labels, or none of them says where it was taken.
        InvalidParameter: less than none is asked for.
    """
    found = list(read_scores(scores))
    if len(found) != labels.manifest.samples:
        raise DatasetError(f"{scores} has {len(found)} scores, {labels.folder} {labels.manifest.samples} labels")
    if not any(one.place in ("indoor", "outdoor") for one in found):
        raise DatasetError(f"{scores}: no label says whether it is indoor or outdoor: sort with `dap data curate`")
    asked = {"indoor": indoor, "outdoor": outdoor}
    return Selection(labels.manifest.fingerprint, sha256_of(scores), asked, best(found, asked))
