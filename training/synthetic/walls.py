"""Walls with their doors, windows and openings, and the rooms glimpsed behind them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from training.synthetic import clutter, furniture
from training.synthetic.builder import SceneBuilder
from training.synthetic.scene import Frame

Corner = tuple[float, float]
THICKNESS = 0.14  # metres


@dataclass(frozen=True)
class Finish:
    """Materials of a room's shell, and the height of its ceiling [m]."""

    wall: int
    accent: int
    floor: int
    ceiling: int
    door: int
    trim: int
    height: float


@dataclass(frozen=True)
class Opening:
    """A gap in a wall from `start` to `end` along it and from `low` to `high` above the floor [m]."""

    start: float
    end: float
    low: float
    high: float
    filling: str


@dataclass(frozen=True)
class Wall:
    """A straight wall: local x of its frame runs along it, the room lies at positive y.

    Attributes:
        frame: its start, on the floor.
        length: metres.
        openings: apart from each other.
        beyond: how far it goes on past its start and its end in metres, to close the corners of a room; a little less
            than nothing where the next wall covers its end.
    """

    frame: Frame
    length: float
    openings: tuple[Opening, ...]
    beyond: tuple[float, float] = (0.0, 0.0)

    def facing_room(self, along: float) -> Frame:
        """Where a piece of furniture stands with its back to the wall, looking into the room."""
        return self.frame.at(along, 0.0, 0.0, math.pi / 2)

    def free(self, start: float, end: float, height: float) -> bool:
        """Whether nothing up to `height` would stand before an opening between `start` and `end`."""
        return all(end < o.start or start > o.end or o.low >= height for o in self.openings)


def wall_colour(b: SceneBuilder) -> int:
    """Mostly white or pale paint with little contrast, as in reality."""
    kind = b.rng.random()
    if kind < 0.72:
        return b.material("plain", b.uniform(1.0, 4.0), b.gray(0.45, 0.88, 0.07))
    if kind < 0.84:
        red, green, blue = b.vivid(0.15, 0.7)
        chalk = 0.4 * max(red, green, blue)  # wall paint is never quite pure
        return b.material("plain", b.uniform(1.0, 4.0), (0.6 * red + chalk, 0.6 * green + chalk, 0.6 * blue + chalk))
    if kind < 0.89:
        return furniture.wooden(b)
    texture = b.choose(("tile", "brick", "stripe", "speckle", "noise"))
    return b.material(texture, b.uniform(0.8, 2.5), b.gray(0.2, 0.8, 0.15))


def floor_finish(b: SceneBuilder) -> int:
    kind = b.rng.random()
    if kind < 0.4:  # carpet
        return b.material("speckle", b.uniform(0.4, 1.2), b.gray(0.04, 0.3, 0.15))
    if kind < 0.62:
        return b.material("wood", b.uniform(0.8, 1.8), b.wood(0.06, 0.5), gloss=b.uniform(0, 0.5))
    if kind < 0.78:
        return b.material("tile", b.uniform(0.8, 3.0), b.gray(0.2, 0.7, 0.1), gloss=b.uniform(0, 0.6))
    if kind < 0.9:  # linoleum, concrete, stone
        return b.material("noise", b.uniform(1.0, 4.0), b.gray(0.1, 0.6, 0.15), gloss=b.uniform(0, 0.6))
    return b.material(b.choose(("checker", "paving")), b.uniform(1.0, 2.4), b.gray(0.1, 0.6))


def ceiling_finish(b: SceneBuilder) -> int:
    if b.chance(0.55):
        return b.material("ceiling", 2.4, b.gray(0.5, 0.85, 0.04), b.gray(0.2, 0.5, 0.04))
    return b.material("plain", b.uniform(1.5, 4.0), b.gray(0.4, 0.9, 0.05))


def random_finish(b: SceneBuilder, height: float) -> Finish:
    wall = wall_colour(b)
    return Finish(
        wall=wall,
        accent=wall_colour(b) if b.chance(0.35) else wall,
        floor=floor_finish(b),
        ceiling=ceiling_finish(b),
        door=furniture.wooden(b) if b.chance(0.7) else b.material("plain", 1.5, b.gray(0.1, 0.85)),
        trim=b.material("plain", 1.0, b.gray(0.02, 0.8)) if b.chance(0.6) else furniture.wooden(b),
        height=height,
    )


