"""Pairs of a panorama and its depth in a plain folder, and in the folders below it: whatever has no reader of its own.

A pair has one name, NAME. The picture is `NAME.rgb.png`, `NAME.rgb.jpg`, or `NAME` with `.png`, `.jpg`, `.jpeg` or
`.webp`; the depth, metres along the ray, is the first that there is of

    NAME.depth_m.npy    floats; 0 or NaN unknown, infinity for sky
    NAME.depth.npy      the same, as `dap render` writes it
    NAME.depth.exr      OpenEXR, channel Z, as `dap predict` writes it; what is not valid is unknown
    NAME.depth.png      16-bit PNG, 0 unknown, which says its own scale in a text chunk `Scale`, as both write it
"""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dap import truth
from training.datasets.base import Dataset, Entry, Place, entry_id, folders_below

DEPTHS = (".depth_m.npy", ".depth.npy", ".depth.exr", ".depth.png")
PICTURES = (".rgb.png", ".rgb.jpg", ".png", ".jpg", ".jpeg", ".webp")


class LabelledFolder(Dataset):
    """See the module."""

    name = "labelled-folder"
    summary = "pairs NAME.rgb.png and NAME.depth_m.npy, and the like"
    layout = ("NAME.rgb.png", "NAME.depth_m.npy (both in any folder)")
    place: ClassVar[Place] = "not sorted"

    def _find(self, split: str) -> Iterator[Entry]:  # noqa: ARG002 - there is one
        for folder in folders_below(self.root):
            files = {path.name for path in folder.iterdir()}
            for name in sorted(_names(files)):
                picture = next((end for end in PICTURES if name + end in files), PICTURES[0])
                depth = next((end for end in DEPTHS if name + end in files), DEPTHS[0])
                parts = (*folder.relative_to(self.root).parts, name)
                yield Entry(entry_id(*parts), folder / (name + picture), folder / (name + depth))

    def read_depth(self, path: Path) -> npt.NDArray[np.float32]:
        if path.suffix == ".npy":
            metres: npt.NDArray[np.float32] = np.load(path, allow_pickle=False).astype(np.float32)
            return metres
        return truth.decode(truth.read_header(path.read_bytes()))


def _names(files: set[str]) -> set[str]:
    """The names of which there is a depth, or a picture that says that it is of a pair."""
    endings = (*DEPTHS, *(end for end in PICTURES if end.startswith(".rgb")))
    return {file.removesuffix(end) for file in files for end in endings if file.endswith(end)}
