"""Outdoor scenes: car parks, streets, courtyards, parks, plazas, fields and mountain tops, under all kinds of skies.

Everything has its true distance, also hills hundreds of metres away; only what no solid covers is sky.
"""

import math
from collections.abc import Callable

from training.synthetic import clutter, facades, furniture
from training.synthetic.builder import SceneBuilder, random_tilt
from training.synthetic.camera_faults import photo_faults
from training.synthetic.scene import WORLD, Color, Frame, Scene, Sky, Vector
from training.synthetic.street_furniture import (
    bench,
    bicycle,
    cafe_table,
    car,
    covers_and_patches,
    kerb_thing,
    lamp_post,
    lane_markings,
    traffic_sign,
)
from training.synthetic.textures import TEXTURES
from training.synthetic.walls import Opening, Wall, build_wall, random_finish

HORIZON = 3000.0  # metres; the ground ends there
SUN_DISTANCE = 400.0  # metres from the camera: far enough for parallel shadows within their reach


def ground(b: SceneBuilder, kind: str) -> None:
    if kind == "grass":
        material = b.material(
            "grass", b.uniform(1.5, 5), (0.02, 0.04, 0.01), (b.uniform(0.08, 0.3), b.uniform(0.15, 0.32), 0.05)
        )
    elif kind == "asphalt":
        material = b.material("speckle" if b.chance(0.5) else "noise", b.uniform(1, 6), b.gray(0.03, 0.25, 0.08))
    elif kind == "snow":
        material = b.material("noise", b.uniform(3, 9), b.gray(0.7, 0.9, 0.03), b.gray(0.5, 0.85, 0.04))
    elif kind == "paving":
        material = b.material("paving", b.uniform(1.2, 4), b.gray(0.15, 0.55))
    elif kind == "sand":
        material = b.material("noise", b.uniform(2, 6), b.wood(0.2, 0.5))
    else:
        material = b.material("rock", b.uniform(2, 6), b.gray(0.1, 0.4, 0.12))
    b.slab(WORLD, (-HORIZON, -HORIZON, -2.0), (HORIZON, HORIZON, 0.0), material)


def ground_patches(b: SceneBuilder, number: int) -> None:
    """Flower beds, lawns, paint marks, puddles: thin things on the ground."""
    for _ in range(number):
        angle, away = b.uniform(0, 2 * math.pi), b.uniform(2, 25)
        at = Frame(away * math.cos(angle), away * math.sin(angle), 0, b.uniform(0, 3))
        kind = b.rng.random()
        if kind < 0.45:
            grass = b.material("grass", 1.5, (0.02, 0.04, 0.01), (0.15, 0.22, 0.06))
            b.begin()
            wide, long = b.uniform(0.8, 4), b.uniform(0.8, 7)
            b.box(at, (0, 0, 0.05), (wide, long, 0.05), b.material("plain", 1, b.gray(0.2, 0.6)))
            b.box(at, (0, 0, 0.06), (wide - 0.15, long - 0.15, 0.06), grass)
            b.end()
        else:
            b.box(
                at,
                (0, 0, 0.002),
                (b.uniform(0.06, 2), b.uniform(0.5, 6), 0.004),
                b.material("noise", 2, b.gray(0.02, 0.8, 0.2)),
            )


def building(b: SceneBuilder, at: Frame, depth: float, width: float, height: float) -> None:
    """A block of flats, a shed or a house; its front looks to +x from x = 0."""
    relief = clutter.is_near(b, at, facades.REACH) and b.chance(0.75)
    front = b.material("facade", b.uniform(5, 10), b.gray(0.2, 0.8, 0.15), b.gray(0.02, 0.25))
    if relief or b.chance(0.25):
        front = b.material(b.choose(("brick", "stripe", "plain", "noise")), b.uniform(2, 5), b.gray(0.15, 0.8, 0.2))
    roof = b.material("tile", 2.0, b.gray(0.05, 0.3, 0.25))
    behind = facades.glass(b) if relief else front
    b.slab(at, (-depth, -width / 2, -1), (0, width / 2, height), (behind, front, roof))
    if relief:
        facades.facade(b, at, width, height, front)
    if height < 9 and b.chance(0.5):
        rise = b.uniform(0.3, 0.6)
        for side in (-1, 1):
            b.box(
                at,
                (-depth / 2 + side * depth / 4, 0, height + depth / 4 * math.tan(rise)),
                (depth / 4 / math.cos(rise) + 0.3, width / 2 + 0.3, 0.1),
                roof,
                pitch=side * rise,
            )
        b.box(
            at,
            (-depth / 2, 0, height + 0.25 * depth * math.tan(rise)),
            (depth * 0.2, width / 2, depth * 0.24 * math.tan(rise)),
            front,
        )
    else:
        b.slab(
            at, (-depth - 0.2, -width / 2 - 0.2, height), (0.25, width / 2 + 0.2, height + b.uniform(0.2, 0.6)), roof
        )
        facades.roof_things(b, at, depth, width, height + 0.2)


