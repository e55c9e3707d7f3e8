"""A room: its outline and shell, the camera in it, light and relief on its ceiling, furniture along its walls."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from training.synthetic import clutter, furniture
from training.synthetic.builder import SceneBuilder
from training.synthetic.scene import WORLD, Color, Frame
from training.synthetic.walls import Corner, Finish, Wall, build_wall, polygon_walls


@dataclass(frozen=True)
class Room:
    """A finished shell: counter-clockwise corners, walls, finish, bounding rectangle (x0, y0, x1, y1)."""

    corners: tuple[Corner, ...]
    walls: tuple[Wall, ...]
    finish: Finish
    bounds: tuple[float, float, float, float]


def rectangle(width: float, length: float) -> tuple[Corner, ...]:
    return ((-width / 2, -length / 2), (width / 2, -length / 2), (width / 2, length / 2), (-width / 2, length / 2))


def room_outline(b: SceneBuilder, width: float, length: float) -> tuple[Corner, ...]:
    """A rectangle, or an L, a T, one with a niche or a chimney breast, or with one or two slanted corners."""
    x, y = width / 2, length / 2
    shape = b.rng.random()
    if shape < 0.45 or min(width, length) < 2.4:
        return rectangle(width, length)
    cut_x, cut_y = b.uniform(0.15, 0.6) * width, b.uniform(0.15, 0.6) * length
    if shape < 0.69:  # L
        return ((-x, -y), (x, -y), (x, y - cut_y), (x - cut_x, y - cut_y), (x - cut_x, y), (-x, y))
    if shape < 0.79:  # T
        arm, left, right = y - cut_y, -x + b.uniform(0.1, 0.3) * width, x - b.uniform(0.1, 0.3) * width
        return ((-x, -y), (x, -y), (x, arm), (right, arm), (right, y), (left, y), (left, arm), (-x, arm))
    if shape < 0.92:  # niche or chimney breast
        left, right = -x + b.uniform(0.1, 0.4) * width, x - b.uniform(0.1, 0.4) * width
        back = y + b.choose((-1, 1, 1)) * b.uniform(0.2, 0.8)
        return ((-x, -y), (x, -y), (x, y), (right, y), (right, back), (left, back), (left, y), (-x, y))
    cut = 0.4 * min(cut_x, cut_y) + 0.3
    if shape < 0.96:
        return ((-x, -y), (x, -y), (x, y - cut), (x - cut, y), (-x, y))
    return ((-x, -y), (x, -y), (x, y - cut), (x - cut, y), (cut - x, y), (-x, y - cut))


def _inside(corners: Sequence[Corner], x: float, y: float, margin: float) -> bool:
    inside = False
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if (y0 > y) != (y1 > y) and x < (x1 - x0) * (y - y0) / (y1 - y0) + x0:
            inside = not inside
        along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2)
        along = min(max(along, 0.0), 1.0)
        if math.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)) < margin:
            return False
    return inside


def random_spot(b: SceneBuilder, room: Room, margin: float) -> tuple[float, float] | None:
    x0, y0, x1, y1 = room.bounds
    for _ in range(12):
        x, y = b.uniform(x0, x1), b.uniform(y0, y1)
        if _inside(room.corners, x, y, margin):
            return x, y
    return None


def place_camera(b: SceneBuilder, corners: Sequence[Corner], height: float, floor: float = 0.0) -> None:
    x0, x1 = min(c[0] for c in corners), max(c[0] for c in corners)
    y0, y1 = min(c[1] for c in corners), max(c[1] for c in corners)
    margin = 0.4 if b.chance(0.5) else min(1.0, 0.3 * min(x1 - x0, y1 - y0))
    above = b.normal(1.67, 0.25, 0.9, height - 0.4) if b.chance(0.78) else b.uniform(0.7, min(3.2, height - 0.45))
    for _ in range(40):
        x, y = b.uniform(x0, x1), b.uniform(y0, y1)
        if _inside(corners, x, y, margin):
            b.camera = (x, y, floor + above)
            return
    b.camera = ((corners[0][0] + corners[1][0]) / 2, (corners[0][1] + corners[2][1]) / 2, floor + above)


def build_shell(b: SceneBuilder, corners: tuple[Corner, ...], finish: Finish, doors: float, windows: float) -> Room:
    walls = polygon_walls(b, corners, finish.height, doors, windows)
    x0, x1 = min(c[0] for c in corners), max(c[0] for c in corners)
    y0, y1 = min(c[1] for c in corners), max(c[1] for c in corners)
    b.slab(WORLD, (x0 - 0.3, y0 - 0.3, -0.3), (x1 + 0.3, y1 + 0.3, 0.0), finish.floor)
    b.slab(WORLD, (x0 - 0.3, y0 - 0.3, finish.height), (x1 + 0.3, y1 + 0.3, finish.height + 0.2), finish.ceiling)
    accent = b.count(0, len(walls) - 1)
    for i, wall in enumerate(walls):
        build_wall(b, wall, finish, finish.accent if i == accent else finish.wall)
    return Room(corners, tuple(walls), finish, (x0, y0, x1, y1))


# ---- ceilings and light


def lamp_colour(b: SceneBuilder, power: float) -> Color:
    warm = b.uniform(0.0, 0.5)
    return power, power * (1 - 0.35 * warm), power * (1 - 0.9 * warm)


def ceiling_lights(b: SceneBuilder, room: Room) -> None:
    """A grid of panels, strips, round or hanging lamps; some of them are off."""
    x0, y0, x1, y1 = room.bounds
    height = room.finish.height
    step_x, step_y = b.uniform(1.8, 3.6), b.uniform(1.8, 3.6)
    across, along = max(1, round((x1 - x0) / step_x)), max(1, round((y1 - y0) / step_y))
    half = b.choose(((0.3, 0.6), (0.6, 0.3), (0.3, 0.3), (0.15, 0.6), (0.08, 0.7), (0.1, 0.1)))
    kind = b.choose(("panel", "panel", "panel", "round", "hanging", "strip"))
    drop = b.uniform(0.2, 0.7) if kind in ("hanging", "strip") and height > 2.6 else 0.0
    glow = b.material("plain", 1.0, (1, 0.98, 0.94), emission=b.uniform(2.0, 9.0))
    off = b.material("plain", 1.0, b.gray(0.3, 0.7))
    dark_share = b.choose((0.0, 0.0, 0.3, 0.6))
    power = b.uniform(0.5, 2.5) * height * height / 8
    tone = lamp_colour(b, power)
    for i in range(across):
        for j in range(along):
            x, y = x0 + (i + 0.5) * (x1 - x0) / across, y0 + (j + 0.5) * (y1 - y0) / along
            if not _inside(room.corners, x, y, 0.25):
                continue
            lit = not b.chance(dark_share)
            at = Frame(x, y, height - drop)
            if kind == "round":
                b.cylinder(at, 0, 0, half[0] * 0.6 + 0.05, -0.05, 0, glow if lit else off)
            elif kind == "hanging":
                b.ellipsoid(at, (0, 0, -0.1), (0.18, 0.18, 0.14), glow if lit else off)
                b.cylinder(at, 0, 0, 0.008, 0, drop, off)
            elif kind == "strip":
                b.box(at, (0, 0, -0.03), (0.06, 0.65, 0.03), glow if lit else off)
                for side in (-0.5, 0.5):
                    b.cylinder(at, 0, side, 0.006, 0, drop, off)
            else:
                b.box(at, (0, 0, -0.004), (*half, 0.008), glow if lit else off)
            if lit:
                b.lamp((x, y, height - drop - (0.05 if kind == "panel" else 0.25)), b.uniform(0.15, 0.5), tone)


def ceiling_relief(b: SceneBuilder, room: Room) -> None:
    """Beams, joists, ducts, pipes, soffits, columns and vents."""
    x0, y0, x1, y1 = room.bounds
    h = room.finish.height
    kind = b.rng.random()
    paint = room.finish.wall if b.chance(0.6) else room.finish.ceiling
    if kind < 0.15:
        for _ in range(b.count(1, 3)):
            y = b.uniform(y0, y1)
            b.slab(WORLD, (x0, y - 0.12, h - b.uniform(0.15, 0.4)), (x1, y + 0.12, h), paint)
    elif kind < 0.28 and h > 2.5:
        deep = b.uniform(0.3, 1.0)
        b.slab(WORLD, (x0, y0, h - b.uniform(0.2, 0.45)), (x1, y0 + deep, h), paint)
    elif kind < 0.36 and h > 2.9:
        y = b.uniform(y0 + 0.4, y1 - 0.4)
        b.cylinder(
            WORLD.at((x0 + x1) / 2, y, h - 0.3),
            0,
            0,
            0.17,
            -(x1 - x0) / 2,
            (x1 - x0) / 2,
            furniture.metal(b),
            pitch=math.pi / 2,
        )
    elif kind < 0.5 and h > 2.8:
        bare_ceiling(b, room)
    elif kind < 0.6 and h > 2.6:
        joists(b, room)
    if b.chance(0.3):
        spot = random_spot(b, room, 0.5)
        if spot:
            b.box(
                Frame(*spot, h),
                (0, 0, -0.02),
                (0.3, 0.3, 0.022),
                b.material("checker", 0.6, b.gray(0.4, 0.8), b.gray(0.1, 0.4)),
            )
    if b.chance(0.12) and min(x1 - x0, y1 - y0) > 3:
        spot = random_spot(b, room, 0.6)
        if spot and b.claim(Frame(*spot), 0.35):
            b.begin()
            size = b.uniform(0.15, 0.35)
            if b.chance(0.5):
                b.cylinder(Frame(*spot), 0, 0, size, 0, h, room.finish.accent)
            else:
                b.box(Frame(*spot), (0, 0, h / 2), (size, size * b.uniform(0.6, 1.4), h / 2), room.finish.accent)
            b.end()


def bare_ceiling(b: SceneBuilder, room: Room) -> None:
    """Pipes, ducts and cable trays side by side under the ceiling, the length of the room."""
    x0, y0, x1, y1 = room.bounds
    y, drop = b.uniform(y0 + 0.3, y1 - 0.3), b.uniform(0.05, 0.3)
    steel = furniture.metal(b)
    for _ in range(b.count(2, 5)):
        radius = b.uniform(0.02, 0.16)
        z = room.finish.height - drop - radius
        if b.chance(0.6):
            at = WORLD.at((x0 + x1) / 2, y, z)
            b.cylinder(at, 0, 0, radius, (x0 - x1) / 2, (x1 - x0) / 2, furniture.furniture_finish(b), pitch=math.pi / 2)
        else:
            b.slab(WORLD, (x0, y - radius, z - 0.04), (x1, y + radius, z + 0.04), steel)
        y += 2 * radius + b.uniform(0.05, 0.3)
        if y > y1 - 0.2:
            break


def joists(b: SceneBuilder, room: Room) -> None:
    """Beams at equal distances across the whole ceiling."""
    x0, y0, x1, y1 = room.bounds
    deep, half, wood = b.uniform(0.08, 0.22), b.uniform(0.03, 0.08), furniture.wooden(b)
    number = max(2, min(14, round((y1 - y0) / b.uniform(0.6, 1.2))))
    for i in range(number):
        y = y0 + (i + 0.5) * (y1 - y0) / number
        b.slab(WORLD, (x0, y - half, room.finish.height - deep), (x1, y + half, room.finish.height), wood)


def slanted_ceiling(b: SceneBuilder, room: Room) -> None:
    """One side of the room under a roof: the ceiling comes down to a wall without windows or doors, nothing tall there.

    Call it before the room is furnished.
    """
    wall = b.choose(room.walls)
    low = b.uniform(1.0, 1.9)
    rise, deep = room.finish.height - low, b.uniform(1.0, 2.6)
    if wall.openings or wall.length < 2.0 or rise < 0.4:
        return
    slope, thick = math.atan2(rise, deep), 0.05
    center = (
        wall.length / 2,
        deep / 2 - thick * math.sin(slope),
        low + rise / 2 + thick * math.cos(slope),
    )
    b.begin()
    b.box(wall.frame, center, (wall.length / 2, math.hypot(rise, deep) / 2, thick), room.finish.ceiling, roll=slope)
    b.end()
    for i in range(int(wall.length / 0.6)):
        b.claim(wall.facing_room(0.3 + 0.6 * i).at(0.3, 0), 0.3)


def wall_relief(b: SceneBuilder, room: Room) -> None:
    """Cornice, dado rail or pilasters along every wall, in steps of the walls that have no openings there."""
    kind = b.rng.random()
    height, trim = room.finish.height, room.finish.trim
    for wall in room.walls:
        if kind < 0.3:
            b.slab(wall.frame, (0, 0, height - b.uniform(0.05, 0.12)), (wall.length, 0.06, height), trim)
        elif kind < 0.45 and not wall.openings:
            b.slab(wall.frame, (0, 0, 0.85), (wall.length, 0.025, 0.93), trim)
        elif kind < 0.6:
            b.begin()
            for i in range(1, int(wall.length / 1.8) + 1):
                if wall.free(1.8 * i - 0.25, 1.8 * i + 0.25, height):
                    b.slab(wall.frame, (1.8 * i - 0.15, 0, 0), (1.8 * i + 0.15, 0.1, height), room.finish.accent)
            b.end()


def litter(b: SceneBuilder, room: Room, number: int) -> None:
    """Fine things: rugs, cables and untidiness on the floor, and small devices under the ceiling."""
    for _ in range(number):
        spot = random_spot(b, room, 0.3)
        if spot is None:
            continue
        at = Frame(*spot, 0.0, b.uniform(0, 2 * math.pi))
        if b.chance(0.3):
            clutter.under_ceiling(b, at.at(0, 0, room.finish.height))
        elif b.chance(0.12):
            clutter.rug(b, at)
        elif clutter.is_near(b, at) and b.claim(at, 0.15):
            clutter.litter_floor_thing(b, at)


# ---- furnishing


def furnish_walls(b: SceneBuilder, room: Room, density: float, pieces: Sequence[str]) -> None:
    """Walks along every wall and stands pieces against it."""
    for wall in room.walls:
        along = b.uniform(0.05, 0.5)
        while along < wall.length - 0.4:
            width = b.uniform(0.7, 1.8)
            if along + width > wall.length - 0.02:
                break
            middle = wall.facing_room(along + width / 2)
            if b.chance(density):
                piece = b.choose(pieces)
                tall = 0.8 if piece in ("desk", "low cabinet", "sofa", "chair", "bed") else 2.0
                if wall.free(along, along + width, tall) and b.claim(middle.at(0.3, 0), 0.42 * width):
                    _stand(b, piece, middle, width, room.finish.height)
            elif wall.free(along, along + width, 2.2):
                _hang(b, middle, width)
            along += width + (b.uniform(0.0, 0.15) if b.chance(0.6) else b.uniform(0.2, 1.0))


def _stand(b: SceneBuilder, piece: str, at: Frame, width: float, ceiling: float) -> None:
    if piece == "desk":
        furniture.desk(b, at, max(1.0, width))
        if b.chance(0.7):
            _hang(b, at, width)
    elif piece == "bookcase":
        furniture.bookcase(b, at, width * 0.95, min(b.uniform(1.1, 2.3), ceiling - 0.1), b.chance(0.6))
    elif piece == "low cabinet":
        furniture.cabinet(b, at, width * 0.95, b.uniform(0.6, 1.1))
    elif piece == "cabinet":
        furniture.cabinet(b, at, width * 0.9, b.uniform(1.2, min(2.2, ceiling - 0.1)))
    elif piece == "rack":
        furniture.storage_rack(b, at, width, min(b.uniform(1.6, 2.4), ceiling - 0.1))
    elif piece == "sofa":
        furniture.sofa(b, at.at(0.02, 0), max(0.9, width))
    elif piece == "bed":
        furniture.bed(b, at)
    elif piece == "plant":
        furniture.plant(b, at.at(0.35, 0))
    elif piece == "chair":
        for i in range(max(1, int(width / 0.6))):
            furniture.chair(b, at.at(0.35, (i + 0.5) * 0.6 - width / 2, 0, b.uniform(-0.1, 0.1)))


def _hang(b: SceneBuilder, at: Frame, width: float) -> None:
    kind = b.rng.random()
    if kind < 0.16:
        furniture.board(b, at, width)
    elif kind < 0.34:
        for _ in range(b.count(1, 3)):
            furniture.picture(b, at.at(0, b.uniform(-0.5, 0.5) * width))
    elif kind < 0.4:
        furniture.wall_shelf(b, at, width)
    elif kind < 0.5:
        furniture.wall_fixture(b, at)
    elif kind < 0.92 and clutter.is_near(b, at, 8.0):
        clutter.wall_thing(b, at)


def clutter_floor(b: SceneBuilder, room: Room, number: int) -> None:
    for _ in range(number):
        spot = random_spot(b, room, 0.3)
        if spot is None:
            continue
        at = Frame(*spot, 0.0, b.uniform(0, 2 * math.pi))
        if not b.claim(at, 0.28):
            continue
        b.choose((furniture.chair, furniture.chair, furniture.bin_or_carton, furniture.bag_or_pile, furniture.plant))(
            b, at
        )


def table_with_chairs(b: SceneBuilder, at: Frame, depth: float, width: float, seats: int) -> None:
    """`at` is the middle of the table."""
    top = furniture.furniture_finish(b)
    b.begin()
    height = b.uniform(0.7, 0.77)
    if b.chance(0.2):
        b.cylinder(at, 0, 0, depth / 2, height - 0.03, height, top)
        b.cylinder(at, 0, 0, 0.06, 0.03, height - 0.03, top)
        b.cylinder(at, 0, 0, depth / 4, 0, 0.03, top)
    else:
        furniture.table_top(
            b, at.at(-depth / 2, 0), depth, width, height, top, top if b.chance(0.5) else furniture.metal(b)
        )
    furniture.desk_clutter(b, at.at(-depth / 2, 0, height), depth, width, b.count(0, 4))
    clutter.desk_things(b, at.at(-depth / 2, 0, height), depth, width, b.count(0, 8))
    b.end()
    for i in range(seats):
        side = 1 if i % 2 else -1
        y = ((i // 2 + 0.5) / max(1, (seats + 1) // 2) - 0.5) * width
        out = depth / 2 + b.uniform(0.05, 0.55)
        if b.chance(0.85):
            furniture.chair(
                b, at.at(side * out, y + b.uniform(-0.1, 0.1), 0, (math.pi if side > 0 else 0) + b.uniform(-0.5, 0.5))
            )


def table_below_camera(b: SceneBuilder) -> None:
    """The camera stands over, or just beside, a table."""
    x, y, z = b.camera
    if z < 1.05:
        return
    depth, width = b.uniform(0.7, 1.8), b.uniform(1.2, 3.5)
    turn = b.uniform(0, math.pi)
    at = Frame(x, y, 0.0, turn).at(b.uniform(-0.6, 0.6) * depth, b.uniform(-0.5, 0.5) * width)
    table_with_chairs(b, at, depth, width, b.count(0, 8))
    b.footprints.append((at.x, at.y, depth / 2))
