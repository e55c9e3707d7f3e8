"""Furniture and clutter, each a handful of solids.

A piece stands on the floor at its frame: back at local x = 0, front towards +x, centred on y. Sizes in metres follow
common real ones.
"""

import math

from training.synthetic import clutter
from training.synthetic.builder import SceneBuilder
from training.synthetic.scene import Frame


def metal(b: SceneBuilder) -> int:
    return b.material("plain", 1.0, b.gray(0.02, 0.5), gloss=0.3)


def dark_plastic(b: SceneBuilder) -> int:
    return b.material("plain", 0.5, b.gray(0.01, 0.06), gloss=0.2)


def wooden(b: SceneBuilder) -> int:
    return b.material("wood" if b.chance(0.5) else "plain", b.uniform(0.6, 2.0), b.wood(), gloss=b.uniform(0, 0.3))


def fabric(b: SceneBuilder) -> int:
    color = b.vivid(0.02, 0.35) if b.chance(0.5) else b.gray(0.01, 0.3)
    return b.material(b.choose(("plain", "speckle", "noise")), b.uniform(0.3, 1.0), color)


def furniture_finish(b: SceneBuilder) -> int:
    if b.chance(0.55):
        return wooden(b)
    return b.material("plain", 1.0, b.gray(0.03, 0.8) if b.chance(0.8) else b.vivid(), gloss=b.uniform(0, 0.3))


def books(b: SceneBuilder, scale: float) -> int:
    return b.material("books", scale, b.gray(0.005, 0.03), b.gray(0.3, 0.9, 0.2))


def paper(b: SceneBuilder) -> int:
    return b.material("clutter", b.uniform(0.5, 1.2), b.gray(0.02, 0.15), b.gray(0.4, 0.9))


# ---- desks and what stands on them


def monitor(b: SceneBuilder, at: Frame) -> None:
    """Screen on a foot; `at` is on the table top, the screen looks to +x."""
    case = dark_plastic(b)
    if b.chance(0.3):
        screen = b.material("poster", 1.5, b.gray(0.05, 0.2), b.gray(0.4, 0.9), emission=0.6)
    else:
        screen = b.material("plain", 1.0, b.gray(0.008, 0.03), gloss=0.5)
    wide, tall = b.uniform(0.2, 0.36), b.uniform(0.14, 0.22)
    b.box(at, (0, 0, 0.12 + tall), (0.02, wide, tall), (screen, case, case))
    b.box(at, (-0.02, 0, 0.07), (0.02, 0.03, 0.08), case)
    b.box(at, (0, 0, 0.008), (0.1, 0.13, 0.008), case)


def desk_clutter(b: SceneBuilder, at: Frame, depth: float, width: float, pieces: int) -> None:
    for _ in range(pieces):
        place = at.at(b.uniform(0.1, depth - 0.1), b.uniform(-0.45, 0.45) * width, 0, b.uniform(-0.5, 0.5))
        shape = b.rng.random()
        if shape < 0.35:  # papers and books lying about
            tall = b.uniform(0.003, 0.08)
            b.box(place, (0, 0, tall), (b.uniform(0.09, 0.16), b.uniform(0.09, 0.14), tall), paper(b))
        elif shape < 0.55:  # mug, bottle, pen pot
            b.cylinder(place, 0, 0, b.uniform(0.025, 0.06), 0, b.uniform(0.07, 0.28), furniture_finish(b))
        elif shape < 0.7:  # phone, speaker
            tall = b.uniform(0.03, 0.13)
            b.box(place, (0, 0, tall), (b.uniform(0.05, 0.12), b.uniform(0.04, 0.12), tall), dark_plastic(b))
        elif shape < 0.85:  # laptop
            case = dark_plastic(b) if b.chance(0.5) else b.material("plain", 1, b.gray(0.3, 0.6))
            b.box(place, (0.12, 0, 0.01), (0.12, 0.17, 0.01), case)
            b.box(place, (-0.03, 0, 0.12), (0.006, 0.17, 0.12), case, pitch=-0.25)
        else:  # boxes, document trays
            tall = b.uniform(0.06, 0.2)
            b.box(place, (0, 0, tall), (b.uniform(0.1, 0.2), b.uniform(0.1, 0.2), tall), furniture_finish(b))


