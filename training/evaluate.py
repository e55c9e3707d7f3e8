"""How good a network is, on rendered validation scenes or on a folder of panoramas with metric depth."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dap import evaluation, sphere
from dap.errors import TrainingError
from dap.model.dap import DapNetwork
from training.augmentation import normalise
from training.losses import DEPTH_LIMIT_M

RGB_SUFFIX, DEPTH_SUFFIX = ".rgb.png", ".depth_m.npy"


@dataclass(frozen=True)
class LabelledPanorama:
    """A panorama with its truth.

    Attributes:
        name: for reports.
        rgb: uint8 (H, W, 3).
        depth: float32 (H, W), metres along the ray; +inf on sky, 0 where not known.
    """

    name: str
    rgb: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]


@dataclass(frozen=True)
class DepthScores:
    """Depth against truth, over the pixels with a known surface up to 100 m: of one panorama, or the mean over many.

    Attributes:
        absrel: mean of |prediction - truth| / truth, in raw metres, all pixels alike.
        delta1: share of pixels with max(prediction / truth, truth / prediction) below 1.25.
        absrel_aligned: `absrel` after the prediction is multiplied by median(truth) / median(prediction).
        delta1_aligned: `delta1` after the same.
        scale_error: |log(median(prediction) / median(truth))|: how wrong the metres are, apart from the shape.
        absrel_sphere: `absrel` weighted by solid angle.
    """

    absrel: float
    delta1: float
    absrel_aligned: float
    delta1_aligned: float
    scale_error: float
    absrel_sphere: float


@dataclass(frozen=True)
class Scores:
    """How a network did on some panoramas.

    Attributes:
        panoramas: how many.
        depth: of the network; the range mask takes no part.
        constant: of the best that looks at no picture: the median of all true depths, everywhere.
        out_of_range_iou: for each threshold, the intersection over union of predicted and true out-of-range pixels,
            pooled over all panoramas and weighted by solid angle; NaN where there are none.
        lost: for each threshold, the share of truly in-range pixels that the mask throws away, pooled in the same way.
    """

    panoramas: int
    depth: DepthScores
    constant: DepthScores
    out_of_range_iou: dict[str, float]
    lost: dict[str, float]

    def flat(self) -> dict[str, float]:
        """Every number under one name, for the log."""
        numbers: dict[str, float] = dict(asdict(self.depth))
        numbers |= {f"constant_{name}": value for name, value in asdict(self.constant).items()}
        numbers |= {f"out_of_range_iou_{name}": value for name, value in self.out_of_range_iou.items()}
        return numbers | {f"lost_{name}": value for name, value in self.lost.items()}

    def __str__(self) -> str:
        """One line for people."""
        depth, largest = self.depth, next(reversed(self.lost))
        return (
            f"absrel {depth.absrel:.3f} delta1 {depth.delta1:.3f} | "
            f"aligned {depth.absrel_aligned:.3f} {depth.delta1_aligned:.3f} | scale {depth.scale_error:.3f} | "
            f"{largest} m: out-of-range IoU {self.out_of_range_iou[largest]:.3f}, lost {self.lost[largest]:.3f} | "
            f"constant {self.constant.absrel:.3f} {self.constant.delta1:.3f}"
        )


def read_folder(folder: Path) -> list[LabelledPanorama]:
    """The pairs of `NAME.rgb.png` and `NAME.depth_m.npy` (metres along the ray, 0 = not known) of a folder.

    Raises:
        TrainingError: no pairs, a panorama without depth, or two of different sizes.
    """
    panoramas = []
    for path in sorted(folder.glob(f"*{RGB_SUFFIX}")):
        name = path.name.removesuffix(RGB_SUFFIX)
        depth_path = folder / f"{name}{DEPTH_SUFFIX}"
        if not depth_path.is_file():
            raise TrainingError(f"{path} has no {depth_path.name} beside it")
        with Image.open(path) as image:
            rgb = np.asarray(image.convert("RGB"))
        depth = np.load(depth_path, allow_pickle=False).astype(np.float32)
        if depth.shape != rgb.shape[:2]:
            raise TrainingError(f"{depth_path} should be {rgb.shape[:2]} as the panorama; it is {depth.shape}")
        panoramas.append(LabelledPanorama(name, rgb, np.where(np.isnan(depth), 0, depth)))
    if not panoramas:
        raise TrainingError(f"{folder} holds no panoramas NAME{RGB_SUFFIX} with NAME{DEPTH_SUFFIX}")
    return panoramas


@torch.inference_mode()
def predict(
    network: DapNetwork, panorama: npt.NDArray[np.uint8], size: tuple[int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Depth (H, W) in metres and range logits (T, H, W) of one panorama uint8 (H, W, 3).

    The network is fed at `size` (height, width); what it says is brought to the size of the panorama.
    """
    device = next(network.parameters()).device
    pixels = normalise(torch.from_numpy(panorama.copy())[None].to(device))
    output = network(resize(pixels, size))
    log_depth = resize(output.log_depth[:, None], panorama.shape[:2])[0, 0]
    return log_depth.exp().cpu().numpy(), resize(output.range_logits, panorama.shape[:2])[0].cpu().numpy()


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, anti-aliased when it shrinks, longitude a circle. (B, C, H, W) to (B, C, *size)."""
    if maps.shape[-2:] == size:
        return maps
    # Two more turns of the sphere and not a few columns: whole turns keep the grid exact at every size.
    turn = maps.shape[-1]
    turns = F.pad(maps, (turn, turn, 0, 0), mode="circular")
    resized = F.interpolate(turns, (size[0], 3 * size[1]), mode="bilinear", align_corners=False, antialias=True)
    return resized[..., size[1] : 2 * size[1]]


def evaluate(network: DapNetwork, panoramas: Sequence[LabelledPanorama], size: tuple[int, int]) -> Scores:
    """Scores of a network that is fed at `size` (height, width); the comparison is made at each truth's own size.

    The network is left in the mode it was in.
    """
    was_training = network.training
    network.eval()
    with_depth = [p for p in panoramas if _measured(p.depth).any()]
    constant = np.median(np.concatenate([p.depth[_measured(p.depth)] for p in with_depth]))
    thresholds = network.config.thresholds
    depth = []
    # Rows: threshold; columns as `range_areas` has them.
    pooled = np.zeros((len(thresholds), 4))
    for panorama in panoramas:
        predicted, logits = predict(network, panorama.rgb, size)
        if _measured(panorama.depth).any():
            depth.append(score_depth(predicted, panorama.depth))
        pooled += [range_areas(logits[k] > 0, panorama.depth, limit) for k, limit in enumerate(thresholds)]
    network.train(was_training)
    return Scores(
        len(panoramas),
        mean_scores(depth),
        mean_scores([score_depth(np.full_like(p.depth, constant), p.depth) for p in with_depth]),
        *iou_and_lost(pooled, thresholds),
    )


def score_depth(predicted: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]) -> DepthScores:
    """Scores of one panorama under the protocol `dap`, without a range mask; both (H, W) metres.

    Raises:
        InvalidParameter: no pixel of the truth is a known surface up to 100 m.
    """
    metrics = evaluation.evaluate(predicted, truth, evaluation.PROTOCOLS["dap"])
    return DepthScores(
        absrel=metrics.scores["absrel"],
        delta1=metrics.scores["delta1"],
        absrel_aligned=metrics.aligned["absrel"],
        delta1_aligned=metrics.aligned["delta1"],
        scale_error=abs(math.log(metrics.scale)),
        absrel_sphere=metrics.weighted["absrel"],
    )


def mean_scores(scores: Sequence[DepthScores]) -> DepthScores:
    """The mean of each score; every panorama counts once."""
    return DepthScores(*np.mean([list(asdict(score).values()) for score in scores], axis=0).tolist())


def _measured(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    return (depth > 0) & (depth <= DEPTH_LIMIT_M)


def range_areas(in_range: npt.NDArray[np.bool_], truth: npt.NDArray[np.float32], limit: float) -> list[float]:
    """Areas (any unit) of: both say out of range, either says so, in range and lost, in range.

    Args:
        in_range: bool (H, W), as predicted.
        truth: float32 (H, W), metres along the ray; +inf on sky, 0 where not known.
        limit: metres of the range.
    """
    known, near = truth > 0, truth < limit
    weight = sphere.solid_angles(*truth.shape)[:, None]
    regions = (~in_range & ~near, ~in_range | ~near, ~in_range & near, near)
    return [float((weight * (region & known)).sum()) for region in regions]


def iou_and_lost(
    areas: npt.NDArray[np.float64], thresholds: Sequence[float]
) -> tuple[dict[str, float], dict[str, float]]:
    """How right range masks are, by threshold (`100`), from areas that are pooled over panoramas.

    Args:
        areas: float64 (T, 4), a row for each threshold, with the columns of `range_areas`.
        thresholds: metres.

    Returns:
        Intersection over union of what is predicted and what truly is out of range, NaN where nothing is; and the share
        of truly in-range area that the mask throws away, NaN where there is none.
    """
    names = [f"{threshold:g}" for threshold in thresholds]
    with np.errstate(invalid="ignore"):
        iou, lost = areas[:, 0] / areas[:, 1], areas[:, 2] / areas[:, 3]
    return dict(zip(names, iou.tolist(), strict=True)), dict(zip(names, lost.tolist(), strict=True))