def _trim(b: SceneBuilder, wall: Frame, o: Opening, material: int) -> None:
    edge, out = 0.06, 0.02
    b.slab(wall, (o.start - edge, -THICKNESS, o.low), (o.start, out, o.high + edge), material)
    b.slab(wall, (o.end, -THICKNESS, o.low), (o.end + edge, out, o.high + edge), material)
    b.slab(wall, (o.start, -THICKNESS, o.high), (o.end, out, o.high + edge), material)
    if o.low > 0.05:
        b.slab(wall, (o.start - edge, -THICKNESS, o.low - edge), (o.end + edge, 0.08, o.low), material)


def _door_leaf(b: SceneBuilder, hinge: Frame, width: float, height: float, material: int) -> None:
    """A leaf that swings about `hinge` and lies along its x."""
    b.slab(hinge, (0.0, -0.022, 0.005), (width, 0.022, height), material)
    grip = furniture.metal(b)
    for y in (-0.05, 0.05):
        b.box(hinge, (width - 0.09, y, 1.02), (0.06, 0.012, 0.012), grip)
    if b.chance(0.2):
        glass = b.material("plain", 1.0, b.gray(0.02, 0.2), gloss=0.6)
        b.slab(hinge, (width * 0.4, -0.026, 1.2), (width * 0.75, 0.026, height - 0.25), glass)


def _fill_door(b: SceneBuilder, wall: Frame, o: Opening, finish: Finish) -> None:
    width = o.end - o.start
    double = width > 1.35
    leaf = width / 2 if double else width
    ajar = o.filling == "open door"
    for side in (0, 1) if double else (b.count(0, 1),):
        hinge = wall.at(o.start if side == 0 else o.end, -0.04, 0.0, 0.0 if side == 0 else math.pi)
        swing = (b.uniform(0.3, 2.4) if side == 0 else -b.uniform(0.3, 2.4)) if ajar else 0.0
        if ajar:
            b.begin()
        _door_leaf(b, hinge.at(0, 0, 0, swing), leaf, o.high, finish.door)
        b.end()


def _fill_window(b: SceneBuilder, wall: Frame, o: Opening, finish: Finish) -> None:
    """Mullions; then blinds or a pane that hides what is outside, or nothing: the outside is seen."""
    width, tall = o.end - o.start, o.high - o.low
    columns = max(1, round(width / b.uniform(0.6, 1.4)))
    for i in range(1, columns):
        x = o.start + width * i / columns
        b.slab(wall, (x - 0.03, -0.1, o.low), (x + 0.03, -0.04, o.high), finish.trim)
    if b.chance(0.5):
        z = o.low + tall * b.uniform(0.3, 0.75)
        b.slab(wall, (o.start, -0.1, z - 0.025), (o.end, -0.04, z + 0.025), finish.trim)
    if o.filling == "blinds":
        blinds = b.material(
            "blinds", b.uniform(0.4, 0.9), b.gray(0.4, 0.8), b.gray(0.05, 0.4), emission=b.uniform(0, 1.2)
        )
        drop = b.choose((1.0, 1.0, 0.6, 0.35))
        b.slab(wall, (o.start, -0.03, o.high - drop * tall), (o.end, -0.01, o.high), blinds)
    if o.filling in ("pane", "dark pane") or (o.filling == "blinds" and b.chance(0.5)):
        if o.filling != "dark pane" and b.chance(0.5):  # bright and overexposed
            pane = b.material(
                b.choose(("clouds", "leaf", "facade")),
                b.uniform(1, 4),
                b.gray(0.5, 1.0),
                b.gray(0.1, 0.9),
                emission=b.uniform(1, 4),
            )
        else:  # dark: night, or a dim room behind
            pane = b.material("clutter", b.uniform(1, 3), b.gray(0.003, 0.02), b.gray(0.01, 0.1), gloss=0.5)
        b.slab(wall, (o.start, -0.1, o.low), (o.end, -0.08, o.high), pane)
    if b.chance(0.2):  # curtains
        cloth = b.material("stripe", b.uniform(0.2, 0.6), b.gray(0.1, 0.8, 0.3))
        for x in (o.start - 0.15, o.end - 0.2):
            for fold in range(4):
                near = x + 0.09 * fold
                b.slab(wall, (near, 0.03, 0.05), (near + 0.08, 0.09 + 0.04 * (fold % 2), o.high + 0.15), cloth)
        b.slab(wall, (o.start - 0.3, 0.04, o.high + 0.15), (o.end + 0.3, 0.07, o.high + 0.18), finish.trim)


