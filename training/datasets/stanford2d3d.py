"""Stanford2D3D (2D-3D-Semantics), panoramas: six floors of scanned buildings.

Depth is 16-bit PNG, metres = value / 512, 65535 where there is none (which is also where 16 bits end, 128 m); distance
along the ray. Rows around the poles, which the scanner does not see, are unknown or filled. Areas 1, 2, 3, 4 and 6
train, 5a and 5b test. Forty panoramas of the training areas are `val` in the lists that circulate; without such a list
they belong to `train`, which then has 1040.

Source: Armeni et al., "Joint 2D-3D-Semantic Data for Indoor Scene Understanding", arXiv 1702.01105.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from training.datasets.base import Dataset, Entry, read_png16

STEPS_PER_METRE = 512
UNKNOWN_NUMBER = 65535
AREAS: dict[str, tuple[str, ...]] = {
    "train": ("area_1", "area_2", "area_3", "area_4", "area_6"),
    "test": ("area_5a", "area_5b"),
}

_NAME = "camera_{}_frame_equirectangular_domain_%s.png"


class Stanford2D3D(Dataset):
    """See the module."""

    name = "stanford2d3d"
    summary = "1413 scanned office panoramas"
    layout = (
        f"area_*/pano/rgb/{_NAME % 'rgb'}".replace("{}", "*"),
        f"area_*/pano/depth/{_NAME % 'depth'}".replace("{}", "*"),
    )
    splits = ("train", "val", "test")
    listed_splits = frozenset({"val"})
    published: ClassVar[Mapping[str, int]] = {"train": 1040, "test": 373}
    size = (2048, 4096)

    def _find(self, split: str) -> Iterator[Entry]:
        for area in AREAS[split]:
            folder = self.root / area / "pano"
            for rgb, depth in self.pairs(folder / "rgb", _NAME % "rgb", folder / "depth", _NAME % "depth"):
                yield self.entry(rgb, depth, area=area)

    def read_depth(self, path: Path) -> npt.NDArray[np.float32]:
        return read_png16(path, STEPS_PER_METRE, UNKNOWN_NUMBER)
