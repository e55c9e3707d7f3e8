"""Fronts of buildings in relief: windows set back behind piers and bands, balconies, shop fronts, awnings, pipes.

The front of a building looks to +x from x = 0 of its frame and is centred on y.
"""

import math
from dataclasses import dataclass

from training.synthetic import clutter, furniture
from training.synthetic.builder import SceneBuilder
from training.synthetic.scene import Frame

REACH = 38.0  # metres from the camera; farther fronts are a texture


@dataclass(frozen=True)
class Grid:
    """Where the windows of a front are: counts and sizes [m] of its bays and storeys."""

    bays: int
    bay: float
    storeys: int
    storey: float


def facade(b: SceneBuilder, at: Frame, width: float, height: float, wall: int) -> None:
    """Everything that stands out from a front whose plane at x = 0 is its glass."""
    storeys = max(1, round(height / b.uniform(2.8, 3.8)))
    bays = max(1, round(width / b.uniform(2.0, 4.0)))
    grid = Grid(bays, width / bays, storeys, height / storeys)
    _piers_and_bands(b, at, grid, wall)
    if b.chance(0.45):
        _shop_front(b, at, grid)
    else:
        _entrance(b, at, grid)
    if b.chance(0.4):
        _balconies(b, at, grid)
    _pipes_and_boxes(b, at, grid)


def front(b: SceneBuilder, at: Frame, width: float, height: float, wall: int) -> None:
    """A front without a building behind it, as round a courtyard."""
    b.slab(at, (-0.3, -width / 2 - 0.3, -0.5), (0, width / 2 + 0.3, height), (glass(b), wall, wall))
    facade(b, at, width, height, wall)


def glass(b: SceneBuilder) -> int:
    """The plane behind the piers: dark panes that reflect sky or houses, or show what is in the rooms."""
    family = b.choose(("clouds", "facade", "noise", "clutter"))
    return b.material(family, b.uniform(4.0, 9.0), b.gray(0.01, 0.05), b.gray(0.03, 0.25, 0.1), gloss=0.6)


def _piers_and_bands(b: SceneBuilder, at: Frame, grid: Grid, wall: int) -> None:
    """A wall with holes, as vertical and horizontal strips; sills where they cross the windows."""
    out, half = b.uniform(0.1, 0.35), grid.bays * grid.bay / 2
    pier, low, high = grid.bay * b.uniform(0.15, 0.32), b.uniform(0.5, 1.0), b.uniform(0.3, 0.7)
    sill = b.material("plain", 1.0, b.gray(0.3, 0.85))
    for i in range(grid.bays + 1):
        y = i * grid.bay - half
        b.slab(at, (0, max(y - pier, -half), -0.5), (out, min(y + pier, half), grid.storeys * grid.storey), wall)
    for level in range(1, grid.storeys + 1):
        z = level * grid.storey
        top = z + (low if level < grid.storeys else 0.0)
        b.slab(at, (0, -half, z - high), (out - 0.01, half, top), wall)
        if level < grid.storeys:
            b.slab(at, (0, -half, top), (out + 0.08, half, top + 0.06), sill)
    if b.chance(0.5):  # crossbars
        for i in range(grid.bays):
            y = (i + 0.5) * grid.bay - half
            b.slab(at, (0, y - 0.04, 0), (0.06, y + 0.04, grid.storeys * grid.storey), sill)


def _shop_front(b: SceneBuilder, at: Frame, grid: Grid) -> None:
    """Sign and awning over the ground floor, things in the window, a board on the pavement."""
    half = grid.bays * grid.bay / 2 * b.uniform(0.4, 0.95)
    top = min(grid.storey - 0.2, 2.9)
    sign = b.material("writing", b.uniform(1.5, 4.0), b.vivid(0.05, 0.6), b.gray(0.6, 0.95))
    b.slab(at, (0, -half, top), (0.45, half, top + b.uniform(0.4, 0.8)), sign)
    for _ in range(b.count(1, 4)):
        y = b.uniform(-0.9, 0.9) * half
        goods = b.material(
            b.choose(("poster", "clutter", "books")), 1.5, b.gray(0.1, 0.4), b.gray(0.5, 1.0), emission=0.5
        )
        b.slab(at, (0, y - 0.6, 0.4), (0.05, y + 0.6, top - 0.3), goods)
    if b.chance(0.6):
        deep, cloth = (
            b.uniform(0.8, 1.6),
            b.material("stripe", b.uniform(0.6, 2.0), b.vivid(0.1, 0.6), b.gray(0.6, 0.9)),
        )
        b.box(at, (0.3 + deep / 2, 0, top - 0.15), (deep / 2, half, 0.02), cloth, pitch=0.35)
        b.slab(at, (0.3 + deep, -half, top - 0.65), (0.33 + deep, half, top - 0.4), cloth)
    if clutter.is_near(b, at, 20.0) and b.chance(0.6):
        b.begin()
        place = at.at(b.uniform(1.0, 2.0), b.uniform(-1, 1) * half)
        face = b.material("writing", 0.8, b.gray(0.02, 0.1), b.gray(0.6, 0.9))
        for side in (-1, 1):
            b.box(place, (side * 0.12, 0, 0.5), (0.015, 0.32, 0.5), face, pitch=-side * 0.24)
        b.end()


