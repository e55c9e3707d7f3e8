"""The texture bank: small tileable pictures in [0, 1], drawn from noise and rectangles, with all their mip levels."""

import functools
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

SIZE = 128  # texels along a side of the finest level
LEVELS = 8  # 128, 64, ... 1
VARIANTS = 6

Image = NDArray[np.float64]
Mask = NDArray[np.bool_]

FAMILIES = (
    "plain", "noise", "speckle", "tile", "ceiling", "checker", "brick", "wood", "stripe", "blinds", "facade", "books",
    "poster", "writing", "leaf", "grass", "rock", "clouds", "paving", "clutter",
    # New ones at the end: the textures before them come from the random numbers before theirs.
    "plaster", "terrazzo", "herringbone", "hexagons", "weave",
)  # fmt: skip
TEXTURES = {family: tuple(range(i * VARIANTS, (i + 1) * VARIANTS)) for i, family in enumerate(FAMILIES)}


def _noise(rng: np.random.Generator, slope: float) -> Image:
    """Tileable noise whose amplitude falls as frequency ** -slope, mean 0.5."""
    spectrum = np.fft.rfft2(rng.standard_normal((SIZE, SIZE)))
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None])
    frequency[0, 0] = 1.0
    spectrum /= frequency**slope
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, s=(SIZE, SIZE))
    clipped: Image = np.clip(field / field.std() * 0.22 + 0.5, 0, 1)
    return clipped


