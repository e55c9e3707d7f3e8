"""Pseudo-labels on disk: what a model says of the panoramas of a folder of shards.

    LABELS/0123456789abcdef/                 the first digits of the SHA-256 of the model's weights
        videos-all-000000.tar                labels of the shard of the same name: KEY.depth.png, KEY.json
        videos-all-000000.json               its record, written after it
        manifest.json                        model, source and all records, as `training.datasets.shards` has it
        scores-fedcba9876543210.jsonl        of a discriminator with such a hash: a line a label, ascending by id
        scores-fedcba9876543210/             the same by shards

Depth is in the codes of shards, `SKY` where the model's widest range mask says that it is out of range. The panoramas
stay where they are; `labelled_samples` puts both together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dap import headers
from dap.errors import DatasetError, InputError
from dap.formats import png16
from dap.upsampling import nearest
from training.datasets import depth_codes
from training.datasets.base import Sample, decode_rgb
from training.datasets.shards import DEPTH, PICTURES, Member, ShardReader

HASH_DIGITS = 16


@dataclass(frozen=True)
class Label:
    """What a model says of a panorama.

    Attributes:
        id: of the panorama.
        depth: float32 (H, W), metres along the ray, `SKY` out of range.
        metadata: has at least `model`, `model_sha256`, `thresholds` (metres of the model's masks), `range` (of the one
            that says what is sky) and `place`.
    """

    id: str
    depth: npt.NDArray[np.float32]
    metadata: dict[str, Any]


def label_of(member: Member) -> Label:
    """The label in a member of a label shard.

    Raises:
        DatasetError: it is none.
    """
    try:
        depth = depth_codes.decode(png16.read_numbers(headers.read(member.files[DEPTH])))
        return Label(member.id, depth, member.metadata())
    except (InputError, ValueError, LookupError) as error:
        raise DatasetError(f"{member.id} is no label: {error!r}") from error


def labelled_samples(
    shards: ShardReader, labels: ShardReader, index: int, chosen: frozenset[str] | None = None
) -> Iterator[Sample]:
    """The panoramas of a shard with their labels as depth.

    Both have the size of the smaller: the picture is reduced by area means, a label by nearest neighbour.

    Args:
        shards: of the panoramas.
        labels: of a model for the same shards.
        index: of the shard.
        chosen: ids that are wanted; None for all that have a label.

    Raises:
        DatasetError: the labels are of other shards, or either cannot be read.
    """
    if labels.manifest.config.get("source") != shards.manifest.fingerprint:
        raise DatasetError(f"{labels.folder} holds labels of other shards than those of {shards.folder}")
    panoramas = shards.members(index)
    for label in map(label_of, labels.members(index)):
        panorama = next(member for member in panoramas if member.id == label.id)
        if chosen is None or label.id in chosen:
            yield _joined(panorama, label)


def _joined(panorama: Member, label: Label) -> Sample:
    picture = next(panorama.files[ending] for ending in PICTURES if ending in panorama.files)
    rows = min(len(label.depth), headers.read(picture).size[0])
    try:
        rgb, _ = decode_rgb(picture, rows)
    except InputError as error:
        raise DatasetError(f"{panorama.id}: {error}") from error
    return Sample(label.id, rgb, nearest(label.depth, rgb.shape[:2]), {**panorama.metadata(), "label": label.metadata})
