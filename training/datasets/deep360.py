"""Deep360: six rendered street circuits, photographed with four cameras; of each pair the first camera is read.

Pictures and depth are in Cassini projection, 1024 high and 512 wide, and are turned into equirectangular panoramas: the
picture by bicubic interpolation, depth by nearest neighbour. Depth is npz, key `arr_0`, float32 metres along the ray.
The sky is large; the authors' code ends at 1000 m, but what number stands for sky is not documented: from 900 m on it
is out of every range here. Lists of this data set begin their paths with a slash.

In the Cassini projection the axis runs to the left and right of the camera instead of up and down: columns are the
angle from the left (column 0) to the right, rows go round that axis: backward, up, forward (middle row), down,
backward.

Source: Li et al., "MODE: Multi-view Omnidirectional Depth Estimation with 360 degree Cameras", ECCV 2022.
"""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from dap import sphere
from dap.errors import BrokenImage, NotAPanorama
from training.datasets.base import SKY, Dataset, Entry, folders, resize_rgb

SKY_FROM_M = 900.0
_FOLDERS = {"train": "training", "val": "validation", "test": "testing"}
_TAPS = range(-1, 3)


class Deep360(Dataset):
    """See the module."""

    name = "deep360"
    summary = "3000 rendered street panoramas"
    layout = (
        "ep<1-6>_500frames/{training,validation,testing}/rgb/*_12_rgb1.png",
        "ep<1-6>_500frames/{training,validation,testing}/depth/*_depth.npz",
    )
    splits = ("train", "val", "test")
    published: ClassVar[Mapping[str, int]] = {"train": 2100, "val": 300, "test": 600}
    size = (512, 1024)
    place = "outdoor"
    stored_as_is = False

    def _find(self, split: str) -> Iterator[Entry]:
        for episode in folders(self.root):
            folder = episode / _FOLDERS[split]
            for rgb, depth in self.pairs(folder / "rgb", "{}_12_rgb1.png", folder / "depth", "{}_depth.npz"):
                yield self.entry(rgb, depth, episode=episode.name)

    def read_rgb(self, entry: Entry, height: int | None) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
        with Image.open(entry.rgb) as image:
            cassini = np.asarray(image.convert("RGB"))
        erp = cassini_to_erp(cassini)
        return resize_rgb(erp, height), (erp.shape[0], erp.shape[1])

    def read_depth(self, path: Path) -> npt.NDArray[np.float32]:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            cassini = arrays["arr_0"].astype(np.float32)
        if cassini.ndim != 2:
            raise BrokenImage(f"depth (H, W) was expected in arr_0; it is {cassini.shape}")
        metres = cassini_to_erp_nearest(cassini)
        return np.where(metres >= SKY_FROM_M, SKY, metres)


def cassini_to_erp(cassini: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A picture in Cassini projection, uint8 (2 N, N, 3), as a panorama uint8 (N, 2 N, 3), bicubic (Keys, a = -1/2).

    Raises:
        NotAPanorama: not twice as high as wide.
    """
    row, column = _cassini_coordinates(cassini.shape)
    first_row, first_column = np.floor(row - 0.5).astype(np.intp), np.floor(column - 0.5).astype(np.intp)
    row_weights, column_weights = _keys(row - 0.5 - first_row), _keys(column - 0.5 - first_column)
    height, width = cassini.shape[:2]
    total = np.zeros((*row.shape, 3), np.float32)
    for i, down in enumerate(_TAPS):
        for j, across in enumerate(_TAPS):
            # Rows go round the axis; columns end at its two poles.
            taken = cassini[(first_row + down) % height, np.clip(first_column + across, 0, width - 1)]
            total += (row_weights[i] * column_weights[j])[..., None] * taken
    return np.clip(np.rint(total), 0, 255).astype(np.uint8)


def cassini_to_erp_nearest(cassini: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Numbers in Cassini projection (2 N, N) as a panorama (N, 2 N): each the one whose pixel its ray falls in.

    Raises:
        NotAPanorama: not twice as high as wide.
    """
    row, column = _cassini_coordinates(cassini.shape)
    height, width = cassini.shape
    rows = row.astype(np.intp) % height
    taken: npt.NDArray[Any] = cassini[rows, np.minimum(column.astype(np.intp), width - 1)]
    return taken


def _keys(t: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    """Weights of the four neighbours of a place `t` of the way from the second to the third."""
    return [
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    ]


def _cassini_coordinates(shape: tuple[int, ...]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    if shape[0] != 2 * shape[1]:
        raise NotAPanorama(f"a Cassini picture is twice as high as wide; this one is {shape[1]}x{shape[0]}")
    return _coordinates_of_erp(shape[1])


@functools.lru_cache(maxsize=1)
def _coordinates_of_erp(height: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Rows and columns of a Cassini picture (2 N, N) where the pixels of a panorama (N, 2 N) fall; edges are whole."""
    forward, left, up = np.moveaxis(sphere.rays(height, 2 * height).astype(np.float64), -1, 0)
    from_left = 0.5 - np.arcsin(np.clip(left, -1, 1)) / np.pi
    from_back = 0.5 - np.arctan2(up, forward) / (2 * np.pi)
    return (from_back * 2 * height).astype(np.float32), (from_left * height).astype(np.float32)
