"""Depth at the size of the photo: nearest, bilinear, or guided by the photo's colours.

All go round the circle of longitude, and none mixes valid depth with invalid.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from dap.panorama import resize_pixels

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Size = tuple[int, int]
Scalar = TypeVar("Scalar", bound=np.generic)

COLOUR_SIGMA = 12.0  # of 255 in each channel
LEAST_LIKENESS = 1e-4  # a colour like none around it has the mean of all around it
PIXELS_AT_ONCE = 1 << 16  # so that a block is still in the cache when its next step comes


@dataclass(frozen=True)
class _Pairs:
    """For each new pixel along one axis the old ones whose centres it lies between, and how far it is to the second."""

    first: Indices
    second: Indices
    share: Floats


def nearest(values: npt.NDArray[Scalar], size: Size) -> npt.NDArray[Scalar]:
    """(..., h, w) of (..., H, W), larger or smaller: each new pixel is the old one that its centre lies in."""
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(values.shape[-2:], size, strict=True)
    )
    resized: npt.NDArray[Scalar] = values.take(columns, axis=-1).take(rows, axis=-2)
    return resized


def enlarge(values: Floats, size: Size) -> Floats:
    """Bilinear, float32 (h, w) of float32 (H, W): columns go round the circle, the first and last row go on.

    Args:
        values: of any kind.
        size: (h, w), not smaller than (H, W) in either direction.
    """
    down, across = _pairs_of(values.shape, size)
    wide = np.empty((values.shape[0], size[1]), np.float32)
    for block in _blocks_of_rows(wide.shape):
        values[block].take(across.second, axis=1, out=wide[block], mode="clip")
        _move_from(values[block].take(across.first, axis=1), wide[block], across.share)
    larger = np.empty(size, np.float32)
    for block in _blocks_of_rows(size):
        wide.take(down.second[block], axis=0, out=larger[block], mode="clip")
        _move_from(wide.take(down.first[block], axis=0), larger[block], down.share[block, None])
    return larger


def bilinear(depth: Floats, valid: Mask, size: Size) -> Floats:
    """Depth with (h, w) pixels, float32: between the valid ones of its four neighbours, 0 where none of them is.

    Args:
        depth: float32 (H, W), metres; anything where not valid.
        valid: bool (H, W).
        size: (h, w), not smaller than (H, W) in either direction.
    """
    if valid.all():
        return enlarge(depth, size)
    larger = enlarge(np.where(valid, depth, np.float32(0)), size)
    down, across = _pairs_of(depth.shape, size)
    # Only between the last valid pixel and the first invalid one is there anything to put right.
    at_edges = _edges(valid).take(across.first, axis=1).take(down.first, axis=0)
    rows, columns = np.divmod(np.flatnonzero(at_edges), size[1])  # a tenth of the time of `nonzero` in two dimensions
    weight = np.zeros(len(rows), np.float32)
    for line, of_line in ((down.first, 1 - down.share), (down.second, down.share)):
        for column, of_column in ((across.first, 1 - across.share), (across.second, across.share)):
            weight += valid[line[rows], column[columns]] * (of_line[rows] * of_column[columns])
    metres = larger[rows, columns]
    np.divide(metres, weight, out=metres, where=weight > 0)
    larger[rows, columns] = metres
    return larger


def guided(depth: Floats, valid: Mask, guide: npt.NDArray[np.uint8], size: Size) -> tuple[Floats, Mask]:
    """Depth and validity with (h, w) pixels, whose edges are those of the picture.

    Joint bilateral upsampling (Kopf, Cohen, Lischinski, Uyttendaele, SIGGRAPH 2007, section 3): each new pixel is the
    mean of the 3 x 3 old ones around it, weighted by how near (a quadratic B-spline, which is smooth and ends there)
    and by how alike in colour. It is valid where the greater part of that weight is, and its depth is then the mean
    of the valid ones alone.

    Args:
        depth: float32 (H, W), metres; anything where not valid.
        valid: bool (H, W).
        guide: uint8 (h', w', 3), the panorama at any size, best (h, w).
        size: (h, w), not smaller than (H, W) in either direction.

    Returns:
        float32 (h, w), 0 where nothing around is valid; and bool (h, w).
    """
    height, width = depth.shape
    fine = guide if guide.shape[:2] == size else resize_pixels(guide, size)
    coarse = np.moveaxis(resize_pixels(guide, (height, width)), -1, 0).astype(np.float32, order="C")
    known = np.where(valid, depth, np.float32(0))
    middle, down = _spline(height, size[0])
    centre, across = _spline(width, size[1])
    columns = [(centre + j) % width for j in (-1, 0, 1)]
    larger, voted = np.empty(size, np.float32), np.empty(size, np.bool_)
    starts = np.searchsorted(middle, np.arange(height + 1))
    for row in range(height):
        block = slice(starts[row], starts[row + 1])  # the new rows in it have the same nine pixels around them
        colours = np.moveaxis(fine[block], -1, 0).astype(np.float32, order="C")
        total, kept, metres = np.zeros_like(colours)
        for i in range(3):
            line = min(max(row + i - 1, 0), height - 1)
            for j in range(3):
                weight = _likeness(colours, coarse[:, line].take(columns[j], axis=1))
                weight *= across[j]
                weight *= down[i, block, None]
                total += weight
                weight *= valid[line].take(columns[j])
                kept += weight
                weight *= known[line].take(columns[j])
                metres += weight
        larger[block] = metres / np.maximum(kept, np.finfo(np.float32).tiny)
        voted[block] = 2 * kept > total
    return larger, voted


def _spline(source: int, target: int) -> tuple[Indices, Floats]:
    """Of each new pixel along one axis the old one nearest to it, and the weights (3, n) of that and those beside."""
    place = (np.arange(target) + 0.5) * (source / target) - 0.5
    nearest = np.floor(place + 0.5)
    offset = place - nearest
    weights = np.stack([(0.5 - offset) ** 2 / 2, 0.75 - offset**2, (0.5 + offset) ** 2 / 2])
    return nearest.astype(np.intp), weights.astype(np.float32)


def _likeness(colours: Floats, others: Floats) -> Floats:
    """How alike colours (3, k, w) are to others (3, w), float32 (k, w): 1 where they are the same."""
    distance = np.zeros(colours.shape[1:], np.float32)
    for channel, other in zip(colours, others, strict=True):
        difference = channel - other
        difference *= difference
        distance += difference
    distance *= np.float32(-0.5 / COLOUR_SIGMA**2)
    likeness: Floats = np.exp(distance, out=distance)
    likeness += np.float32(LEAST_LIKENESS)
    return likeness


def _edges(valid: Mask) -> Mask:
    """Where a pixel, the next on its right, the next below and the one between them are not all the same."""
    beside = np.roll(valid, -1, axis=1)
    both, either = valid & beside, valid | beside
    all_four = both & np.concatenate([both[1:], both[-1:]])
    any_of_four = either | np.concatenate([either[1:], either[-1:]])
    edges: Mask = any_of_four & ~all_four
    return edges


def _pairs_of(source: Size, target: Size) -> tuple[_Pairs, _Pairs]:
    """Of the rows and of the columns."""
    before, share = _places(source[0], target[0])
    down = _Pairs(np.maximum(before, 0), np.minimum(before + 1, source[0] - 1), share)
    before, share = _places(source[1], target[1])
    return down, _Pairs(before % source[1], (before + 1) % source[1], share)


def _places(source: int, target: int) -> tuple[Indices, Floats]:
    place = (np.arange(target) + 0.5) * (source / target) - 0.5
    before = np.floor(place)
    return before.astype(np.intp), (place - before).astype(np.float32)


def _move_from(first: Floats, second: Floats, share: Floats) -> None:
    """Put the point that is `share` of the way from first to second in the place of second."""
    second -= first
    second *= share
    second += first


def _blocks_of_rows(shape: tuple[int, ...]) -> Iterator[slice]:
    height, width = shape
    rows = max(1, PIXELS_AT_ONCE // width)
    return (slice(top, min(height, top + rows)) for top in range(0, height, rows))
