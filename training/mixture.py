"""Batches of several kinds of panoramas, mixed by weights: rendered scenes, labelled shards, pseudo-labelled shards.

Which samples a step has follows from the configuration and the step alone, in closed form, so a run goes on anywhere.
The samples of a run are numbered. `Turns` gives each number to a part, so that every part has its share in every
stretch of the run, and each part counts its own. A part of shards has them in a new random order in each pass, cuts
that into windows of a few shards, and has the samples of a window in random order: files are read from end to end, and
memory holds the files of a window.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import torch

from dap import headers
from dap.engines.cores import available_cores
from dap.errors import DatasetError, InputError, TrainingError
from dap.formats import png16
from dap.upsampling import nearest
from training.augmentation import relit
from training.batches import Batch, Share
from training.config import PerturbationConfig, StreamConfig, TrainingConfig
from training.datasets import depth_codes
from training.datasets.base import decode_rgb
from training.datasets.shards import DEPTH, Member, ShardReader
from training.draws import Place
from training.losses import Truth
from training.read_ahead import ReadAhead
from training.scene_readers import CPU, scene_reader

CYCLE = 1000
"""Samples of a run in which each part has exactly its share, in thousandths."""

DEFAULT_WINDOW = 4
_DECODERS = 4
_ALONE = Share()


@dataclass(frozen=True)
class Panoramas:
    """K panoramas with depth.

    Attributes:
        rgb: uint8 (K, H, W, 3).
        depth: float32 (K, H, W), metres along the ray; +inf on sky, 0 where not known.
    """

    rgb: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]


class Part(Protocol):
    """Panoramas of one kind, in an endless order of their own. One owner, one thread."""

    @property
    def range_known(self) -> bool:
        """Whether its sky and its far surfaces are certain; see `training.losses.Truth`."""
        ...

    def read(self, height: int, positions: range, mine: range) -> Panoramas:
        """The samples of some positions of the part's order. Cheap when they are asked for in order.

        Args:
            height: of the panoramas.
            positions: of all processes.
            mine: those of them that this process wants, at least one.

        Raises:
            TrainingError: they cannot be had.
        """
        ...

    def manifest(self) -> Mapping[str, object]:
        """What it is, for the records of a run."""
        ...

    def close(self) -> None:
        """Let go of files and processes."""
        ...


class RenderedPart:
    """Fresh rendered scenes."""

    range_known = True

    def __init__(
        self, stream: StreamConfig, seed: int, cache: Path, share: Share = _ALONE, device: torch.device = CPU
    ) -> None:
        """Nothing is rendered yet; arguments as `scene_reader` has them."""
        self._scenes = scene_reader(stream, seed, cache, share, device)

    def read(self, height: int, positions: range, mine: range) -> Panoramas:
        samples = self._scenes.read(height, positions, mine)
        return Panoramas(samples.rgb, samples.depth.astype(np.float32))

    def manifest(self) -> Mapping[str, object]:
        return self._scenes.manifest()

    def close(self) -> None:
        self._scenes.close()


class ShardPart:
    """Panoramas of a folder of shards, with their own depth or with that of a folder of labels."""

    def __init__(
        self,
        shards: ShardReader,
        seed: int,
        labels: ShardReader | None = None,
        chosen: Mapping[str, frozenset[str]] | None = None,
        among: Sequence[int] | None = None,
        window: int = DEFAULT_WINDOW,
    ) -> None:
        """Nothing is read yet but the manifests.

        Args:
            shards: of the panoramas.
            seed: of the order.
            labels: of a model for the same shards; None for the panoramas' own depth.
            chosen: ids of the labels that are wanted, by the name of their shard; None for all.
            among: numbers of the shards that are read; None for all.
            window: shards that are mixed with one another. Too few: neighbouring batches resemble each other; too
                many: memory.

        Raises:
            DatasetError: the panoramas have no depth, the labels are of other shards, or nothing is left to read.
        """
        if labels is None and not shards.labelled:
            raise DatasetError(f"{shards.folder} holds panoramas without depth: they need labels")
        if labels is not None and labels.manifest.config.get("source") != shards.manifest.fingerprint:
            raise DatasetError(f"{labels.folder} holds labels of other shards than those of {shards.folder}")
        self._shards, self._labels, self._chosen = shards, labels, chosen
        self._seed, self._window = seed, window
        self.sizes = {index: count for index, count in self._counted(among).items() if count}
        self._passes: dict[int, _Windows] = {}
        self._members: dict[int, list[Member]] = {}
        self._decoders = ThreadPoolExecutor(min(_DECODERS, available_cores()), thread_name_prefix="decoder")
        if not self.sizes:
            raise DatasetError(f"there is no panorama to read in {shards.folder}")

    @property
    def range_known(self) -> bool:
        return self._labels is None

    def __len__(self) -> int:
        """Samples of a pass."""
        return sum(self.sizes.values())

    def _counted(self, among: Sequence[int] | None) -> dict[int, int]:
        records = (self._labels or self._shards).manifest.shards
        return {
            index: records[index].samples if self._chosen is None else len(self._chosen[records[index].name])
            for index in (range(len(records)) if among is None else among)
        }

    def manifest(self) -> Mapping[str, object]:
        labels = None if self._labels is None else self._labels.manifest.fingerprint
        shards = self._shards.manifest.fingerprint
        return {"source": "shards", "shards": shards, "labels": labels, "samples": len(self), "window": self._window}

    def places(self, positions: range) -> list[Place]:
        """Where the samples of some positions of the order lie."""
        found = []
        for position in positions:
            number, rest = divmod(position, len(self))
            windows = self._pass(number)
            window = bisect_right(windows.ends, rest)
            begin = windows.ends[window - 1] if window else 0
            order = _order(self._seed, number, window, windows.ends[window] - begin)
            found.append(windows.place(window, int(order[rest - begin])))
        return found

    def _pass(self, number: int) -> "_Windows":
        if number not in self._passes:
            self._passes = {before: windows for before, windows in self._passes.items() if before == number - 1}
            self._passes[number] = _Windows.of(self.sizes, self._window, [self._seed, number])
        return self._passes[number]

    def read(self, height: int, positions: range, mine: range) -> Panoramas:
        wanted = self._in_windows(positions)
        self._members = {index: members for index, members in self._members.items() if index in wanted}
        members = [self._shard(index)[number] for index, number in self.places(mine)]
        decoded = list(self._decoders.map(lambda member: self._decoded(member, height), members))
        return Panoramas(np.stack([rgb for rgb, _ in decoded]), np.stack([depth for _, depth in decoded]))

    def _in_windows(self, positions: range) -> set[int]:
        """All shards of the windows that these positions lie in."""
        wanted: set[int] = set()
        for number in range(positions[0] // len(self), positions[-1] // len(self) + 1):
            windows = self._pass(number)
            of_pass = (
                max(positions[0] - number * len(self), 0),
                min(positions[-1] - number * len(self), len(self) - 1),
            )
            first, last = (bisect_right(windows.ends, rest) for rest in of_pass)
            wanted.update(index for window in windows.shards[first : last + 1] for index, _ in window)
        return wanted

    def _shard(self, index: int) -> list[Member]:
        if index not in self._members:
            members = self._shards.members(index)
            found = list(members) if self._labels is None else self._joined(index, {m.id: m for m in members})
            if len(found) != self.sizes[index]:
                name = self._shards.manifest.shards[index].name
                raise DatasetError(f"{name} should have {self.sizes[index]} of the samples; {len(found)} were found")
            self._members[index] = found
        return self._members[index]

    def _joined(self, index: int, panoramas: Mapping[str, Member]) -> list[Member]:
        """The panoramas that have a label which is wanted, with it in the place of depth."""
        assert self._labels is not None  # noqa: S101 - for the type checker: the caller looked
        chosen = None if self._chosen is None else self._chosen[self._labels.manifest.shards[index].name]
        return [
            Member(label.id, {**panoramas[label.id].files, DEPTH: label.files[DEPTH]})
            for label in self._labels.members(index)
            if label.id in panoramas and (chosen is None or label.id in chosen)
        ]

    def _decoded(self, member: Member, height: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        try:
            rgb, _ = decode_rgb(member.picture, height)
            depth = depth_codes.decode(png16.read_numbers(headers.read(member.files[DEPTH])))
        except (InputError, ValueError, LookupError) as error:
            raise DatasetError(f"{self._shards.folder}: {member.id}: {error}") from error
        return rgb, nearest(depth, rgb.shape[:2])

    def close(self) -> None:
        self._decoders.shutdown()
        self._members.clear()


class PerturbedPart:
    """The panoramas of another part, all or a share of them mixed with one another and in worse pictures."""

    def __init__(self, part: Part, config: PerturbationConfig, seed: int, share: float = 1.0) -> None:
        """Nothing is read yet.

        Args:
            part: whose panoramas; closed with this one.
            config: how they change.
            seed: of the changes, which follow from it and the place in the part's order alone.
            share: of the panoramas that change; the others stay as they are.
        """
        self._part, self._config, self._seed, self._share = part, config, seed, share

    @property
    def range_known(self) -> bool:
        return self._part.range_known

    def read(self, height: int, positions: range, mine: range) -> Panoramas:
        # Each is mixed with the one after it, so one more is read.
        read = self._part.read(height, _one_more(positions), _one_more(mine))
        each = [self._sample(read, number, position) for number, position in enumerate(mine)]
        return Panoramas(np.stack([rgb for rgb, _ in each]), np.stack([depth for _, depth in each]))

    def _sample(
        self, read: Panoramas, number: int, position: int
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        if np.random.default_rng([self._seed, position, 1]).random() >= self._share:
            return read.rgb[number], read.depth[number]
        return perturbed(read, number, self._config, self._seed, position)

    def manifest(self) -> Mapping[str, object]:
        return {**self._part.manifest(), "perturbation": {**asdict(self._config), "share": self._share}}

    def close(self) -> None:
        self._part.close()


def _one_more(positions: range) -> range:
    return range(positions.start, positions.stop + 1)


def perturbed(
    panoramas: Panoramas, number: int, config: PerturbationConfig, seed: int, position: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """One of some panoramas, uint8 (H, W, 3), with its depth (H, W), perturbed; the next one lends the band."""
    chance = np.random.default_rng([seed, position])
    rgb, depth = panoramas.rgb[number].copy(), panoramas.depth[number].copy()
    if chance.random() < config.mixed:
        width = rgb.shape[1]
        band = np.arange(round(width * chance.uniform(config.narrowest, config.widest)))
        columns = (band + chance.integers(width)) % width
        rgb[:, columns] = panoramas.rgb[number + 1][:, columns]
        depth[:, columns] = panoramas.depth[number + 1][:, columns]
    generator = torch.Generator().manual_seed(int(chance.integers(2**32)))
    return relit(torch.from_numpy(rgb[None]), config.augmentation, generator)[0].numpy(), depth


@dataclass(frozen=True)
class _Windows:
    """One pass over the shards.

    Attributes:
        shards: numbers and sizes of the shards of each window.
        ends: samples up to the end of each window.
    """

    shards: tuple[tuple[tuple[int, int], ...], ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, sizes: Mapping[int, int], window: int, seed: list[int]) -> Self:
        every = tuple(sizes.items())
        order = [every[place] for place in np.random.default_rng(seed).permutation(len(every))]
        groups = tuple(tuple(order[first : first + window]) for first in range(0, len(order), window))
        return cls(groups, tuple(accumulate(sum(size for _, size in group) for group in groups)))

    def place(self, window: int, number: int) -> Place:
        """Of a sample of a window, counted through its shards."""
        for index, size in self.shards[window]:
            if number < size:
                return index, number
            number -= size
        raise IndexError(number)


@lru_cache(maxsize=8)
def _order(seed: int, number: int, window: int, size: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, number, window]).permutation(size)


class Turns:
    """Which part each sample of a run is of: a random order with exact shares in every `CYCLE` samples."""

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        """Shares are in proportion to the weights.

        Raises:
            TrainingError: a weight is not above zero, or so small that its part would never have a turn.
        """
        if not weights or min(weights) <= 0:
            raise TrainingError(f"a mixture has parts with weights above zero; got {list(weights)}")
        exact = [weight / sum(weights) * CYCLE for weight in weights]
        quotas = [int(share) for share in exact]
        # The largest remainders are rounded up, so that the sum is right.
        for place in sorted(range(len(exact)), key=lambda i: quotas[i] - exact[i])[: CYCLE - sum(quotas)]:
            quotas[place] += 1
        if min(quotas) < 1:
            raise TrainingError(f"each part has a share of {1 / CYCLE:g} at least; the weights are {list(weights)}")
        self.quotas = tuple(quotas)
        self._seed = seed

    def of(self, numbers: range) -> list[tuple[int, int]]:
        """For each of these samples of the run its part, and its position among all samples of that part."""
        found = []
        for number in numbers:
            cycle, place = divmod(number, CYCLE)
            parts, before = _cycle(self.quotas, self._seed, cycle)
            part = int(parts[place])
            found.append((part, cycle * self.quotas[part] + int(before[place])))
        return found


@lru_cache(maxsize=16)
def _cycle(quotas: tuple[int, ...], seed: int, cycle: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The part of each sample of a cycle, and how many of that part there are before it in the cycle."""
    parts = np.random.default_rng([seed, cycle]).permutation(np.repeat(np.arange(len(quotas)), quotas))
    counts = (parts[:, None] == np.arange(len(quotas))).cumsum(0)
    return parts, counts[np.arange(len(parts)), parts] - 1


