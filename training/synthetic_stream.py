"""The stream of rendered scenes: which samples a step sees follows from the configuration and the step alone."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from training.batches import Batch, Share
from training.config import TrainingConfig
from training.read_ahead import ReadAhead
from training.scene_readers import CPU, scene_reader

_ALONE = Share()


class SampleStream:
    """The batches of a run, in order, from any step on; rendered and read ahead of the training. A context manager."""

    def __init__(self, config: TrainingConfig, cache: Path, share: Share = _ALONE, device: torch.device = CPU) -> None:
        """Nothing is rendered yet.

        Args:
            config: of the run.
            cache: folder of rendered scenes.
            share: of this process.
            device: that trains, and renders too where `config.stream` says so.
        """
        self._config = config
        self._share = share
        self._scenes = scene_reader(config.stream, config.seed, cache, share, device)
        self._ahead = ReadAhead(self._read, config.steps)

    def manifest(self) -> Mapping[str, object]:
        """Which scenes the run sees."""
        return self._scenes.manifest()

    def batch(self, step: int) -> Batch:
        """The batch of a step. Cheap when steps are asked for in order.

        Raises:
            TrainingError: scenes cannot be rendered or read.
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
