"""What curation found of each panorama of a folder of shards, and what is kept.

    CURATION/videos-all-000000.json          what was measured of each panorama of that shard; costly, done once
    CURATION/videos-all-000000.jsonl         the verdict on each: a line of JSON, see `Verdict`
    CURATION/verdicts.json                   the rules, the hash of all verdicts, and how many fell to which rule

Verdicts follow from what was measured and from the rules, so other rules cost nothing but a moment.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dap.errors import DatasetError
from training.datasets.base import Place

SUMMARY = "verdicts.json"


@dataclass(frozen=True)
class Verdict:
    """What becomes of a panorama.

    Attributes:
        id: of it.
        reason: why it is left out; None for one that is kept.
        place: where it was taken.
        outdoor: probability that it was outdoors, 0 to 1; None where nobody looked.
        lean_deg: degrees from the picture's up to the scene's; None where that cannot be told.
        duplicate_of: the id of what is kept in its stead.
    """

    id: str
    reason: str | None
    place: Place
    outdoor: float | None = None
    lean_deg: float | None = None
    duplicate_of: str | None = None

    @property
    def kept(self) -> bool:
        return self.reason is None


def encode(verdicts: Iterable[Verdict]) -> bytes:
    """The JSON lines of a shard."""
    return "".join(f"{json.dumps(vars(verdict), sort_keys=True)}\n" for verdict in verdicts).encode()


def fingerprint_of(shards: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 of all verdicts: names of shards and their lines."""
    found = [[name, hashlib.sha256(lines).hexdigest()] for name, lines in shards]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


class Verdicts:
    """The verdicts in a folder."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read yet."""
        self.folder = folder

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What `verdicts.json` says.

        Raises:
            DatasetError: there is none: curation did not end, or this is no such folder.
        """
        path = self.folder / SUMMARY
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise DatasetError(f"{self.folder} holds no {SUMMARY}: run `dap data curate` to its end") from None
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path} cannot be read: {error}") from error
        return found

    @property
    def fingerprint(self) -> str:
        """The hash of all verdicts."""
        found: str = self.summary["fingerprint"]
        return found

    def of_shard(self, name: str) -> list[Verdict]:
        """The verdicts on a shard of panoramas, in its order.

        Raises:
            DatasetError: there are none.
        """
        path = (self.folder / name).with_suffix(".jsonl")
        try:
            return [Verdict(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError, TypeError) as error:
            raise DatasetError(f"{path} holds no verdicts: {error}") from error

    def kept(self, name: str) -> dict[str, Place]:
        """Where what is kept of a shard was taken, by id."""
        return {verdict.id: verdict.place for verdict in self.of_shard(name) if verdict.kept}
