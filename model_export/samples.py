"""Panoramas to try a model on and to calibrate it with, where the user gives none."""

from collections.abc import Sequence
from importlib.resources import files
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from dap.errors import InvalidParameter
from dap.panorama import decode, resize_pixels

Pixels = npt.NDArray[np.uint8]
SceneSet = Literal["calibration", "check"]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def sample_panoramas(size: tuple[int, int]) -> list[Pixels]:
    """Six uint8 (H, W, 3) panoramas to try a model on: black, white, sky over ground, noise from coarse to fine."""
    height, width = size
    rng = np.random.default_rng(360)
    flat = [np.full((height, width, 3), value, np.uint8) for value in (0, 255)]
    horizon = np.empty((height, width, 3), np.uint8)
    horizon[: height // 2], horizon[height // 2 :] = (150, 180, 240), (90, 80, 60)
    noise = [resize_pixels(rng.integers(0, 256, (rows, 2 * rows, 3), dtype=np.uint8), size) for rows in (4, 32, height)]
    return [*flat, horizon, *noise]


def scene_panoramas(size: tuple[int, int], count: int, seed: int, scenes: SceneSet = "calibration") -> list[Pixels]:
    """Pictures of rendered scenes, uint8 (H, W, 3), each turned, mirrored, lit and coloured another way.

    They stand in for panoramas of one's own: numbers that depend on what a model is used for, as calibration does,
    are better taken from those.

    Args:
        size: (H, W).
        count: how many; the scenes of the set in turn.
        seed: of what is made of them.
        scenes: the twelve to calibrate on or the six to check with, indoors and outdoors (`model_export/scenes`). No
            scene is in both: how a model fares on what it was calibrated on says little.
    """
    rng = np.random.default_rng(seed)
    return [_varied(scene, rng) for scene in islice(cycle(_scenes(scenes, size)), count)]


def read_panoramas(paths: Sequence[Path], size: tuple[int, int]) -> list[Pixels]:
    """The panoramas in these files, and in these folders, resized to uint8 (H, W, 3).

    Of a folder that `dap render` has filled only the pictures are read, not the depth and the sky beside them.

    Raises:
        InputError: a file cannot be read as a panorama.
        InvalidParameter: a folder has no image file in it.
    """
    found = [file for path in paths for file in (_pictures_of(path) if path.is_dir() else [path])]
    return [decode(file.read_bytes(), size=size).pixels for file in found]


def _pictures_of(folder: Path) -> list[Path]:
    rendered = sorted(folder.glob("*.rgb.png"))
    pictures = rendered or sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not pictures:
        raise InvalidParameter(f"{folder} has no panoramas in it: expected files that end in {', '.join(_SUFFIXES)}.")
    return pictures


def _scenes(scenes: SceneSet, size: tuple[int, int]) -> list[Pixels]:
    found = files("model_export").joinpath("scenes", scenes).iterdir()
    return [decode(file.read_bytes(), size=size).pixels for file in sorted(found, key=lambda file: file.name)]


def _varied(scene: Pixels, rng: np.random.Generator) -> Pixels:
    turned = np.roll(scene, rng.integers(scene.shape[1]), axis=1)
    if rng.random() < 0.5:
        turned = turned[:, ::-1]
    light = turned.astype(np.float32) / 255
    gains = rng.uniform(0.5, 1.4) * rng.uniform(0.85, 1.15, 3).astype(np.float32)
    return np.clip(255 * gains * light ** np.float32(rng.uniform(0.7, 1.5)), 0, 255).astype(np.uint8)