def tree(b: SceneBuilder, at: Frame, height: float, leaf: int, bark: int) -> None:
    kind = b.rng.random()
    b.begin()
    if kind < 0.65:  # broad crown
        crown = height * b.uniform(0.5, 0.75)
        b.cylinder(at, 0, 0, 0.02 * height + 0.05, 0, height - crown * 0.6, bark)
        near = clutter.is_near(b, at, 14.0)  # there a crown of few clumps looks like balloons
        for _ in range(b.count(8, 16) if near else b.count(3, 7)):
            size = crown * (b.uniform(0.12, 0.32) if near else b.uniform(0.2, 0.42))
            b.ellipsoid(
                at,
                (b.uniform(-0.3, 0.3) * crown, b.uniform(-0.3, 0.3) * crown, height - crown * b.uniform(0.25, 0.8)),
                (size, size * b.uniform(0.8, 1.2), size * b.uniform(0.6, 1.0)),
                leaf,
            )
    elif kind < 0.9:  # conifer
        b.cylinder(at, 0, 0, 0.015 * height + 0.04, 0, height * 0.4, bark)
        tiers = 5
        for i in range(tiers):
            size = height * 0.22 * (1 - i / tiers) + 0.1
            b.ellipsoid(at, (0, 0, height * (0.25 + 0.75 * i / tiers)), (size, size, height * 0.16), leaf)
    else:  # bare
        b.cylinder(at, 0, 0, 0.02 * height + 0.04, 0, height * 0.5, bark)
        for _ in range(6):
            turn, lean = b.uniform(0, 2 * math.pi), b.uniform(0.2, 1.0)
            long = height * b.uniform(0.2, 0.45)
            start = b.uniform(0.3, 0.5) * height
            b.box(
                at.at(0, 0, start, turn),
                (math.sin(lean) * long / 2, 0, math.cos(lean) * long / 2),
                (0.03, 0.03, long / 2),
                bark,
                pitch=lean,
            )
    b.end()


def leaves(b: SceneBuilder) -> int:
    green = b.uniform(0.06, 0.25)
    light = (green * b.uniform(0.5, 1.3), green, green * b.uniform(0.15, 0.4))
    return b.material("leaf", b.uniform(0.6, 2.0), (light[0] * 0.15, light[1] * 0.15, light[2] * 0.15), light)


def scatter_trees(b: SceneBuilder, number: int, nearest: float, farthest: float) -> None:
    bark, kinds = furniture.wooden(b), (leaves(b), leaves(b))
    for _ in range(number):
        angle = b.uniform(0, 2 * math.pi)
        away = nearest * (farthest / nearest) ** b.rng.random()
        at = Frame(away * math.cos(angle), away * math.sin(angle), 0, angle)
        if b.claim(at, 0.8):
            tree(b, at, b.uniform(2.5, 14), b.choose(kinds), bark)


def hedge_or_fence(b: SceneBuilder, at: Frame, length: float) -> None:
    b.begin()
    if b.chance(0.5):
        b.box(at, (0, 0, 0.6), (0.4, length / 2, b.uniform(0.5, 1.0)), leaves(b))
    elif b.chance(0.5):
        b.box(
            at,
            (0, 0, b.uniform(0.4, 1.0)),
            (0.12, length / 2, 1.0),
            b.material(b.choose(("brick", "plain", "rock")), 2, b.gray(0.2, 0.7)),
        )
    else:
        post = furniture.metal(b)
        for i in range(int(length / 2) + 1):
            b.box(at, (0, i * 2.0 - length / 2, 0.55), (0.03, 0.03, 0.55), post)
        for z in (0.5, 1.05):
            b.box(at, (0, 0, z), (0.02, length / 2, 0.025), post)
    b.end()


