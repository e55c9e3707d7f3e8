"""Whether an exported model says what the network says, in numbers with limits."""

import functools
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
import torch

from dap.depth import DepthMap
from dap.engines import Engine, Provider
from dap.engines.onnx import OnnxEngine
from dap.engines.plans import batch_ranges
from dap.errors import EngineUnavailable, VerificationFailed
from dap.graph import GraphPrecision, read_graph_metadata
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork, PixelNetwork
from dap.model.flop import network_flop
from dap.models import find_model
from dap.panorama import resize_pixels
from dap.seam import seam_error
from model_export.precision import emulated
from model_export.samples import sample_panoramas, scene_panoramas

_HALF = {"absrel": 5e-3, "mask_iou": 0.98}
_BYTE = {"absrel": 2e-2, "mask_iou": 0.95}
LIMITS: dict[GraphPrecision, dict[str, float]] = {
    "fp32": {
        "depth_absolute": 2e-4,
        "depth_relative": 1e-3,
        "absrel": 1e-5,
        "in_range_absolute": 2e-4,
        "mask_iou": 0.999,
    },
    "bf16": _HALF,
    "fp16": _HALF,
    "int8": _BYTE,
    "fp8": _BYTE,
}
"""What an `Agreement` may be at most (`mask_iou`: at least) for an export to be blessed."""

Source = Literal["synthetic", "rendered", "given"]

# Linear depth is the farthest times a sigmoid, and ONNX Runtime's is off by up to 1.4e-7 however near it is to 0: of a
# thousandth of the farthest depth that is 1.4e-4, of a hundred thousandth 1.4%, and does no harm.
_NEAR = 1e-3
_BATCHES = (1, 2, 3)
_SCENES, _SCENES_SEED = 6, 1
# Six scenes more in float32 would take a ViT-L minutes, and from one scene to another float32 is off by much the same.
_LARGE_FLOP, _SCENES_OF_LARGE = 5e11, 2


@dataclass(frozen=True)
class Agreement:
    """How well an engine agrees with the float32 network, over all pixels of some panoramas.

    Of depth with range masks and depth without, which engines compute by other graphs, the worse counts; of batches of
    several sizes, for which engines have other kernels, the worst.

    Attributes:
        engine: what ran the model; of the engine onnx also the GPU, and TensorRT if that was asked for; `onnx,
            emulated` where this machine has no arithmetic of this precision, and float32 was rounded to it.
        precision: of the model.
        panoramas: how many.
        depth_absolute: greatest difference in depth, as a part of the network's farthest depth.
        depth_relative: greatest relative difference in depth; of depths nearer than a thousandth of the network's
            farthest, which is 10 cm of 100 m, relative to that.
        absrel: mean relative difference in depth.
        in_range_absolute: greatest difference in probability.
        mask_iou: intersection over union of the range masks, of the worst threshold.
        seam_error: how far the two sides of the left/right border are apart, as `dap.seam.seam_error`, on average.
        network_seam_error: the same of the network.
        source: of the panoramas: `synthetic` (`model_export.samples.sample_panoramas`), `rendered` scenes, or `given`.
    """

    engine: str
    precision: GraphPrecision
    panoramas: int
    depth_absolute: float
    depth_relative: float
    absrel: float
    in_range_absolute: float
    mask_iou: float
    seam_error: float
    network_seam_error: float
    source: Source = "given"

    @property
    def broken(self) -> list[str]:
        """Each number that is beyond its limit, in words."""
        limits = LIMITS[self.precision]
        return [
            f"{name} is {value:.3g}, the limit is {limits[name]:g}"
            for name, value in asdict(self).items()
            if name in limits and not (value >= limits[name] if name == "mask_iou" else value <= limits[name])
        ]

    def require(self) -> None:
        """Hold it to the limits of its precision.

        Raises:
            VerificationFailed: a number is beyond its limit; the message says which, and on which panoramas.
        """
        if self.broken:
            raise VerificationFailed(
                f"The {self.precision} model disagrees with the network on {self.panoramas} {self.source} panoramas: "
                f"{'; '.join(self.broken)}."
            )


