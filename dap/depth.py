"""Depth maps: metres along the ray, which of them are valid, and what can be said of them.

The range mask: a model says for each of its thresholds how probable it is that the surface is nearer (range mask head
of DAP, arXiv 2512.16913); a pixel is valid for a range where that is above one half.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from dap import sphere
from dap.errors import InvalidParameter
from dap.upsampling import bilinear, enlarge, guided, nearest

Range = Literal[10, 20, 50, 100] | None
RANGES: tuple[float, ...] = (10.0, 20.0, 50.0, 100.0)
RangeMask = Literal["head", "depth", "none"]
Fill = Literal["nan", "range", "zero"]
FILLS: tuple[Fill, ...] = get_args(Fill)
Upsample = Literal["nearest", "bilinear", "guided"]
UPSAMPLES: tuple[Upsample, ...] = get_args(Upsample)
Seam = Literal["none", "blend"]
SEAMS: tuple[Seam, ...] = get_args(Seam)

PERCENTILES: tuple[int, ...] = (1, 5, 25, 50, 75, 95, 99)
BAND_EDGES_DEG: tuple[int, ...] = (90, 60, 30, 0, -30, -60, -90)
STEPS_PER_METRE = 512
MAX_STEPS = 65535


@dataclass(frozen=True)
class DepthBand:
    """What lies between two latitudes.

    Attributes:
        top_deg: upper edge in degrees of latitude.
        bottom_deg: lower edge.
        valid_share: share of the band's solid angle that is valid, 0 to 1.
        median: metres, weighted by solid angle; None where nothing is valid.
    """

    top_deg: int
    bottom_deg: int
    valid_share: float
    median: float | None


@dataclass(frozen=True)
class DepthStatistics:
    """A depth map in a few numbers: metres, over valid pixels, weighted by solid angle; None where nothing is valid.

    Attributes:
        valid_share: share of the whole sphere that is valid, 0 to 1.
        minimum: nearest valid pixel.
        maximum: farthest valid pixel.
        mean: mean depth.
        median: half of the valid solid angle is nearer.
        percentiles: depth below which 1, 5, 25, 50, 75, 95 and 99 percent of the valid solid angle lie; empty where
            nothing is valid.
        bands: the six bands of 30 degrees of latitude, from the zenith down.
    """

    valid_share: float
    minimum: float | None
    maximum: float | None
    mean: float | None
    median: float | None
    percentiles: dict[int, float]
    bands: tuple[DepthBand, ...]


@dataclass(frozen=True)
class DepthMap:
    """Metric depth of a panorama.

    Attributes:
        depth: float32 (H, W), metres along the ray. Only where `valid` does it mean anything.
        valid: bool (H, W), what the range mask and the picture's cover keep.
        range: metres of the threshold asked for, None for none.
        range_mask: what the mask comes from: `head`, the model's own channel for this range; `depth`, the next larger
            channel, if the model has one, and depth <= range; `none`, no mask was asked for.
        model: name of the model; empty where a file that was read does not say.
        in_range: float32 (T, H, W), for each of `thresholds` the probability that the surface is nearer; None where
            they were not kept.
        thresholds: T metres, ascending; empty where `in_range` is None.
        scale_factor: metres here for each metre of the model: 1 but where a known camera height sets the scale.
        resolution: (H, W) in pixels at which the model saw the panorama; None where a file that was read does not say.
    """

    depth: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    range: float | None
    range_mask: RangeMask
    model: str
    in_range: npt.NDArray[np.float32] | None = None
    thresholds: tuple[float, ...] = ()
    scale_factor: float = 1.0
    resolution: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        height, width = self.depth.shape
        return height, width

    def resize(
        self, size: tuple[int, int], upsample: Upsample = "bilinear", guide: npt.NDArray[np.uint8] | None = None
    ) -> "DepthMap":
        """The same map with (h, w) pixels; longitude is a circle and valid depth never mixes with invalid.

        Args:
            size: (h, w). Smaller in either direction: nearest, whatever `upsample` says.
            upsample: how it becomes larger. `nearest`: no depth that was not there. `bilinear`: over the valid
                neighbours only; a pixel is valid where its nearest neighbour is. `guided`: edges, those of validity
                too, follow the colours of `guide`, see `dap.upsampling.guided`.
            guide: uint8 (h', w', 3), the panorama, best of the size asked for.

        Raises:
            InvalidParameter: `upsample` has no such value, or is `guided` and there is no guide.
        """
        if upsample not in UPSAMPLES:
            raise InvalidParameter(f"upsample is one of {', '.join(UPSAMPLES)}; got {upsample}")
        if upsample == "guided" and guide is None:
            raise InvalidParameter("upsample=guided expects the panorama's colours; there are none")
        if size == self.size:
            return self
        valid = nearest(self.valid, size)
        if size[0] < self.size[0] or size[1] < self.size[1] or upsample == "nearest":
            in_range = None if self.in_range is None else nearest(self.in_range, size)
            return replace(self, depth=nearest(self.depth, size), valid=valid, in_range=in_range)
        in_range = None if self.in_range is None else np.stack([enlarge(channel, size) for channel in self.in_range])
        if guide is not None and upsample == "guided":
            depth, valid = guided(self.depth, self.valid, guide, size)
        else:
            depth = bilinear(self.depth, self.valid, size)
        return replace(self, depth=depth, valid=valid, in_range=in_range)

    def without_nadir(self, degrees: float) -> "DepthMap":
        """The same map without what is less than `degrees` from straight down: the operator and the tripod."""
        kept = np.pi / 2 + sphere.latitudes(self.size[0]) >= np.radians(degrees)
        return self if kept.all() else replace(self, valid=self.valid & kept[:, None])

    def filled(self, fill: Fill = "nan") -> npt.NDArray[np.float32]:
        """Depth in metres, float32 (H, W), that carries the mask in itself.

        Args:
            fill: what stands where nothing is valid. `nan`: NaN. `range`: the range asked for, in metres; at 100 that
                is what DAP's own code gives for the sky. `zero`: 0, which most data sets mean by not known.

        Raises:
            InvalidParameter: there is no such fill; or it is `range` and no range was asked for.
        """
        if fill not in FILLS:
            raise InvalidParameter(f"fill is one of {', '.join(FILLS)}; got {fill}")
        if fill == "range" and self.range is None:
            raise InvalidParameter("fill=range expects a range of 10, 20, 50 or 100 metres; none was asked for")
        value = {"nan": np.nan, "range": self.range or 0.0, "zero": 0.0}[fill]
        return np.where(self.valid, self.depth, np.float32(value))

    def quantised(self) -> npt.NDArray[np.uint16]:
        """Depth in whole steps of 1/512 m (2 mm), uint16 (H, W), 0 where not valid.

        Valid depth is rounded and clipped into 1 to 65535: the ceiling is 128 m.
        """
        steps = np.where(self.valid, self.depth, np.float32(0)) * np.float32(STEPS_PER_METRE)
        np.clip(np.rint(steps, out=steps), 1, MAX_STEPS, out=steps)
        return steps.astype(np.uint16) * self.valid

    def statistics(self) -> DepthStatistics:
        """Shares, extremes, percentiles and latitude bands of the valid depth, weighted by solid angle.

        Percentiles and medians are as exact as `quantised`.
        """
        height, width = self.size
        weights = sphere.solid_angles(height, width)
        edges = [round((90 - edge) / 180 * height) for edge in BAND_EDGES_DEG]
        bands = [slice(top, bottom) for top, bottom in pairwise(edges)]
        steps = self.quantised()
        histograms = [_histogram(steps[band], weights[band], int(steps.max()) + 1) for band in bands]
        total = np.sum(histograms, axis=0)
        seen = bool(self.valid.any())
        ring_sums = np.sum(self.depth, axis=1, where=self.valid, dtype=np.float64)
        return DepthStatistics(
            valid_share=float(total.sum() / (4 * np.pi)),
            minimum=float(np.min(self.depth, where=self.valid, initial=np.inf)) if seen else None,
            maximum=float(np.max(self.depth, where=self.valid, initial=0)) if seen else None,
            mean=float(ring_sums @ weights / total.sum()) if seen else None,
            median=_quantile(total, 0.5),
            percentiles={p: value for p in PERCENTILES if (value := _quantile(total, p / 100)) is not None},
            bands=tuple(
                DepthBand(
                    top_deg=top,
                    bottom_deg=bottom,
                    valid_share=float(histogram.sum() / max(weights[band].sum() * width, np.finfo(float).tiny)),
                    median=_quantile(histogram, 0.5),
                )
                for (top, bottom), band, histogram in zip(pairwise(BAND_EDGES_DEG), bands, histograms, strict=True)
            ),
        )


def check_range(range: float | None) -> None:
    """Refuse what is no range of a mask.

    Raises:
        InvalidParameter: `range` is neither None nor one of `RANGES`.
    """
    if range is not None and range not in RANGES:
        raise InvalidParameter(f"range is one of 10, 20, 50 or 100 metres or none; got {range:g}")


def apply_range(
    depth: npt.NDArray[np.float32],
    in_range: npt.NDArray[np.float32],
    thresholds: Sequence[float],
    range: float | None,
    model: str,
    covered: npt.NDArray[np.bool_] | None = None,
    *,
    keep_in_range: bool = False,
    scale_factor: float = 1.0,
) -> DepthMap:
    """What an engine said of one panorama, as a depth map valid within `range`.

    Args:
        depth: float32 (H, W), the model's metres along the ray.
        in_range: float32 (T, H, W), probability of being nearer than each threshold.
        thresholds: T metres of the model, ascending.
        range: one of `RANGES`, or None: every covered pixel is valid.
        model: name of the model.
        covered: bool (H, W), what of the sphere the picture shows; None for all of it.
        keep_in_range: whether the result has the probabilities too.
        scale_factor: true metres for each metre of the model: depth and thresholds are multiplied by it. A threshold
            that is then no longer the range is to its mask what another threshold is. Where none is large enough any
            more, the one that was stands in, since the model tells nothing of what is beyond it.

    Raises:
        InvalidParameter: `range` is neither None nor one of `RANGES`.
    """
    check_range(range)
    valid = np.ones(depth.shape, np.bool_) if covered is None else covered
    scaled = tuple(threshold * scale_factor for threshold in thresholds)
    if scale_factor != 1:
        depth = depth * np.float32(scale_factor)
    range_mask: RangeMask = "none"
    if range is not None:
        channel = _first_not_below(scaled, range)
        if channel is None:
            channel = _first_not_below(thresholds, range)
        if channel is not None:
            valid = valid & (in_range[channel] > 0.5)
        range_mask = "head" if channel is not None and scaled[channel] == range else "depth"
        if range_mask == "depth":
            valid = valid & (depth <= range)
    return DepthMap(
        depth,
        valid,
        None if range is None else float(range),
        range_mask,
        model,
        in_range if keep_in_range else None,
        scaled if keep_in_range else (),
        scale_factor,
        (depth.shape[0], depth.shape[1]),
    )


def _first_not_below(thresholds: Sequence[float], range: float) -> int | None:
    return next((i for i, threshold in enumerate(thresholds) if threshold >= range), None)


def _histogram(steps: npt.NDArray[np.uint16], weights: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    """Solid angle that is valid at each depth, in steps below `length`."""
    per_pixel = np.repeat(weights, steps.shape[1])
    histogram: npt.NDArray[np.float64] = np.bincount(steps.ravel(), per_pixel, length).astype(np.float64)
    histogram[0] = 0
    return histogram


def _quantile(histogram: npt.NDArray[np.float64], share: float) -> float | None:
    """Depth in metres that `share` of the solid angle reaches at most; None where there is none."""
    reached = np.cumsum(histogram)
    if reached[-1] == 0:
        return None
    return float(np.searchsorted(reached, share * reached[-1])) / STEPS_PER_METRE