def planter(b: SceneBuilder, at: Frame) -> None:
    """A trough with a bush, also good as a barrier."""
    b.begin()
    b.box(at, (0, 0, 0.25), (0.4, 1.2, 0.25), b.material("noise", 1, b.gray(0.2, 0.6)))
    b.ellipsoid(at, (0, 0, 0.6), (0.35, 1.1, b.uniform(0.2, 0.6)), leaves(b))
    b.end()


def mounds(b: SceneBuilder, number: int) -> None:
    """Low swells of the ground around the camera, in shades of their own."""
    for _ in range(number):
        angle, wide = b.uniform(0, 2 * math.pi), b.uniform(6, 30)
        away = 1.5 * wide + b.uniform(4, 40)
        cover = b.material(b.choose(("grass", "noise")), b.uniform(2, 5), b.wood(0.04, 0.2), b.gray(0.1, 0.3, 0.3))
        at = Frame(away * math.cos(angle), away * math.sin(angle), 0, b.uniform(0, 3))
        b.ellipsoid(at, (0, 0, 0), (wide, wide * b.uniform(0.5, 1.4), b.uniform(0.5, 2.5)), cover)


def tufts_and_stones(b: SceneBuilder, number: int) -> None:
    """Small things on open ground near the camera."""
    leaf, stone = leaves(b), b.material("rock", 0.8, b.gray(0.1, 0.5, 0.1))
    for _ in range(number):
        angle, away = b.uniform(0, 2 * math.pi), math.exp(b.uniform(math.log(1.2), math.log(15)))
        size = b.uniform(0.04, 0.22)
        b.begin()
        b.ellipsoid(
            Frame(away * math.cos(angle), away * math.sin(angle), 0, b.uniform(0, 3)),
            (0, 0, 0.2 * size),
            (size, size * b.uniform(0.6, 1.6), size * b.uniform(0.4, 1.2)),
            leaf if b.chance(0.6) else stone,
        )
        b.end()


def pole_line(b: SceneBuilder) -> None:
    """Masts at equal distances past the camera, with two straight wires."""
    line = Frame(0, 0, 0, b.uniform(0, 2 * math.pi)).at(0, b.choose((-1, 1)) * b.uniform(5, 30))
    post, tall, step = furniture.wooden(b), b.uniform(6, 10), b.uniform(25, 45)
    for i in range(-4, 5):
        b.cylinder(line, i * step, 0, 0.13, 0, tall, post)
        b.box(line, (i * step, 0, tall - 0.5), (0.06, 0.8, 0.07), post)
    for y in (-0.7, 0.7):
        b.box(line, (0, y, tall - 0.38), (4 * step, 0.015, 0.015), post)


def far_hills(b: SceneBuilder, number: int, lowest: float = 0.0) -> None:
    """Rounded hills from a hundred metres to kilometres away, paler with distance."""
    for _ in range(number):
        angle, away = b.uniform(0, 2 * math.pi), math.exp(b.uniform(math.log(150), math.log(2500)))
        pale = min(0.75, away / 3000)
        shade = tuple(c * (1 - pale) + pale * 0.5 for c in (0.04, 0.08, 0.03))
        bright = tuple(c * (1 - pale) + pale * 0.55 for c in (0.12, 0.18, 0.07))
        hill = b.material(
            "noise", away * 0.15, (shade[0], shade[1], shade[2] * 1.1), (bright[0], bright[1], bright[2] * 1.15)
        )
        wide = away * b.uniform(0.2, 0.6)
        b.ellipsoid(
            Frame(away * math.cos(angle), away * math.sin(angle), lowest, angle),
            (0, 0, 0),
            (wide * 0.5, wide, away * b.uniform(0.03, 0.14)),
            hill,
        )


# ---- places


