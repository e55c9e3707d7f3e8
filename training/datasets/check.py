"""What there is of a data set on this disk, and what is wrong with it: `dap data check`.

Shares and percentiles are of the sphere, not of the pixels: each pixel counts by its solid angle. Depths are counted in
the bins of `depth_codes`, so a percentile is within 0.02 % however many panoramas there are.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from dap import sphere
from dap.depth import PERCENTILES, DepthMap
from dap.errors import DatasetError
from dap.formats import preview
from dap.progress import progress
from dap.upsampling import nearest
from training.datasets import depth_codes
from training.datasets.base import Dataset, Entry, Sample

SHEET_SAMPLES = 12
SHEET_COLUMNS = 4
TILE = (128, 256)


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a panorama.

    Attributes:
        id: of the entry.
        what: is wrong; begins with the path.
    """

    id: str
    what: str


@dataclass(frozen=True)
class SplitReport:
    """What there is of one split.

    Attributes:
        split: its name.
        panoramas: entries found.
        published: as many as its authors say; None where they do not, or where a list file chose.
        read: panoramas that were decoded.
        sizes: panoramas by size, `HxW`.
        unknown_share: share of the sphere, over all that were read, whose depth is not known; None without depth.
        sky_share: share of the sphere that is out of every range; None without depth.
        depth_percentiles: metres below which 1, 5, 25, 50, 75, 95 and 99 percent of the known solid angle lie.
        problems: missing and broken files, and wrong sizes.
    """

    split: str
    panoramas: int
    published: int | None
    read: int
    sizes: dict[str, int]
    unknown_share: float | None
    sky_share: float | None
    depth_percentiles: dict[int, float]
    problems: tuple[Problem, ...]


@dataclass
class _Tally:
    """Counts over the panoramas of a split."""

    dataset: Dataset
    sizes: Counter[str] = field(default_factory=Counter)
    histogram: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(depth_codes.SKY_CODE + 1))
    problems: list[Problem] = field(default_factory=list)
    read: int = 0

    def add(self, entry: Entry, read: bool) -> Sample | None:
        """Look whether a panorama's files are there; read and count it if told to, or note what is wrong with it."""
        missing = entry.missing()
        self.problems += [Problem(entry.id, f"{path}: there is no such file") for path in missing]
        if missing or not read:
            return None
        try:
            sample = self.dataset.read(entry)
        except DatasetError as error:
            self.problems.append(Problem(entry.id, str(error)))
            return None
        self._count(entry, sample)
        return sample

    def _count(self, entry: Entry, sample: Sample) -> None:
        self.read += 1
        height, width = sample.rgb.shape[:2]
        self.sizes[f"{height}x{width}"] += 1
        published = self.dataset.size
        if published not in (None, (height, width)):
            what = f"{entry.rgb}: expected {published} as published; it is {(height, width)}"
            self.problems.append(Problem(entry.id, what))
        if sample.depth is not None:
            weights = np.broadcast_to(sphere.solid_angles(height, width)[:, None], (height, width))
            codes = depth_codes.encode(sample.depth).ravel()
            self.histogram += np.bincount(codes, weights.ravel(), len(self.histogram))

    def report(self, split: str, panoramas: int) -> SplitReport:
        return SplitReport(
            split=split,
            panoramas=panoramas,
            published=None if self.dataset.list_file else self.dataset.published.get(split),
            read=self.read,
            sizes=dict(self.sizes),
            unknown_share=self._share(depth_codes.UNKNOWN_CODE),
            sky_share=self._share(depth_codes.SKY_CODE),
            depth_percentiles=self._percentiles(),
            problems=tuple(self.problems),
        )

    def _share(self, code: int) -> float | None:
        total = float(self.histogram.sum())
        return float(self.histogram[code]) / total if total else None

    def _percentiles(self) -> dict[int, float]:
        surface = self.histogram[depth_codes.FIRST_CODE : depth_codes.LAST_CODE + 1].cumsum()
        if surface[-1] == 0:
            return {}
        metres = depth_codes.metres_of_codes()[depth_codes.FIRST_CODE :]
        places = np.searchsorted(surface, surface[-1] * np.array(PERCENTILES) / 100)
        return {percent: float(metres[place]) for percent, place in zip(PERCENTILES, places, strict=True)}


def check(dataset: Dataset, split: str, limit: int | None = None) -> tuple[SplitReport, list[Image.Image]]:
    """Look at a split: all files for being there, and the panoramas for what they hold.

    Args:
        dataset: to look at.
        split: of it.
        limit: panoramas to read, evenly spread; None for all.

    Returns:
        what was found, and tiles of up to `SHEET_SAMPLES` of those that were read, for `contact_sheet`.

    Raises:
        InvalidParameter: no such split.
        DatasetError: nothing where the layout says.
    """
    entries = dataset.entries(split)
    chosen = _spread(range(len(entries)), limit or len(entries))
    shown = set(_spread(chosen, SHEET_SAMPLES))
    read = set(chosen)
    tally = _Tally(dataset)
    tiles = []
    with progress(f"checking {dataset.name} {split}", len(entries)) as advance:
        for number, entry in enumerate(entries):
            sample = tally.add(entry, number in read)
            if sample is not None and number in shown:
                tiles.append(tile(sample))
            advance(1)
    return tally.report(split, len(entries)), tiles


def tile(sample: Sample) -> Image.Image:
    """A picture of a sample: the panorama, and below it its depth in colours."""
    height, width = TILE
    panorama = Image.fromarray(sample.rgb).resize((width, height), Image.Resampling.BOX)
    if sample.depth is None:
        return panorama
    depth = nearest(sample.depth, TILE)
    surface = np.isfinite(depth) & (depth > 0)
    depth_map = DepthMap(np.where(surface, depth, np.float32(0)), surface, None, "none", "truth")
    both = Image.new("RGB", (width, 2 * height))
    both.paste(panorama, (0, 0))
    both.paste(Image.open(BytesIO(preview.encode(depth_map))), (0, height))
    return both


def contact_sheet(tiles: Sequence[Image.Image]) -> Image.Image:
    """All tiles in one picture, `SHEET_COLUMNS` beside each other."""
    width, height = tiles[0].width, max(tile.height for tile in tiles)
    columns = min(SHEET_COLUMNS, len(tiles))
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height))
    for number, one in enumerate(tiles):
        sheet.paste(one, (number % columns * width, number // columns * height))
    return sheet


def _spread(numbers: Sequence[int], count: int) -> list[int]:
    """At most `count` of the numbers, evenly spread."""
    count = min(count, len(numbers))
    return [numbers[place * len(numbers) // count] for place in range(count)]
