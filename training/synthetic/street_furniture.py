"""What stands in streets and on squares: cars, bicycles, bollards, signs, lamps, benches, stops, bins and markings.

A thing stands on the ground at its frame and looks to +x. Sizes in metres follow common real ones.
"""

import math
from collections.abc import Callable

from training.synthetic import clutter, furniture
from training.synthetic.builder import SceneBuilder
from training.synthetic.scene import Frame

DETAIL = 16.0  # metres from the camera within which cars and signs get their small parts


def car(b: SceneBuilder, at: Frame) -> None:
    """A car or a van along local x, 4 to 5 m."""
    colour = b.gray(0.02, 0.8) if b.chance(0.65) else b.vivid(0.05, 0.5)
    paint = b.material("plain", 2.0, colour, gloss=0.6)
    glass = b.material("plain", 2.0, b.gray(0.01, 0.05), gloss=0.8)
    rubber = b.material("plain", 1.0, b.gray(0.008, 0.03))
    long, half, tall = b.uniform(1.95, 2.5), b.uniform(0.82, 0.95), b.uniform(1.35, 1.95)
    van = tall > 1.75
    b.begin()
    b.box(at, (0, 0, 0.55), (long, half, 0.3), paint)
    cabin = long * (0.8 if van else 0.55)
    b.box(at, (-0.15 * long, 0, (tall + 0.85) / 2), (cabin, half * 0.9, (tall - 0.85) / 2), glass)
    b.box(at, (-0.15 * long, 0, tall), (cabin * 0.95, half * 0.88, 0.04), paint)
    b.box(at, (-0.15 * long + cabin, 0, (tall + 0.8) / 2), (0.04, half * 0.86, (tall - 0.8) / 1.6), glass, pitch=-0.6)
    for x in (-0.62 * long, 0.62 * long):
        for y in (-half + 0.08, half - 0.08):
            b.cylinder(at, x, y, 0.32, 0.21, 0.43, rubber, roll=math.pi / 2)
    if clutter.is_near(b, at, DETAIL):
        _car_parts(b, at, (long, half, tall), cabin, paint)
    b.end()


def _car_parts(b: SceneBuilder, at: Frame, size: tuple[float, float, float], cabin: float, paint: int) -> None:
    """Pillars between the windows, lights, plates, mirrors and hub caps."""
    long, half, tall = size
    front = b.material("plain", 1.0, (0.7, 0.7, 0.65), gloss=0.8)
    rear = b.material("plain", 1.0, (0.35, 0.01, 0.01), gloss=0.6)
    dark, plate = furniture.dark_plastic(b), b.material("writing", 0.4, b.gray(0.6, 0.9), b.gray(0.02, 0.1))
    for share in (-0.95, -0.1, 0.6):
        b.box(at, (-0.15 * long + share * cabin, 0, (tall + 0.85) / 2), (0.05, half * 0.91, (tall - 0.85) / 2), paint)
    for end, lens in ((1, front), (-1, rear)):
        for y in (-0.72, 0.72):
            b.box(at, (end * long, y * half, 0.68), (0.02, 0.14, 0.07), lens)
        b.box(at, (end * long, 0, 0.42), (0.03, half * 0.9, 0.1), dark)
        b.box(at, (end * (long + 0.02), 0, 0.5), (0.02, 0.26, 0.055), plate)
    for y in (-half - 0.08, half + 0.08):
        b.box(at, (0.3 * long, y, 0.98), (0.05, 0.08, 0.06), paint)
    hub = b.material("plain", 1.0, b.gray(0.3, 0.7), gloss=0.4)
    for x in (-0.62 * long, 0.62 * long):
        for y in (-half - 0.035, half + 0.035):
            b.cylinder(at, x, y, 0.18, 0.31, 0.33, hub, roll=math.pi / 2)


def bicycle(b: SceneBuilder, at: Frame) -> None:
    """Two thin wheels and a frame, along local x."""
    frame, tyre = (
        furniture.metal(b) if b.chance(0.4) else b.material("plain", 1, b.vivid(0.05, 0.6)),
        furniture.dark_plastic(b),
    )
    b.begin()
    for x in (-0.52, 0.52):
        b.cylinder(at, x, 0, 0.34, 0.325, 0.355, tyre, roll=math.pi / 2)
    b.box(at, (0, 0, 0.78), (0.3, 0.02, 0.02), frame)
    b.box(at, (0.1, 0, 0.52), (0.3, 0.02, 0.02), frame, pitch=-0.8)
    b.box(at, (-0.25, 0, 0.6), (0.02, 0.02, 0.32), frame, pitch=-0.25)
    b.box(at, (0.44, 0, 0.68), (0.02, 0.02, 0.34), frame, pitch=-0.3)
    b.box(at, (-0.32, 0, 0.95), (0.12, 0.07, 0.03), tyre)
    b.box(at, (0.36, 0, 1.02), (0.015, 0.28, 0.015), tyre)
    b.end()


