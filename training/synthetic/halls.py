"""Auditoriums, staircases and arcades: rooms that are more than furniture along walls."""

import math
from dataclasses import dataclass

from training.synthetic import clutter, furniture
from training.synthetic.builder import SceneBuilder
from training.synthetic.rooms import build_shell, lamp_colour, place_camera, rectangle
from training.synthetic.scene import WORLD, Frame
from training.synthetic.street_furniture import bench
from training.synthetic.walls import Finish, Opening, Wall, build_wall, random_finish


def auditorium(b: SceneBuilder) -> None:
    """Rows of seats on rising steps before a stage; the ceiling, lit from below, hangs in slanted strips."""
    b.uplight = b.uniform(0.0, 2.5)
    width, length = b.uniform(9, 20), b.uniform(10, 22)
    rise, pitch = b.choose((0.0, 0.08, 0.15, 0.25)), b.uniform(0.85, 1.1)
    rows, front = int((length - 4.5) / pitch), -length / 2 + 3.5
    stand = b.count(0, max(0, rows - 2))
    floor = rise * (stand + 1)
    clear = b.normal(3.2, 0.4, 2.6, 4.5) if b.chance(0.7) else b.uniform(4.0, 6.5)
    height = max(floor + clear, rise * rows + 2.5)
    finish = random_finish(b, height + 0.9)
    near, far = front + stand * pitch, front + (stand + 1) * pitch + 0.9
    place_camera(b, ((-width * 0.4, near), (width * 0.4, near), (width * 0.4, far), (-width * 0.4, far)), clear, floor)
    build_shell(b, rectangle(width, length), finish, 2.0, 0.0)
    if rise:
        for row in range(rows):
            y = front + row * pitch
            b.slab(WORLD, (-width / 2, y, 0), (width / 2, y + pitch + 0.02, rise * (row + 1)), finish.floor)
        b.slab(WORLD, (-width / 2, front + rows * pitch, 0), (width / 2, length / 2, rise * rows), finish.floor)
    _seats(b, width, [(front + row * pitch + 0.2, rise * (row + 1)) for row in range(rows)])
    _stage(b, width, length, front)
    _hung_ceiling(b, width, length, height, finish)


def _seats(b: SceneBuilder, width: float, rows: list[tuple[float, float]]) -> None:
    """Folding seats, one by one near the camera and as benches far from it; two aisles or one."""
    cover, hidden = furniture.fabric(b), furniture.dark_plastic(b)
    spacing, aisle = b.uniform(0.52, 0.65), b.uniform(0.0, width * 0.3)
    count = int((width - 1.6) / spacing)
    for y, z in rows:
        if abs(y - b.camera[1]) >= 6.5:
            for left, right in (
                (-width / 2 + 0.8, -aisle - 0.5),
                (0.5 - aisle, aisle - 0.5),
                (aisle + 0.5, width / 2 - 0.8),
            ):
                b.slab(WORLD, (left, y - 0.4, z + 0.37), (right, y - 0.02, z + 0.47), cover)
                b.slab(WORLD, (left, y - 0.04, z + 0.42), (right, y + 0.05, z + 0.94), cover)
            continue
        for seat in range(count):
            x = (seat + 0.5 - count / 2) * spacing
            if abs(abs(x) - aisle) < 0.55:
                continue
            at = Frame(x, y, z, -math.pi / 2)
            b.begin()
            b.box(at, (0.24, 0, 0.42), (0.22, spacing * 0.42, 0.05), cover)
            b.box(at, (0.0, 0, 0.68), (0.045, spacing * 0.44, 0.26), cover, pitch=-0.15)
            b.box(at, (0.2, spacing / 2, 0.35), (0.2, 0.02, 0.25), hidden)
            b.end()


