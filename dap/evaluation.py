"""How far a predicted depth map is from the true one: metrics, and the named protocols that decide what is compared.

The same prediction gets other numbers under other protocols, so a number without its protocol says nothing. Every
metric comes four times: each pixel counted once or by its solid angle (rows beyond 50 degrees of latitude are 44
percent of the pixels and 23 percent of the sphere), of raw metres or after one factor per image aligned the medians.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dap import sphere
from dap.depth import DepthMap
from dap.errors import InvalidParameter

FloatArray = npt.NDArray[np.floating[Any]]

# A prediction nearer than this counts as this: the logarithm of nothing is no number.
NEAREST_M = 1e-3


@dataclass(frozen=True)
class Metric:
    """A mean over pixels.

    Attributes:
        name: as in the tables of the field, in lower case.
        lower_is_better: whether a smaller value is the better one.
        term: of prediction and truth, both (N,) metres: what is averaged.
        root: whether the square root is taken of the mean.
    """

    name: str
    lower_is_better: bool
    term: Callable[[FloatArray, FloatArray], npt.NDArray[Any]]
    root: bool = False

    def is_better(self, value: float, than: float) -> bool:
        return value < than if self.lower_is_better else value > than

    def __call__(self, prediction: FloatArray, truth: FloatArray, weights: FloatArray) -> float:
        """The weighted mean over (N,) pixels."""
        mean = float(np.average(self.term(prediction, truth), weights=weights))
        return mean**0.5 if self.root else mean


def _delta(power: int) -> Metric:
    return Metric(f"delta{power}", False, lambda p, g: np.maximum(p / g, g / p) < 1.25**power)


METRICS: tuple[Metric, ...] = (
    Metric("absrel", True, lambda p, g: np.abs(p - g) / g),
    Metric("sqrel", True, lambda p, g: (p - g) ** 2 / g),
    Metric("rmse", True, lambda p, g: (p - g) ** 2, root=True),
    Metric("rmselog", True, lambda p, g: (np.log(p) - np.log(g)) ** 2, root=True),
    Metric("log10", True, lambda p, g: np.abs(np.log10(p) - np.log10(g))),
    Metric("mae", True, lambda p, g: np.abs(p - g)),
    _delta(1),
    _delta(2),
    _delta(3),
)


@dataclass(frozen=True)
class Protocol:
    """What is compared.

    Attributes:
        name: what `protocol=` takes.
        description: one line for people.
        max_truth: metres; pixels whose truth is farther are not compared. None for no limit.
        masked: metres that a pixel counts as where the prediction's range mask leaves it out; None if the mask is not
            looked at and the depth beneath it counts.
    """

    name: str
    description: str
    max_truth: float | None
    masked: float | None


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("dap", "truth up to 100 m; what the prediction masks counts as 100 m; all rows", 100.0, masked=100.0),
        Protocol("raw", "all pixels with truth; the depth as predicted, mask or not; all rows", None, masked=None),
    )
}


@dataclass(frozen=True)
class Metrics:
    """How one prediction did, or the mean of several. Each of the mappings is by name of the metric.

    Attributes:
        protocol: its name.
        images: how many images these numbers are the mean of.
        pixels: how many pixels were compared, in all.
        compared_share: share of the sphere that was compared, by solid angle; the mean over images.
        scale: median of the truth over median of the prediction, the factor of the alignment; the mean over images.
        scores: raw metres, every pixel counts once.
        weighted: raw metres, by solid angle.
        aligned: medians aligned, every pixel counts once.
        aligned_weighted: medians aligned, by solid angle.
    """

    protocol: str
    images: int
    pixels: int
    compared_share: float
    scale: float
    scores: Mapping[str, float]
    weighted: Mapping[str, float]
    aligned: Mapping[str, float]
    aligned_weighted: Mapping[str, float]


def find_protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        InvalidParameter: there is none; the message lists what there is.
    """
    if name not in PROTOCOLS:
        raise InvalidParameter(f"protocol is one of {', '.join(PROTOCOLS)}; got {name[:40]!r}")
    return PROTOCOLS[name]


