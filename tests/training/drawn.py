"""A source of batches that are drawn from the step, for trainings that need no scenes."""

from collections.abc import Mapping

import torch

from training.batches import Batch, Share
from training.config import TrainingConfig
from training.losses import Truth


class DrawnSource:
    """Noise for pictures, noise for depth. The images of a batch have unlike labels, as those of a mixture have.

    Nothing is known of the first image of every second batch; the last one's range is not certain.
    """

    def __init__(self, config: TrainingConfig, share: Share) -> None:
        self._config = config
        self._share = share

    def batch(self, step: int) -> Batch:
        _, phase = self._config.phase_at(step)
        shape = (phase.batch, phase.height, 2 * phase.height)
        generator = torch.Generator().manual_seed(step)
        rgb = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)
        depth = 30 * torch.rand(shape, generator=generator)
        known = torch.rand(shape, generator=generator) < 0.8
        known[0] &= step % 2 == 0
        certain = torch.arange(phase.batch) < phase.batch - 1
        rows = self._share.rows(phase.batch)
        mine = slice(rows.start, rows.stop)
        return Batch(rgb[mine], Truth(depth[mine], known[mine], certain[mine]))

    def manifest(self) -> Mapping[str, object]:
        return {"source": "drawn", "sha256": "5eed"}