def samples_before(config: TrainingConfig, step: int) -> int:
    """How many samples the steps before a step have in all."""
    begin = drawn = 0
    for phase in config.phases[:-1]:
        if step < begin + phase.steps:
            return drawn + (step - begin) * phase.batch
        begin, drawn = begin + phase.steps, drawn + phase.samples
    return drawn + (step - begin) * config.phases[-1].batch


class Mixture:
    """The batches of a run from several parts: a `training.batches.Source`, and a context manager."""

    def __init__(self, config: TrainingConfig, parts: Mapping[str, tuple[float, Part]], share: Share = _ALONE) -> None:
        """Nothing is read yet.

        Args:
            config: of the run: its phases and its seed.
            parts: weight and samples by name, in an order that belongs to the run; closed with the mixture.
            share: of this process.

        Raises:
            TrainingError: weights that are none.
        """
        self._config = config
        self._names = tuple(parts)
        self._parts = [part for _, part in parts.values()]
        self._turns = Turns([weight for weight, _ in parts.values()], config.seed)
        self._share = share
        self._ahead = ReadAhead(self._read, config.steps)

    def manifest(self) -> Mapping[str, object]:
        parts = zip(self._names, self._turns.quotas, self._parts, strict=True)
        return {
            "source": "mixture",
            "parts": {name: {"share": q / CYCLE, **part.manifest()} for name, q, part in parts},
        }

    def batch(self, step: int) -> Batch:
        return self._ahead.batch(step)

    def _read(self, step: int) -> Batch:
        _, phase = self._config.phase_at(step)
        first = samples_before(self._config, step)
        turns = self._turns.of(range(first, first + phase.batch))
        rows = self._share.rows(phase.batch)
        mine = turns[rows.start : rows.stop]
        rgb = np.empty((len(mine), phase.height, 2 * phase.height, 3), np.uint8)
        depth = np.empty(rgb.shape[:3], np.float32)
        for number in dict.fromkeys(part for part, _ in mine):
            places = [place for place, (part, _) in enumerate(mine) if part == number]
            of_all, of_mine = ([position for part, position in some if part == number] for some in (turns, mine))
            # The positions of a part have no gaps: they count its turns.
            ranges = (range(positions[0], positions[-1] + 1) for positions in (of_all, of_mine))
            panoramas = self._parts[number].read(phase.height, *ranges)
            rgb[places], depth[places] = panoramas.rgb, panoramas.depth
        metres = torch.from_numpy(depth)
        range_known = torch.tensor([self._parts[part].range_known for part, _ in mine], dtype=torch.bool)
        return Batch(torch.from_numpy(rgb), Truth(metres, metres > 0, range_known))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ahead.close()
        for part in self._parts:
            part.close()