def car_park(b: SceneBuilder) -> str:
    ground(b, "asphalt")
    heading = b.uniform(0, math.pi)
    paint = b.material("plain", 1, b.gray(0.5, 0.9, 0.1))
    for row in range(b.count(1, 4)):
        line = Frame(0, 0, 0, heading).at(0, b.choose((-1, 1)) * (4 + 9 * row + b.uniform(0, 5)))
        for slot in range(-5, 6):
            at = line.at(slot * 2.7, 0, 0, math.pi / 2 + b.choose((0, math.pi)))
            b.box(line, (slot * 2.7 + 1.35, 0, 0.001), (0.06, 2.4, 0.003), paint)
            if b.chance(0.55) and b.claim(at, 1.0):
                car(b, at)
    ground_patches(b, b.count(1, 5))
    scatter_trees(b, b.count(2, 9), 6, 60)
    _scattered_buildings(b, b.count(1, 6), 25, 90)
    for _ in range(b.count(0, 4)):
        angle, away = b.uniform(0, 6.28), b.uniform(4, 25)
        place = Frame(away * math.cos(angle), away * math.sin(angle), 0, b.uniform(0, 6))
        b.choose((lamp_post, traffic_sign, kerb_thing))(b, place)
    for _ in range(b.count(0, 4)):
        furniture.person(b, Frame(b.uniform(-15, 15), b.uniform(-15, 15), 0, b.uniform(0, 6)))
    covers_and_patches(b, Frame(0, 0, 0, heading), 8.0)
    far_hills(b, b.count(0, 5))
    return "mixed"


def _scattered_buildings(b: SceneBuilder, number: int, nearest: float, farthest: float) -> None:
    for _ in range(number):
        angle, away = b.uniform(0, 2 * math.pi), b.uniform(nearest, farthest)
        at = Frame(away * math.cos(angle), away * math.sin(angle), 0, angle + math.pi + b.uniform(-0.5, 0.5))
        building(b, at, b.uniform(6, 20), b.uniform(8, 40), b.uniform(3, 16))


def street(b: SceneBuilder) -> str:
    """A canyon: facades on both sides, sky only above and at the ends."""
    ground(b, "asphalt" if b.chance(0.6) else "paving")
    heading = b.uniform(0, math.pi)
    axis = Frame(0, 0, 0, heading)
    half = b.uniform(2.0, 12)
    shift = b.uniform(-0.7, 0.7) * half
    walk = b.material("paving", b.uniform(1.5, 3), b.gray(0.2, 0.6))
    for side in (-1, 1):
        y = side * half + shift
        if half > 4:
            low, high = sorted((y, y - side * min(3.0, half * 0.4)))
            b.slab(axis, (-200, low, -0.1), (200, high, 0.12), walk)
        along = -b.uniform(45, 80)
        while along < 80:
            width = b.uniform(8, 25)
            if b.chance(0.92):
                building(
                    b,
                    axis.at(along + width / 2, y, 0, -side * math.pi / 2),
                    12,
                    width - (0 if b.chance(0.7) else 2),
                    b.uniform(4, 20),
                )
            along += width
        if half > 4:
            _parked_cars(b, axis, y - side * min(4.2, half * 0.62))
    if half > 4:
        lane_markings(b, axis.at(0, shift), half * 0.6)
        for _ in range(b.count(0, 3)):  # moving
            at = axis.at(b.uniform(-30, 30), shift + b.choose((-1, 1)) * half * 0.2, 0, b.choose((0, math.pi)))
            if b.claim(at, 2.2):
                car(b, at)
    covers_and_patches(b, axis.at(0, shift), half)
    _pavement(b, axis, shift, half)
    return "white"


def _parked_cars(b: SceneBuilder, axis: Frame, y: float) -> None:
    share = b.choose((0.2, 0.6, 0.9))
    for i in range(-6, 7):
        at = axis.at(i * 5.5 + b.uniform(-0.5, 0.5), y, 0, b.choose((0, math.pi)))
        if b.chance(share) and b.claim(at, 2.2):
            car(b, at)


def _pavement(b: SceneBuilder, axis: Frame, shift: float, half: float) -> None:
    """On either side: a row of trees or lamps at equal distances, street furniture, tables and people."""
    kerb = 0.12 if half > 4 else 0.0
    for side in (-1, 1):
        heading = -side * math.pi / 2
        kind, step = b.choose(("trees", "lamps", "none")), b.uniform(6, 14)
        bark, leaf, tall = furniture.wooden(b), leaves(b), b.uniform(4, 9)
        for i in range(-4, 5):
            at = axis.at(i * step, shift + side * half * 0.72, kerb, heading)
            if kind == "trees" and b.chance(0.8) and b.claim(at, 0.6):
                tree(b, at, tall * b.uniform(0.8, 1.2), leaf, bark)
            elif kind == "lamps" and b.claim(at, 0.3):
                lamp_post(b, at)
        for _ in range(b.count(1, 7)):
            at = axis.at(b.uniform(-18, 18), shift + side * half * b.uniform(0.7, 0.85), kerb, heading)
            if b.claim(at, 0.7):
                kerb_thing(b, at)
        for _ in range(b.count(0, 3)):
            at = axis.at(b.uniform(-15, 15), shift + side * half * b.uniform(0.65, 0.9), kerb, b.uniform(0, 6))
            if b.claim(at, 0.4):
                b.choose((furniture.person, furniture.person, cafe_table))(b, at)