def _stage(b: SceneBuilder, width: float, length: float, front: float) -> None:
    b.slab(WORLD, (-width * 0.4, -length / 2, 0), (width * 0.4, front - 1.4, b.uniform(0.2, 0.8)), furniture.wooden(b))
    back = Frame(0, -length / 2 + 0.02, b.uniform(0.4, 1.0), math.pi / 2)
    for x in (-2.2, 0.0, 2.2):
        if b.chance(0.8):
            furniture.board(b, back.at(0, x, b.uniform(0, 0.6)), 2.0)
    b.box(WORLD, (b.uniform(-0.25, 0.25) * width, front - 2.2, 0.9), (0.3, 0.25, 0.55), furniture.wooden(b))


def _hung_ceiling(b: SceneBuilder, width: float, length: float, height: float, finish: Finish) -> None:
    """Slanted or curved strips across the hall, lamps between them, perhaps a projector above the seats."""
    strips, slant = b.count(3, 6), b.uniform(0.0, 0.3) * b.choose((-1, 1))
    pieces, bend = b.choose((1, 1, 4)), b.uniform(0.1, 0.35)
    deep = length / strips * b.uniform(0.75, 1.0)
    spot = b.material("plain", 1, (1, 1, 1), emission=5.0)
    for i in range(strips):
        middle = -length / 2 + (i + 0.5) * length / strips
        for piece in range(pieces):
            off = (piece + 0.5) / pieces - 0.5
            tilt = slant - 2 * off * bend if pieces > 1 else slant
            lift = height + 0.25 - off * off * deep * bend
            b.box(
                WORLD,
                (0, middle + off * deep, lift),
                (width / 2, deep / pieces / 2 + 0.02, 0.06),
                finish.ceiling,
                roll=tilt,
            )
        for x in (-width / 4, width / 4):
            b.lamp((x, middle, height - 0.6), 0.4, lamp_colour(b, b.uniform(1.5, 4.0)))
            b.box(WORLD, (x, middle, height - 0.12), (0.15, 0.15, 0.03), spot)
    if b.chance(0.4):
        x, y, _ = b.camera
        at = Frame(x + b.uniform(-3, 3), y + b.uniform(-3, 3), height - b.uniform(0.3, 0.8))
        b.begin()
        b.box(at, (0, 0, 0), (0.3, 0.25, 0.12), furniture.dark_plastic(b), yaw=b.uniform(0, 3))
        b.cylinder(at, 0, 0, 0.03, 0.1, 1.5, furniture.metal(b))
        b.end()


@dataclass(frozen=True)
class Stairwell:
    """Measures of a staircase in metres; the flights lie at negative y, the one up at positive x, the other opposite.

    Attributes:
        width: of one flight.
        gap: between the flights.
        landing: depth of the landing.
        rise: of a step.
        tread: of a step.
        steps: of one flight.
        height: of the ceiling over the landing.
    """

    width: float
    gap: float
    landing: float
    rise: float
    tread: float
    steps: int
    height: float

    @property
    def side(self) -> float:
        """The outer walls stand at plus and minus this x."""
        return self.width + self.gap / 2

    @property
    def run(self) -> float:
        return self.steps * self.tread

    @property
    def climb(self) -> float:
        return self.steps * self.rise


def staircase(b: SceneBuilder) -> None:
    """A landing with one flight up and one flight down, side by side."""
    width, landing = b.uniform(1.1, 1.8), b.uniform(1.3, 3.0)
    rise, tread, steps = b.uniform(0.15, 0.18), b.uniform(0.27, 0.32), b.count(8, 14)
    height = b.uniform(2.4, 3.0) + 0.3
    finish = random_finish(b, height)
    well = Stairwell(width, b.choose((0.0, 0.12, 0.25)), landing, rise, tread, steps, height)
    side = well.side
    place_camera(b, ((-side, 0.0), (side, 0.0), (side, landing), (-side, landing)), height)
    _stairwell_walls(b, well, finish)
    _flights(b, well, finish)
    _stair_ceilings_and_rails(b, well, finish)
    for _ in range(b.count(0, 3)):
        left = b.choose((-1, 1))
        wall = Frame(left * side, b.uniform(0.3, landing), 0, math.pi if left > 0 else 0.0)
        b.choose((furniture.picture, clutter.wall_thing))(b, wall)


