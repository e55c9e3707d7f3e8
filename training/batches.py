"""What a training takes: batches that are a function of the step, and which part of them belongs to a process."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Protocol, Self

import torch
from torch import Tensor

from training.losses import Truth
from training.shards import Samples


@dataclass(frozen=True)
class Share:
    """Which part of every batch is this process's.

    Attributes:
        index: of the process, from 0 on.
        of: processes that share a batch.
    """

    index: int = 0
    of: int = 1

    def rows(self, batch: int) -> range:
        """The samples of a batch of that size, counted over all processes, that are this process's."""
        return range(batch * self.index // self.of, batch * (self.index + 1) // self.of)


@dataclass(frozen=True)
class Batch:
    """Samples as they were rendered or photographed.

    Attributes:
        rgb: uint8 (B, H, W, 3).
        truth: their depth and what of it is known.
    """

    rgb: Tensor
    truth: Truth

    def __len__(self) -> int:
        return len(self.rgb)

    @classmethod
    def of(cls, samples: Samples) -> Self:
        depth = torch.from_numpy(samples.depth).float()
        return cls(torch.from_numpy(samples.rgb), Truth(depth, depth > 0))

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.rgb.to(device, non_blocking=True), move(self.truth, device))

    def parts(self, count: int) -> Iterator["Batch"]:
        """The batch cut into that many parts, one after the other, as equal as can be; empty if there are too few."""
        for index in range(count):
            rows = Share(index, count).rows(len(self))
            yield Batch(self.rgb[rows.start : rows.stop], cut(self.truth, slice(rows.start, rows.stop)))


class Source(Protocol):
    """Where the batches of a run come from.

    A batch is a function of the step, of what the source was made with and of nothing else: a run that was stopped asks
    for any step again and gets what it would have got. A source is made with the `Share` of the process that reads it
    and gives the rows of that share only.
    """

    def batch(self, step: int) -> Batch:
        """This process's share of the batch of a step, on the CPU. Steps are asked for in order, from any one on.

        Raises:
            TrainingError: the samples cannot be had.
        """

    def manifest(self) -> Mapping[str, object]:
        """What the samples are, for the records of a run: JSON values, with hashes where there are files."""


def move(truth: Truth, device: torch.device) -> Truth:
    """The same truth on a device."""
    return Truth(**{name: tensor.to(device, non_blocking=True) for name, tensor in _tensors(truth).items()})


def cut(truth: Truth, rows: slice) -> Truth:
    """The truth of some images of a batch."""
    return Truth(**{name: tensor[rows] for name, tensor in _tensors(truth).items()})


def joined(truths: list[Truth]) -> Truth:
    """The truths of batches as that of one."""
    parts = [_tensors(truth) for truth in truths]
    return Truth(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def _tensors(truth: Truth) -> dict[str, Tensor]:
    values = {field.name: getattr(truth, field.name) for field in fields(truth)}
    return {name: value for name, value in values.items() if value is not None}