def _cells(rng: np.random.Generator, columns: int, rows: int, spread: float) -> Image:
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    cells: Image = rng.random((rows, columns))[y * rows // SIZE, x * columns // SIZE] * spread
    return cells


def _lines(period: int, width: int, axis: int) -> Mask:
    along: Mask = (np.mgrid[0:SIZE, 0:SIZE][axis] % period) < width
    return along


def _brick(rng: np.random.Generator) -> Image:
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    row = y // 16
    shifted = (x + (row % 2) * 16) % SIZE
    bricks: Image = rng.random((8, 4))[row, shifted // 32] * 0.6 + _noise(rng, 0.8) * 0.3
    bricks[((y % 16) < 2) | ((shifted % 32) < 2)] = 1.0
    return bricks


def _wood(rng: np.random.Generator) -> Image:
    planks = int(rng.choice([2, 4, 8]))
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    plank = y * planks // SIZE
    grain = np.fft.irfft(np.fft.rfft(rng.standard_normal(SIZE)) / np.maximum(np.arange(SIZE // 2 + 1), 1) ** 0.4, SIZE)
    streaks = np.repeat(np.clip(grain / grain.std() * 0.2 + 0.5, 0, 1)[:, None], SIZE, 1)
    picture: Image = rng.random(planks)[plank] * 0.5 + 0.3 * streaks + 0.25 * _noise(rng, 1.4)
    joints = (x + rng.integers(0, SIZE, planks)[plank]) % SIZE
    picture[((y % (SIZE // planks)) < 1) | (joints < 1)] = 1.0
    return picture


def _facade(rng: np.random.Generator) -> Image:
    """Two to four storeys of windows: dark panes in a light wall."""
    columns, rows = int(rng.choice([2, 4])), int(rng.choice([2, 4]))
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    u, v = (x * columns / SIZE) % 1, (y * rows / SIZE) % 1
    left, top = rng.uniform(0.1, 0.3), rng.uniform(0.12, 0.3)
    pane = (u > left) & (u < 1 - left) & (v > top) & (v < 1 - rng.uniform(0.15, 0.35))
    return np.where(pane, 0.75 + _cells(rng, columns, rows, 0.25), 0.12 * _noise(rng, 0.8))


def _books(rng: np.random.Generator) -> Image:
    picture = np.zeros((SIZE, SIZE, 3))
    rows = int(rng.choice([2, 3, 4]))
    shelf = SIZE // rows
    for row in range(rows):
        x = 0
        while x < SIZE:
            width, tall = int(rng.integers(2, 8)), int(shelf * rng.uniform(0.45, 0.9))
            shade = 0.0 if rng.random() < 0.15 else rng.uniform(0.2, 1.0)
            picture[row * shelf + shelf - tall - 4 : row * shelf + shelf - 4, x : x + width] = (
                rng.random(3) * 0.7 + 0.3
            ) * shade
            x += width
        picture[row * shelf + shelf - 4 : row * shelf + shelf] = (0.75, 0.55, 0.35)
    return picture


def _rectangles(rng: np.random.Generator, number: int, smallest: int, largest: int) -> Image:
    picture = np.ones((SIZE, SIZE, 3)) * rng.random(3)
    for _ in range(number):
        x, y = rng.integers(0, SIZE, 2)
        width, height = rng.integers(smallest, largest, 2)
        picture[y : y + height, x : x + width] = rng.random(3)
    return picture * 0.85 + 0.15 * _noise(rng, 1.0)[..., None]


def _poster(rng: np.random.Generator) -> Image:
    picture = _rectangles(rng, int(rng.integers(4, 14)), 4, 60)
    edge = int(rng.integers(0, 9))
    if edge:
        picture[:edge] = picture[-edge:] = picture[:, :edge] = picture[:, -edge:] = rng.choice([0.05, 0.95])
    return picture


def _writing(rng: np.random.Generator) -> Image:
    """Lines of scribble, in marker colours, on an empty board."""
    picture = np.zeros((SIZE, SIZE, 3))
    ink = rng.random(3) * 0.5 + 0.5
    for y in range(6, SIZE - 8, int(rng.integers(6, 13))):
        x = int(rng.integers(4, 40))
        while x < SIZE - 14 and rng.random() < 0.93:
            width = int(rng.integers(2, 12))
            picture[y : y + 2, x : x + width] = ink * rng.uniform(0.4, 1.0)
            x += width + 3
    return picture


def _plaster(rng: np.random.Generator) -> Image:
    """Strokes of a trowel: patches of noise stretched one way or the other."""
    across, along = _noise(rng, 1.2), _noise(rng, 1.2)
    strokes = np.where(_noise(rng, 1.6) > 0.5, np.roll(across, 3, 0) - across, np.roll(along, 3, 1) - along)
    lifted: Image = strokes * rng.uniform(0.5, 2.0) + 0.4 * _noise(rng, 1.8)
    return lifted


def _terrazzo(rng: np.random.Generator) -> Image:
    """Chips of stone in cement."""
    chips = np.floor(_noise(rng, 0.9) * rng.integers(5, 12)) % 3 / 2
    ground: Image = np.where(_noise(rng, 0.7) > rng.uniform(0.5, 0.7), chips, 0.15) + 0.1 * _noise(rng, 0.2)
    return ground


def _herringbone(rng: np.random.Generator) -> Image:
    """Planks at right angles to each other."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    wide = int(rng.choice([4, 8]))
    step, turned = (x // wide + y // wide) % 8, (x // wide - y // wide) % 8 < 4
    grain = np.where(turned, _noise(rng, 0.9), _noise(rng, 0.9).T)
    picture: Image = step / 16 + 0.4 * grain + 0.15 * turned
    picture[np.where(turned, x % wide, y % wide) == 0] = 1.0
    return picture


def _hexagons(rng: np.random.Generator) -> Image:
    """Six-cornered tiles, two to a row of the bank's square."""
    count = int(rng.choice([2, 4, 8]))
    y, x = np.mgrid[0:SIZE, 0:SIZE] * (count / SIZE)
    rows = [(np.mod(x + shift, 1) - 0.5, np.mod(y + shift, 1) - 0.5) for shift in (0.0, 0.5)]
    reach = [np.maximum(np.abs(u) * 1.0, np.abs(u) * 0.5 + np.abs(v) * 0.75) for u, v in rows]
    edge = np.abs(reach[0] - reach[1]) < rng.uniform(0.02, 0.05)
    picture: Image = np.where(reach[0] < reach[1], 0.25, 0.45) * rng.uniform(0.6, 1.4) + 0.2 * _noise(rng, 0.8)
    picture[edge] = 1.0
    return picture


def _weave(rng: np.random.Generator) -> Image:
    """Warp and weft."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    thread = int(rng.choice([2, 4]))
    over = (x // thread + y // thread) % 2 == 0
    waves = np.where(over, np.sin(np.pi * (x % thread + 0.5) / thread), np.sin(np.pi * (y % thread + 0.5) / thread))
    cloth: Image = 0.5 * waves + 0.4 * _noise(rng, 1.0)
    return cloth


_DRAWN: dict[str, Callable[[np.random.Generator], Image]] = {
    "brick": _brick,
    "wood": _wood,
    "facade": _facade,
    "plaster": _plaster,
    "terrazzo": _terrazzo,
    "herringbone": _herringbone,
    "hexagons": _hexagons,
    "weave": _weave,
}


def _gray(rng: np.random.Generator, family: str) -> Image:
    if family == "plain":
        return _noise(rng, rng.uniform(0.9, 1.8)) * rng.uniform(0.05, 0.4)
    if family == "noise":
        return _noise(rng, rng.uniform(0.5, 1.5))
    if family == "speckle":
        return _noise(rng, 0.15) * 0.7 + _noise(rng, 1.2) * 0.3
    if family == "tile":
        cells = int(rng.choice([2, 4, 8]))
        picture = _cells(rng, cells, cells, rng.uniform(0, 0.4)) + 0.2 * _noise(rng, 1.0)
        width = max(1, int(SIZE // cells * rng.uniform(0.02, 0.08)))
        picture[_lines(SIZE // cells, width, 0) | _lines(SIZE // cells, width, 1)] = 1.0
        return picture
    if family == "ceiling":
        columns = int(rng.choice([2, 4]))
        picture = 0.12 * _noise(rng, 0.2) + _cells(rng, columns, 4, 0.12)
        picture[_lines(SIZE // 4, 1, 0) | _lines(SIZE // columns, 1, 1)] = rng.uniform(0.5, 1.0)
        return picture
    if family == "checker":
        odd = _lines(64, 32, 0) ^ _lines(64, 32, 1)
        return odd * 0.8 + 0.2 * _noise(rng, 1.0)
    if family == "paving":
        return _brick(rng) if rng.random() < 0.4 else _cells(rng, 4, 4, 0.7) + 0.3 * _noise(rng, 0.7)
    if family == "stripe":
        period = int(rng.choice([4, 8, 16, 32]))
        return _lines(period, max(1, int(period * rng.uniform(0.2, 0.7))), 1) * 0.8 + 0.2 * _noise(rng, 1.0)
    if family == "blinds":
        return _lines(4, 1, 0) * 0.6 + _lines(8, 2, 0) * 0.2 + 0.2 * _noise(rng, 1.4)
    if family == "leaf":
        return (_noise(rng, 0.6) > rng.uniform(0.35, 0.6)) * 0.75 + 0.25 * rng.random((SIZE, SIZE))
    if family == "grass":
        return _noise(rng, 0.1) * 0.5 + _noise(rng, 1.3) * 0.5
    if family == "rock":
        return np.abs(_noise(rng, 1.1) - 0.5) * 2.4 + 0.25 * _noise(rng, 0.3)
    if family == "clouds":
        return np.clip((_noise(rng, 1.8) - rng.uniform(0.2, 0.5)) * 2.0, 0, 1)
    return _DRAWN[family](rng)


def _texture(rng: np.random.Generator, family: str) -> Image:
    if family == "books":
        return _books(rng)
    if family == "poster":
        return _poster(rng)
    if family == "writing":
        return _writing(rng)
    if family == "clutter":
        return _rectangles(rng, 90, 3, 26)
    return np.repeat(np.clip(_gray(rng, family), 0, 1)[..., None], 3, 2)


@functools.cache
def _mip_levels() -> tuple[torch.Tensor, ...]:
    rng = np.random.default_rng(20260101)
    finest = np.stack([_texture(rng, family) for family in FAMILIES for _ in range(VARIANTS)])
    levels = [torch.from_numpy(np.clip(finest, 0, 1).astype(np.float32)).permute(0, 3, 1, 2)]
    while levels[-1].shape[-1] > 1:
        levels.append(torch.nn.functional.avg_pool2d(levels[-1], 2))
    return tuple(level.permute(0, 2, 3, 1).reshape(-1, 3) for level in levels)


class TextureBank:
    """All textures on one device, in one flat table of texels."""

    def __init__(self, device: torch.device) -> None:
        levels = _mip_levels()
        rows = [level.shape[0] for level in levels]
        self.texels = torch.cat(levels).to(device)
        self.first = torch.tensor(np.cumsum([0, *rows[:-1]]), dtype=torch.int32, device=device)

    def look_up(self, texture: torch.Tensor, u: torch.Tensor, v: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """The texels nearest to (u, v), counted in repeats of the texture, at a mip level, 0 the finest.

        Inputs have one shape (...); the result is (..., 3).
        """
        mip = level.round().clamp_(0, LEVELS - 1).to(torch.int32)
        size = torch.bitwise_right_shift(torch.full_like(mip, SIZE), mip)
        column = (u * size).floor_().to(torch.int32) & (size - 1)
        row = (v * size).floor_().to(torch.int32) & (size - 1)
        index = self.first[mip] + (texture.to(torch.int32) * size + row) * size + column
        return self.texels.index_select(0, index.reshape(-1)).reshape(*index.shape, 3)


@functools.cache
def texture_bank(device: torch.device) -> TextureBank:
    """The bank on `device`; made once per process."""
    return TextureBank(device)
