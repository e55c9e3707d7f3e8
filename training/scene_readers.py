"""Rendered scenes in the order of `draw`, from either of two places: shards on disk, or the memory of this process.

`ScenesOnDisk` has processes render shards on the CPU ahead of the training, into a cache that runs may share.
`ScenesInMemory` renders on the device that trains, some dozens of scenes at a time, and writes no file. Both give the
same scenes; what a CPU and a GPU draw differs within rounding.
"""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from training.batches import Share
from training.config import StreamConfig
from training.draws import Place, draw, draw_to_end_of_round
from training.shards import RenderAhead, Samples, ShardFolder, render_samples, shard_seeds
from training.synthetic import RENDERER_VERSION

CPU = torch.device("cpu")

_log = logging.getLogger(__name__)


class SceneReader(Protocol):
    """Rendered scenes in an endless order. One owner, one thread."""

    def read(self, height: int, positions: range, mine: range) -> Samples:
        """The samples of some positions of the stream of a height. Cheap when they are asked for in order.

        Args:
            height: of the panoramas.
            positions: of all processes.
            mine: those of them that are this process's.

        Raises:
            TrainingError: scenes cannot be rendered or read.
        """
        ...

    def manifest(self) -> Mapping[str, object]:
        """Which scenes these are, for the records of a run."""
        ...

    def close(self) -> None:
        """Let go of files, processes and memory."""
        ...


def scene_reader(config: StreamConfig, seed: int, cache: Path, share: Share, device: torch.device) -> SceneReader:
    """The reader that a configuration asks for. Nothing is rendered yet.

    Args:
        config: of the stream.
        seed: of the order.
        cache: folder of rendered scenes; not touched where they are held in memory.
        share: of this process.
        device: that trains.
    """
    if config.in_memory(device.type):
        _log.info("scenes are rendered on %s and held in memory", device)
        return ScenesInMemory(config, seed, device)
    return ScenesOnDisk(config, seed, cache, share)


class ScenesOnDisk:
    """A `SceneReader` of shards that are rendered ahead of whoever reads them.

    Processes that share a cache share the rendering as well.
    """

    def __init__(self, config: StreamConfig, seed: int, cache: Path, share: Share) -> None:
        """Arguments as `scene_reader` has them."""
        self._config = config
        self._seed = seed
        self._cache = cache
        self._share = share
        self._renderer: RenderAhead | None = None
        self._folder: ShardFolder | None = None
        self._shards: dict[int, Samples] = {}

    def read(self, height: int, positions: range, mine: range) -> Samples:
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

    def manifest(self) -> Mapping[str, object]:
        return _manifest(self._config, CPU)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()


class ScenesInMemory:
    """A `SceneReader` that renders on a device of its own process, and holds a scene until its last round is over.

    A scene is rendered when it is first wanted, and with it those that are wanted next, `shard_size` at a time: one
    alone would leave a GPU idle. Each process renders the scenes of its own share.
    """

    def __init__(self, config: StreamConfig, seed: int, device: torch.device) -> None:
        """Arguments as `scene_reader` has them."""
        self._config = config
        self._seed = seed
        self._device = device
        # Kernels of a stream of its own run beside those of the training, and copies wait for no others.
        self._cuda_stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._height = 0
        self._held: dict[Place, tuple[npt.NDArray[np.uint8], npt.NDArray[np.float16]]] = {}

    def read(self, height: int, positions: range, mine: range) -> Samples:
        drawn = draw(self._config, self._seed, height, positions.start, len(positions))
        if height != self._height:
            self._held.clear()
            self._height = height
        self._held = {place: scene for place, scene in self._held.items() if place[0] >= drawn.shards.start}
        wanted = _places(drawn.places[mine.start - positions.start : mine.stop - positions.start])
        if any(place not in self._held for place in wanted):
            self._render(positions, mine)
        scenes = [self._held[place] for place in wanted]
        return Samples(np.stack([rgb for rgb, _ in scenes]), np.stack([depth for _, depth in scenes]))

    def _render(self, positions: range, mine: range) -> None:
        """What is lacking of these samples, and what will be next, if the batches to come are shared like this one."""
        coming = draw_to_end_of_round(self._config, self._seed, self._height, positions).places
        row = np.arange(len(coming)) % len(positions) + positions.start
        expected = dict.fromkeys(_places(coming[(mine.start <= row) & (row < mine.stop)]))
        lacking = [place for place in expected if place not in self._held]
        chosen = lacking[: max(len(mine), self._config.shard_size)]
        seeds = [shard_seeds(shard, self._config.shard_size, self._height)[number] for shard, number in chosen]
        with nullcontext() if self._cuda_stream is None else torch.cuda.stream(self._cuda_stream):
            samples = render_samples(seeds, self._height, self._config.kind, self._device)
        for place, rgb, depth in zip(chosen, samples.rgb, samples.depth, strict=True):
            # Copies: a view would keep all that was rendered with it.
            self._held[place] = rgb.copy(), depth.copy()

    def manifest(self) -> Mapping[str, object]:
        return _manifest(self._config, self._device)

    def close(self) -> None:
        self._held.clear()


def _places(places: npt.NDArray[np.int64]) -> list[Place]:
    return [(int(shard), int(number)) for shard, number in places]


def _manifest(config: StreamConfig, device: torch.device) -> Mapping[str, object]:
    """They follow from their seeds, the renderer and the configuration, and, within rounding, from the device."""
    return {
        "source": "rendered scenes",
        "kind": config.kind,
        "renderer": RENDERER_VERSION,
        "rendered_on": device.type,
    }
