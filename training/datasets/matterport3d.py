"""Matterport3D, scanned houses, in two ways whose depths differ: never mix them, nor compare their numbers.

- `matterport3d-pano3d`: rendered from the textured mesh for Pano3D. OpenEXR float32, metres along the ray. Where a ray
  leaves the mesh there is infinity or something far; how far is not documented, and a mesh cannot tell a hole from the
  sky, so what is beyond 100 m is unknown here. Pano3D's own lists are filtered (5636 / 744 / 1527 panoramas); DAP tests
  on all 2014 of the test houses.
- `matterport3d-unifuse`: the camera's pictures stitched, as UniFuse does. 16-bit PNG, metres = value / 4000, 0 where
  there is none, so it ends at 16.4 m. About the distance along the ray, with a bias where pictures overlap. Published
  as 7829 / 957 / 2014.

Houses belong to `train`, `val` and `test` as in the Matterport3D benchmark (61 / 11 / 18 houses); a list file
overrides.

Sources: Chang et al., 3DV 2017; Albanis et al., "Pano3D", CVPRW 2021; Jiang et al., "UniFuse", RA-L 2021.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from training.datasets.base import Dataset, Entry, folders, read_exr, read_png16

STEPS_PER_METRE = 4000
FAR_M = 100.0
_VAL_HOUSES = (
    "2azQ1b91cZZ 8194nk5LbLH EU6Fwq7SyZv QUCTc6BB5sX TbHJrupSAjP X7HyMhZNoso Z6MFQCViBuw oLBMNvg9in8 pLe4wQe7qrG "
    "x8F5xyUWy9e zsNo4HB9uLZ"
)
_TEST_HOUSES = (
    "2t7WUuJeko7 5ZKStnWn8Zo ARNzJeq3xxb RPmz2sHmrrY UwV83HsGsw3 Vt2qJdWjCF2 WYY7iVyf5p8 YFuZgdQ5vWj YVUC4YcDtcY "
    "fzynW3qQPVF gYvKGZ5eRqb gxdoqLR6rwA jtcxE69GiFV pa4otMbVnkk q9vSo1VnCiC rqfALeAoiTq wc2JMjhGNzB yqstnuAEVhm"
)
_SPLITS = dict.fromkeys(_VAL_HOUSES.split(), "val") | dict.fromkeys(_TEST_HOUSES.split(), "test")


def split_of_house(house: str) -> str:
    """`train`, `val` or `test`."""
    return _SPLITS.get(house, "train")


class Matterport3DPano3D(Dataset):
    """See the module."""

    name = "matterport3d-pano3d"
    summary = "scanned houses, rendered from their meshes"
    layout = ("<house>/*_spherical_1_emission_center_0.png", "<house>/*_spherical_1_depth_center_0.exr")
    splits = ("train", "val", "test")
    published: ClassVar[Mapping[str, int]] = {"test": 2014}
    size = (512, 1024)

    def _find(self, split: str) -> Iterator[Entry]:
        names = "{}_spherical_1_emission_center_0.png", "{}_spherical_1_depth_center_0.exr"
        for house in _houses(self.root, split):
            for rgb, depth in self.pairs(house, names[0], house, names[1]):
                yield self.entry(rgb, depth, building=house.name)

    def read_depth(self, path: Path) -> npt.NDArray[np.float32]:
        return read_exr(path, FAR_M)


class Matterport3DUniFuse(Dataset):
    """See the module."""

    name = "matterport3d-unifuse"
    summary = "scanned houses, stitched from the camera's pictures"
    layout = ("<house>/pano_skybox_color/*.jpg", "<house>/pano_depth/*.png")
    splits = ("train", "val", "test")
    published: ClassVar[Mapping[str, int]] = {"train": 7829, "val": 957, "test": 2014}
    size = (1024, 2048)

    def _find(self, split: str) -> Iterator[Entry]:
        for house in _houses(self.root, split):
            colour, truth = house / "pano_skybox_color", house / "pano_depth"
            for rgb, depth in self.pairs(colour, "{}.jpg", truth, "{}.png"):
                yield self.entry(rgb, depth, building=house.name)

    def read_depth(self, path: Path) -> npt.NDArray[np.float32]:
        return read_png16(path, STEPS_PER_METRE)


def _houses(root: Path, split: str) -> list[Path]:
    return [house for house in folders(root) if split_of_house(house.name) == split]
