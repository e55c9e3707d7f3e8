"""Indoor scenes: offices, corridors, meeting rooms, lounges, homes, stores, halls, auditoriums, stairs and arcades.

Sizes, ceiling heights and camera heights follow real buildings: most ceilings at 2.5 to 3.5 m, the camera at about
1.65 m and often beside a wall, a shelf or above a table.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from training.synthetic import furniture
from training.synthetic.builder import WORLD, SceneBuilder, random_tilt
from training.synthetic.camera_faults import photo_faults, scanner_faults
from training.synthetic.scene import Color, Frame, Scene, Sky
from training.synthetic.textures import TEXTURES
from training.synthetic.walls import Corner, Finish, Opening, Wall, build_wall, polygon_walls, random_finish


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
    """A rectangle, or one with a corner cut out (L), or with one slanted corner."""
    x, y = width / 2, length / 2
    shape = b.rng.random()
    if shape < 0.62 or min(width, length) < 2.4:
        return rectangle(width, length)
    cut_x, cut_y = b.uniform(0.15, 0.6) * width, b.uniform(0.15, 0.6) * length
    if shape < 0.93:
        return ((-x, -y), (x, -y), (x, y - cut_y), (x - cut_x, y - cut_y), (x - cut_x, y), (-x, y))
    cut = 0.4 * min(cut_x, cut_y) + 0.3
    return ((-x, -y), (x, -y), (x, y - cut), (x - cut, y), (-x, y))


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
    above = b.normal(1.67, 0.25, 0.9, height - 0.4) if b.chance(0.78) else b.uniform(0.7, min(2.6, height - 0.45))
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
    """Beams, ducts, soffits, columns and vents."""
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
        if b.chance(0.4):
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
    if kind < 0.22:
        furniture.board(b, at, width)
    elif kind < 0.6:
        for _ in range(b.count(1, 3)):
            furniture.picture(b, at.at(0, b.uniform(-0.5, 0.5) * width))
    elif kind < 0.72:
        furniture.wall_shelf(b, at, width)
    elif kind < 0.92:
        furniture.wall_fixture(b, at)


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
    furniture.desk_clutter(b, at.at(-depth / 2, 0, height), depth, width, b.count(0, 6))
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
    depth, width = b.uniform(0.7, 1.4), b.uniform(1.2, 3.0)
    turn = b.uniform(0, math.pi)
    at = Frame(x, y, 0.0, turn).at(b.uniform(-0.6, 0.6) * depth, b.uniform(-0.5, 0.5) * width)
    table_with_chairs(b, at, depth, width, b.count(0, 8))
    b.footprints.append((at.x, at.y, depth / 2))


# ---- rooms

OFFICE = ("desk", "desk", "desk", "bookcase", "bookcase", "cabinet", "low cabinet", "plant", "chair")
MEETING = ("low cabinet", "chair", "chair", "cabinet", "plant", "bookcase")
LOUNGE = ("sofa", "sofa", "low cabinet", "plant", "bookcase", "chair", "desk")
HOME = ("sofa", "bed", "cabinet", "low cabinet", "bookcase", "plant", "desk")
STORAGE = ("rack", "rack", "rack", "cabinet", "desk", "chair")


def _ceiling_height(b: SceneBuilder) -> float:
    return b.normal(3.08, 0.3, 2.35, 3.9)


def office(b: SceneBuilder) -> None:
    width, length = b.uniform(2.4, 6.5), b.uniform(2.8, 7.5)
    finish = random_finish(b, _ceiling_height(b))
    corners = room_outline(b, width, length)
    place_camera(b, corners, finish.height)
    room = build_shell(b, corners, finish, 2.0, b.choose((0.0, 1.5, 2.5)))
    if b.chance(0.12):
        table_below_camera(b)
    if width * length > 18 and b.chance(0.5):
        spot = random_spot(b, room, 1.0)
        if spot and b.claim(Frame(*spot), 0.9):
            table_with_chairs(
                b, Frame(*spot, 0, b.uniform(0, 3)), b.uniform(0.7, 1.2), b.uniform(1.0, 2.2), b.count(0, 6)
            )
    furnish_walls(b, room, b.uniform(0.55, 1.0), OFFICE)
    clutter_floor(b, room, b.count(1, 9))
    ceiling_relief(b, room)
    ceiling_lights(b, room)


def open_office(b: SceneBuilder) -> None:
    width, length = b.uniform(7, 14), b.uniform(6, 16)
    finish = random_finish(b, b.uniform(2.6, 3.6))
    corners = room_outline(b, width, length)
    place_camera(b, corners, finish.height)
    room = build_shell(b, corners, finish, 3.0, 4.0)
    heading = b.choose((0.0, math.pi / 2))
    screen = furniture.fabric(b)
    for _ in range(b.count(4, 12)):
        spot = random_spot(b, room, 1.4)
        if spot and b.claim(Frame(*spot), 1.3):
            at = Frame(*spot, 0, heading)
            furniture.desk(b, at, b.uniform(1.4, 1.8))
            furniture.desk(b, at.at(0, 0, 0, math.pi), b.uniform(1.4, 1.8))
            if b.chance(0.6):
                b.begin()
                b.slab(at, (-0.03, -0.9, 0), (0.03, 0.9, b.uniform(1.0, 1.6)), screen)
                b.end()
    furnish_walls(b, room, b.uniform(0.4, 0.9), OFFICE)
    clutter_floor(b, room, b.count(3, 12))
    ceiling_relief(b, room)
    ceiling_lights(b, room)


def meeting_room(b: SceneBuilder) -> None:
    width, length = b.uniform(3.2, 7), b.uniform(4, 9)
    finish = random_finish(b, _ceiling_height(b))
    corners = room_outline(b, width, length)
    place_camera(b, corners, finish.height)
    if b.chance(0.3):
        table_below_camera(b)
    room = build_shell(b, corners, finish, 2.0, 1.5)
    if b.claim(WORLD, 0.3):
        table_with_chairs(
            b, WORLD, min(width * 0.4, b.uniform(1.0, 1.8)), length * b.uniform(0.4, 0.65), b.count(6, 14)
        )
    furnish_walls(b, room, 0.35, MEETING)
    clutter_floor(b, room, b.count(0, 4))
    ceiling_relief(b, room)
    ceiling_lights(b, room)


def corridor(b: SceneBuilder) -> None:
    """Long and narrow, doors on both sides, often with a side branch or a lobby."""
    width, length = b.uniform(1.4, 3.2), math.exp(b.uniform(math.log(6), math.log(40)))
    finish = random_finish(b, b.normal(2.95, 0.3, 2.2, 3.7))
    x, y = width / 2, length / 2
    corners: tuple[Corner, ...] = rectangle(width, length)
    if b.chance(0.55):
        reach, wide = math.exp(b.uniform(math.log(1.5), math.log(18))), b.uniform(1.4, 4.0)
        start = b.uniform(-y + 0.3, max(-y + 0.4, y - wide - 0.3))
        end = min(start + wide, y - 0.1)
        corners = ((-x, -y), (x, -y), (x, start), (x + reach, start), (x + reach, end), (x, end), (x, y), (-x, y))
    place_camera(b, corners, finish.height)
    room = build_shell(b, corners, finish, length / 2.6 + 1, b.choose((0.0, 0.0, 1.0)))
    furnish_walls(b, room, b.uniform(0, 0.18), ("low cabinet", "chair", "plant", "cabinet", "bookcase"))
    ceiling_relief(b, room)
    ceiling_lights(b, room)


def lounge(b: SceneBuilder) -> None:
    width, length = b.uniform(3.5, 9), b.uniform(4, 11)
    finish = random_finish(b, b.normal(2.9, 0.35, 2.4, 4.2))
    corners = room_outline(b, width, length)
    place_camera(b, corners, finish.height)
    room = build_shell(b, corners, finish, 3.0, 2.5)
    for _ in range(b.count(1, 3)):
        spot = random_spot(b, room, 1.2)
        if spot and b.claim(Frame(*spot), 1.2):
            at = Frame(*spot, 0, b.choose((0, math.pi / 2, math.pi, -math.pi / 2)))
            b.begin()
            furniture.table_top(
                b,
                at,
                b.uniform(0.5, 0.7),
                b.uniform(0.7, 1.3),
                b.uniform(0.35, 0.5),
                furniture.furniture_finish(b),
                furniture.metal(b),
            )
            b.end()
            furniture.sofa(b, at.at(-1.4, 0), b.uniform(1.4, 2.3))
            if b.chance(0.6):
                furniture.sofa(b, at.at(1.9, 0, 0, math.pi), b.uniform(0.9, 2.0))
    furnish_walls(b, room, 0.4, LOUNGE)
    clutter_floor(b, room, b.count(0, 5))
    ceiling_relief(b, room)
    ceiling_lights(b, room)


def home(b: SceneBuilder) -> None:
    width, length = b.uniform(2.4, 6), b.uniform(2.6, 7)
    finish = random_finish(b, b.normal(2.55, 0.15, 2.2, 3.2))
    corners = room_outline(b, width, length)
    place_camera(b, corners, finish.height)
    room = build_shell(b, corners, finish, 2.5, 2.0)
    if width * length > 14 and b.chance(0.5):
        spot = random_spot(b, room, 1.0)
        if spot and b.claim(Frame(*spot), 0.9):
            table_with_chairs(
                b, Frame(*spot, 0, b.uniform(0, 3)), b.uniform(0.8, 1.1), b.uniform(1.0, 1.9), b.count(2, 6)
            )
    furnish_walls(b, room, b.uniform(0.4, 0.8), HOME)
    clutter_floor(b, room, b.count(0, 5))
    ceiling_lights(b, room)


def store_room(b: SceneBuilder) -> None:
    width, length = b.uniform(2.2, 6), b.uniform(2.6, 8)
    finish = random_finish(b, b.normal(2.9, 0.4, 2.3, 4.2))
    corners = room_outline(b, width, length)
    place_camera(b, corners, finish.height)
    room = build_shell(b, corners, finish, 1.5, 0.5)
    furnish_walls(b, room, 0.85, STORAGE)
    clutter_floor(b, room, b.count(3, 12))
    ceiling_relief(b, room)
    ceiling_lights(b, room)


def hall(b: SceneBuilder) -> None:
    """A lobby or hall with columns, counters and far walls."""
    width, length = b.uniform(7, 20), b.uniform(8, 28)
    finish = random_finish(b, b.uniform(2.8, 4.5) if b.chance(0.6) else b.uniform(4.0, 8.0))
    corners = room_outline(b, width, length)
    place_camera(b, corners, finish.height)
    room = build_shell(b, corners, finish, 4.0, 3.0)
    columns = room.finish.accent if b.chance(0.5) else b.material("noise", 2.0, b.gray(0.3, 0.8))
    spacing, size = b.uniform(3.5, 6.5), b.uniform(0.18, 0.45)
    if b.chance(0.65):
        for i in range(int(length / spacing)):
            for side in (-1, 1):
                at = Frame(side * width * 0.3, -length / 2 + (i + 0.5) * spacing)
                b.begin()
                if columns % 2:
                    b.cylinder(at, 0, 0, size, 0, finish.height, columns)
                else:
                    b.box(at, (0, 0, finish.height / 2), (size, size, finish.height / 2), columns)
                b.end()
                b.claim(at, size + 0.2)
    for _ in range(b.count(0, 5)):
        spot = random_spot(b, room, 1.3)
        if spot and b.claim(Frame(*spot), 1.2):
            at = Frame(*spot, 0, b.uniform(0, 3))
            piece = b.choose(("sofa", "counter", "table"))
            if piece == "sofa":
                furniture.sofa(b, at, 1.8)
            elif piece == "counter":
                furniture.cabinet(b, at, b.uniform(1.2, 2.5), 1.1)
            else:
                table_with_chairs(b, at, 0.9, 1.6, 4)
    furnish_walls(b, room, 0.2, LOUNGE)
    clutter_floor(b, room, b.count(0, 6))
    for _ in range(b.count(0, 3)):
        spot = random_spot(b, room, 0.6)
        if spot and b.claim(Frame(*spot), 0.4):
            furniture.person(b, Frame(*spot, 0, b.uniform(0, 6)))
    ceiling_relief(b, room)
    ceiling_lights(b, room)


def auditorium(b: SceneBuilder) -> None:
    """Rows of seats on rising steps before a stage; the ceiling is lit from below and slants in strips."""
    b.uplight = b.uniform(0.0, 2.5)
    width, length, height = b.uniform(9, 20), b.uniform(10, 22), b.uniform(3.2, 6.5)
    rise, pitch = b.choose((0.0, 0.08, 0.15, 0.25)), b.uniform(0.85, 1.1)
    finish = random_finish(b, height + 1.0)
    rows = int((length - 4.5) / pitch)
    front = -length / 2 + 3.5
    stand = b.count(0, max(0, rows - 2))
    top = rise * (stand + 1)
    place_camera(
        b,
        (
            (-width * 0.4, front + stand * pitch),
            (width * 0.4, front + stand * pitch),
            (width * 0.4, front + (stand + 1) * pitch + 0.9),
            (-width * 0.4, front + (stand + 1) * pitch + 0.9),
        ),
        2.6,
        top,
    )
    build_shell(b, rectangle(width, length), finish, 2.0, 0.0)
    for row in range(rows):
        y = front + row * pitch
        if rise:
            b.slab(WORLD, (-width / 2, y, 0), (width / 2, y + pitch + 0.02, rise * (row + 1)), finish.floor)
    if rise:
        b.slab(WORLD, (-width / 2, front + rows * pitch, 0), (width / 2, length / 2, rise * rows), finish.floor)
    cover = furniture.fabric(b)
    hidden = furniture.dark_plastic(b)
    spacing = b.uniform(0.52, 0.65)
    aisle = b.uniform(0.0, width * 0.3)
    for row in range(rows):
        y, z = front + row * pitch + 0.2, rise * (row + 1)
        if abs(y - b.camera[1]) < 6.5:
            count = int((width - 1.6) / spacing)
            for seat in range(count):
                x = (seat + 0.5 - count / 2) * spacing
                if abs(abs(x) - aisle) < 0.55:
                    continue
                b.begin()
                at = Frame(x, y, z, -math.pi / 2)
                b.box(at, (0.24, 0, 0.42), (0.22, spacing * 0.42, 0.05), cover)
                b.box(at, (0.0, 0, 0.68), (0.045, spacing * 0.44, 0.26), cover, pitch=-0.15)
                b.box(at, (0.2, spacing / 2, 0.35), (0.2, 0.02, 0.25), hidden)
                b.end()
        else:
            for left, right in (
                (-width / 2 + 0.8, -aisle - 0.5),
                (-aisle + 0.5, aisle - 0.5),
                (aisle + 0.5, width / 2 - 0.8),
            ):
                b.slab(WORLD, (left, y - 0.4, z + 0.37), (right, y - 0.02, z + 0.47), cover)
                b.slab(WORLD, (left, y - 0.04, z + 0.42), (right, y + 0.05, z + 0.94), cover)
    stage = furniture.wooden(b)
    b.slab(WORLD, (-width * 0.4, -length / 2, 0), (width * 0.4, front - 1.4, b.uniform(0.2, 0.8)), stage)
    back = Frame(0, -length / 2 + 0.02, b.uniform(0.4, 1.0), math.pi / 2)
    for x in (-2.2, 0.0, 2.2):
        if b.chance(0.8):
            furniture.board(b, back.at(0, x, b.uniform(0, 0.6)), 2.0)
    strips = b.count(3, 6)
    slant = b.uniform(0.05, 0.3) * b.choose((-1, 1))
    for i in range(strips):
        y = -length / 2 + (i + 0.5) * length / strips
        b.box(
            WORLD, (0, y, height), (width / 2, length / strips * b.uniform(0.35, 0.5), 0.06), finish.ceiling, roll=slant
        )
        for x in (-width / 4, width / 4):
            b.lamp((x, y, height - 0.6), 0.4, lamp_colour(b, b.uniform(1.5, 4.0)))
            b.box(WORLD, (x, y, height - 0.12), (0.15, 0.15, 0.03), b.material("plain", 1, (1, 1, 1), emission=5.0))


def staircase(b: SceneBuilder) -> None:
    """A landing with one flight up and one flight down, side by side or in line."""
    width, landing = b.uniform(1.1, 1.8), b.uniform(1.3, 3.0)
    rise, tread, steps = b.uniform(0.15, 0.18), b.uniform(0.27, 0.32), b.count(8, 14)
    height = b.uniform(2.4, 3.0) + 0.3
    finish = random_finish(b, height)
    run, gap = steps * tread, b.choose((0.0, 0.12, 0.25))
    total = 2 * width + gap
    place_camera(b, ((-total / 2, 0.0), (total / 2, 0.0), (total / 2, landing), (-total / 2, landing)), height)
    top = height + steps * rise
    wall, low = finish.wall, -steps * rise
    b.slab(WORLD, (-total / 2, 0, -0.3), (total / 2, landing, 0), finish.floor)
    b.slab(WORLD, (-total / 2 - 0.2, -run - 2.0, low - 0.2), (-total / 2, landing + 0.2, top), wall)
    b.slab(WORLD, (total / 2, -run - 2.0, low - 0.2), (total / 2 + 0.2, landing + 0.2, top), wall)
    back = Wall(
        Frame(total / 2, landing, 0, math.pi), total, (Opening(0.2, 1.1, 0, 2.05, "door"),) if b.chance(0.5) else ()
    )
    build_wall(b, back, finish, wall)
    if gap:
        b.slab(WORLD, (-gap / 2, -run, low), (gap / 2, 0, top if b.chance(0.6) else 1.0), wall)
    nosing = furniture.metal(b)
    for i in range(steps):
        b.slab(WORLD, (gap / 2, -(i + 1) * tread, low), (total / 2, -i * tread + 0.02, (i + 1) * rise), finish.floor)
        b.slab(
            WORLD,
            (gap / 2, -i * tread - 0.02, (i + 1) * rise - 0.01),
            (total / 2, -i * tread + 0.025, (i + 1) * rise + 0.004),
            nosing,
        )
        b.slab(WORLD, (-total / 2, -(i + 1) * tread, low - 0.2), (-gap / 2, -i * tread, -(i + 1) * rise), finish.floor)
    b.slab(WORLD, (gap / 2, -run - 2.0, low), (total / 2, -run, steps * rise), finish.floor)
    b.slab(WORLD, (-total / 2, -run - 2.0, low - 0.2), (-gap / 2, -run, -steps * rise), finish.floor)
    b.slab(WORLD, (-total / 2 - 0.2, -run - 2.2, low - 0.2), (total / 2 + 0.2, -run - 2.0, top), finish.accent)
    b.slab(WORLD, (-total / 2, -0.6, height), (total / 2, landing, top), finish.ceiling)
    slope = math.atan2(rise, tread)
    length = math.hypot(run, steps * rise)
    lid = b.uniform(2.2, 2.5)
    b.box(
        WORLD, (-total / 4, -run / 2, lid - steps * rise / 2), (width / 2, length / 2, 0.05), finish.ceiling, roll=slope
    )
    b.box(
        WORLD,
        (total / 4, -run / 2, height + 0.4 + steps * rise / 2),
        (width / 2, length / 2, 0.05),
        finish.ceiling,
        roll=-slope,
    )
    rail = furniture.wooden(b) if b.chance(0.5) else furniture.metal(b)
    b.box(WORLD, (total / 2 - 0.07, -run / 2, 0.9 + steps * rise / 2), (0.025, length / 2, 0.03), rail, roll=-slope)
    b.box(WORLD, (-total / 2 + 0.07, -run / 2, 0.9 - steps * rise / 2), (0.025, length / 2, 0.03), rail, roll=slope)
    glow = b.material("plain", 1.0, (1, 1, 0.95), emission=b.uniform(2, 8))
    for x, y, z in (
        (0.0, landing / 2, height),
        (-total / 4, -run - 1.0, lid - steps * rise),
        (total / 4, -run - 1.0, top - 0.2),
    ):
        b.box(WORLD, (x, y, z - 0.03), (0.3, 0.15, 0.03), glow)
        b.lamp((x, y, z - 0.25), 0.3, lamp_colour(b, b.uniform(1, 3)))
    for _ in range(b.count(0, 3)):
        furniture.picture(b, Frame(b.choose((-1, 1)) * total / 2, b.uniform(0.3, landing), 0, math.pi))


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


ROOMS: tuple[tuple[float, Callable[[SceneBuilder], None]], ...] = (
    (0.3, office),
    (0.08, open_office),
    (0.11, meeting_room),
    (0.16, corridor),
    (0.07, lounge),
    (0.06, home),
    (0.04, store_room),
    (0.06, hall),
    (0.06, auditorium),
    (0.03, staircase),
    (0.04, arcade),
)


def _outside(b: SceneBuilder, brightness: float) -> Sky:
    """Ground, facades and trees seen through windows, and the sky above them."""
    level = -b.choose((0.15, 0.3, 3.5, 7.0))
    b.slab(
        WORLD,
        (-300, -300, level - 5),
        (300, 300, level),
        b.material("grass", 8.0, (0.03, 0.06, 0.02), b.gray(0.1, 0.4)),
    )
    for _ in range(b.count(2, 6)):
        angle, away = b.uniform(0, 2 * math.pi), b.uniform(28, 90)
        at = Frame(away * math.cos(angle), away * math.sin(angle), level, angle + b.choose((0.0, 0.5)))
        tall = b.uniform(3, 12)
        b.box(
            at,
            (0, 0, tall),
            (5, b.uniform(5, 20), tall),
            b.material("facade", b.uniform(5, 9), b.gray(0.3, 0.8), b.gray(0.02, 0.2)),
        )
    leaf = b.material("leaf", 2.0, (0.01, 0.03, 0.01), (0.1, 0.2, 0.04))
    for _ in range(b.count(0, 5)):
        angle, away = b.uniform(0, 2 * math.pi), b.uniform(24, 50)
        size = b.uniform(1.5, 4)
        b.ellipsoid(
            WORLD, (away * math.cos(angle), away * math.sin(angle), level + size + 1), (size, size, size * 1.2), leaf
        )
    tone = brightness
    blue = b.uniform(0.0, 1.0)
    return Sky(
        horizon=(tone, tone, tone),
        zenith=(tone * (1 - 0.7 * blue), tone * (1 - 0.5 * blue), tone),
        clouds=b.uniform(0, 0.7),
        cloud_texture=b.choose(TEXTURES["clouds"]),
    )


def tripod(b: SceneBuilder) -> None:
    """Three legs and a head under the camera."""
    x, y, z = b.camera
    black = furniture.dark_plastic(b)
    b.cylinder(Frame(x, y), 0, 0, b.uniform(0.02, 0.05), max(0.1, z - 0.9), z - b.uniform(0.12, 0.3), black)
    spread, turn = b.uniform(0.15, 0.4), b.uniform(0, 2)
    for leg in range(3):
        at = Frame(x, y, 0, turn + leg * 2 * math.pi / 3)
        tall = max(0.3, z - 0.5)
        b.box(
            at,
            (spread / 2, 0, tall / 2),
            (0.018, 0.018, math.hypot(tall, spread) / 2),
            black,
            pitch=-math.atan2(spread, tall),
        )


def sample_indoor(b: SceneBuilder, seed: int) -> Scene:
    """One indoor scene from the builder's random numbers."""
    pick = b.rng.random() * sum(weight for weight, _ in ROOMS)
    recipe = ROOMS[-1][1]
    for weight, candidate in ROOMS:
        if pick < weight:
            recipe = candidate
            break
        pick -= weight
    recipe(b)
    sky = _outside(b, b.choose((0.02, 0.6, 1.5, 4.0)))
    scanned = b.chance(0.55)
    if b.chance(0.03 if scanned else 0.25):
        tripod(b)
    base = b.uniform(0.1, 0.45)
    tint = b.gray(0.9, 1.1, 0.12)
    above = (base * tint[0], base * tint[1], base * tint[2])
    lift = b.uniform(0.35, 1.2) + b.uplight
    below = (above[0] * lift, above[1] * lift, above[2] * lift)
    return b.scene(
        seed,
        recipe.__name__,
        ambient=(above, below),
        occlusion_reach=b.uniform(0.5, 1.6),
        heading=b.uniform(0, 2 * math.pi),
        tilt=random_tilt(b, upright=0.15 if scanned else 0.7),
        tilt_towards=b.uniform(0, 2 * math.pi),
        sky=sky,
        faults=scanner_faults(b.rng) if scanned else photo_faults(b.rng, exposure=0.19),
    )
