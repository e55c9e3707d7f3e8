"""Fine clutter: what lies on desks, shelves and floors and hangs on walls and under ceilings, a few solids each.

Real rooms owe most of their edges to it. Things a few centimetres wide are drawn only within `REACH` of the camera:
farther away they are less than a pixel, and cost what they do near by.

A place is a frame as in `furniture`: on a wall it is the wall's contact at floor level, looking into the room along +x.
Things that lie on something belong to what `begin` was called for last.
"""

import math
from collections.abc import Callable

from training.synthetic.builder import SceneBuilder
from training.synthetic.scene import Frame

REACH = 5.0  # metres; 5 cm are one pixel of a panorama 512 high there


def is_near(b: SceneBuilder, at: Frame, reach: float = REACH) -> bool:
    """Whether fine things there can be seen."""
    return math.hypot(at.x - b.camera[0], at.y - b.camera[1]) < reach


def _painted(b: SceneBuilder) -> int:
    return b.material("plain", 0.5, b.vivid(0.05, 0.7) if b.chance(0.5) else b.gray(0.02, 0.9), gloss=b.uniform(0, 0.3))


def _dark(b: SceneBuilder) -> int:
    return b.material("plain", 0.5, b.gray(0.01, 0.06), gloss=0.2)


def _steel(b: SceneBuilder) -> int:
    return b.material("plain", 1.0, b.gray(0.1, 0.6), gloss=0.4)


# ---- lying and standing on a board


def row_of_books(b: SceneBuilder, at: Frame, left: float, right: float, deep: float, tall: float) -> None:
    """Groups of books between two places along local y, spines at x = `deep`, each group of its own height."""
    y = left
    while y < right - 0.03:
        end = min(right, y + b.uniform(0.06, 0.3))
        height, out = tall * b.uniform(0.6, 1.0), deep * b.uniform(0.75, 1.0)
        if b.chance(0.75):
            bound = b.material("books", b.uniform(0.5, 0.9), b.gray(0.005, 0.03), b.gray(0.4, 1.0, 0.3))
        else:
            bound = _painted(b)
        b.slab(at, (0.02, y, 0), (out, end, height), bound)
        y = end + (b.uniform(0.02, 0.2) if b.chance(0.25) else 0.004)


def shelf_things(b: SceneBuilder, at: Frame, left: float, right: float, deep: float, tall: float) -> None:
    """What stands on one board: books, and boxes, vases and bowls between them."""
    if b.chance(0.6):
        row_of_books(b, at, left, left + (right - left) * b.uniform(0.4, 1.0), deep, tall)
        return
    y = left + 0.06
    while y < right - 0.12:
        wide, height = b.uniform(0.04, 0.12), tall * b.uniform(0.25, 0.9)
        place = at.at(deep * b.uniform(0.4, 0.7), y + wide, 0, b.uniform(-0.3, 0.3))
        _standing_thing(b, place, min(wide, deep * 0.35), height)
        y += 2 * wide + b.uniform(0.01, 0.1)


def _standing_thing(b: SceneBuilder, at: Frame, half: float, height: float) -> None:
    shape = b.rng.random()
    if shape < 0.5:
        b.box(at, (0, 0, height / 2), (half, half, height / 2), _painted(b))
    elif shape < 0.8:
        b.cylinder(at, 0, 0, half * 0.8, 0, height, _painted(b))
    else:
        b.ellipsoid(at, (0, 0, height / 2), (half, half, height / 2), _painted(b))


def keyboard_and_mouse(b: SceneBuilder, at: Frame) -> None:
    """Before a screen at `at`."""
    case = _dark(b) if b.chance(0.7) else b.material("plain", 1, b.gray(0.4, 0.8))
    keys = b.material("checker", 0.08, b.gray(0.01, 0.2), b.gray(0.2, 0.8))
    b.box(at, (0.3, 0, 0.012), (0.075, 0.21, 0.012), (case, case, keys))
    b.box(at, (0.3, -0.32, 0.015), (0.05, 0.03, 0.015), case)


def desk_lamp(b: SceneBuilder, at: Frame) -> None:
    frame = _painted(b)
    b.cylinder(at, 0, 0, 0.08, 0, 0.02, frame)
    b.cylinder(at, 0, 0, 0.012, 0, 0.4, frame)
    b.box(at, (0.12, 0, 0.4), (0.13, 0.012, 0.012), frame)
    b.cylinder(at, 0.24, 0, 0.06, 0.3, 0.4, frame)


