"""How far a predicted depth map is from the true one: metrics, and the named protocols that decide what is compared.

The same prediction gets other numbers under other protocols, so a number without its protocol says nothing. Every
metric comes four times: each pixel counted once or by its solid angle (rows beyond 50 degrees of latitude are 44
percent of the pixels and 23 percent of the sphere), of raw metres or after one factor per image aligned the medians.
A protocol says which of the four is its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dap import sphere
from dap.depth import DepthMap
from dap.errors import InvalidParameter

FloatArray = npt.NDArray[np.floating[Any]]
Alignment = Literal["none", "median"]
Weighting = Literal["pixels", "sphere"]

# A prediction nearer than this counts as this: the logarithm of nothing is no number.
NEAREST_M = 1e-3
# Pixels that are compared at a time: in double precision all of a large panorama would take gigabytes.
_BLOCK_PIXELS = 1 << 15


@dataclass(frozen=True)
class Errors:
    """Predictions against the truth, pixel by pixel; each float64 (N,), lengths in the protocol's unit.

    Attributes:
        truth: what is true.
        difference: prediction - truth.
        ratio: the larger of the two / the smaller.
        log_ratio: its natural logarithm.
    """

    truth: FloatArray
    difference: FloatArray
    ratio: FloatArray
    log_ratio: FloatArray

    @classmethod
    def of(cls, prediction: FloatArray, truth: FloatArray) -> "Errors":
        ratio = np.maximum(prediction, truth) / np.minimum(prediction, truth)
        return cls(truth, prediction - truth, ratio, np.log(ratio))


@dataclass(frozen=True)
class Metric:
    """A mean over pixels.

    Attributes:
        name: as in the tables of the field, in lower case.
        lower_is_better: whether a smaller value is the better one.
        term: of each pixel, (N,): what is averaged.
        root: whether the square root is taken of the mean.
    """

    name: str
    lower_is_better: bool
    term: Callable[[Errors], npt.NDArray[Any]]
    root: bool = False

    def is_better(self, value: float, than: float) -> bool:
        return value < than if self.lower_is_better else value > than

    def of_mean(self, mean: float) -> float:
        """The metric, of the mean of its terms."""
        return mean**0.5 if self.root else mean


def _delta(power: int) -> Metric:
    return Metric(f"delta{power}", False, lambda of: of.ratio < 1.25**power)


METRICS: tuple[Metric, ...] = (
    Metric("absrel", True, lambda of: np.abs(of.difference) / of.truth),
    Metric("sqrel", True, lambda of: of.difference**2 / of.truth),
    Metric("rmse", True, lambda of: of.difference**2, root=True),
    Metric("rmselog", True, lambda of: of.log_ratio**2, root=True),
    Metric("log10", True, lambda of: of.log_ratio / np.log(10)),
    Metric("mae", True, lambda of: np.abs(of.difference)),
    _delta(1),
    _delta(2),
    _delta(3),
)


def _instead(*others: Metric) -> tuple[Metric, ...]:
    """The metrics, with others under the same names."""
    by_name = {other.name: other for other in others}
    return tuple(by_name.get(metric.name, metric) for metric in METRICS)


@dataclass(frozen=True)
class Protocol:
    """What is compared, and how its mean is taken.

    Attributes:
        name: what `protocol=` takes.
        description: one line for people.
        alignment: `median`: the protocol's own numbers are those after one factor per image aligned the medians.
        weighting: `sphere`: its own numbers are those by solid angle. For rows of equal height that is the cosine of
            the latitude of their centres, exactly.
        min_truth: metres; pixels whose truth is nearer are not compared.
        max_truth: metres; pixels whose truth is farther are not compared. None where the protocol has no limit, or
            takes that of the data set: see `capped`.
        max_truth_of: limits as `max_truth`, by the name of the data set that the protocol has them for: see
            `on_dataset`.
        truth_clip: metres that the truth of compared pixels is brought between, what is out of every range (+inf)
            included, which counts as the farther one; None to leave it as it is, and +inf out.
        nearest: metres; a prediction that is nearer counts as this.
        masked: metres that a pixel counts as where the prediction's range mask leaves it out; None if the mask is not
            looked at and the depth beneath it counts.
        pole_cut: share of the rows that is left out at the top, and again at the bottom.
        unit: metres in the unit of rmse, mae and sqrel.
        metrics: what is computed.
        pooled: names of the metrics whose mean over images counts each pixel once, and not each image.
    """

    name: str
    description: str
    alignment: Alignment = "none"
    weighting: Weighting = "pixels"
    min_truth: float = 0.0
    max_truth: float | None = None
    max_truth_of: Mapping[str, float] = field(default_factory=dict, repr=False, hash=False)
    truth_clip: tuple[float, float] | None = None
    nearest: float = NEAREST_M
    masked: float | None = None
    pole_cut: float = 0.0
    unit: float = 1.0
    metrics: tuple[Metric, ...] = field(default=METRICS, repr=False)
    pooled: frozenset[str] = frozenset()

    def capped(self, max_truth: float | None) -> "Protocol":
        """The protocol with a limit of the truth, in metres, where it has none of its own; None changes nothing.

        Raises:
            InvalidParameter: it has one, or the limit is not above zero.
        """
        if max_truth is None:
            return self
        if self.max_truth is not None:
            raise InvalidParameter(
                f"max_truth is for protocols without a limit of their own; {self.name} compares truth up to "
                f"{self.max_truth:g} m"
            )
        if not max_truth > 0:
            raise InvalidParameter(f"max_truth is above 0 m; got {max_truth:g}")
        return replace(self, max_truth=max_truth)

    def on_dataset(self, name: str) -> "Protocol":
        """The protocol with the limit that it has for the truth of a data set, unless it has one already."""
        return self if self.max_truth is not None else self.capped(self.max_truth_of.get(name))

    def compares(self, truth: FloatArray) -> npt.NDArray[np.bool_]:
        """Which pixels of the truth are compared: bool (H, W).

        Args:
            truth: (H, W) metres; +inf out of every range, NaN, zero or less where there are no data.

        Raises:
            InvalidParameter: none is.
        """
        compared: npt.NDArray[np.bool_] = truth > 0
        if self.truth_clip is None:
            compared &= np.isfinite(truth)
        if self.min_truth > 0:
            compared &= truth >= self.min_truth
        if self.max_truth is not None:
            compared &= truth <= self.max_truth
        cut = int(self.pole_cut * len(truth))
        compared[:cut] = compared[len(truth) - cut :] = False
        if not compared.any():
            raise InvalidParameter(f"no pixel of the truth has a depth that the protocol {self.name} compares")
        return compared


# Whose they are: DAP (arXiv 2512.16913), PanDA (2406.13378), UniK3D (2503.16591), Depth Any Camera (2501.02464),
# DA2 (2509.26618) and Pano3D (2109.02749).
PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "dap",
            "truth up to 100 m; what the prediction masks counts as 100 m; all rows",
            max_truth=100.0,
            masked=100.0,
        ),
        Protocol("raw", "all pixels with truth; the depth as predicted, mask or not; all rows"),
        Protocol(
            "dap-official",
            "truth clipped into 0.1 to 100 m; what the prediction masks counts as 100 m; lengths in units of 100 m; "
            "rmse is the mean of each pixel's root, its absolute error; rmselog takes logarithms to base 10",
            max_truth_of={"stanford2d3d": 101.0},
            truth_clip=(0.1, 100.0),
            masked=100.0,
            unit=100.0,
            metrics=_instead(
                Metric("rmse", True, lambda of: np.abs(of.difference)),
                Metric("rmselog", True, lambda of: (of.log_ratio / np.log(10)) ** 2, root=True),
            ),
        ),
        Protocol("panda", "truth up to 10 m; predictions of 0.1 m at least", max_truth=10.0, nearest=0.1),
        Protocol(
            "unik3d",
            "truth up to the data set's own limit, given as max_truth; without 15% of the rows at each pole",
            pole_cut=0.15,
        ),
        Protocol(
            "dac",
            "truth from 0.01 to 80 m; over several images delta1 is pooled over all their pixels",
            min_truth=0.01,
            max_truth=80.0,
            pooled=frozenset({"delta1"}),
        ),
        Protocol("da2", "truth up to 5 m; medians aligned", alignment="median", max_truth=5.0),
        Protocol(
            "pano3d", "truth up to 8 m; weighted by the cosine of the latitude", weighting="sphere", max_truth=8.0
        ),
    )
}


@dataclass(frozen=True)
class Metrics:
    """How one prediction did, or the mean of several. Each of the mappings is by name of the metric.

    Attributes:
        protocol: its name.
        alignment: of the protocol's own numbers.
        weighting: of the protocol's own numbers.
        max_truth: metres up to which truth was compared; None for no limit.
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
    alignment: Alignment
    weighting: Weighting
    max_truth: float | None
    images: int
    pixels: int
    compared_share: float
    scale: float
    scores: Mapping[str, float]
    weighted: Mapping[str, float]
    aligned: Mapping[str, float]
    aligned_weighted: Mapping[str, float]

    @property
    def own(self) -> Mapping[str, float]:
        """Those of the four that are the protocol's own numbers."""
        by_alignment = {
            "none": {"pixels": self.scores, "sphere": self.weighted},
            "median": {"pixels": self.aligned, "sphere": self.aligned_weighted},
        }
        return by_alignment[self.alignment][self.weighting]


