"""`dap train range-mask`: how right a model's range masks are, on rendered places of each kind.

Rendered scenes know of every pixel whether it is sky and how far it is, also hundreds of metres away, which no scan
does.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from dap.depth import DepthMap
from dap.models import DEFAULT_MODEL
from dap.options import option, runtime_options
from dap.predictor import Predictor
from dap.progress import log_to_stderr, progress
from training.evaluate import LabelledPanorama, iou_and_lost, range_areas
from training.synthetic.render import render
from training.synthetic.sampling import DOMAINS, KINDS, Domain, Kind, sample_scene

ALL = "all"
_AT_ONCE = 8
_PROBABLE = 0.5


@dataclass(frozen=True)
class MaskScores:
    """How right the range masks are at places of one kind, all their pixels pooled by solid angle.

    Attributes:
        panoramas: how many.
        iou: for each threshold, intersection over union of what is predicted and what truly is out of range; NaN where
            nothing is.
        lost: for each threshold, the share of truly in-range area that the mask throws away; NaN where there is none.
    """

    panoramas: int
    iou: dict[str, float]
    lost: dict[str, float]


def places(seeds: Sequence[int], height: int, kind: Kind, domain: Domain) -> Iterator[LabelledPanorama]:
    """One rendered panorama a seed, with the name of its scene's recipe, such as `street`."""
    for first in range(0, len(seeds), _AT_ONCE):
        scenes = [sample_scene(seed, kind, domain) for seed in seeds[first : first + _AT_ONCE]]
        rendered = render(scenes, height, 2 * height)
        depth = np.where(rendered.known.numpy(), rendered.depth.numpy(), np.float32(0))
        for index, scene in enumerate(scenes):
            yield LabelledPanorama(scene.kind, rendered.rgb[index].numpy(), depth[index])


Predict = Callable[[npt.NDArray[np.uint8]], DepthMap]
"""The depth of uint8 (H, W, 3) pixels, of their size, with the in-range probabilities."""


def mask_scores(predict: Predict, seen: Iterable[LabelledPanorama]) -> dict[str, MaskScores]:
    """Scores by kind of place, and of `ALL` of them.

    Args:
        predict: what the model says.
        seen: one place at least; the name of each is its kind.

    Raises:
        EngineError: the engine failed.
    """
    counts: Counter[str] = Counter()
    # Rows: threshold; columns as `range_areas` has them.
    areas: dict[str, npt.NDArray[np.float64]] = {}
    thresholds: tuple[float, ...] = ()
    for place in seen:
        said = predict(place.rgb)
        assert said.in_range is not None  # noqa: S101 - for the type checker: it was asked for
        thresholds = said.thresholds
        pairs = zip(said.in_range, thresholds, strict=True)
        found = np.array([range_areas(near > _PROBABLE, place.depth, limit) for near, limit in pairs])
        for kind in (place.name, ALL):
            counts[kind] += 1
            areas[kind] = areas.get(kind, 0) + found
    kinds = [*sorted({*counts} - {ALL}), ALL]
    return {kind: MaskScores(counts[kind], *iou_and_lost(areas[kind], thresholds)) for kind in kinds}


def markdown(scores: Mapping[str, MaskScores]) -> str:
    """The table: a row for each kind of place."""
    names = [*scores[ALL].iou]
    columns = ["panoramas", *(f"IoU {name} m" for name in names), *(f"lost {name} m" for name in names)]
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for kind, one in scores.items():
        cells = [f"{value:.3f}" if np.isfinite(value) else "-" for value in (*one.iou.values(), *one.lost.values())]
        lines.append(f"| {kind.replace('_', ' ')} | " + " | ".join([str(one.panoramas), *cells]) + " |")
    return "\n".join(lines)


@click.command("range-mask")
@option("--model", default=DEFAULT_MODEL, envvar="DAP_MODEL", help="A name that `dap models` lists, or a model's file.")
@option("--kind", type=click.Choice(KINDS), default="outdoor", help="What scenes.")
@option("--domain", type=click.Choice(DOMAINS), default="standard", help="How they look, as `dap render` has it.")
@option("--count", type=click.IntRange(1), default=200, help="How many panoramas.")
@option(
    "--seed", type=click.IntRange(0), default=90_000_000, help="Of the first scene; no training sees the default's."
)
@option("--height", type=click.IntRange(8), default=256, help="Of the panoramas, in pixels.")
@runtime_options
def range_mask(
    *, model: str | Path, kind: Kind, domain: Domain, count: int, seed: int, height: int, **runtime: Any
) -> None:
    """Hold a model's range masks against rendered places: out-of-range IoU, and what is lost, by kind of place.

    The masks are compared as the service gives them, at a probability of one half, and everything in them: sky, and
    surfaces beyond the range.
    """
    log_to_stderr()
    with Predictor(model, **runtime) as predictor, progress("range masks", count) as advance:

        def counted() -> Iterator[LabelledPanorama]:
            for place in places(range(seed, seed + count), height, kind, domain):
                yield place
                advance(1)

        def predict(rgb: npt.NDArray[np.uint8]) -> DepthMap:
            return predictor.predict(rgb, size=(height, 2 * height), keep_in_range=True)

        click.echo(markdown(mask_scores(predict, counted())))