def paper_pile(b: SceneBuilder, at: Frame) -> None:
    """Sheets, folders and books, none quite above the other."""
    z = 0.0
    for _ in range(b.count(1, 4)):
        thick = b.uniform(0.002, 0.025)
        sheet = b.material("writing", 0.3, b.gray(0.6, 0.95, 0.02), b.gray(0.05, 0.3)) if b.chance(0.6) else _painted(b)
        b.box(at, (0, 0, z + thick), (b.uniform(0.1, 0.15), b.uniform(0.08, 0.11), thick), sheet, yaw=b.uniform(-1, 1))
        z += 2 * thick


def mug(b: SceneBuilder, at: Frame) -> None:
    paint = _painted(b)
    b.cylinder(at, 0, 0, 0.042, 0, 0.1, paint)
    b.box(at, (0, 0.055, 0.05), (0.008, 0.02, 0.03), paint)


def pen_pot(b: SceneBuilder, at: Frame) -> None:
    b.cylinder(at, 0, 0, 0.04, 0, 0.1, _dark(b))
    for _ in range(3):
        b.box(at, (b.uniform(-0.02, 0.02), b.uniform(-0.02, 0.02), 0.13), (0.004, 0.004, 0.05), _painted(b), roll=0.2)


def bottle(b: SceneBuilder, at: Frame) -> None:
    glass = b.material("plain", 0.5, b.vivid(0.02, 0.4), gloss=0.5)
    b.cylinder(at, 0, 0, 0.035, 0, 0.18, glass)
    b.cylinder(at, 0, 0, 0.013, 0.18, 0.26, glass)


def book_ends(b: SceneBuilder, at: Frame) -> None:
    row_of_books(b, at, 0.0, b.uniform(0.15, 0.5), 0.2, b.uniform(0.2, 0.32))


DESK_THINGS: tuple[tuple[float, Callable[[SceneBuilder, Frame], None]], ...] = (
    (0.4, paper_pile),
    (0.15, mug),
    (0.1, pen_pot),
    (0.12, bottle),
    (0.08, desk_lamp),
    (0.15, book_ends),
)


def desk_things(b: SceneBuilder, at: Frame, depth: float, width: float, pieces: int) -> None:
    """Small things on a top whose back edge's middle is `at`; fewer of them out of reach."""
    if not is_near(b, at):
        pieces //= 3
    for _ in range(pieces):
        place = at.at(b.uniform(0.12, depth - 0.12), b.uniform(-0.45, 0.45) * width, 0, b.uniform(-0.6, 0.6))
        b.weighted(DESK_THINGS)(b, place)


# ---- on walls


def poster(b: SceneBuilder, at: Frame) -> None:
    """Paper of any usual size straight on the wall, often several in a row."""
    wide, tall, middle = b.uniform(0.1, 0.42), b.uniform(0.14, 0.55), b.uniform(1.3, 1.75)
    for i in range(b.choose((1, 1, 2, 4))):
        family = b.choose(("poster", "writing", "clutter"))
        face = b.material(family, 2 * max(wide, tall), b.gray(0.5, 0.95, 0.1), b.vivid(0.02, 0.5))
        b.box(at, (0.003, i * (2 * wide + 0.05), middle), (0.003, wide, tall), face)


def notice_sheets(b: SceneBuilder, at: Frame) -> None:
    """A swarm of small notes."""
    sheets = [b.material("writing", 0.3, b.gray(0.5, 0.95, 0.2), b.gray(0.02, 0.2)) for _ in range(2)]
    sheets.append(b.material("plain", 0.3, b.vivid(0.3, 0.9)))
    for _ in range(b.count(3, 10)):
        center = (0.004, b.uniform(-0.6, 0.6), b.uniform(0.9, 2.0))
        b.box(at, center, (0.003, b.uniform(0.05, 0.11), b.uniform(0.05, 0.15)), b.choose(sheets))


def radiator(b: SceneBuilder, at: Frame, width: float = 1.2) -> None:
    """Ribs between two rails, and the pipe that feeds them."""
    paint, tall = b.material("plain", 1.0, b.gray(0.45, 0.9)), b.uniform(0.45, 0.65)
    low = b.uniform(0.1, 0.16)
    for z in (low, low + tall - 0.05):
        b.slab(at, (0.03, -width / 2, z), (0.1, width / 2, z + 0.05), paint)
    ribs = max(3, round(width / (0.1 if is_near(b, at) else 0.25)))
    for i in range(ribs):
        y = ((i + 0.5) / ribs - 0.5) * width
        b.slab(at, (0.03, y - 0.3 * width / ribs, low), (0.12, y + 0.3 * width / ribs, low + tall), paint)
    b.cylinder(at, 0.06, width / 2 + 0.06, 0.012, 0.0, low + tall, paint)


