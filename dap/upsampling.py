"""Depth at the size of the photo: bilinear, or guided by the photo's colours.

Both go round the circle of longitude, and neither mixes valid depth with invalid.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dap.panorama import resize_pixels

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Size = tuple[int, int]

COLOUR_SIGMA = 12.0
FLOOR = 1e-4
PIXELS_AT_ONCE = 1 << 16  # so that a block is still in the cache when its next step comes


@dataclass(frozen=True)
class _Pairs:
    """For each new pixel along one axis the old ones whose centres it lies between, and how far it is to the second."""

    first: Indices
    second: Indices
    share: Floats


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


def guided(
    depth: Floats, valid: npt.NDArray[np.bool_], guide: npt.NDArray[np.uint8], size: tuple[int, int]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Depth and validity with (h, w) pixels, whose edges follow the colours of the guide.

    Longitude is a circle. A pixel is valid where the greater part of its weight is; its depth is then the mean of the
    valid neighbours alone.

    Args:
        depth: float32 (H, W), metres; anything where not valid.
        valid: bool (H, W).
        guide: uint8 (h', w', 3), the panorama; another size than (h, w) is resized first.
        size: (h, w), not smaller than (H, W) in either direction.

    Returns:
        float32 (h, w) and bool (h, w); depth is 0 where nothing valid is near.
    """
    height, width = size
    fine = resize_pixels(guide, size)
    coarse = resize_pixels(guide, depth.shape).astype(np.float32)
    known = np.where(valid, depth, np.float32(0))
    upsampled, voted = np.empty(size, np.float32), np.empty(size, np.bool_)
    rows, down = _taps(depth.shape[0], height)
    columns, across = _taps(depth.shape[1], width)
    rows = np.clip(rows, 0, depth.shape[0] - 1)
    columns %= depth.shape[1]
    for block in _blocks_of_rows(size):
        colours = fine[block].astype(np.float32)
        total, kept, metres = (np.zeros(colours.shape[:2], np.float32) for _ in range(3))
        for i in range(3):
            for j in range(3):
                tap = rows[i, block, None], columns[j]
                weight = _alike(colours, coarse[tap]) * (down[i, block, None] * across[j])
                total += weight
                weight *= valid[tap]
                kept += weight
                weight *= known[tap]
                metres += weight
        np.divide(metres, kept, out=upsampled[block], where=kept > 0)
        upsampled[block][kept <= 0] = 0
        np.greater(kept * 2, total, out=voted[block])
    return upsampled, voted


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


def _taps(source: int, target: int) -> tuple[npt.NDArray[np.intp], Floats]:
    """Indices (3, target) of the nearest old pixel and those beside it, not yet within bounds, and their weights."""
    place = (np.arange(target) + 0.5) * (source / target) - 0.5
    nearest = np.floor(place + 0.5)
    offset = place - nearest
    weights = np.stack([(0.5 - offset) ** 2 / 2, 0.75 - offset**2, (0.5 + offset) ** 2 / 2])
    return nearest.astype(np.intp) + np.array([[-1], [0], [1]]), weights.astype(np.float32)


def _alike(colours: Floats, others: Floats) -> Floats:
    """1 where the colours are the same, towards 0 as they differ."""
    distance = np.zeros(colours.shape[:2], np.float32)
    for channel in range(3):
        distance += np.square(colours[..., channel] - others[..., channel])
    distance *= np.float32(-0.5 / COLOUR_SIGMA**2)
    return np.exp(distance, out=distance) + np.float32(FLOOR)