@dataclass(frozen=True)
class Reference:
    """What the float32 network says of some panoramas.

    Attributes:
        pixels: uint8 (B, H, W, 3), the panoramas.
        depth: float64 (B, H, W), metres.
        in_range: float64 (B, T, H, W).
        far_m: the network's farthest depth, metres.
        source: see `Agreement`.
    """

    pixels: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float64]
    in_range: npt.NDArray[np.float64]
    far_m: float
    source: Source = "given"

    @classmethod
    def of(
        cls,
        network: DapNetwork,
        panoramas: Sequence[npt.NDArray[np.uint8]],
        size: tuple[int, int],
        source: Source = "given",
    ) -> "Reference":
        """Run the network, in evaluation mode, float32, on the CPU, on one panorama at a time.

        Args:
            network: of the checkpoint.
            panoramas: uint8 (H, W, 3) of any size.
            size: (H, W) at which the network sees them.
            source: see `Agreement`.
        """
        pixels = np.stack([resize_pixels(panorama, size) for panorama in panoramas])
        with torch.inference_mode():
            outputs = [PixelNetwork(network)(torch.from_numpy(panorama)[None]) for panorama in pixels]
        depth, in_range = (torch.cat(maps).double().numpy() for maps in zip(*outputs, strict=True))
        return cls(pixels, depth, in_range, network.config.far_m, source)

    def compare(
        self, engine: Engine, precision: GraphPrecision, name: str | None = None, max_batch_size: int = 4
    ) -> Agreement:
        """Run an engine on the same panoramas, with range masks and without.

        Batches are of 1, 2 and 3: an item that leaks into its neighbour shows. On a GPU all panoramas run in batches of
        each size, too, that plans of TensorRT are built for (`dap.engines.plans.batch_ranges`), some of them again
        where the last batch has room.

        Args:
            engine: of the same input size.
            precision: in which it runs.
            name: of what ran it, if not the engine's.
            max_batch_size: panoramas that run together at most on a GPU.

        Raises:
            EngineError: the engine failed, or gave what is no number.
        """
        count = len(self.pixels)
        ways = [_mixed(count)]
        if engine.device != "cpu":
            ways += [_full(count, most) for _, most in batch_ranges(max_batch_size)]
        found = [self._numbers(engine, batches) for batches in ways]
        return Agreement(
            engine=name or engine.name,
            precision=precision,
            panoramas=count,
            **{key: float((np.min if key == "mask_iou" else np.max)([one[key] for one in found])) for key in found[0]},
            network_seam_error=_mean_seam_error(self.depth.astype(np.float32)),
            source=self.source,
        )

    def _numbers(self, engine: Engine, batches: Sequence[npt.NDArray[np.intp]]) -> dict[str, float]:
        """How far off the engine is on batches of these panoramas, each of which is in one at least."""
        which = np.concatenate(batches)
        found = [engine.infer(self.pixels[batch]) for batch in batches]
        alone = [engine.infer(self.pixels[batch], in_range=False) for batch in batches]
        depth = np.stack([np.concatenate([one.depth for one in form]) for form in (found, alone)])
        in_range = np.concatenate([inference.in_range for inference in found]).astype(np.float64)
        apart = np.abs(depth - self.depth[which])
        relative = (apart / self.depth[which]).mean(axis=(2, 3))
        # Each panorama counts as much as the others, however often it ran.
        absrel = [relative[:, which == index].mean(axis=1) for index in range(len(self.pixels))]
        return {
            "depth_absolute": apart.max() / self.far_m,
            "depth_relative": (apart / np.maximum(self.depth[which], _NEAR * self.far_m)).max(),
            "absrel": np.mean(absrel, axis=0).max(),
            "in_range_absolute": np.abs(in_range - self.in_range[which]).max(),
            "mask_iou": _worst_iou(in_range > 0.5, self.in_range[which] > 0.5),
            "seam_error": max(_mean_seam_error(form) for form in depth),
        }


def reference_sets(
    network: DapNetwork,
    given: Sequence[npt.NDArray[np.uint8]] | None,
    precision: GraphPrecision,
    size: tuple[int, int],
) -> tuple[Reference, ...]:
    """What the network says of each set of panoramas that a model of this precision is held to.

    The sets are rendered scenes, six of them or of a large network in float32 two; in float32 before them
    `synthetic_set`; and after them, where there are any, those given. None of the scenes is one that a model is
    calibrated on here. Each set is held to the limits by itself: among panoramas that are easy for a model, others
    that are not would not show.

    Less than float32 is held to pictures alone: on noise, say, it is a little off in a depth that means nothing.

    Args:
        network: of the checkpoint.
        given: uint8 (H, W, 3) of any size.
        precision: of the model.
        size: (H, W) at which the network sees them.
    """
    few = precision == "fp32" and _is_large(network.config, size)
    scenes = scene_panoramas(size, _SCENES_OF_LARGE if few else _SCENES, _SCENES_SEED, "check")
    sets = [synthetic_set(network, size)] if precision == "fp32" else []
    sets.append(Reference.of(network, scenes, size, "rendered"))
    if given:
        sets.append(Reference.of(network, given, size))
    return tuple(sets)