def pipes(b: SceneBuilder, at: Frame) -> None:
    """Risers side by side from the floor to above eye level or the ceiling."""
    paint, radius, top = _steel(b) if b.chance(0.4) else _painted(b), b.uniform(0.015, 0.06), b.choose((1.4, 2.0, 2.2))
    for i in range(b.count(1, 4)):
        b.cylinder(at, radius + 0.01, i * 3.2 * radius, radius, 0, top, paint)
    if b.chance(0.5):
        b.box(at, (0.08, 0.1, top), (0.08, 0.15, 0.2), _painted(b))


def cable_duct(b: SceneBuilder, at: Frame) -> None:
    """A trunking along the wall with sockets in it."""
    paint, z, half = b.material("plain", 1.0, b.gray(0.4, 0.9)), b.choose((0.12, 0.85, 1.05)), b.uniform(0.5, 1.2)
    b.slab(at, (0, -half, z), (0.05, half, z + 0.11), paint)
    hole = _dark(b)
    for i in range(b.count(2, 6)):
        b.box(at, (0.051, b.uniform(-0.9, 0.9) * half, z + 0.055), (0.004, 0.025, 0.025), hole if i % 2 else paint)
    b.cylinder(at, 0.025, half - 0.05, 0.015, z, b.uniform(1.6, 2.2), paint)


def coat_hooks(b: SceneBuilder, at: Frame) -> None:
    b.slab(at, (0, -0.5, 1.65), (0.025, 0.5, 1.75), b.material("wood", 1.0, b.wood()))
    for i in range(5):
        y = (i - 2) * 0.22
        b.box(at, (0.05, y, 1.68), (0.03, 0.008, 0.015), _steel(b))
        if b.chance(0.45):
            coat = b.material("noise", 0.6, b.vivid(0.02, 0.3) if b.chance(0.4) else b.gray(0.01, 0.2))
            b.ellipsoid(at, (0.1, y, 1.25), (0.09, 0.15, b.uniform(0.3, 0.5)), coat)


def door_sign(b: SceneBuilder, at: Frame) -> None:
    """A name plate, a switch and an emergency sign, as they are by doors."""
    plate = b.material("writing", 0.25, b.gray(0.5, 0.9), b.gray(0.02, 0.1))
    b.box(at, (0.006, 0.0, 1.55), (0.006, 0.1, 0.07), plate)
    b.box(at, (0.01, 0.02, 1.1), (0.01, 0.04, 0.04), b.material("plain", 1, b.gray(0.6, 0.9)))
    if b.chance(0.5):
        green = b.material("poster", 0.4, (0.01, 0.25, 0.08), (0.6, 0.9, 0.7), emission=0.5)
        b.box(at, (0.03, 0.1, 2.2), (0.03, 0.18, 0.09), green)


def wall_screen(b: SceneBuilder, at: Frame) -> None:
    """A television on its arm."""
    case = _dark(b)
    lit = b.chance(0.4)
    screen = b.material("poster", 1.5, b.gray(0.05, 0.3), b.gray(0.4, 0.9), emission=0.8) if lit else case
    wide, tall, middle = b.uniform(0.4, 0.75), b.uniform(0.24, 0.42), b.uniform(1.3, 1.7)
    b.box(at, (0.08, 0, middle), (0.025, wide, tall), (screen, case, case))
    b.box(at, (0.03, 0, middle), (0.03, 0.15, 0.12), case)


def loaded_shelf(b: SceneBuilder, at: Frame) -> None:
    """One to three boards on brackets with things on them."""
    wood, deep, half = b.material("wood", 1.0, b.wood()), b.uniform(0.18, 0.3), b.uniform(0.35, 0.7)
    low = b.uniform(0.9, 1.5)
    for level in range(b.count(1, 3)):
        z = low + 0.34 * level
        b.slab(at, (0, -half, z), (deep, half, z + 0.022), wood)
        shelf_things(b, at.at(0, 0, z + 0.022), -half, half, deep, 0.28)


WALL_THINGS: tuple[tuple[float, Callable[[SceneBuilder, Frame], None]], ...] = (
    (0.22, poster),
    (0.13, notice_sheets),
    (0.1, radiator),
    (0.1, pipes),
    (0.12, cable_duct),
    (0.07, coat_hooks),
    (0.1, door_sign),
    (0.06, wall_screen),
    (0.1, loaded_shelf),
)


