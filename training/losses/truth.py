"""What a batch is held against."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

DEPTH_LIMIT_M = 100.0

Label = Literal["depth", "range"]


@dataclass(frozen=True)
class Truth:
    """What is known of a batch.

    Attributes:
        depth: float32 (B, H, W), ray distance in metres, +inf on sky; any value where not `known`.
        known: bool (B, H, W), False where nothing was measured (holes of a scan).
        range_known: bool (B,), False for an image whose sky and far surfaces are not certain (a pseudo-label, whose
            sky is only what another network took for sky): it teaches depth where it is `measured` and no range mask.
            None: all are certain.
    """

    depth: Tensor
    known: Tensor
    range_known: Tensor | None = None

    @property
    def measured(self) -> Tensor:
        """Bool (B, H, W): known, and a surface within `DEPTH_LIMIT_M`: where depth can be learnt."""
        return self.known & (self.depth > 0) & (self.depth <= DEPTH_LIMIT_M)

    @property
    def ranged(self) -> Tensor:
        """Bool (B, H, W): where it is certain which ranges the pixel is in: where the range mask can be learnt."""
        return self.known if self.range_known is None else self.known & self.range_known[:, None, None]

    @property
    def log_depth(self) -> Tensor:
        """Natural logarithm of the depth where `measured`, zero elsewhere."""
        return torch.where(self.measured, self.depth, 1.0).log()

    def in_range(self, thresholds: tuple[float, ...]) -> Tensor:
        """Float32 (B, T, H, W): one where the depth is below the threshold; sky is out of every range."""
        limits = torch.tensor(thresholds, device=self.depth.device)[None, :, None, None]
        return (self.depth[:, None] < limits).float()
