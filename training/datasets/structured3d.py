"""Structured3D: 3500 designed homes, rendered.

Depth is 16-bit PNG, metres = value / 1000, 0 where there is none, so it ends at 65.5 m. Whether it is the distance
along the ray is not documented; everybody takes it so, and so do we. Of each room the furnished variant (`full`) is
read, and of its lights `rawlight`: the other variants show the same walls again. Scenes 0 to 2999 train, 3000 to 3249
val, 3250 to 3499 test; six scenes of the published errata are left out.

Source: Zheng et al., "Structured3D", ECCV 2020, and the errata of its repository.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.datasets.base import Dataset, Entry, folders, read_png16

STEPS_PER_METRE = 1000
ERRATA = frozenset({1155, 1192, 1714, 1816, 1852, 3398})
SCENES: dict[str, range] = {"train": range(3000), "val": range(3000, 3250), "test": range(3250, 3500)}

_PANORAMA = ("panorama", "full")


class Structured3D(Dataset):
    """See the module."""

    name = "structured3d"
    summary = "rendered homes of designers"
    layout = (
        "scene_<5 digits>/2D_rendering/<room>/panorama/full/rgb_rawlight.png",
        "scene_<5 digits>/2D_rendering/<room>/panorama/full/depth.png",
    )
    splits = ("train", "val", "test")
    size = (512, 1024)

    def _find(self, split: str) -> Iterator[Entry]:
        for scene in folders(self.root):
            number = scene.name.removeprefix("scene_")
            if not number.isdecimal() or int(number) not in SCENES[split] or int(number) in ERRATA:
                continue
            for room in folders(scene / "2D_rendering"):
                folder = room.joinpath(*_PANORAMA)
                for rgb, depth in self.pairs(folder, "rgb_rawlight.png", folder, "depth.png"):
                    yield self.entry(rgb, depth, scene=scene.name, room=room.name)

    def read_depth(self, path: Path) -> npt.NDArray[np.float32]:
        return read_png16(path, STEPS_PER_METRE)
