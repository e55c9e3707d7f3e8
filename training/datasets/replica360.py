"""Replica360: 130 rendered panoramas of the Replica rooms.

Depth is `.dpt` (the float format of MPI Sintel: the number 202021.25, width and height as int32, then float32 rows, all
little endian), metres; below zero where there is none. A mask beside it is black where the mesh has a hole: unknown.
Rendered as a panorama, so taken as the distance along the ray; not documented. Other releases hold the pictures as PNG.

Source: Yuan and Richardt, "360 Optical Flow using Tangent Images", BMVC 2021, and Rey-Area et al., "360MonoDepth", CVPR
2022; Straub et al., "The Replica Dataset", 2019.
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from dap.errors import BrokenImage
from training.datasets.base import UNKNOWN, Dataset, Entry, folders_below

_MAGIC = struct.pack("<f", 202021.25)
_HEADER = struct.Struct("<4sii")
_DEPTH, _MASK = "_depth_pano.dpt", "_mask_pano.png"


class Replica360(Dataset):
    """See the module."""

    name = "replica360"
    summary = "130 rendered panoramas of scanned rooms"
    layout = ("<scene>/*_rgb_pano.jpg", f"<scene>/*{_DEPTH}", f"<scene>/*{_MASK}")
    splits = ("test",)
    published: ClassVar[Mapping[str, int]] = {"test": 130}

    def _find(self, split: str) -> Iterator[Entry]:  # noqa: ARG002 - there is one
        for folder in folders_below(self.root):
            picture = "{}_rgb_pano.png" if any(folder.glob("*_rgb_pano.png")) else "{}_rgb_pano.jpg"
            for rgb, depth in self.pairs(folder, picture, folder, "{}" + _DEPTH):
                yield self.entry(rgb, depth, scene=folder.name)

    def read_depth(self, path: Path) -> npt.NDArray[np.float32]:
        metres = read_dpt(path.read_bytes())
        with Image.open(path.with_name(path.name.removesuffix(_DEPTH) + _MASK)) as image:
            mask = np.asarray(image.convert("L"))
        if mask.shape != metres.shape:
            raise BrokenImage(f"a mask of {metres.shape} as the depth was expected; it is {mask.shape}")
        return np.where(mask > 0, metres, UNKNOWN)


def read_dpt(data: bytes) -> npt.NDArray[np.float32]:
    """Numbers, float32 (H, W), of a `.dpt` file.

    Raises:
        BrokenImage: not such a file, or not as long as it says.
    """
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise BrokenImage("a .dpt file begins with the number 202021.25; this does not")
    _, width, height = _HEADER.unpack_from(data)
    if min(width, height) < 1 or len(data) != _HEADER.size + 4 * width * height:
        raise BrokenImage(f"the .dpt file says {width}x{height} and has {len(data)} bytes")
    return np.frombuffer(data, "<f4", offset=_HEADER.size).reshape(height, width).astype(np.float32)
