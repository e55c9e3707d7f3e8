"""Panoramas that show the same: a perceptual hash that a turn of the camera does not change, and pairs of near hashes.

The hash. A row of a panorama is a circle, so turning the camera about the vertical axis rolls it, and the magnitudes of
its Fourier transform along longitude stay as they are (shift theorem). The picture is averaged to a few bands of
latitude; a bit says whether a frequency is stronger in a band than in the next one. Compression, resizing and exposure
change all bands alike and few bits; another place changes about half of them. Mirrored panoramas have the same hash:
they show the same, too.

Limits: two places that differ in small things only (a car, a person) are near; so are pictures of next to nothing (fog,
a dark room), whose bits are noise and differ. A camera that is moved or leaned is another picture.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dap.panorama import resize_pixels

BITS = 256
MAX_DISTANCE = 31
"""The farthest apart that `near_pairs` finds every pair of."""

Hashes = npt.NDArray[np.uint64]
"""uint64 (N, 4): 256 bits each."""

_BANDS, _FREQUENCIES = 17, 16
_COLUMNS = 128
_WORD = 16
_PAIRS_AT_ONCE = 1 << 22


def perceptual_hash(pixels: npt.NDArray[np.uint8]) -> Hashes:
    """The hash of a panorama, uint64 (4,), whichever way the camera looked.

    Args:
        pixels: uint8 (H, W, 3), of at least 34 rows.
    """
    grey = resize_pixels(pixels, (2 * _BANDS, _COLUMNS)).astype(np.float64).mean(-1)
    # Two rows a band, each for itself first: what is opposite in both must not cancel.
    strength = np.abs(np.fft.rfft(grey, axis=1)[:, 1 : _FREQUENCIES + 1])
    bands = strength.reshape(_BANDS, 2, _FREQUENCIES).mean(1)
    return np.packbits(bands[:-1] > bands[1:]).view(np.uint64)


def distances(one: Hashes, other: Hashes) -> npt.NDArray[np.int64]:
    """How many bits differ, int64 (...), of hashes (..., 4) that broadcast against each other."""
    different: npt.NDArray[np.int64] = np.bitwise_count(one ^ other).sum(-1, dtype=np.int64)
    return different


def near_pairs(hashes: Hashes, distance: int) -> npt.NDArray[np.int64]:
    """All pairs (P, 2) of indices i < j whose hashes differ in at most so many bits, ascending by j, then i.

    Multi-index hashing (Norouzi et al., CVPR 2012): where at most 31 of 256 bits differ, at least one of 16 words
    differs in at most one bit, so only hashes with such a word are compared.

    Args:
        hashes: uint64 (N, 4), all different.
        distance: bits, 0 to `MAX_DISTANCE`.
    """
    masks = np.concatenate([[0], 1 << np.arange(_WORD)])
    found = [np.empty((0, 2), np.int64)]
    for word in hashes.view(np.uint16).T.astype(np.int64):
        order = np.argsort(word, kind="stable")
        ends = np.cumsum(np.bincount(word, minlength=1 << _WORD))
        for mask in masks:
            value = word ^ mask
            last = ends[value]
            first = np.where(value > 0, ends[value - 1], 0)
            for left, right in _within(order, first, last):
                forward = left < right
                left, right = left[forward], right[forward]
                near = distances(hashes[left], hashes[right]) <= distance
                found.append(np.stack([left[near], right[near]], -1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]


def _within(
    order: npt.NDArray[np.int64], first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """For each index i all of order[first[i]:last[i]], in pieces of a bounded number of pairs."""
    counts = last - first
    ends = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, "right")))
        piece = counts[begin:end]
        left = np.repeat(np.arange(begin, end), piece)
        offset = np.arange(len(left)) - np.repeat(np.cumsum(piece) - piece, piece)
        yield left, order[np.repeat(first[begin:end], piece) + offset]
        begin = end


def duplicates(hashes: Hashes, distance: int) -> npt.NDArray[np.int64]:
    """For each panorama the index of an earlier one that it is a near-duplicate of and that is kept; -1 for none.

    Only what is kept has duplicates, so a slow pan does not end as one panorama by a chain of near neighbours.

    Args:
        hashes: uint64 (N, 4), in the order of who is kept first.
        distance: bits, 0 to `MAX_DISTANCE`.

    Returns:
        int64 (N,).
    """
    _, first, inverse = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    earliest = np.sort(first)
    kept_as = np.full(len(hashes), -1)
    for left, right in near_pairs(hashes[earliest], distance):
        one, other = earliest[left], earliest[right]
        if kept_as[one] < 0 and kept_as[other] < 0:
            kept_as[other] = one
    same = first[inverse.reshape(-1)]
    later = np.nonzero(same != np.arange(len(hashes)))[0]
    kept_as[later] = np.where(kept_as[same[later]] < 0, same[later], kept_as[same[later]])
    return kept_as