def _stairwell_walls(b: SceneBuilder, well: Stairwell, finish: Finish) -> None:
    side, top, low, end = well.side, well.height + well.climb + 0.5, -well.climb, -well.run - 2.0
    b.slab(WORLD, (-side, 0, -0.3), (side, well.landing, 0), finish.floor)
    b.slab(WORLD, (-side - 0.2, end, low - 0.2), (-side, well.landing + 0.2, top), finish.wall)
    b.slab(WORLD, (side, end, low - 0.2), (side + 0.2, well.landing + 0.2, top), finish.wall)
    b.slab(WORLD, (-side - 0.2, end - 0.2, low - 0.2), (side + 0.2, end, top), finish.accent)
    door = (Opening(0.2, 1.1, 0, 2.05, "door"),) if b.chance(0.5) else ()
    build_wall(b, Wall(Frame(side, well.landing, 0, math.pi), 2 * side, door), finish, finish.wall)
    if well.gap:
        b.slab(WORLD, (-well.gap / 2, -well.run, low), (well.gap / 2, 0, top if b.chance(0.6) else 1.0), finish.wall)


def _flights(b: SceneBuilder, well: Stairwell, finish: Finish) -> None:
    """Steps up and down with nosings, and the floors at their far ends."""
    side, inner, low, end = well.side, well.gap / 2, -well.climb, -well.run - 2.0
    nosing = furniture.metal(b)
    for i in range(well.steps):
        near, far, up = -i * well.tread, -(i + 1) * well.tread, (i + 1) * well.rise
        b.slab(WORLD, (inner, far, low), (side, near + 0.02, up), finish.floor)
        b.slab(WORLD, (inner, near - 0.02, up - 0.01), (side, near + 0.025, up + 0.004), nosing)
        b.slab(WORLD, (-side, far, low - 0.2), (-inner, near, -up), finish.floor)
    b.slab(WORLD, (inner, end, low), (side, -well.run, well.climb), finish.floor)
    b.slab(WORLD, (-side, end, low - 0.2), (-inner, -well.run, -well.climb), finish.floor)


def _stair_ceilings_and_rails(b: SceneBuilder, well: Stairwell, finish: Finish) -> None:
    """A level ceiling over the landing, slanted ones over the flights, lamps, and a handrail on either wall."""
    side, rising = well.side, well.climb / 2
    b.slab(WORLD, (-side, -0.6, well.height), (side, well.landing, well.height + well.climb), finish.ceiling)
    slope, lid = math.atan2(well.rise, well.tread), b.uniform(2.2, 2.5)
    half = (well.width / 2, math.hypot(well.run, well.climb) / 2, 0.05)
    b.box(WORLD, (-side / 2, -well.run / 2, lid - rising), half, finish.ceiling, roll=slope)
    b.box(WORLD, (side / 2, -well.run / 2, well.height + 0.4 + rising), half, finish.ceiling, roll=-slope)
    above = well.height + well.climb + 0.4
    b.slab(WORLD, (-side, -well.run - 2.0, above), (side, -well.run + 0.2, above + 0.2), finish.ceiling)
    rail = furniture.wooden(b) if b.chance(0.5) else furniture.metal(b)
    b.box(WORLD, (side - 0.07, -well.run / 2, 0.9 + rising), (0.025, half[1], 0.03), rail, roll=-slope)
    b.box(WORLD, (0.07 - side, -well.run / 2, 0.9 - rising), (0.025, half[1], 0.03), rail, roll=slope)
    glow = b.material("plain", 1.0, (1, 1, 0.95), emission=b.uniform(2, 8))
    end = -well.run - 1.0
    for x, y, z in (
        (0.0, well.landing / 2, well.height),
        (-side / 2, end, lid - well.climb),
        (side / 2, end, well.height + well.climb - 0.2),
    ):
        b.box(WORLD, (x, y, z - 0.03), (0.3, 0.15, 0.03), glow)
        b.lamp((x, y, z - 0.25), 0.3, lamp_colour(b, b.uniform(1, 3)))


