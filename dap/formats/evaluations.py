"""What a comparison with the truth can be written as. The first is the default."""

import json
from collections.abc import Mapping
from io import BytesIO

from dap.error_picture import error_picture
from dap.evaluation import Comparison
from dap.formats.base import DEFAULT_OPTIONS, EncodeOptions, Format, registry

_QUALITY = 90


def describe(comparison: Comparison) -> dict[str, object]:
    """The metrics as JSON takes them.

    `metrics` are the protocol's own numbers; `raw` and `aligned` have all of them, unweighted and weighted by solid
    angle.
    """
    found, protocol, prediction = comparison.metrics(), comparison.protocol, comparison.prediction
    height, width = prediction.size
    return {
        "protocol": protocol.name,
        "description": protocol.description,
        "alignment": protocol.alignment,
        "weighting": protocol.weighting,
        "max_truth": protocol.max_truth,
        "unit_m": protocol.unit,
        "model": prediction.model,
        "range": prediction.range,
        "range_mask": prediction.range_mask,
        "width": width,
        "height": height,
        "pixels": found.pixels,
        "compared_share": _rounded(found.compared_share),
        "scale": _rounded(found.scale),
        "metrics": _scores(found.own),
        "raw": {"unweighted": _scores(found.scores), "weighted": _scores(found.weighted)},
        "aligned": {"unweighted": _scores(found.aligned), "weighted": _scores(found.aligned_weighted)},
    }


def encode_json(comparison: Comparison, _options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The metrics as JSON."""
    return json.dumps(describe(comparison), allow_nan=False).encode()


def encode_jpeg(comparison: Comparison, _options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The picture of the relative error as JPEG."""
    stream = BytesIO()
    error_picture(comparison.relative_error()).save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def encode_png(comparison: Comparison, _options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The picture of the relative error as PNG."""
    stream = BytesIO()
    error_picture(comparison.relative_error()).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _scores(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: _rounded(value) for name, value in scores.items()}


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


JSON = Format(
    name="json",
    media_type="application/json",
    extension=".json",
    description="metrics: the protocol's own, and all of them raw and aligned, unweighted and weighted by solid angle",
    write=encode_json,
)
EVALUATION_FORMATS: dict[str, Format[Comparison]] = registry(
    JSON,
    Format(
        name="jpeg",
        media_type="image/jpeg",
        extension=".jpg",
        description="picture of the relative error with a legend: blue is too near, red too far, striped not compared",
        write=encode_jpeg,
    ),
    Format(
        name="png",
        media_type="image/png",
        extension=".png",
        description="the same picture without loss",
        write=encode_png,
    ),
)
