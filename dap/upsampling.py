"""Joint bilateral upsampling: depth at the size of the photo, with the photo's edges.

Kopf, Cohen, Lischinski, Uyttendaele, "Joint Bilateral Upsampling", SIGGRAPH 2007: each new pixel is a mean of the depth
around it, weighted by how near (here: a quadratic B-spline over 3 x 3 pixels, which is smooth and ends) and by how
alike in colour.
"""

import numpy as np
import numpy.typing as npt

from dap.panorama import resize_pixels

COLOUR_SIGMA = 12.0
ROWS_OF_PIXELS = 1 << 20
FLOOR = 1e-4

Floats = npt.NDArray[np.float32]


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
    step = max(1, ROWS_OF_PIXELS // width)
    for top in range(0, height, step):
        block = slice(top, min(height, top + step))
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