def courtyard(b: SceneBuilder) -> str:
    """Walls all round, with real windows and doors, and open above."""
    surface = b.choose(("paving", "paving", "grass", "asphalt", "sand"))
    ground(b, surface)
    width, length = b.uniform(3.5, 22), b.uniform(4, 26)
    off_x, off_y = b.uniform(-0.35, 0.35) * width, b.uniform(-0.35, 0.35) * length
    finish = random_finish(b, b.uniform(2.6, 14))
    corners = [(-width / 2, -length / 2), (width / 2, -length / 2), (width / 2, length / 2), (-width / 2, length / 2)]
    storeyed = finish.height > 4 and b.chance(0.6)
    for i, (x, y) in enumerate(corners):
        to_x, to_y = corners[(i + 1) % 4]
        long = math.hypot(to_x - x, to_y - y)
        openings, along = [], b.uniform(0.6, 1.5)
        while along < long - 2 and b.chance(0.9):
            wide = b.uniform(0.8, 1.8)
            low = b.choose((0.0, 0.8, 0.9, 1.0))
            openings.append(
                Opening(along, along + wide, low, min(2.2, finish.height - 0.2), "door" if low == 0 else "dark pane")
            )
            along += wide + b.uniform(0.6, 3)
        frame = Frame(x + off_x, y + off_y, 0, math.atan2(to_y - y, to_x - x))
        skin = (
            finish.wall
            if b.chance(0.6)
            else b.material(b.choose(("facade", "brick", "plain")), b.uniform(3, 6), b.gray(0.2, 0.85))
        )
        if storeyed:
            facades.front(b, frame.at(long / 2, 0, 0, math.pi / 2), long, finish.height, skin)
        else:
            build_wall(b, Wall(frame, long, tuple(openings)), finish, skin)
    for _ in range(b.count(0, 4)):
        at = Frame(b.uniform(-0.4, 0.4) * width + off_x, b.uniform(-0.4, 0.4) * length + off_y, 0, b.uniform(0, 6))
        if b.claim(at, 0.7):
            b.choose((furniture.plant, cafe_table, bench, bicycle, furniture.bin_or_carton, furniture.person))(b, at)
    if surface in ("paving", "asphalt"):
        covers_and_patches(b, Frame(off_x, off_y), min(width, length) * 0.4)
    if b.chance(0.4):
        scatter_trees(b, b.count(1, 3), 1.6, max(1.8, min(width, length) * 0.4))
    return "white"


def park(b: SceneBuilder) -> str:
    """Trees near and far; often the camera stands right below branches."""
    ground(b, b.choose(("grass", "grass", "grass", "sand", "snow", "rock")))
    nearest = b.choose((1.3, 3.0))
    scatter_trees(b, b.count(8, 30), nearest, 70)
    ground_patches(b, b.count(0, 3))
    for _ in range(b.count(0, 3)):
        angle, away = b.uniform(0, 6.28), b.uniform(3, 15)
        hedge_or_fence(
            b, Frame(away * math.cos(angle), away * math.sin(angle), 0, angle + b.uniform(-0.4, 0.4)), b.uniform(3, 20)
        )
    path = b.material("noise", 2, b.gray(0.2, 0.5))
    b.box(
        Frame(b.uniform(-2, 2), b.uniform(-2, 2), 0, b.uniform(0, 3)),
        (0, 0, 0.001),
        (60, b.uniform(0.6, 2), 0.003),
        path,
    )
    for _ in range(b.count(0, 5)):
        at = Frame(b.uniform(-10, 10), b.uniform(-10, 10), 0, b.uniform(0, 6))
        if b.claim(at, 0.8):
            b.choose((furniture.person, bench, bicycle, lamp_post))(b, at)
    tufts_and_stones(b, b.count(5, 30))
    mounds(b, b.count(0, 4))
    far_hills(b, b.count(0, 4))
    if b.chance(0.4):
        _scattered_buildings(b, b.count(1, 4), 30, 90)
    return "mixed"


