"""AirSim360, rendered outdoor panoramas from the air and from the ground; and DAP-Test, 1343 of them by a list.

Depth is npy, float32 metres of slant range, which is the distance along the ray. Above 100 m the numbers are not used
by their authors (DAP caps the data at 100 m), and which of them are sky is not documented: they are all out of every
range here. How the folders are arranged is not documented either: pairs of one folder are found at any depth below the
root.

Source: as DAP (arXiv 2512.16913) reads it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from training.datasets.base import SKY, Dataset, Entry, folders_below

FAR_M = 100.0


class AirSim360(Dataset):
    """See the module."""

    name = "airsim360"
    summary = "rendered outdoor panoramas; with its list, DAP-Test"
    layout = ("panorama_<i>.png", "erp_distance_<i>.npy (both in any folder)")
    splits = ("all", "test")
    listed_splits = frozenset({"test"})
    published: ClassVar[Mapping[str, int]] = {"test": 1343}
    place = "outdoor"

    def _find(self, split: str) -> Iterator[Entry]:  # noqa: ARG002 - there is one to find
        for folder in folders_below(self.root):
            for rgb, depth in self.pairs(folder, "panorama_{}.png", folder, "erp_distance_{}.npy"):
                yield self.entry(rgb, depth)

    def read_depth(self, path: Path) -> npt.NDArray[np.float32]:
        metres = np.load(path, allow_pickle=False).astype(np.float32)
        return np.where(metres > FAR_M, SKY, metres)