@dataclass(frozen=True)
class Comparison:
    """A prediction, the truth, and the protocol to compare them under.

    Attributes:
        prediction: of the truth's size. Where it was made without a range mask, pixels that are not valid are those
            that the picture does not show, and are not compared.
        truth: (H, W) metres along the ray; +inf out of every range (sky, or farther than is known); NaN, zero or less
            where there are no data.
        protocol: what is compared.
    """

    prediction: DepthMap
    truth: FloatArray
    protocol: Protocol

    def __post_init__(self) -> None:
        """Refuse two of different sizes.

        Raises:
            InvalidParameter: they differ.
        """
        if self.prediction.depth.shape != self.truth.shape:
            raise InvalidParameter(
                f"prediction and truth have the same size; got {self.prediction.depth.shape} and {self.truth.shape}"
            )

    def metrics(self) -> Metrics:
        """Every metric of the protocol.

        Raises:
            InvalidParameter: no pixel has truth that the protocol compares, or a prediction that is compared is not
                finite.
        """
        compared = self._compared()
        scale = self._scale(compared)
        height, width = self.truth.shape
        areas = np.broadcast_to(sphere.solid_angles(height, width)[:, None], self.truth.shape)
        raw, aligned = _Sums(self.protocol), _Sums(self.protocol)
        for block in _blocks(self.truth.shape):
            seen, weights = compared[block], areas[block][compared[block]]
            truth = self._true_metres(self.truth[block][seen])
            raw.add(self._metres(block, seen, 1.0), truth, weights)
            aligned.add(self._metres(block, seen, scale), truth, weights)
        return Metrics(
            protocol=self.protocol.name,
            alignment=self.protocol.alignment,
            weighting=self.protocol.weighting,
            max_truth=self.protocol.max_truth,
            images=1,
            pixels=raw.pixels,
            compared_share=raw.area / (4 * np.pi),
            scale=scale,
            scores=raw.scores("pixels"),
            weighted=raw.scores("sphere"),
            aligned=aligned.scores("pixels"),
            aligned_weighted=aligned.scores("sphere"),
        )

    def relative_error(self) -> npt.NDArray[np.float32]:
        """(prediction - truth) / truth as the protocol counts both, float32 (H, W); NaN where nothing is compared.

        Raises:
            InvalidParameter: as `metrics` says.
        """
        compared = self._compared()
        scale = self._scale(compared) if self.protocol.alignment == "median" else 1.0
        error = np.full(self.truth.shape, np.nan, np.float32)
        for block in _blocks(self.truth.shape):
            seen = compared[block]
            truth = self._true_metres(self.truth[block][seen])
            error[block][seen] = (self._metres(block, seen, scale) - truth) / truth
        return error

    def _compared(self) -> npt.NDArray[np.bool_]:
        compared = self.protocol.compares(self.truth)
        if self.prediction.range is None:
            compared &= self.prediction.valid
        if not compared.any():
            raise InvalidParameter("no pixel that has truth is shown by the picture")
        return compared

    def _scale(self, compared: npt.NDArray[np.bool_]) -> float:
        """Over pixels that have both; 1 where the mask leaves none or the prediction is all at the camera."""
        seen = compared if self.protocol.masked is None else compared & self.prediction.valid
        if not seen.any():
            return 1.0
        median = float(np.median(self.prediction.depth[seen]))
        return float(np.median(self._true_metres(self.truth[seen]))) / median if median > 0 else 1.0

    def _true_metres(self, truth: FloatArray) -> FloatArray:
        metres = truth.astype(np.float64)
        return metres if self.protocol.truth_clip is None else np.clip(metres, *self.protocol.truth_clip)

    def _metres(self, block: slice, seen: npt.NDArray[np.bool_], scale: float) -> FloatArray:
        """What the prediction counts as where it is compared, float64 (N,) metres."""
        metres = self.prediction.depth[block][seen].astype(np.float64) * scale
        if self.protocol.masked is not None:
            metres = np.where(self.prediction.valid[block][seen], metres, self.protocol.masked)
        if not np.isfinite(metres).all():
            raise InvalidParameter("a prediction is finite wherever it is compared; this one is not")
        return np.maximum(metres, self.protocol.nearest)


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
        truth: (H, W) metres; +inf out of every range, NaN, zero or less where there are no data.
        protocol: what is compared.

    Raises:
        InvalidParameter: the two differ in size, no pixel has truth that the protocol compares, or a prediction that is
            compared is not finite.
    """
    if not isinstance(prediction, DepthMap):
        everywhere = np.ones(prediction.shape, np.bool_)
        prediction = DepthMap(prediction.astype(np.float32, copy=False), everywhere, None, "none", model="")
    return Comparison(prediction, truth, protocol).metrics()


def mean(metrics: Sequence[Metrics]) -> Metrics:
    """The mean over images: each image counts once, whatever its pixels, but for the metrics that a protocol pools.

    Of those each compared pixel counts once, or by its solid angle, as if all images were one. What the field calls a
    batch is here all that is given.

    Raises:
        InvalidParameter: there are none, or they are of different protocols.
    """
    protocols = {entry.protocol for entry in metrics}
    limits = {entry.max_truth for entry in metrics}
    if len(protocols) != 1:
        raise InvalidParameter(f"a mean is over images of one protocol; got {sorted(protocols) or 'no image'}")
    if len(limits) != 1:
        raise InvalidParameter(f"a mean is over images with one limit of the truth; got {sorted(map(str, limits))}")
    first = metrics[0]
    images = [entry.images for entry in metrics]
    areas = [entry.compared_share * entry.images for entry in metrics]
    pooled = find_protocol(first.protocol).pooled

    def scores(of: Sequence[Mapping[str, float]], pool: Sequence[float]) -> dict[str, float]:
        return {name: _average([s[name] for s in of], pool if name in pooled else images) for name in of[0]}

    pixels = [entry.pixels for entry in metrics]
    return replace(
        first,
        images=sum(images),
        pixels=sum(pixels),
        compared_share=_average([entry.compared_share for entry in metrics], images),
        scale=_average([entry.scale for entry in metrics], images),
        scores=scores([entry.scores for entry in metrics], pixels),
        weighted=scores([entry.weighted for entry in metrics], areas),
        aligned=scores([entry.aligned for entry in metrics], pixels),
        aligned_weighted=scores([entry.aligned_weighted for entry in metrics], areas),
    )


def _average(values: Sequence[float], weights: Sequence[float]) -> float:
    return float(np.average(values, weights=weights))


def _blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows, some at a time."""
    rows = max(1, _BLOCK_PIXELS // shape[1])
    for top in range(0, shape[0], rows):
        yield slice(top, top + rows)


class _Sums:
    """Sums of the terms of every metric, over pixels and over the sphere."""

    def __init__(self, protocol: Protocol) -> None:
        self.pixels = 0
        self.area = 0.0
        self._protocol = protocol
        self._sums = {metric.name: np.zeros(2) for metric in protocol.metrics}

    def add(self, prediction: FloatArray, truth: FloatArray, solid_angles: FloatArray) -> None:
        """Some more pixels, (N,) metres and steradians."""
        self.pixels += len(truth)
        # Summed as the terms are, so that a share of all is exactly 1.
        self.area += float(np.ones(len(truth)) @ solid_angles)
        errors = Errors.of(prediction / self._protocol.unit, truth / self._protocol.unit)
        for metric in self._protocol.metrics:
            term = metric.term(errors).astype(np.float64, copy=False)
            self._sums[metric.name] += term.sum(), term @ solid_angles

    def scores(self, weighting: Weighting) -> dict[str, float]:
        total = {"pixels": float(self.pixels), "sphere": self.area}[weighting]
        column = ("pixels", "sphere").index(weighting)
        return {
            metric.name: metric.of_mean(float(self._sums[metric.name][column]) / total)
            for metric in self._protocol.metrics
        }