def annex(b: SceneBuilder, wall: Frame, o: Opening, finish: Finish) -> None:
    """A plain room behind an opening; its near side is the wall itself."""
    width, depth = max(o.end - o.start + 0.2, b.uniform(1.6, 7.0)), math.exp(b.uniform(math.log(1.3), math.log(12.0)))
    height = max(b.uniform(2.4, 3.2), o.high + 0.08)
    other = random_finish(b, height) if b.chance(0.5) else replace(finish, height=height)
    shift = b.uniform(-0.5, 0.5) * (width - (o.end - o.start))
    left, right = (o.start + o.end - width) / 2 + shift, (o.start + o.end + width) / 2 + shift
    near, far = -THICKNESS, -THICKNESS - depth
    b.slab(wall, (left, far, -0.2), (right, 0.0, -0.003), other.floor)
    b.slab(wall, (left, far, height), (right, near + 0.01, height + 0.1), other.ceiling)
    b.slab(wall, (left - 0.1, far, -0.1), (left, near, height), other.wall)
    b.slab(wall, (right, far, -0.1), (right + 0.1, near, height), other.wall)
    b.slab(wall, (left - 0.1, far - 0.1, -0.1), (right + 0.1, far, height), other.accent)
    glow = b.material("plain", 1.0, (1, 1, 1), emission=b.uniform(1, 5))
    middle = wall.at((left + right) / 2, (near + far) / 2)
    if b.chance(0.7):
        b.box(middle, (0, 0, height - 0.01), (0.3, min(0.6, depth / 3), 0.012), glow)
        tone = b.uniform(0.5, 2.5)
        b.lamp(middle.point(0, 0, height - 0.15), 0.3, (tone, tone * 0.95, tone * 0.85))
    back = Wall(wall.at(right, far, 0.0, math.pi), width, ())
    facing = back.frame.at(width * b.uniform(0.3, 0.7), 0, 0, -math.pi / 2)
    furnish = b.rng.random()
    if furnish < 0.25:
        furniture.bookcase(b, facing, b.uniform(0.8, 1.4), b.uniform(1.4, 2.1), False)
    elif furnish < 0.5 and depth > 2:
        furniture.desk(b, facing, 1.4)
    elif furnish < 0.65:
        furniture.picture(b, facing)