def plaza(b: SceneBuilder) -> str:
    ground(b, b.choose(("paving", "paving", "asphalt", "snow")))
    _scattered_buildings(b, b.count(3, 9), 12, 60)
    scatter_trees(b, b.count(0, 8), 4, 40)
    ground_patches(b, b.count(0, 5))
    things = (furniture.person, furniture.person, car, kerb_thing, kerb_thing, bench, cafe_table, planter)
    for _ in range(b.count(3, 12)):
        at = Frame(b.uniform(-15, 15), b.uniform(-15, 15), 0, b.uniform(0, 6))
        if b.claim(at, 1.2):
            b.choose(things)(b, at)
    covers_and_patches(b, WORLD, 12.0)
    if b.chance(0.3):
        size = b.uniform(0.8, 3)
        at = Frame(b.choose((-1, 1)) * b.uniform(4, 10), b.uniform(-8, 8))
        for step in range(5):
            b.box(
                at,
                (0, 0, 0.16 * step + 0.08),
                (size + 1.6 - 0.32 * step, size + 1.6 - 0.32 * step, 0.08),
                b.material("noise", 2, b.gray(0.3, 0.7)),
            )
        b.box(at, (0, 0, 1.6), (size * 0.4, size * 0.4, 0.9), b.material("rock", 2, b.gray(0.1, 0.4)))
    return "mixed"


def field_or_snow(b: SceneBuilder) -> str:
    """Open land with a far horizon."""
    ground(b, b.choose(("grass", "snow", "sand", "asphalt", "rock")))
    scatter_trees(b, b.count(0, 8), 12, 150)
    mounds(b, b.count(0, 8))
    tufts_and_stones(b, b.count(5, 40))
    if b.chance(0.4):
        pole_line(b)
    far_hills(b, b.count(1, 9))
    for _ in range(b.count(0, 3)):
        angle, away = b.uniform(0, 6.28), b.uniform(5, 40)
        hedge_or_fence(b, Frame(away * math.cos(angle), away * math.sin(angle), 0, b.uniform(0, 3)), b.uniform(5, 30))
    for _ in range(b.count(0, 4)):
        size = b.uniform(0.2, 1.4)
        b.begin()
        b.ellipsoid(
            Frame(b.uniform(-15, 15), b.uniform(-15, 15)),
            (0, 0, size * 0.2),
            (size, size * b.uniform(0.5, 1.5), size * b.uniform(0.4, 0.9)),
            b.material("rock", 1.5, b.gray(0.1, 0.4)),
        )
        b.end()
    return "clear"


def mountain_top(b: SceneBuilder) -> str:
    """Rock or snow underfoot that falls away on all sides; valleys and ranges far below."""
    material = (
        b.material("rock", b.uniform(1.5, 5), b.gray(0.15, 0.5, 0.1), b.gray(0.05, 0.25))
        if b.chance(0.75)
        else b.material("noise", 5, b.gray(0.7, 0.9, 0.02))
    )
    valley = -b.uniform(60, 400)
    b.slab(
        WORLD,
        (-HORIZON * 2, -HORIZON * 2, valley - 5),
        (HORIZON * 2, HORIZON * 2, valley),
        b.material("noise", 120, (0.08, 0.14, 0.1), (0.2, 0.26, 0.24)),
    )
    wide = b.uniform(15, 70)
    tall = b.uniform(0.15, 0.5) * wide
    b.ellipsoid(
        Frame(b.uniform(-0.2, 0.2) * wide, b.uniform(-0.2, 0.2) * wide, -tall, b.uniform(0, 3)),
        (0, 0, 0),
        (wide, wide * b.uniform(0.6, 1.4), tall),
        material,
    )
    b.ellipsoid(
        Frame(0, 0, valley),
        (0, 0, 0),
        (-valley * b.uniform(0.8, 1.6), -valley * b.uniform(0.8, 1.6), -valley - tall * 0.6),
        material,
    )
    green = leaves(b)
    for _ in range(b.count(12, 36)):
        angle, away = b.uniform(0, 2 * math.pi), math.exp(b.uniform(math.log(2.0), math.log(wide * 0.7)))
        size = b.uniform(0.05, 0.2) * away + 0.1
        drop = -tall * (1 - math.sqrt(max(0.0, 1 - (away / wide) ** 2)))
        b.begin()
        b.ellipsoid(
            Frame(away * math.cos(angle), away * math.sin(angle), drop, b.uniform(0, 3)),
            (0, 0, 0),
            (size * 2, size * b.uniform(0.6, 1.6), size * b.uniform(0.3, 0.7)),
            green if b.chance(0.3) else material,
        )
        b.end()
    bark, leaf = furniture.wooden(b), leaves(b)
    for _ in range(b.count(0, 14)):
        angle, away = b.uniform(0, 1.5), b.uniform(5, wide * 0.7)
        drop = -tall * (1 - math.sqrt(max(0.0, 1 - (away / wide) ** 2)))
        tree(b, Frame(away * math.cos(angle), away * math.sin(angle), drop, angle), b.uniform(0.8, 4), leaf, bark)
    far_hills(b, b.count(4, 12), valley * 0.6)
    return "clear"


