"""What every engine is: uint8 panoramas in, metres out.

Normalisation, the scale to metres and the range thresholds live inside the exported graph, so engines are
interchangeable and nobody can forget to normalise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dap.errors import EngineError, EngineUnavailable, ModelFileInvalid
from dap.graph import GraphMetadata, read_graph_metadata
from dap.models import Model
from dap.resolutions import Size


@dataclass(frozen=True)
class Inference:
    """What an engine says of a batch of panoramas.

    Attributes:
        depth: float32 (B, H, W), metres along the ray.
        in_range: float32 (B, T, H, W), for each threshold of the model, in ascending order, the probability that the
            surface is nearer; (B, 0, H, W) where it was not asked for.
    """

    depth: npt.NDArray[np.float32]
    in_range: npt.NDArray[np.float32]


def no_range(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The probabilities that go with depth (B, H, W) where none were asked for: (B, 0, H, W)."""
    count, height, width = depth.shape
    return np.empty((count, 0, height, width), np.float32)


def in_parts(panoramas: npt.NDArray[np.uint8], largest: int | None) -> list[npt.NDArray[np.uint8]]:
    """A batch (B, H, W, 3) as batches of at most `largest` panoramas, in order; None for any number."""
    if largest is None or len(panoramas) <= largest:
        return [panoramas]
    return [panoramas[start : start + largest] for start in range(0, len(panoramas), largest)]


def joined(parts: Sequence[Inference]) -> Inference:
    """What was said of the parts of a batch, as said of the whole."""
    if len(parts) == 1:
        return parts[0]
    return Inference(np.concatenate([part.depth for part in parts]), np.concatenate([part.in_range for part in parts]))


class Engine(Protocol):
    """Runs one model. As many threads as there are lanes may call `infer` at a time, and one the rest.

    Attributes:
        name: `onnx`, `torch` or `tensorrt`.
        device: where it runs, as the engine's library names it (`cpu`, `cuda:0`).
        input_size: (H, W) in pixels of the panoramas it is best given: the first of `sizes`.
        sizes: (H, W) of all panoramas that it takes; those of a batch are of one size.
        thresholds: metres, ascending; the channels of `Inference.in_range`.
        lanes: runs that may be in progress at a time. Where there are several on the CPU, panoramas are best run one by
            one and side by side; else in batches. On a GPU one batch is copied while another is worked on.
    """

    name: str
    device: str
    input_size: Size
    sizes: tuple[Size, ...]
    thresholds: tuple[float, ...]
    lanes: int

    def infer(self, panoramas: npt.NDArray[np.uint8], *, in_range: bool = True) -> Inference:
        """Depth and range probabilities of uint8 (B, H, W, 3) RGB panoramas.

        Args:
            panoramas: of one of the sizes.
            in_range: whether anybody wants the probabilities. Without them the range mask head need not run, and the
                depth is the same.

        Raises:
            EngineError: the run failed, or gave NaN or infinity.
            OutOfMemory: the device has no room for this batch; a smaller one may fit.
            DeviceLost: nothing will run here before the process starts anew.
        """
        ...

    def warm_up(self, batch_sizes: Sequence[int], size: Size | None = None) -> None:
        """Run each batch size once, so that the first request pays for no loading, allocation or compilation.

        Args:
            batch_sizes: how many panoramas.
            size: one of the sizes; by default `input_size`.
        """
        ...

    def close(self) -> None:
        """Give the device's memory back. The engine is not used after."""
        ...


def parse_device(device: str) -> tuple[str, int | None]:
    """`auto`, `cpu`, `cuda` or `cuda:N` as its kind and number.

    Raises:
        EngineUnavailable: anything else.
    """
    kind, _, number = device.partition(":")
    if device in ("auto", "cpu", "cuda"):
        return kind, None
    if kind == "cuda" and number.isdecimal():
        return kind, int(number)
    raise EngineUnavailable(f"No device is named {device!r}: expected auto, cpu, cuda or cuda:N.")


def read_metadata(path: Path, model: Model) -> GraphMetadata:
    """What the exported file at `path` says of itself, which must be what the registry says of `model`.

    Raises:
        ModelFileInvalid: it is no ONNX file of ours, or not the one that the registry describes.
    """
    metadata = read_graph_metadata(path)
    if (metadata.input_size, metadata.thresholds) != (model.input_size, model.thresholds):
        raise ModelFileInvalid(
            f"{path.name} is for input {metadata.input_size} and thresholds {metadata.thresholds}: "
            f"expected those of {model.name}, {model.input_size} and {model.thresholds}."
        )
    return metadata


def check_panoramas(panoramas: npt.NDArray[np.uint8], sizes: Sequence[Size]) -> None:
    """Refuse a batch that is not uint8 (B, H, W, 3) of one of the sizes.

    Raises:
        EngineError: it is not; the caller is at fault.
    """
    if panoramas.dtype != np.uint8 or panoramas.ndim != 4 or panoramas.shape[1:] not in [(*size, 3) for size in sizes]:
        expected = " or ".join(f"(B, {height}, {width}, 3)" for height, width in sizes)
        raise EngineError(f"Expected uint8 panoramas of shape {expected}; got {panoramas.dtype} {panoramas.shape}.")


def check_finite(inference: Inference) -> Inference:
    """The same inference, if all of it is numbers.

    Raises:
        EngineError: NaN or infinity, which broken weights and overflows in low precision give.
    """
    if not (np.isfinite(inference.depth).all() and np.isfinite(inference.in_range).all()):
        raise EngineError("The model gave NaN or infinity: expected finite metres and probabilities.")
    return inference