def wall_thing(b: SceneBuilder, at: Frame) -> None:
    """One thing on a wall, left out when it would touch the camera."""
    b.begin()
    b.weighted(WALL_THINGS)(b, at)
    b.end()


# ---- on floors and under ceilings


def rug(b: SceneBuilder, at: Frame) -> None:
    """Thin, with a border."""
    long, wide = b.uniform(0.7, 1.7), b.uniform(0.4, 1.1)
    cloth = b.material(b.choose(("poster", "stripe", "checker", "tile")), b.uniform(0.5, 2.0), b.vivid(0.05, 0.5))
    b.box(at, (0, 0, 0.004), (long, wide, 0.004), b.material("plain", 1, b.vivid(0.02, 0.3)))
    b.box(at, (0, 0, 0.005), (long - 0.08, wide - 0.08, 0.005), cloth)


def cable(b: SceneBuilder, at: Frame) -> None:
    """Straight bits of cable end to end, and a strip of sockets at the end."""
    skin, place = _dark(b) if b.chance(0.6) else b.material("plain", 1, b.gray(0.4, 0.9)), at
    for _ in range(b.count(3, 8)):
        long = b.uniform(0.1, 0.35)
        b.box(place, (long, 0, 0.006), (long, 0.006, 0.006), skin)
        place = place.at(2 * long, 0, 0, b.uniform(-0.9, 0.9))
    b.box(place, (0.15, 0, 0.02), (0.17, 0.03, 0.02), b.material("plain", 1, b.gray(0.3, 0.9)))


def shoes(b: SceneBuilder, at: Frame) -> None:
    leather = _painted(b)
    for y in (-0.07, 0.07):
        b.ellipsoid(at.at(0, y, 0, b.uniform(-0.4, 0.4)), (0, 0, 0.04), (0.14, 0.05, 0.05), leather)


def toys_or_tools(b: SceneBuilder, at: Frame) -> None:
    for _ in range(b.count(3, 9)):
        place = at.at(b.uniform(-0.4, 0.4), b.uniform(-0.4, 0.4), 0, b.uniform(0, 3))
        _standing_thing(b, place, b.uniform(0.02, 0.07), b.uniform(0.04, 0.2))


def box_tower(b: SceneBuilder, at: Frame) -> None:
    """Cartons on cartons."""
    z = 0.0
    for _ in range(b.count(2, 4)):
        half = b.uniform(0.1, 0.2)
        card = (
            b.material("plain", 0.6, b.wood(0.2, 0.45))
            if b.chance(0.7)
            else b.material("writing", 0.5, b.gray(0.5, 0.9))
        )
        b.box(at, (0, 0, z + half), (b.uniform(0.18, 0.3), b.uniform(0.15, 0.28), half), card, yaw=b.uniform(-0.3, 0.3))
        z += 2 * half


FLOOR_THINGS = (cable, shoes, toys_or_tools, box_tower, paper_pile)


def litter_floor_thing(b: SceneBuilder, at: Frame) -> None:
    """One untidy thing on the floor."""
    b.begin()
    b.choose(FLOOR_THINGS)(b, at)
    b.end()


def under_ceiling(b: SceneBuilder, at: Frame) -> None:
    """Sprinkler, smoke detector, projector, exit sign or fan; `at` is on the ceiling."""
    kind = b.rng.random()
    b.begin()
    if kind < 0.5:
        b.cylinder(at, 0, 0, 0.06, -0.05, 0, b.material("plain", 1, b.gray(0.5, 0.9)))
    elif kind < 0.65:
        b.cylinder(at, 0, 0, 0.02, -0.3, 0, _steel(b))
        b.box(at, (0, 0, -0.38), (0.16, 0.14, 0.06), b.material("plain", 1, b.gray(0.3, 0.9)))
    elif kind < 0.85:
        green = b.material("poster", 0.4, (0.01, 0.25, 0.08), (0.6, 0.9, 0.7), emission=0.8)
        b.box(at, (0, 0, -0.2), (0.02, 0.2, 0.1), green)
        b.cylinder(at, 0, 0, 0.01, -0.12, 0, _steel(b))
    else:
        blade = b.material("wood", 1, b.wood())
        b.cylinder(at, 0, 0, 0.05, -0.35, 0, _steel(b))
        for i in range(4):
            b.box(at.at(0, 0, -0.33, i * math.pi / 2), (0.35, 0, 0), (0.28, 0.06, 0.008), blade)
    b.end()