PLACES: tuple[tuple[float, Callable[[SceneBuilder], str]], ...] = (
    (0.2, car_park),
    (0.2, street),
    (0.16, courtyard),
    (0.16, park),
    (0.1, plaza),
    (0.08, field_or_snow),
    (0.1, mountain_top),
)


# ---- light


def random_sky(b: SceneBuilder, weather: str) -> tuple[Sky, float]:
    """A sky, and the strength of its sun from 0 (overcast) to 1."""
    white = weather == "white" or (weather == "mixed" and b.chance(0.45)) or b.chance(0.12)
    tone = b.uniform(0.7, 1.6)
    elevation = math.radians(b.uniform(8, 70))
    azimuth = b.uniform(0, 2 * math.pi)
    sun: Vector = (
        math.cos(elevation) * math.cos(azimuth),
        math.cos(elevation) * math.sin(azimuth),
        math.sin(elevation),
    )
    clouds = b.choose(TEXTURES["clouds"])
    if white and b.chance(0.75):
        bluish = b.uniform(0.0, 0.12)
        dim = b.uniform(0.6, 1.15)
        horizon: Color = (tone * (1 - bluish), tone * (1 - bluish / 2), tone)
        zenith: Color = (horizon[0] * dim, horizon[1] * dim, horizon[2] * dim)
        strength = b.uniform(0, 0.2)
        return Sky(horizon, zenith, b.uniform(0, 0.6), clouds, sun, (0.05, 0.05, 0.05)), strength
    deep = b.uniform(0.45, 1.0)
    zenith = (tone * (1 - 0.85 * deep), tone * (1 - 0.62 * deep), tone * (1 - 0.2 * deep))
    glow = b.uniform(0.2, 1.0)
    strength = b.uniform(0.4, 1.0)
    horizon = (tone * b.uniform(0.55, 1.0), tone * b.uniform(0.8, 1.0), tone)
    return Sky(
        horizon,
        zenith,
        b.uniform(0, 0.9) ** 2,
        clouds,
        sun,
        (glow * strength, glow * strength * 0.95, glow * strength * 0.8),
    ), strength


def sample_outdoor(b: SceneBuilder, seed: int) -> Scene:
    """One outdoor scene from the builder's random numbers."""
    recipe = b.weighted(PLACES)
    b.camera = (0.0, 0.0, b.normal(1.65, 0.2, 1.0, 2.4) if b.chance(0.85) else b.uniform(0.5, 5.0))
    b.footprints.append((0.0, 0.0, 0.5))
    weather = recipe(b)
    sky, strength = random_sky(b, weather)
    warm = b.uniform(0.8, 1.0)
    power = 4.5 * strength
    b.lamps = [
        [
            *(c + SUN_DISTANCE * s for c, s in zip(b.camera, sky.sun, strict=True)),
            SUN_DISTANCE * 0.012,
            power,
            power * warm,
            power * warm * warm,
        ]
    ]
    above: Color = (sky.horizon[0] * 0.6, sky.horizon[1] * 0.62, sky.horizon[2] * 0.66)
    return b.scene(
        seed,
        recipe.__name__,
        ambient=(above, (above[0] * 0.5, above[1] * 0.48, above[2] * 0.42)),
        occlusion_reach=b.uniform(1.5, 4.0),
        heading=b.uniform(0, 2 * math.pi),
        tilt=random_tilt(b, upright=0.65),
        tilt_towards=b.uniform(0, 2 * math.pi),
        sky=sky,
        faults=photo_faults(b.rng, exposure=0.13),
        sunlit=True,
    )