def table_top(b: SceneBuilder, at: Frame, depth: float, width: float, height: float, top: int, legs: int) -> None:
    """Top and legs; `at` is the middle of the back edge."""
    thick = b.uniform(0.012, 0.03)
    b.slab(at, (0, -width / 2, height - 2 * thick), (depth, width / 2, height), top)
    style = b.rng.random()
    if style < 0.3:
        for y in (-width / 2 + 0.02, width / 2 - 0.02):
            b.slab(at, (0.03, y - 0.015, 0), (depth - 0.03, y + 0.015, height - 2 * thick), legs)
    elif style < 0.85 or width < 1.0:
        for x in (0.05, depth - 0.05):
            for y in (-width / 2 + 0.05, width / 2 - 0.05):
                b.slab(at, (x - 0.02, y - 0.02, 0), (x + 0.02, y + 0.02, height - 2 * thick), legs)
    else:
        for y in (-width / 4, width / 4):
            b.slab(at, (depth / 2 - 0.04, y - 0.04, 0.03), (depth / 2 + 0.04, y + 0.04, height - 2 * thick), legs)
            b.slab(at, (0.1, y - 0.04, 0), (depth - 0.1, y + 0.04, 0.03), legs)


def desk(b: SceneBuilder, at: Frame, width: float) -> None:
    """A writing desk against a wall, with a drawer unit, screens, clutter and a chair."""
    depth, height = b.uniform(0.6, 0.85), b.uniform(0.7, 0.77)
    top = furniture_finish(b)
    b.begin()
    table_top(b, at, depth, width, height, top, top if b.chance(0.5) else metal(b))
    if b.chance(0.45):
        y = b.choose((-1, 1)) * (width / 2 - 0.25)
        b.slab(at, (0.08, y - 0.2, 0.05), (depth - 0.05, y + 0.2, height - 0.1), top if b.chance(0.6) else metal(b))
    on_top = at.at(0, 0, height)
    for _ in range(b.count(0, 2)):
        seat = on_top.at(b.uniform(0.12, 0.3), b.uniform(-0.35, 0.35) * width, 0, b.uniform(-0.4, 0.4))
        monitor(b, seat)
        if clutter.is_near(b, seat):
            clutter.keyboard_and_mouse(b, seat)
    desk_clutter(b, on_top, depth, width, b.count(0, 5))
    clutter.desk_things(b, on_top, depth, width, b.count(3, 12))
    if b.chance(0.25):  # shelf or partition above the desk
        low = height + b.uniform(0.3, 0.6)
        front = books(b, b.uniform(0.6, 1.2)) if b.chance(0.6) else top
        b.slab(at, (0, -width / 2, low), (0.3, width / 2, low + b.uniform(0.25, 0.45)), (front, top, top))
    if clutter.is_near(b, at) and b.chance(0.5):
        clutter.cable(b, at.at(0.2, b.uniform(-0.4, 0.4) * width, 0, b.uniform(-1.5, 1.5)))
    b.end()
    if b.chance(0.8):
        chair(b, at.at(depth + b.uniform(0.05, 0.5), b.uniform(-0.3, 0.3), 0, math.pi + b.uniform(-0.8, 0.8)))


# ---- seats


def chair(b: SceneBuilder, at: Frame) -> None:
    """One chair; `at` is the middle of the seat's place, it looks to +x."""
    seat, frame = fabric(b), dark_plastic(b) if b.chance(0.6) else metal(b)
    height, half = b.uniform(0.42, 0.5), b.uniform(0.2, 0.25)
    b.begin()
    b.box(at, (0, 0, height - 0.035), (half, half, 0.035), seat)
    back = b.uniform(0.18, 0.3)
    b.box(at, (-half - 0.02, 0, height + 0.14 + back), (0.025, half * 0.9, back), seat, pitch=-b.uniform(0.0, 0.25))
    if b.chance(0.5):  # office chair
        b.cylinder(at, 0, 0, 0.03, 0.1, height - 0.07, frame)
        for arm in range(5):
            yaw = arm * 2 * math.pi / 5
            b.box(at.at(0, 0, 0, yaw), (0.15, 0, 0.08), (0.15, 0.025, 0.025), frame)
        if b.chance(0.6):
            for y in (-half - 0.03, half + 0.03):
                b.box(at, (0, y, height + 0.2), (half * 0.7, 0.03, 0.015), frame)
                b.box(at, (0, y, height + 0.08), (0.03, 0.015, 0.11), frame)
        b.box(at, (-half, 0, height + 0.05), (0.015, 0.04, 0.12), frame)
    else:
        for x in (-half + 0.02, half - 0.02):
            for y in (-half + 0.02, half - 0.02):
                b.slab(at, (x - 0.014, y - 0.014, 0), (x + 0.014, y + 0.014, height - 0.07), frame)
        for y in (-half + 0.02, half - 0.02):
            b.slab(at, (-half - 0.03, y - 0.014, height - 0.05), (-half, y + 0.014, height + 0.3), frame)
    b.end()


