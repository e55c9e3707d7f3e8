"""The endless stream of rendered scenes: which samples a step sees follows from the configuration and the step alone.

Samples are drawn in rounds. A round is a random order of all scenes in a window of shards; the next round's window lies
`window / passes` shards further, so that every scene is seen in `passes` rounds, well mixed with older and newer ones,
and then never again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from training.batches import Batch, Share
from training.config import StreamConfig, TrainingConfig
from training.read_ahead import ReadAhead
from training.shards import RenderAhead, Samples, ShardFolder
from training.synthetic import RENDERER_VERSION


@dataclass(frozen=True)
class Draw:
    """Where a step's samples lie.

    Attributes:
        shards: the window of shards from which they come.
        places: int64 (B, 2), shard and position in it.
    """

    shards: range
    places: npt.NDArray[np.int64]


def draw(config: StreamConfig, seed: int, height: int, position: int, batch: int) -> Draw:
    """The samples `position` to `position + batch` of the stream of one size of panorama."""
    size = config.window * config.shard_size
    shift = config.window // config.passes
    numbers = np.arange(position, position + batch)
    rounds = numbers // size
    orders = {r: _order(seed, height, r, size) for r in range(int(rounds[0]), int(rounds[-1]) + 1)}
    within = np.array([orders[int(r)][n % size] for r, n in zip(rounds, numbers, strict=True)])
    places = np.stack([rounds * shift + within // config.shard_size, within % config.shard_size], axis=1)
    return Draw(range(int(rounds[0]) * shift, int(rounds[-1]) * shift + config.window), places)


@lru_cache(maxsize=4)
def _order(seed: int, height: int, round_number: int, size: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, height, round_number]).permutation(size)


def shards_needed(config: TrainingConfig) -> dict[int, range]:
    """For each height of the run, the shards that it will read."""
    needed: dict[int, range] = {}
    samples: dict[int, int] = {}
    for phase in config.phases:
        samples[phase.height] = samples.get(phase.height, 0) + phase.samples
        last = draw(config.stream, config.seed, phase.height, samples[phase.height] - 1, 1)
        needed[phase.height] = range(last.shards.stop)
    return needed


class SceneReader:
    """Rendered scenes in the order of `draw`, rendered ahead of whoever reads them. One owner, one thread.

    Processes that share a cache share the rendering as well.
    """

    def __init__(self, config: StreamConfig, seed: int, cache: Path, share: Share) -> None:
        self._config = config
        self._seed = seed
        self._cache = cache
        self._share = share
        self._renderer: RenderAhead | None = None
        self._folder: ShardFolder | None = None
        self._shards: dict[int, Samples] = {}

    def read(self, height: int, positions: range, mine: range) -> Samples:
        """The samples of some positions of the stream of a height. Cheap when they are asked for in order.

        Args:
            height: of the panoramas.
            positions: of all processes.
            mine: those of them that are this process's.

        Raises:
            TrainingError: a shard cannot be rendered or read.
        """
        drawn = draw(self._config, self._seed, height, positions.start, len(positions))
        folder, renderer = self._open(height)
        coming = range(drawn.shards.start, drawn.shards.stop + self._config.ahead)
        renderer.request([index for index in coming if index % self._share.of == self._share.index])
        stale = [index for index in self._shards if index < drawn.shards.start]
        for index in stale:
            del self._shards[index]
        if stale and self._share.index == 0:
            # Other processes may be a few steps behind in their reading, never a window.
            behind = self._config.window if self._share.of > 1 else 0
            folder.prune(drawn.shards.start - behind, self._config.cache_gb * 1e9)
        places = drawn.places[mine.start - positions.start : mine.stop - positions.start]
        for index in dict.fromkeys(places[:, 0].tolist()):
            if index not in self._shards:
                renderer.wait(index)
                self._shards[index] = folder.load(index)
        rows = [(self._shards[int(shard)], int(row)) for shard, row in places]
        rgb = np.stack([samples.rgb[row] for samples, row in rows])
        return Samples(rgb, np.stack([samples.depth[row] for samples, row in rows]))

    def _open(self, height: int) -> tuple[ShardFolder, RenderAhead]:
        if self._folder is None or self._renderer is None or self._folder.height != height:
            if self._renderer is not None:
                self._renderer.close()
            self._shards.clear()
            self._folder = ShardFolder(self._cache, self._config.kind, height, self._config.shard_size)
            self._renderer = RenderAhead(self._folder, self._config.workers)
        return self._folder, self._renderer

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()


class SampleStream:
    """The batches of a run, in order, from any step on; rendered and read ahead of the training. A context manager."""

    def __init__(self, config: TrainingConfig, cache: Path, share: Share = Share()) -> None:  # noqa: B008 - frozen
        self._config = config
        self._share = share
        self._scenes = SceneReader(config.stream, config.seed, cache, share)
        self._ahead = ReadAhead(self._read, config.steps)

    def manifest(self) -> Mapping[str, object]:
        """Which scenes the run sees: they follow from their seeds, the renderer and the configuration."""
        return {"source": "rendered scenes", "kind": self._config.stream.kind, "renderer": RENDERER_VERSION}

    def batch(self, step: int) -> Batch:
        """The batch of a step. Cheap when steps are asked for in order.

        Raises:
            TrainingError: a shard cannot be rendered or read.
        """
        return self._ahead.batch(step)

    def _read(self, step: int) -> Batch:
        """Runs in the reader's thread, which alone touches the scenes."""
        position, phase = self._config.phase_at(step)
        rows = self._share.rows(phase.batch)
        mine = range(position + rows.start, position + rows.stop)
        return Batch.of(self._scenes.read(phase.height, range(position, position + phase.batch), mine))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ahead.close()
        self._scenes.close()
