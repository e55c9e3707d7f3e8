"""Indoor scenes: offices, corridors, meeting rooms, lounges, homes, stores, halls, auditoriums, stairs and arcades.

Sizes, ceiling heights and camera heights follow real buildings: most ceilings at 2.5 to 3.5 m, the camera at about
1.65 m and often beside a wall, a shelf or above a table.
"""

import math
from collections.abc import Callable

from training.synthetic import furniture
from training.synthetic.builder import SceneBuilder, random_tilt
from training.synthetic.camera_faults import photo_faults, scanner_faults
from training.synthetic.halls import arcade, auditorium, staircase
from training.synthetic.rooms import (
    build_shell,
    ceiling_lights,
    ceiling_relief,
    clutter_floor,
    furnish_walls,
    litter,
    place_camera,
    random_spot,
    rectangle,
    room_outline,
    slanted_ceiling,
    table_below_camera,
    table_with_chairs,
    wall_relief,
)
from training.synthetic.scene import WORLD, Frame, Scene, Sky
from training.synthetic.textures import TEXTURES
from training.synthetic.walls import Corner, random_finish

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
    if b.chance(0.1):
        slanted_ceiling(b, room)
    wall_relief(b, room)
    if b.chance(0.14):
        table_below_camera(b)
    if width * length > 18 and b.chance(0.5):
        spot = random_spot(b, room, 1.0)
        if spot and b.claim(Frame(*spot), 0.9):
            table_with_chairs(
                b, Frame(*spot, 0, b.uniform(0, 3)), b.uniform(0.7, 1.2), b.uniform(1.0, 2.2), b.count(0, 6)
            )
    furnish_walls(b, room, b.uniform(0.7, 1.0), OFFICE)
    clutter_floor(b, room, b.count(1, 9))
    litter(b, room, b.count(2, 9))
    ceiling_relief(b, room)
    ceiling_lights(b, room)


def open_office(b: SceneBuilder) -> None:
    width, length = b.uniform(7, 14), b.uniform(6, 16)
    finish = random_finish(b, b.uniform(2.6, 3.6))
    corners = room_outline(b, width, length)
    place_camera(b, corners, finish.height)
    room = build_shell(b, corners, finish, 3.0, 4.0)
    wall_relief(b, room)
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
    litter(b, room, b.count(2, 12))
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
    wall_relief(b, room)
    if b.claim(WORLD, 0.3):
        table_with_chairs(
            b, WORLD, min(width * 0.4, b.uniform(1.0, 1.8)), length * b.uniform(0.4, 0.65), b.count(6, 14)
        )
    furnish_walls(b, room, 0.45, MEETING)
    clutter_floor(b, room, b.count(0, 4))
    litter(b, room, b.count(2, 8))
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
    wall_relief(b, room)
    furnish_walls(b, room, b.uniform(0, 0.25), ("low cabinet", "chair", "plant", "cabinet", "bookcase"))
    litter(b, room, b.count(2, 8))
    ceiling_relief(b, room)
    ceiling_lights(b, room)


def lounge(b: SceneBuilder) -> None:
    width, length = b.uniform(3.5, 9), b.uniform(4, 11)
    finish = random_finish(b, b.normal(2.9, 0.35, 2.4, 4.2))
    corners = room_outline(b, width, length)
    place_camera(b, corners, finish.height)
    room = build_shell(b, corners, finish, 3.0, 2.5)
    if b.chance(0.15):
        slanted_ceiling(b, room)
    wall_relief(b, room)
    if b.chance(0.2):
        table_below_camera(b)
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
    furnish_walls(b, room, 0.55, LOUNGE)
    clutter_floor(b, room, b.count(0, 5))
    litter(b, room, b.count(2, 8))
    ceiling_relief(b, room)
    ceiling_lights(b, room)


def home(b: SceneBuilder) -> None:
    width, length = b.uniform(2.4, 6), b.uniform(2.6, 7)
    finish = random_finish(b, b.normal(2.55, 0.15, 2.2, 3.2))
    corners = room_outline(b, width, length)
    place_camera(b, corners, finish.height)
    room = build_shell(b, corners, finish, 2.5, 2.0)
    if b.chance(0.35):
        slanted_ceiling(b, room)
    wall_relief(b, room)
    if width * length > 14 and b.chance(0.5):
        spot = random_spot(b, room, 1.0)
        if spot and b.claim(Frame(*spot), 0.9):
            table_with_chairs(
                b, Frame(*spot, 0, b.uniform(0, 3)), b.uniform(0.8, 1.1), b.uniform(1.0, 1.9), b.count(2, 6)
            )
    furnish_walls(b, room, b.uniform(0.55, 0.95), HOME)
    clutter_floor(b, room, b.count(0, 5))
    litter(b, room, b.count(2, 8))
    ceiling_lights(b, room)


def store_room(b: SceneBuilder) -> None:
    width, length = b.uniform(2.2, 6), b.uniform(2.6, 8)
    finish = random_finish(b, b.normal(2.9, 0.4, 2.3, 4.2))
    corners = room_outline(b, width, length)
    place_camera(b, corners, finish.height)
    room = build_shell(b, corners, finish, 1.5, 0.5)
    if b.chance(0.3):
        slanted_ceiling(b, room)
    wall_relief(b, room)
    furnish_walls(b, room, 0.85, STORAGE)
    clutter_floor(b, room, b.count(3, 12))
    litter(b, room, b.count(2, 12))
    ceiling_relief(b, room)
    ceiling_lights(b, room)


def hall(b: SceneBuilder) -> None:
    """A lobby or hall with columns, counters and far walls."""
    width, length = b.uniform(7, 20), b.uniform(8, 28)
    finish = random_finish(b, b.uniform(2.8, 4.5) if b.chance(0.6) else b.uniform(4.0, 8.0))
    corners = room_outline(b, width, length)
    place_camera(b, corners, finish.height)
    room = build_shell(b, corners, finish, 4.0, 3.0)
    wall_relief(b, room)
    if b.chance(0.15):
        table_below_camera(b)
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
    furnish_walls(b, room, 0.35, LOUNGE)
    clutter_floor(b, room, b.count(0, 6))
    litter(b, room, b.count(2, 8))
    for _ in range(b.count(0, 3)):
        spot = random_spot(b, room, 0.6)
        if spot and b.claim(Frame(*spot), 0.4):
            furniture.person(b, Frame(*spot, 0, b.uniform(0, 6)))
    ceiling_relief(b, room)
    ceiling_lights(b, room)


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


def outside(b: SceneBuilder, brightness: float, level: float) -> Sky:
    """Ground at `level`, facades and trees, seen through windows, and the sky above them."""
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
    recipe = b.weighted(ROOMS)
    recipe(b)
    level = -0.15 if recipe is arcade else -b.choose((0.15, 0.3, 3.5, 7.0))
    sky = outside(b, b.choose((0.02, 0.6, 1.5, 4.0)), level)
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