def synthetic_set(network: DapNetwork, size: tuple[int, int]) -> Reference:
    """What the network says of flat colours, a horizon and noise: float32 is to be right for any pixels.

    Args:
        network: of the checkpoint.
        size: (H, W) at which the network sees them.
    """
    return Reference.of(network, sample_panoramas(size), size, "synthetic")


def verify(
    path: Path, network: DapNetwork, panoramas: Sequence[npt.NDArray[np.uint8]] | None = None
) -> tuple[Agreement, ...]:
    """Run the ONNX file at `path` and the network on the same panoramas.

    Args:
        path: the exported file.
        network: in evaluation mode, float32, on the CPU.
        panoramas: uint8 (H, W, 3) of any size, to compare on beside those of this project.

    Returns:
        How well the two agree on each set of panoramas, see `reference_sets`.

    Raises:
        ModelFileInvalid: the file is no export of this project.
        EngineError: the file does not run, or gives what is no number.
    """
    metadata = read_graph_metadata(path)
    return compare_by_onnx(path, reference_sets(network, panoramas, metadata.precision, metadata.input_size))


def compare_by_onnx(
    path: Path,
    references: Sequence[Reference],
    *,
    device: str = "cpu",
    provider: Provider = "auto",
    max_batch_size: int = 4,
) -> tuple[Agreement, ...]:
    """The same with what the network said before; where ONNX Runtime's CPU provider has no such precision, emulated.

    Args:
        path: the exported file.
        references: what the network says of each set of panoramas.
        device: as `dap.engines.sessions.open_session` has it.
        provider: on a GPU, likewise.
        max_batch_size: panoramas that run together at most on a GPU.

    Raises:
        EngineUnavailable: the device or the provider asked for cannot be had.
    """
    precision = read_graph_metadata(path).precision
    threads = torch.get_num_threads()
    try:
        engine = OnnxEngine(
            *(path, find_model(path)), device=device, threads=threads, provider=provider, max_batch_size=max_batch_size
        )
    except EngineUnavailable:
        if precision != "bf16" or device not in ("auto", "cpu") or provider != "auto":
            raise
        with tempfile.TemporaryDirectory(prefix="dap-emulated-") as folder:
            stand_in = Path(folder) / path.name
            onnx.save(emulated(onnx.load(path)), stand_in)
            engine = OnnxEngine(stand_in, find_model(stand_in), device="cpu", threads=threads)
            return compare_and_close(engine, references, precision, "onnx, emulated")
    if engine.device == "cpu":
        return compare_and_close(engine, references, precision)
    by_tensorrt = ", TensorRT" if provider == "tensorrt" else ""
    return compare_and_close(engine, references, precision, f"onnx, {engine.device}{by_tensorrt}", max_batch_size)


def compare_and_close(
    engine: Engine,
    references: Sequence[Reference],
    precision: GraphPrecision,
    name: str | None = None,
    max_batch_size: int = 4,
) -> tuple[Agreement, ...]:
    """As `Reference.compare`, with each; the engine is not used after."""
    try:
        return tuple(reference.compare(engine, precision, name, max_batch_size) for reference in references)
    finally:
        engine.close()


@functools.cache
def _is_large(config: NetworkConfig, size: tuple[int, int]) -> bool:
    return network_flop(config, size) > _LARGE_FLOP


def _mixed(count: int) -> list[npt.NDArray[np.intp]]:
    """Which of so many panoramas are in which batch: each once, in batches of 1, 2 and 3 in turns."""
    batches: list[npt.NDArray[np.intp]] = []
    start = 0
    while start < count:
        size = _BATCHES[len(batches) % len(_BATCHES)]
        batches.append(np.arange(start, min(start + size, count)))
        start += size
    return batches


def _full(count: int, size: int) -> list[npt.NDArray[np.intp]]:
    """The same in batches of one size, the first panoramas again where the last has room."""
    return [*np.resize(np.arange(count), (math.ceil(count / size), size))]


def _worst_iou(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    """Of the channel in which masks (B, T, H, W) differ most."""
    both = (a & b).sum(axis=(0, 2, 3))
    either = (a | b).sum(axis=(0, 2, 3))
    return float(np.where(either, both / np.maximum(either, 1), 1).min())


def _mean_seam_error(depth: npt.NDArray[np.float32]) -> float:
    maps = [DepthMap(one, np.ones(one.shape, np.bool_), None, "none", "") for one in depth]
    return float(np.mean([seam_error(one) or 0.0 for one in maps]))