def bollards(b: SceneBuilder, at: Frame) -> None:
    """A row of equal ones along local y."""
    number, gap = b.count(3, 8), b.uniform(1.2, 2.2)
    paint, radius, tall = furniture.metal(b), b.uniform(0.05, 0.14), b.uniform(0.6, 1.1)
    for i in range(number):
        b.begin()
        b.cylinder(at, 0, (i - number / 2) * gap, radius, 0, tall, paint)
        b.end()


def traffic_sign(b: SceneBuilder, at: Frame) -> None:
    """One or two plates on a post."""
    post, top = furniture.metal(b), b.uniform(2.1, 2.8)
    b.begin()
    b.cylinder(at, 0, 0, 0.035, 0, top + 0.3, post)
    for i in range(b.count(1, 2)):
        z = top - 0.65 * i
        face = b.material(
            b.choose(("poster", "writing")), 0.9, b.choose(((0.5, 0.02, 0.02), (0.02, 0.08, 0.4))), b.gray(0.6, 0.9)
        )
        if b.chance(0.5):
            b.cylinder(at, 0.05, 0, 0.3, z - 0.015, z + 0.015, face, pitch=math.pi / 2)
        else:
            b.box(at, (0.05, 0, z), (0.015, b.uniform(0.25, 0.5), 0.25), face)
    b.end()


def lamp_post(b: SceneBuilder, at: Frame) -> None:
    """A mast with an arm or a lantern."""
    post, tall = furniture.metal(b), b.uniform(3.5, 9)
    b.begin()
    b.cylinder(at, 0, 0, 0.12, 0, 0.9, post)
    b.cylinder(at, 0, 0, b.uniform(0.05, 0.08), 0.9, tall, post)
    if b.chance(0.6):
        b.box(at, (0.6, 0, tall), (0.65, 0.06, 0.05), post)
        b.box(at, (1.2, 0, tall - 0.05), (0.3, 0.13, 0.06), b.material("plain", 1, b.gray(0.4, 0.9)))
    else:
        b.cylinder(at, 0, 0, 0.2, tall, tall + 0.45, b.material("plain", 1, b.gray(0.5, 0.95)))
        b.cylinder(at, 0, 0, 0.3, tall + 0.45, tall + 0.52, post)
    b.end()


def bench(b: SceneBuilder, at: Frame) -> None:
    """Slats on two frames."""
    wood, iron = furniture.wooden(b), furniture.metal(b)
    b.begin()
    for i in range(4):
        b.box(at, (0.12 * i, 0, 0.44), (0.045, 0.85, 0.02), wood)
    if b.chance(0.7):
        for z in (0.62, 0.76):
            b.box(at, (-0.1, 0, z), (0.02, 0.85, 0.05), wood)
    for y in (-0.65, 0.65):
        b.slab(at, (-0.08, y - 0.03, 0), (0.4, y + 0.03, 0.42), iron)
    b.end()


def bus_stop(b: SceneBuilder, at: Frame) -> None:
    """Roof on posts, back with posters, bench."""
    iron, glass = furniture.metal(b), b.material("poster", 2.0, b.gray(0.05, 0.3), b.gray(0.4, 0.9))
    half = b.uniform(1.4, 2.2)
    b.begin()
    b.slab(at, (-0.1, -half, 2.3), (1.5, half, 2.4), iron)
    for y in (-half + 0.05, 0.0, half - 0.05):
        b.cylinder(at, 0, y, 0.04, 0, 2.3, iron)
    b.slab(at, (-0.03, -half + 0.1, 0.3), (0.0, -0.1, 2.1), glass)
    b.slab(at, (0.0, half - 0.02, 0.3), (1.2, half, 2.1), glass)
    b.slab(at, (0.1, 0.1, 0.42), (0.45, half - 0.2, 0.47), iron)
    b.end()