def sofa(b: SceneBuilder, at: Frame, width: float) -> None:
    cover = fabric(b)
    depth, height = b.uniform(0.75, 0.95), b.uniform(0.36, 0.45)
    b.begin()
    b.slab(at, (0.02, -width / 2, 0.06), (depth, width / 2, height), cover)
    b.slab(at, (0.02, -width / 2, height), (0.25, width / 2, height + b.uniform(0.3, 0.5)), cover)
    arm = b.uniform(0.1, 0.2)
    for y in (-width / 2, width / 2 - arm):
        b.slab(at, (0.02, y, height), (depth, y + arm, height + 0.2), cover)
    for _ in range(b.count(0, 2)):
        b.box(at, (0.36, b.uniform(-0.4, 0.4) * width, height + 0.18), (0.06, 0.2, 0.18), fabric(b), pitch=-0.3)
    b.end()


def bed(b: SceneBuilder, at: Frame) -> None:
    """Head against the wall."""
    width, length, height = b.uniform(0.9, 1.8), b.uniform(1.9, 2.1), b.uniform(0.4, 0.6)
    cover = fabric(b)
    b.begin()
    b.slab(at, (0, -width / 2, 0.08), (length, width / 2, height - 0.12), furniture_finish(b))
    b.slab(at, (0.02, -width / 2, height - 0.12), (length, width / 2, height), cover)
    b.slab(at, (0, -width / 2 - 0.03, 0), (0.06, width / 2 + 0.03, b.uniform(0.7, 1.2)), furniture_finish(b))
    for y in (-width / 4, width / 4):
        b.ellipsoid(at, (0.35, y, height + 0.04), (0.2, 0.28, 0.1), fabric(b))
    b.end()


# ---- storage


def bookcase(b: SceneBuilder, at: Frame, width: float, height: float, open_shelves: bool) -> None:
    """With real boards and rows of books in relief when `open_shelves`, else a painted front."""
    depth = b.uniform(0.25, 0.4)
    case = furniture_finish(b)
    b.begin()
    if not open_shelves:
        b.slab(
            at,
            (0, -width / 2, 0),
            (depth, width / 2, height),
            (books(b, b.uniform(0.8, 1.4)) if b.chance(0.7) else case, case, case),
        )
    else:
        b.slab(at, (0, -width / 2, 0), (0.02, width / 2, height), case)
        for y in (-width / 2, width / 2 - 0.025):
            b.slab(at, (0, y, 0), (depth, y + 0.025, height), case)
        shelves = max(2, round(height / b.uniform(0.3, 0.42)))
        step = height / shelves
        for level in range(shelves + 1):
            b.slab(at, (0, -width / 2, level * step - 0.012), (depth, width / 2, level * step + 0.012), case)
            if level < shelves and clutter.is_near(b, at):
                clutter.shelf_things(
                    b, at.at(0, 0, level * step + 0.012), 0.03 - width / 2, width / 2 - 0.03, depth * 0.9, step * 0.85
                )
            elif level < shelves and b.chance(0.85):
                left = -width / 2 + (b.uniform(0, 0.5) * width if b.chance(0.4) else 0.03)
                right = left + b.uniform(0.35, 1.0) * (width / 2 - left)
                tall = step * b.uniform(0.5, 0.85)
                filling = books(b, b.uniform(0.5, 1.0)) if b.chance(0.75) else furniture_finish(b)
                b.slab(
                    at, (0.02, left, level * step), (depth * b.uniform(0.6, 0.95), right, level * step + tall), filling
                )
    b.end()


def cabinet(b: SceneBuilder, at: Frame, width: float, height: float) -> None:
    """Filing cabinet, cupboard or sideboard, with things on top when it is low; doors and handles as thin relief."""
    depth = b.uniform(0.35, 0.6)
    body = furniture_finish(b)
    b.begin()
    b.slab(at, (0, -width / 2, 0), (depth, width / 2, height), body)
    handle = metal(b)
    doors = max(1, round(width / 0.5))
    for i in range(doors):
        y = -width / 2 + (i + 0.5) * width / doors
        b.box(at, (depth + 0.006, y, height / 2), (0.006, width / doors / 2 - 0.012, height / 2 - 0.03), body)
        b.box(at, (depth + 0.025, y + 0.4 * width / doors, height * 0.55), (0.012, 0.01, 0.06), handle)
    if height < 1.4 and b.chance(0.7):
        desk_clutter(b, at.at(0, 0, height), depth, width, b.count(0, 3))
        clutter.desk_things(b, at.at(0, 0, height), depth, width, b.count(0, 4))
    b.end()