def _entrance(b: SceneBuilder, at: Frame, grid: Grid) -> None:
    """A door with a step, jambs and a canopy in one of the bays."""
    y = (b.count(0, grid.bays - 1) + 0.5 - grid.bays / 2) * grid.bay
    door, stone = furniture.wooden(b), b.material("noise", 2.0, b.gray(0.2, 0.7))
    b.slab(at, (0, y - 0.6, 0), (0.08, y + 0.6, 2.2), door)
    for side in (-0.7, 0.7):
        b.slab(at, (0, y + side - 0.12, 0), (0.4, y + side + 0.12, 2.35), stone)
    b.slab(at, (0, y - 1.1, 2.35), (b.uniform(0.4, 1.4), y + 1.1, 2.5), stone)
    for step in range(2):
        b.slab(at, (0, y - 1.0, 0), (0.9 - 0.3 * step, y + 1.0, 0.13 * (step + 1)), stone)


def _balconies(b: SceneBuilder, at: Frame, grid: Grid) -> None:
    """On every storey but the first, in one to three columns of bays: slab, rail and bars or a panel."""
    deep, floor = b.uniform(0.7, 1.5), b.material("plain", 1.0, b.gray(0.3, 0.85))
    panel = b.material("plain", 1.0, b.gray(0.1, 0.8)) if b.chance(0.5) else None
    rail = furniture.metal(b)
    columns = {b.count(0, grid.bays - 1) for _ in range(b.count(1, 3))}
    for column in sorted(columns):
        y = (column + 0.5 - grid.bays / 2) * grid.bay
        half = grid.bay * 0.46
        for level in range(1, min(grid.storeys, 5)):
            z = level * grid.storey
            b.slab(at, (0, y - half, z - 0.15), (deep, y + half, z), floor)
            b.slab(at, (deep - 0.05, y - half, z + 0.95), (deep, y + half, z + 1.0), rail)
            if panel is not None:
                b.slab(at, (deep - 0.04, y - half, z), (deep - 0.01, y + half, z + 0.95), panel)
                continue
            for bar in range(6):
                spot = y + (bar / 5 - 0.5) * 2 * (half - 0.02)
                b.slab(at, (deep - 0.035, spot - 0.015, z), (deep - 0.005, spot + 0.015, z + 0.95), rail)


def _pipes_and_boxes(b: SceneBuilder, at: Frame, grid: Grid) -> None:
    """Downpipes, air conditioners, lamps and signs that stand out sideways."""
    half, tall = grid.bays * grid.bay / 2, grid.storeys * grid.storey
    if b.chance(0.6):
        y = b.choose((-1, 1)) * (half - 0.2)
        b.cylinder(at, 0.42, y, 0.06, 0, tall, furniture.metal(b))
    for _ in range(b.count(0, 4)):
        spot = (0.5, b.uniform(-0.9, 0.9) * half, b.uniform(2.6, max(2.7, tall - 0.5)))
        if b.chance(0.6):
            b.box(at, spot, (0.18, 0.4, 0.28), b.material("blinds", 0.6, b.gray(0.5, 0.9), b.gray(0.1, 0.4)))
        else:
            face = b.material("writing", 1.0, b.vivid(0.1, 0.7), b.gray(0.6, 0.95), emission=0.3)
            b.box(at, (0.8, spot[1], spot[2]), (0.4, 0.06, b.uniform(0.3, 0.9)), face)


def roof_things(b: SceneBuilder, at: Frame, depth: float, width: float, height: float) -> None:
    """Chimneys, lift houses, tanks and masts behind the edge of a flat roof."""
    for _ in range(b.count(0, 3)):
        place = at.at(-b.uniform(0.2, 0.8) * depth, b.uniform(-0.4, 0.4) * width, height)
        tall = b.uniform(0.5, 2.5)
        kind = b.rng.random()
        if kind < 0.6:
            b.box(
                place,
                (0, 0, tall / 2),
                (b.uniform(0.3, 1.5), b.uniform(0.3, 1.5), tall / 2),
                furniture.furniture_finish(b),
            )
        elif kind < 0.8:
            b.cylinder(place, 0, 0, b.uniform(0.4, 1.2), 0, tall, furniture.metal(b))
        else:
            b.cylinder(place, 0, 0, 0.04, 0, 2 * tall, furniture.metal(b))
            b.cylinder(place.at(0, 0, 1.5 * tall), 0, 0, 0.4, -0.03, 0.03, furniture.metal(b), pitch=math.pi / 3)
