"""3D60: Matterport3D, Stanford2D3D and SunCG rendered as panoramas, from three viewpoints each.

Depth is OpenEXR float32, metres along the ray. Where a ray leaves the mesh there is something far; how far is not
documented: beyond 100 m is unknown here. No split is published with the files: several lists circulate, so `train`,
`val` and `test` need one, and `all` is what lies below the root. Its Matterport3D and Stanford2D3D scenes are those of
the data sets of these names: do not train on one and test on the other.

Source: Zioulis et al., "OmniDepth", ECCV 2018, and "Spherical View Synthesis", 3DV 2019.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.datasets.base import Dataset, Entry, folders_below, read_exr

FAR_M = 100.0


class ThreeD60(Dataset):
    """See the module."""

    name = "3d60"
    summary = "Matterport3D, Stanford2D3D and SunCG, rendered at 512x256"
    layout = ("*_color_*.png", "*_depth_*.exr (both in any folder)")
    splits = ("all", "train", "val", "test")
    listed_splits = frozenset({"train", "val", "test"})
    size = (256, 512)

    def _find(self, split: str) -> Iterator[Entry]:  # noqa: ARG002 - there is one to find
        for folder in folders_below(self.root):
            for rgb, depth in self.pairs(folder, "{}_color_{}.png", folder, "{}_depth_{}.exr"):
                yield self.entry(rgb, depth)

    def read_depth(self, path: Path) -> npt.NDArray[np.float32]:
        return read_exr(path, FAR_M)