def wall_shelf(b: SceneBuilder, at: Frame, width: float) -> None:
    low, depth, board = b.uniform(1.2, 1.7), b.uniform(0.2, 0.32), furniture_finish(b)
    b.begin()
    for level in range(b.count(1, 3)):
        z = low + 0.36 * level
        b.slab(at, (0, -width / 2, z), (depth, width / 2, z + 0.025), board)
        b.slab(
            at,
            (0.01, -width / 2 * b.uniform(0.4, 1), z + 0.025),
            (depth - 0.04, width / 2 * b.uniform(0.4, 1), z + b.uniform(0.18, 0.3)),
            books(b, 0.7),
        )
    b.end()


def storage_rack(b: SceneBuilder, at: Frame, width: float, height: float) -> None:
    """Metal shelving with boxes."""
    post, depth = metal(b), b.uniform(0.4, 0.6)
    b.begin()
    for x in (0.02, depth - 0.02):
        for y in (-width / 2, width / 2):
            b.slab(at, (x - 0.02, y - 0.02, 0), (x + 0.02, y + 0.02, height), post)
    levels = b.count(3, 5)
    for level in range(levels):
        z = 0.1 + level * (height - 0.15) / levels
        b.slab(at, (0, -width / 2, z), (depth, width / 2, z + 0.03), post)
        y = -width / 2 + 0.02
        while y < width / 2 - 0.15:
            wide = min(b.uniform(0.15, 0.5), width / 2 - y)
            if b.chance(0.75):
                carton = b.material("plain", 0.6, b.wood(0.2, 0.4)) if b.chance(0.6) else furniture_finish(b)
                b.slab(
                    at,
                    (0.03, y, z + 0.03),
                    (depth - b.uniform(0.02, 0.15), y + wide - 0.02, z + b.uniform(0.12, height / levels - 0.05)),
                    carton,
                )
            y += wide
    b.end()


# ---- on walls


def board(b: SceneBuilder, at: Frame, width: float) -> None:
    """Whiteboard, blackboard or pin board at `at` (wall contact, floor level)."""
    low, tall, kind = b.uniform(0.75, 1.05), b.uniform(0.8, 1.25), b.rng.random()
    if kind < 0.6:
        face = b.material("writing", b.uniform(0.9, 2.0), b.gray(0.65, 0.9, 0.02), b.gray(0.05, 0.4, 0.5), gloss=0.25)
    elif kind < 0.75:
        face = b.material("writing", 1.5, (0.02, 0.05, 0.04), (0.5, 0.5, 0.5))
    else:
        face = b.material("clutter", b.uniform(0.8, 1.6), b.gray(0.2, 0.5, 0.2), b.gray(0.5, 0.9))
    rim = metal(b) if b.chance(0.6) else wooden(b)
    b.slab(at, (0, -width / 2, low), (0.02, width / 2, low + tall), (face, rim, rim))
    edge = 0.03
    b.slab(at, (0, -width / 2 - edge, low - edge), (0.03, width / 2 + edge, low), rim)
    b.slab(at, (0, -width / 2 - edge, low + tall), (0.03, width / 2 + edge, low + tall + edge), rim)
    for y in (-width / 2 - edge, width / 2):
        b.slab(at, (0, y, low), (0.03, y + edge, low + tall), rim)
    if b.chance(0.5):
        b.slab(at, (0, -width / 4, low - 0.05), (0.09, width / 4, low - 0.03), rim)


def picture(b: SceneBuilder, at: Frame) -> None:
    wide, tall, middle = b.uniform(0.12, 0.5), b.uniform(0.15, 0.45), b.uniform(1.35, 1.75)
    rim = wooden(b) if b.chance(0.5) else dark_plastic(b)
    scale = 2 * max(wide, tall)
    face = b.material("poster", scale, b.gray(0.02, 0.3, 0.3), b.gray(0.3, 0.9, 0.3))
    b.box(at, (0.012, 0, middle), (0.012, wide, tall), (face, rim, rim))