def street_box(b: SceneBuilder, at: Frame) -> None:
    """Cabinet of the electricity or telephone company, letter box, big bin."""
    paint, tall = furniture.furniture_finish(b), b.uniform(0.45, 0.75)
    b.begin()
    b.box(at, (0, 0, tall), (b.uniform(0.15, 0.45), b.uniform(0.25, 0.65), tall), paint)
    b.box(at, (0, 0, 2 * tall), (0.2, 0.3, 0.04), paint)
    b.end()


def cafe_table(b: SceneBuilder, at: Frame) -> None:
    """A round table with two to four chairs, perhaps under a parasol."""
    top = furniture.furniture_finish(b)
    b.begin()
    b.cylinder(at, 0, 0, 0.35, 0.7, 0.73, top)
    b.cylinder(at, 0, 0, 0.03, 0, 0.7, top)
    clutter.desk_things(b, at.at(-0.25, 0, 0.73), 0.5, 0.4, 2)
    if b.chance(0.35):
        b.cylinder(at, 0, 0, 0.025, 0.73, 2.3, top)
        b.ellipsoid(at, (0, 0, 2.25), (1.3, 1.3, 0.25), b.material("stripe", 2.0, b.vivid(0.1, 0.6), b.gray(0.6, 0.9)))
    b.end()
    for i in range(b.count(2, 4)):
        turn = i * math.pi / 2 + b.uniform(-0.4, 0.4)
        furniture.chair(b, at.at(0.7 * math.cos(turn), 0.7 * math.sin(turn), 0, turn + math.pi))


def construction_fence(b: SceneBuilder, at: Frame) -> None:
    """Striped boards on feet, in a row."""
    board = b.material("stripe", 0.6, (0.6, 0.02, 0.02), b.gray(0.7, 0.9))
    b.begin()
    for i in range(b.count(2, 5)):
        y = 1.6 * i
        b.box(at, (0, y, 0.9), (0.02, 0.7, 0.12), board)
        for side in (-0.6, 0.6):
            b.box(at, (0, y + side, 0.5), (0.025, 0.025, 0.5), board)
    b.end()


KERB_THINGS: tuple[tuple[float, Callable[[SceneBuilder, Frame], None]], ...] = (
    (0.2, lamp_post),
    (0.18, traffic_sign),
    (0.12, bollards),
    (0.12, bicycle),
    (0.1, street_box),
    (0.1, bench),
    (0.05, bus_stop),
    (0.08, furniture.bin_or_carton),
    (0.05, construction_fence),
)


def kerb_thing(b: SceneBuilder, at: Frame) -> None:
    """One thing that stands between carriageway and houses."""
    b.weighted(KERB_THINGS)(b, at)


# ---- on the carriageway


def lane_markings(b: SceneBuilder, axis: Frame, half_width: float) -> None:
    """A broken line in the middle, edges, and perhaps a crossing; along local x."""
    paint = b.material("noise", 1.0, b.gray(0.5, 0.9, 0.05))
    long, gap = b.uniform(1.5, 4), b.uniform(2, 6)
    for i in range(-8, 9):
        b.box(axis, (i * (long + gap), 0, 0.001), (long / 2, 0.07, 0.003), paint)
    if b.chance(0.6):
        for side in (-1, 1):
            b.box(axis, (0, side * half_width * 0.92, 0.001), (120, 0.06, 0.003), paint)
    if b.chance(0.4):
        start = b.uniform(3, 20) * b.choose((-1, 1))
        stripes = max(3, int(half_width / 0.5))
        for i in range(stripes):
            y = ((i + 0.5) / stripes - 0.5) * 1.8 * half_width
            b.box(axis, (start, y, 0.001), (1.6, 0.25, 0.004), paint)


def covers_and_patches(b: SceneBuilder, axis: Frame, half_width: float) -> None:
    """Manhole covers, drains, and asphalt of another age."""
    for _ in range(b.count(2, 7)):
        place = axis.at(b.uniform(-15, 15), b.uniform(-0.9, 0.9) * half_width, 0, b.choose((0.0, math.pi / 2)))
        if b.chance(0.5):
            b.cylinder(place, 0, 0, 0.32, -0.01, 0.004, b.material("checker", 0.3, b.gray(0.03, 0.2), b.gray(0.1, 0.4)))
        else:
            size = (b.uniform(0.3, 1.2), b.uniform(0.5, 4), 0.003)
            b.box(place, (0, 0, 0), size, b.material("speckle", 1.0, b.gray(0.02, 0.3)))
