"""Whether an exported model says what the network says, in numbers with limits."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from dap.engines.onnx import OnnxEngine
from dap.errors import VerificationFailed
from dap.model.dap import DapNetwork, PixelNetwork
from dap.models import find_model
from dap.panorama import resize_pixels

LIMITS = {"depth_absolute": 2e-4, "absrel": 1e-5, "in_range_absolute": 2e-4, "mask_iou": 0.999}
"""What an `Agreement` may be at most (`mask_iou`: at least) for an export to be blessed, in float32."""

_BATCHES = (1, 2, 3)


@dataclass(frozen=True)
class Agreement:
    """How well an exported model agrees with the network, over all pixels of some panoramas.

    Attributes:
        panoramas: how many.
        depth_absolute: greatest difference in depth, as a part of the network's farthest depth.
        depth_relative: greatest relative difference in depth.
        absrel: mean relative difference in depth.
        in_range_absolute: greatest difference in probability.
        mask_iou: intersection over union of the range masks, the worst of all.
    """

    panoramas: int
    depth_absolute: float
    depth_relative: float
    absrel: float
    in_range_absolute: float
    mask_iou: float

    def require(self) -> None:
        """Hold it to the limits.

        Raises:
            VerificationFailed: a number is beyond its limit; the message says which.
        """
        broken = [
            f"{name} is {value:.3g}, the limit is {LIMITS[name]:g}"
            for name, value in asdict(self).items()
            if name in LIMITS and not (value >= LIMITS[name] if name == "mask_iou" else value <= LIMITS[name])
        ]
        if broken:
            raise VerificationFailed(f"The exported model disagrees with the network: {'; '.join(broken)}.")


def verify(path: Path, network: DapNetwork, panoramas: Sequence[npt.NDArray[np.uint8]] | None = None) -> Agreement:
    """Run the ONNX file at `path` and the network on the same panoramas.

    The network sees them one at a time, the file in batches of 1, 2 and 3, so that an item that leaks into its
    neighbour shows.

    Args:
        path: the exported file.
        network: in evaluation mode, float32, on the CPU.
        panoramas: uint8 (H, W, 3) of any size; by default some that are drawn here, from smooth to noise.

    Raises:
        ModelFileInvalid: the file is no export of this project.
        EngineError: the file does not run, or gives what is no number.
    """
    engine = OnnxEngine(path, find_model(path), device="cpu", threads=torch.get_num_threads())
    if panoramas is None:
        panoramas = sample_panoramas(engine.input_size)
    pixels = np.stack([resize_pixels(panorama, engine.input_size) for panorama in panoramas])
    depth, in_range = _of_network(network, pixels)
    exported = [engine.infer(batch) for batch in _batched(pixels)]
    engine.close()
    exported_depth = np.concatenate([inference.depth for inference in exported]).astype(np.float64)
    exported_in_range = np.concatenate([inference.in_range for inference in exported]).astype(np.float64)
    relative = np.abs(exported_depth - depth) / depth
    return Agreement(
        panoramas=len(pixels),
        depth_absolute=float(np.abs(exported_depth - depth).max() / network.config.far_m),
        depth_relative=float(relative.max()),
        absrel=float(relative.mean()),
        in_range_absolute=float(np.abs(exported_in_range - in_range).max()),
        mask_iou=_worst_iou(exported_in_range > 0.5, in_range > 0.5),
    )


def sample_panoramas(size: tuple[int, int]) -> list[npt.NDArray[np.uint8]]:
    """Six uint8 (H, W, 3) panoramas to try a model on: black, white, sky over ground, noise from coarse to fine."""
    height, width = size
    rng = np.random.default_rng(360)
    flat = [np.full((height, width, 3), value, np.uint8) for value in (0, 255)]
    horizon = np.empty((height, width, 3), np.uint8)
    horizon[: height // 2], horizon[height // 2 :] = (150, 180, 240), (90, 80, 60)
    noise = [resize_pixels(rng.integers(0, 256, (rows, 2 * rows, 3), dtype=np.uint8), size) for rows in (4, 32, height)]
    return [*flat, horizon, *noise]


def _of_network(
    network: DapNetwork, pixels: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """float64 depth (B, H, W) and in-range probabilities (B, T, H, W)."""
    with torch.inference_mode():
        outputs = [PixelNetwork(network)(torch.from_numpy(panorama)[None]) for panorama in pixels]
    depth, in_range = (torch.cat(maps).double().numpy() for maps in zip(*outputs, strict=True))
    return depth, in_range


def _batched(pixels: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    batches: list[npt.NDArray[np.uint8]] = []
    start = 0
    while start < len(pixels):
        size = _BATCHES[len(batches) % len(_BATCHES)]
        batches.append(pixels[start : start + size])
        start += size
    return batches


def _worst_iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    both = (a & b).sum(axis=(2, 3))
    either = (a | b).sum(axis=(2, 3))
    return float(np.where(either, both / np.maximum(either, 1), 1).min())