def wall_fixture(b: SceneBuilder, at: Frame) -> None:
    """Socket, switch, thermostat, clock, sign, fire extinguisher, radiator."""
    kind = b.rng.random()
    if kind < 0.4:
        b.box(
            at,
            (0.012, 0, b.choose((0.3, 1.1, 1.4))),
            (0.012, b.uniform(0.03, 0.07), 0.06),
            b.material("plain", 1, b.gray(0.5, 0.9)),
        )
    elif kind < 0.55:
        b.box(
            at,
            (0.02, 0, b.uniform(1.9, 2.4)),
            (0.02, b.uniform(0.1, 0.3), 0.1),
            b.material("writing", 0.5, b.vivid(0.1, 0.5), b.gray(0.7, 0.9)),
        )
    elif kind < 0.7:
        b.cylinder(at, 0.1, 0, 0.08, 0.6, 1.1, b.material("plain", 1, (0.4, 0.02, 0.02), gloss=0.4))
    elif kind < 0.85:
        b.cylinder(at, 0.0, 0, 0.15, -0.02, 0.02, b.material("plain", 1, b.gray(0.6, 0.9)), pitch=math.pi / 2)
    else:
        b.slab(at, (0.02, -0.6, 0.12), (0.14, 0.6, 0.72), b.material("stripe", 0.6, b.gray(0.6, 0.9), b.gray(0.3, 0.5)))


# ---- odds and ends


def plant(b: SceneBuilder, at: Frame) -> None:
    pot, height = b.uniform(0.12, 0.2), b.uniform(0.25, 0.45)
    leaf = b.material(
        "leaf", b.uniform(0.15, 0.4), (0.01, 0.03, 0.01), (b.uniform(0.05, 0.15), b.uniform(0.12, 0.3), 0.04)
    )
    b.begin()
    b.cylinder(at, 0, 0, pot, 0, height, furniture_finish(b))
    b.cylinder(at, 0, 0, 0.02, height, height + 0.4, wooden(b))
    for _ in range(b.count(2, 5)):
        size = b.uniform(0.12, 0.3)
        b.ellipsoid(
            at,
            (b.uniform(-0.2, 0.2), b.uniform(-0.2, 0.2), height + b.uniform(0.1, 0.8)),
            (size, size, size * b.uniform(0.5, 1.2)),
            leaf,
        )
    b.end()


def bin_or_carton(b: SceneBuilder, at: Frame) -> None:
    b.begin()
    if b.chance(0.5):
        b.cylinder(at, 0, 0, b.uniform(0.11, 0.2), 0, b.uniform(0.28, 0.7), furniture_finish(b))
    else:
        tall = b.uniform(0.1, 0.28)
        b.box(
            at,
            (0, 0, tall),
            (b.uniform(0.12, 0.3), b.uniform(0.12, 0.3), tall),
            b.material("plain", 0.5, b.wood(0.15, 0.4)),
            yaw=b.uniform(0, 3),
        )
    b.end()


def bag_or_pile(b: SceneBuilder, at: Frame) -> None:
    """Soft and untidy things on the floor."""
    b.begin()
    for _ in range(b.count(1, 5)):
        z = b.uniform(0.03, 0.14)
        place = at.at(b.uniform(-0.3, 0.3), b.uniform(-0.3, 0.3), 0, b.uniform(0, 3))
        if b.chance(0.5):
            b.ellipsoid(place, (0, 0, z), (b.uniform(0.1, 0.3), b.uniform(0.08, 0.2), z), fabric(b))
        else:
            b.box(
                place,
                (0, 0, z),
                (b.uniform(0.08, 0.3), b.uniform(0.08, 0.25), z),
                paper(b) if b.chance(0.4) else furniture_finish(b),
            )
    b.end()


def person(b: SceneBuilder, at: Frame) -> None:
    """A standing figure."""
    tall = b.uniform(1.55, 1.9)
    legs, coat = fabric(b), fabric(b)
    skin = b.material("plain", 1, (b.uniform(0.1, 0.5), b.uniform(0.08, 0.3), b.uniform(0.05, 0.2)))
    b.begin()
    for y in (-0.1, 0.1):
        b.cylinder(at, b.uniform(-0.08, 0.08), y, 0.08, 0, tall * 0.48, legs)
    b.ellipsoid(at, (0, 0, tall * 0.66), (0.14, 0.22, tall * 0.2), coat)
    for y in (-0.25, 0.25):
        b.ellipsoid(at, (0.02, y, tall * 0.62), (0.06, 0.06, tall * 0.18), coat)
    b.ellipsoid(at, (0, 0, tall - 0.12), (0.09, 0.08, 0.12), skin)
    b.end()
