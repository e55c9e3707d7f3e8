"""Weights in the official layout that are drawn again from a seed, and what the official network made of them.

The official weights are 1.4 GB and not ours to carry. Each tensor here is drawn on its own from its name, so any
implementation can make the same checkpoint; the vectors in tests/data/conformance are the official implementation's
outputs for it.
"""

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

DATA = Path(__file__).parents[2] / "data" / "conformance"


def layout(encoder: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of the official checkpoint with that encoder."""
    shapes = json.loads((DATA / f"dap_{encoder}_state_dict.json").read_text())
    return {name: tuple(shape) for name, shape in shapes.items()}


def official_state(encoder: str, seed: int, prefix: str = "module.") -> dict[str, torch.Tensor]:
    return {
        prefix + name: torch.from_numpy(np.asarray(_tensor(name, shape, seed), np.float32))
        for name, shape in layout(encoder).items()
    }


def _tensor(name: str, shape: tuple[int, ...], seed: int) -> Any:
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "periods":
        return np.float32(100.0) ** (np.arange(shape[0], dtype=np.float32) / np.float32(shape[0]))
    if leaf == "bias_mask":
        mask = np.ones(shape, np.float32)
        mask[shape[0] // 3 : 2 * shape[0] // 3] = 0
        return mask
    draw = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    x = draw.standard_normal(shape, dtype=np.float32)
    if leaf == "gamma":
        return 0.2 + 0.05 * x
    if leaf in ("cls_token", "storage_tokens", "mask_token"):
        return 0.5 * x
    if leaf == "bias":
        return 0.05 * x
    if x.ndim == 1:
        return 1 + 0.1 * x
    transposed = "resize_layers.0" in name or "resize_layers.1" in name
    fan_in = shape[0] if transposed else math.prod(shape[1:])
    x = x * np.float32((1.0 / fan_in) ** 0.5) * np.float32(1.3 if x.ndim == 4 else 1.0)
    return x * np.float32(0.1) if name.endswith("output_conv2.2.weight") else x


@dataclass(frozen=True)
class Vector:
    """One input and the official outputs: image float32 (1, 3, H, W) in 0..1, depth and mask float32 (H, W) in 0..1."""

    image: torch.Tensor
    depth: np.ndarray
    beyond: np.ndarray


def vector(size: str) -> Vector:
    with Image.open(DATA / f"vits_seed7_{size}.png") as picture:
        pixels = np.asarray(picture.convert("RGB"), np.float32) / 255
    outputs = np.load(DATA / f"vits_seed7_{size}.npz")
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    return Vector(image, outputs["pred_depth"], outputs["pred_mask"])
