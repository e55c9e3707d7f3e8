"""Pseudo-labels on disk: what a model says of the panoramas of a folder of shards.

    LABELS/0123456789abcdef/                 the first digits of the SHA-256 of the model's weights
        videos-all-000000.tar                labels of the shard of the same name: KEY.depth.png, KEY.json
        videos-all-000000.json               its record, written after it
        manifest.json                        model, source and all records, as `training.datasets.shards` has it
        scores-fedcba9876543210.jsonl        of a discriminator with such a hash: a line a label, ascending by id
        scores-fedcba9876543210/             the same by shards

Depth is in the codes of shards, `SKY` where the model's widest range mask says that it is out of range. The panoramas
stay where they are; `training.mixture.ShardPart` puts both together.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dap import headers
from dap.errors import DatasetError, InputError
from dap.formats import png16
from training.datasets import depth_codes
from training.datasets.shards import DEPTH, Member

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