def evaluate(prediction: DepthMap | FloatArray, truth: FloatArray, protocol: Protocol) -> Metrics:
    """Compare a prediction with the truth, both metres along the ray.

    Args:
        prediction: a depth map, or (H, W) metres without a mask.
        truth: (H, W) metres; not finite, zero or less where there are no data.
        protocol: what is compared.

    Raises:
        InvalidParameter: the two differ in size, no pixel has truth that the protocol compares, or a prediction that is
            compared is not finite.
    """
    if isinstance(prediction, DepthMap):
        metres, valid = prediction.depth, prediction.valid
    else:
        metres, valid = prediction, np.ones(prediction.shape, np.bool_)
    if metres.shape != truth.shape:
        raise InvalidParameter(f"prediction and truth have the same size; got {metres.shape} and {truth.shape}")
    compared = np.isfinite(truth) & (truth > 0)
    if protocol.max_truth is not None:
        compared &= truth <= protocol.max_truth
    if not compared.any():
        raise InvalidParameter(f"no pixel of the truth has a depth that the protocol {protocol.name} compares")
    height, width = truth.shape
    solid_angles = np.broadcast_to(sphere.solid_angles(height, width)[:, None], truth.shape)[compared]
    p, g = metres[compared].astype(np.float64), truth[compared].astype(np.float64)
    masked = None if protocol.masked is None else (~valid[compared], protocol.masked)
    scale = _median_scale(p, g, masked)
    once = np.ones_like(g)
    raw, aligned = _fill(p, masked), _fill(p * scale, masked)
    return Metrics(
        protocol=protocol.name,
        images=1,
        pixels=len(g),
        compared_share=float(solid_angles.sum() / (4 * np.pi)),
        scale=scale,
        scores=_scores(raw, g, once),
        weighted=_scores(raw, g, solid_angles),
        aligned=_scores(aligned, g, once),
        aligned_weighted=_scores(aligned, g, solid_angles),
    )


def mean(metrics: Sequence[Metrics]) -> Metrics:
    """The mean over images: each image counts once, whatever its pixels.

    Raises:
        InvalidParameter: there are none, or they are of different protocols.
    """
    protocols = {entry.protocol for entry in metrics}
    if len(protocols) != 1:
        raise InvalidParameter(f"a mean is over images of one protocol; got {sorted(protocols) or 'no image'}")
    images = np.array([entry.images for entry in metrics])

    def over_images(values: Sequence[float]) -> float:
        return float(np.average(values, weights=images))

    def scores(of: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {name: over_images([entry[name] for entry in of]) for name in of[0]}

    return Metrics(
        protocol=protocols.pop(),
        images=int(images.sum()),
        pixels=sum(entry.pixels for entry in metrics),
        compared_share=over_images([entry.compared_share for entry in metrics]),
        scale=over_images([entry.scale for entry in metrics]),
        scores=scores([entry.scores for entry in metrics]),
        weighted=scores([entry.weighted for entry in metrics]),
        aligned=scores([entry.aligned for entry in metrics]),
        aligned_weighted=scores([entry.aligned_weighted for entry in metrics]),
    )


Masked = tuple[npt.NDArray[np.bool_], float] | None


def _fill(prediction: FloatArray, masked: Masked) -> FloatArray:
    if masked is not None:
        prediction = np.where(masked[0], masked[1], prediction)
    if not np.isfinite(prediction).all():
        raise InvalidParameter("a prediction is finite wherever it is compared; this one is not")
    return np.maximum(prediction, NEAREST_M)


def _median_scale(prediction: FloatArray, truth: FloatArray, masked: Masked) -> float:
    """Over pixels that have both; 1 where the mask leaves none or the prediction is all at the camera."""
    seen = np.ones(truth.shape, np.bool_) if masked is None else ~masked[0]
    if not seen.any():
        return 1.0
    median = float(np.median(prediction[seen]))
    return float(np.median(truth[seen])) / median if median > 0 else 1.0


def _scores(prediction: FloatArray, truth: FloatArray, weights: FloatArray) -> dict[str, float]:
    return {metric.name: metric(prediction, truth, weights) for metric in METRICS}