def arcade(b: SceneBuilder) -> None:
    """A covered walk: wall with windows on one side, columns and arches on the other, outdoors beyond."""
    width, length, height = b.uniform(3.0, 6.0), b.uniform(14, 45), b.uniform(3.4, 6.5)
    finish = random_finish(b, height)
    stone = b.material(b.choose(("noise", "brick", "rock")), b.uniform(1.5, 4.0), b.gray(0.15, 0.6, 0.15))
    place_camera(
        b,
        (
            (-width / 2, -length * 0.3),
            (width / 2, -length * 0.3),
            (width / 2, length * 0.3),
            (-width / 2, length * 0.3),
        ),
        height,
    )
    x, y = width / 2, length / 2
    paving = b.material("paving", b.uniform(1.5, 4), b.gray(0.1, 0.5))
    b.slab(WORLD, (-x - 0.3, -y, -0.4), (x + 0.6, y, 0.0), paving)
    b.slab(WORLD, (-x - 0.3, -y, height), (x + 0.6, y, height + 0.6), finish.ceiling)
    spacing, pier = b.uniform(2.8, 5.0), b.uniform(0.25, 0.5)
    bays = int(length / spacing)
    spring = height * b.uniform(0.5, 0.68)
    windows = []
    for i in range(bays):
        middle = -y + (i + 0.5) * spacing
        b.slab(WORLD, (x, -y + i * spacing - pier / 2, 0), (x + 0.5, -y + i * spacing + pier / 2, height), stone)
        _arch(b, Frame(x + 0.25, middle, spring), spacing - pier, height - spring, stone)
        windows.append(
            Opening(
                length - (i + 0.8) * spacing,
                length - (i + 0.2) * spacing,
                b.choose((0.0, 0.5)),
                spring,
                b.choose(("pane", "outside", "blinds")),
            )
        )
    inner = Wall(Frame(-x, y, 0, -math.pi / 2), length, tuple(windows[::-1]) if b.chance(0.6) else ())
    build_wall(b, inner, finish, stone if b.chance(0.7) else finish.wall)
    for end in (-y, y):
        if b.chance(0.5):
            b.slab(WORLD, (-x - 0.3, end - 0.1, 0), (x + 0.6, end + 0.1, height), stone)
    for _ in range(b.count(1, 6)):
        along = b.uniform(1.0, length - 1.0)
        wall = inner.facing_room(along)
        if inner.free(along - 0.7, along + 0.7, 2.0):
            clutter.wall_thing(b, wall)
        b.choose((bench, furniture.person))(b, wall.at(b.uniform(0.4, width - 0.5), 0))
    for i in range(max(1, bays // 2)):
        b.lamp((0.0, -y + (2 * i + 1) * spacing, height - 0.3), 0.2, lamp_colour(b, b.uniform(0.5, 4)))


def _arch(b: SceneBuilder, at: Frame, span: float, rise: float, stone: int) -> None:
    """Blocks along a half ellipse, filled up to the ceiling."""
    blocks = 7
    rise = min(rise * 0.9, span / 2)
    for i in range(blocks):
        angle = math.pi * (i + 0.5) / blocks
        y, z = math.cos(angle) * span / 2, math.sin(angle) * rise
        tilt = math.atan2(rise * math.cos(angle), -span / 2 * math.sin(angle))
        half = math.pi * (span / 2 + rise) / 2 / blocks / 2 * 1.15
        b.box(at, (0, y, z + 0.12), (0.25, half, 0.12), stone, roll=tilt)
        b.slab(
            at,
            (-0.22, y - half * abs(math.cos(tilt)), z + 0.1),
            (0.22, y + half * abs(math.cos(tilt)), rise / 0.9 + 0.3),
            stone,
        )
