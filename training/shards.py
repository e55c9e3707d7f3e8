"""Rendered scenes on disk: shards that are functions of their name, written ahead of the training by other processes.

A shard is an uncompressed `.npz` with `rgb` uint8 (K, H, W, 3) and `depth` float16 (K, H, W): metres along the ray,
+inf on sky, 0 where not known. Its folder and name say everything it depends on: renderer version, kind of scene,
size, and index, from which the seeds of its scenes follow. So any run may share a cache, a lost shard is drawn again
just the same, and no result depends on who rendered what when.
"""

import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch

from dap.errors import TrainingError
from training.synthetic import RENDERER_VERSION
from training.synthetic.render import render_batch
from training.synthetic.sampling import Kind
from training.worker_process import follow_parent

# Training scenes of each height have a million seeds of their own; the validation scenes are the seeds from 0 on.
SEEDS_PER_ROW = 1_000_000
RENDERED_AT_ONCE = 8
LONG_WAIT_S = 1.0
_CPU = torch.device("cpu")
_WORKER_DIED = "a process that renders scenes died; is there memory enough for it?"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """K rendered panoramas.

    Attributes:
        rgb: uint8 (K, H, W, 3).
        depth: float16 (K, H, W), metres along the ray; +inf on sky, 0 where not known.
    """

    rgb: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.rgb)


@dataclass(frozen=True)
class ShardFolder:
    """The shards of one kind and size of scene.

    Attributes:
        cache: the folder that holds the folders of all kinds and sizes.
        kind: of scene, as `training.synthetic` names them.
        height: of the panoramas; the width is twice as much.
        size: scenes a shard.
        validation: the scenes that are never trained on.
    """

    cache: Path
    kind: Kind
    height: int
    size: int
    validation: bool = False

    @property
    def path(self) -> Path:
        use = "validation" if self.validation else "training"
        name = f"v{RENDERER_VERSION}-{self.kind}-{self.height}x{2 * self.height}-{use}-{self.size}"
        return self.cache / name

    def shard(self, index: int) -> Path:
        return self.path / f"{index:06d}.npz"

    def seeds(self, index: int) -> range:
        """The seeds of a shard's scenes.

        Raises:
            TrainingError: beyond the seeds that belong to this size.
        """
        return shard_seeds(index, self.size, 0 if self.validation else self.height)

    def render(self, index: int) -> None:
        """Render and write a shard unless it is there. The file appears whole or not at all."""
        path = self.shard(index)
        if path.exists():
            return
        samples = render_samples(self.seeds(index), self.height, self.kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as unfinished:
            whole = Path(unfinished) / path.name
            np.savez(whole, rgb=samples.rgb, depth=samples.depth)
            whole.replace(path)

    def load(self, index: int) -> Samples:
        """Read a shard.

        Raises:
            TrainingError: not such a shard.
        """
        path = self.shard(index)
        try:
            # numpy leaves a file open that it opened itself and found broken.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                samples = Samples(arrays["rgb"], arrays["depth"])
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise TrainingError(f"{path} is not a shard of rendered scenes: {error}") from error
        expected = (self.size, self.height, 2 * self.height)
        if samples.depth.shape != expected or samples.rgb.shape != (*expected, 3):
            raise TrainingError(f"{path} should hold panoramas {expected}; it holds {samples.depth.shape}")
        return samples

    def prune(self, before: int, limit_bytes: float) -> None:
        """Delete the oldest shards with an index below `before` while the folder takes more than `limit_bytes`."""
        shards = sorted(self.path.glob("[0-9]*.npz"))
        total = sum(shard.stat().st_size for shard in shards)
        for shard in shards:
            if total <= limit_bytes or int(shard.stem) >= before:
                return
            total -= shard.stat().st_size
            shard.unlink()


def shard_seeds(index: int, size: int, row: int) -> range:
    """The seeds of a shard's scenes.

    Args:
        index: of the shard.
        size: scenes a shard.
        row: the height of the panoramas; 0 for the validation scenes.

    Raises:
        TrainingError: beyond the seeds that belong to this height.
    """
    first, last = index * size, (index + 1) * size
    if last > SEEDS_PER_ROW:
        raise TrainingError(f"shard {index} of {size} scenes lies beyond the {SEEDS_PER_ROW} scenes of a size")
    return range(row * SEEDS_PER_ROW + first, row * SEEDS_PER_ROW + last)


def render_samples(seeds: Sequence[int], height: int, kind: Kind, device: torch.device = _CPU) -> Samples:
    """Render one scene a seed: on a CPU a few at a time, as quick as all and in less memory; elsewhere all at once."""
    rgb, depth = [], []
    at_once = RENDERED_AT_ONCE if device.type == "cpu" else len(seeds)
    for first in range(0, len(seeds), at_once):
        rendered = render_batch(seeds[first : first + at_once], height, 2 * height, kind, device)
        rgb.append(rendered.rgb.cpu().numpy())
        depth.append(torch.where(rendered.known, rendered.depth, 0).half().cpu().numpy())
    return Samples(np.concatenate(rgb), np.concatenate(depth))


class RenderAhead:
    """Processes of low priority that render the shards a training will need. One owner, one thread."""

    def __init__(self, folder: ShardFolder, workers: int) -> None:
        """With no workers, `wait` renders by itself."""
        self._folder = folder
        self._futures: dict[int, Future[None]] = {}
        self._pool = (
            ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin_worker)
            if workers
            else None
        )

    def request(self, indices: Sequence[int]) -> None:
        """Queue the shards that are neither written nor queued. Returns at once.

        Raises:
            TrainingError: a rendering process died.
        """
        if self._pool is None:
            return
        self._futures = {index: future for index, future in self._futures.items() if not future.done()}
        for index in indices:
            if index not in self._futures and not self._folder.shard(index).exists():
                try:
                    self._futures[index] = self._pool.submit(self._folder.render, index)
                except BrokenProcessPool as error:
                    raise TrainingError(_WORKER_DIED) from error

    def wait(self, index: int) -> None:
        """Return when the shard is on disk.

        Raises:
            TrainingError: a rendering process died.
        """
        if self._folder.shard(index).exists():
            return
        began = time.monotonic()
        self.request(range(index, index + 1))
        try:
            if self._pool is None:
                self._folder.render(index)
            elif index in self._futures:
                self._futures[index].result()
        except BrokenProcessPool as error:
            raise TrainingError(_WORKER_DIED) from error
        waited = time.monotonic() - began
        if waited > LONG_WAIT_S:
            _log.info("waited %.0f s for shard %d of %s", waited, index, self._folder.path.name)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _begin_worker() -> None:
    """Make a spawned process a quiet neighbour."""
    os.nice(10)
    torch.set_num_threads(1)
    follow_parent()