def build_wall(b: SceneBuilder, wall: Wall, finish: Finish, material: int) -> None:
    """The solid parts of a wall, and what fills its openings."""
    edge = -wall.beyond[0]
    for o in sorted(wall.openings, key=lambda o: o.start):
        b.slab(wall.frame, (edge, -THICKNESS, -0.1), (o.start, 0.0, finish.height + 0.05), material)
        if o.low > 0.0:
            b.slab(wall.frame, (o.start, -THICKNESS, -0.1), (o.end, 0.0, o.low), material)
        b.slab(wall.frame, (o.start, -THICKNESS, o.high), (o.end, 0.0, finish.height + 0.05), material)
        edge = o.end
        if o.filling in ("door", "open door", "doorway"):
            if o.filling != "doorway" or b.chance(0.5):
                _trim(b, wall.frame, o, finish.trim)
            if o.filling != "doorway":
                _fill_door(b, wall.frame, o, finish)
            if o.filling != "door":
                annex(b, wall.frame, o, finish)
        elif o.filling == "glass wall":
            _fill_window(b, wall.frame, o, finish)
            annex(b, wall.frame, o, finish)
        else:
            _trim(b, wall.frame, o, finish.trim)
            _fill_window(b, wall.frame, o, finish)
            if o.low > 0.68 and o.filling != "dark pane" and b.chance(0.35):  # a dark pane is seen from outside
                b.begin()
                clutter.radiator(b, wall.facing_room((o.start + o.end) / 2), max(0.6, 0.8 * (o.end - o.start)))
                b.end()
    b.slab(wall.frame, (edge, -THICKNESS, -0.1), (wall.length + wall.beyond[1], 0.0, finish.height + 0.05), material)
    if b.chance(0.4):  # skirting
        edge = 0.0
        for start, end in [(o.start, o.end) for o in sorted(wall.openings, key=lambda o: o.start) if o.low < 0.1] + [
            (wall.length, wall.length)
        ]:
            b.slab(wall.frame, (edge, 0.0, 0.0), (start - 0.06, 0.015, 0.09), finish.trim)
            edge = end + 0.06


def random_openings(b: SceneBuilder, length: float, height: float, doors: int, windows: int) -> tuple[Opening, ...]:
    """Up to so many doors and windows along a wall, apart from each other and from the corners."""
    taken: list[Opening] = []

    def place(width: float, low: float, high: float, filling: str) -> None:
        if width > length - 0.3 or high > height - 0.03:
            return
        start = b.uniform(0.12, length - width - 0.12)
        if all(start + width + 0.2 < o.start or start - 0.2 > o.end for o in taken):
            taken.append(Opening(start, start + width, low, high, filling))

    for _ in range(doors):
        kind = b.rng.random()
        if kind < 0.45:
            place(b.uniform(0.8, 1.0) if b.chance(0.85) else b.uniform(1.4, 1.8), 0.0, b.uniform(2.0, 2.15), "door")
        elif kind < 0.72:
            place(b.uniform(0.8, 1.0), 0.0, b.uniform(2.0, 2.15), "open door")
        elif kind < 0.9:
            place(b.uniform(0.9, 3.0), 0.0, b.uniform(2.0, max(2.05, height - 0.1)), "doorway")
        else:
            place(
                b.uniform(1.0, max(1.1, length - 0.5)),
                b.choose((0.0, 0.0, 0.9)),
                b.uniform(2.0, max(2.05, height - 0.1)),
                "glass wall",
            )
    for _ in range(windows):
        low = b.uniform(0.7, 1.1) if b.chance(0.75) else b.uniform(0.05, 0.5)
        place(
            b.uniform(0.7, max(0.9, min(4.0, length - 0.4))),
            low,
            b.uniform(1.8, height - 0.15),
            b.choose(("outside", "pane", "pane", "blinds", "blinds")),
        )
    return tuple(taken)


def polygon_walls(
    b: SceneBuilder, corners: Sequence[Corner], height: float, doors: float, windows: float
) -> list[Wall]:
    """Walls round a counter-clockwise polygon.

    `doors` and `windows` are expected numbers for the whole room, shared out by length.
    """
    after = [*corners[1:], corners[0]]
    lengths = [math.dist(p, q) for p, q in zip(corners, after, strict=True)]
    headings = [math.atan2(q[1] - p[1], q[0] - p[0]) for p, q in zip(corners, after, strict=True)]
    outer = sum(lengths)
    walls = []
    for i, (corner, length, heading) in enumerate(zip(corners, lengths, headings, strict=True)):
        some_doors = int(doors * length / outer + b.rng.random())
        some_windows = int(windows * length / outer + b.rng.random()) if windows else 0
        ends = (headings[i - 1], heading), (heading, headings[(i + 1) % len(headings)])
        beyond = tuple(THICKNESS if math.sin(new - old) > 0 else -0.002 for old, new in ends)
        openings = random_openings(b, length, height, some_doors, some_windows)
        walls.append(Wall(Frame(*corner, 0.0, heading), length, openings, (beyond[0], beyond[1])))
    return walls
