"""The `real-like` domain: rendered scenes that stand in for photographs without labels.

A labeler that has seen the `standard` domain alone has never met these layouts (attics, rotundas, vaults, rooms like a
cross; markets, container yards, quarries, terraces), materials (families of textures and schemes of colour of their
own), lights (few, small, coloured, with hard shadows; low suns) or cameras (two lenses that disagree, strong noise and
compression). So its domain gap can be measured, and what a pipeline closes of it, with an exact truth. Sizes and camera
heights follow reality as in the standard domain: what differs is how things look and how they stand, not the metre.
"""

import math
import random
from collections.abc import Callable
from dataclasses import replace

from training.synthetic import furniture
from training.synthetic.builder import SceneBuilder, random_tilt
from training.synthetic.indoor import HOME, LOUNGE, OFFICE, STORAGE, outside
from training.synthetic.outdoor import SUN_DISTANCE, ground, random_sky
from training.synthetic.rooms import Room, build_shell, clutter_floor, furnish_walls, place_camera, rectangle
from training.synthetic.scene import WORLD, Color, Faults, Frame, Scene
from training.synthetic.textures import TEXTURES
from training.synthetic.walls import Corner, random_finish

# What becomes of a texture family of the standard domain; the others stay as they are.
FAMILIES = {
    "plain": ("plaster", "plaster", "weave"),
    "noise": ("terrazzo", "plaster"),
    "speckle": ("weave", "terrazzo"),
    "tile": ("hexagons", "terrazzo"),
    "wood": ("herringbone",),
    "brick": ("hexagons", "rock"),
    "paving": ("hexagons", "herringbone"),
}


class RealLikeBuilder(SceneBuilder):
    """Puts together scenes of other materials under other lights.

    Each scene has one scheme of colours: everything in it leans towards one tint, and is darker than in the standard
    domain.
    """

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._tint = self.vivid(0.5, 0.9)
        self._lean = self.uniform(0.15, 0.6)
        self._depth = self.uniform(1.0, 1.5)

    def material(
        self,
        texture: str,
        scale: float,
        color: Color,
        second: Color | None = None,
        emission: float = 0.0,
        gloss: float = 0.0,
    ) -> int:
        """As in the standard domain, but of other families and in the scene's colours; what shines keeps its own."""
        if emission:
            return super().material(texture, scale, color, second, emission, gloss)
        family = self.choose(FAMILIES.get(texture, (texture,)))
        shaded = None if second is None else self._in_scheme(second)
        return super().material(family, scale * 0.7, self._in_scheme(color), shaded, gloss=min(1.0, gloss + 0.2))

    def _in_scheme(self, color: Color) -> Color:
        red, green, blue = (
            (1 - self._lean) * c**self._depth + self._lean * c**self._depth * t * 1.6
            for c, t in zip(color, self._tint, strict=True)
        )
        return red, green, blue


def small_lamps(b: SceneBuilder, room: Room, height: float, number: int) -> None:
    """Hanging bulbs of one strong colour, far from each other: hard shadows and dark corners."""
    x0, y0, x1, y1 = room.bounds
    hue = b.vivid(0.6, 1.0)
    power = b.uniform(2.0, 6.0) * height * height / 8
    tone = (power * (0.4 + 0.6 * hue[0]), power * (0.4 + 0.6 * hue[1]), power * (0.4 + 0.6 * hue[2]))
    glow = b.material("plain", 1.0, (1, 0.95, 0.85), emission=b.uniform(4.0, 12.0))
    for _ in range(number):
        at = Frame(b.uniform(0.75 * x0, 0.75 * x1), b.uniform(0.75 * y0, 0.75 * y1), height - b.uniform(0.15, 0.8))
        b.ellipsoid(at, (0, 0, 0), (0.06, 0.06, 0.08), glow)
        b.lamp((at.x, at.y, at.z - 0.15), 0.08, tone)


def _furnish(b: SceneBuilder, room: Room, lamp_height: float) -> None:
    furnish_walls(b, room, b.uniform(0.3, 0.9), b.choose((OFFICE, LOUNGE, HOME, STORAGE)))
    clutter_floor(b, room, b.count(2, 12))
    small_lamps(b, room, lamp_height, b.count(1, 4))


# ---- rooms


def attic(b: SceneBuilder) -> None:
    """Under a steep roof: low walls on two sides, slopes up to a ridge."""
    width, length, knee = b.uniform(4, 9), b.uniform(4, 11), b.uniform(0.9, 1.6)
    ridge = b.uniform(2.6, 4.2)
    finish = random_finish(b, ridge)
    corners = rectangle(width, length)
    place_camera(b, rectangle(width * 0.4, length), ridge)
    room = build_shell(b, corners, finish, 0.7, 0.7)
    slope = math.atan2(ridge - knee, width / 2)
    half = math.hypot(ridge - knee, width / 2) / 2 + 0.1
    for side in (-1, 1):
        at = Frame(side * width / 4, 0, (ridge + knee) / 2)
        b.box(at, (0, 0, 0.06), (half, length / 2 + 0.2, 0.05), finish.ceiling, pitch=side * slope)
        for beam in range(b.count(0, 5)):
            y = (beam + 0.5) / 5 * length - length / 2
            b.box(at.at(0, y), (0, 0, -0.05), (half, 0.06, 0.09), finish.trim, pitch=side * slope)
    _furnish(b, room, ridge - 0.2)


def rotunda(b: SceneBuilder) -> None:
    """A room of six to twelve equal walls."""
    sides, radius = b.count(6, 12), b.uniform(2.2, 8.0)
    turn = b.uniform(0, math.pi)
    angles = [turn + 2 * math.pi * i / sides for i in range(sides)]
    corners: tuple[Corner, ...] = tuple((radius * math.cos(a), radius * math.sin(a)) for a in angles)
    finish = random_finish(b, b.uniform(2.4, 3.0) + 0.35 * radius)
    place_camera(b, corners, finish.height)
    room = build_shell(b, corners, finish, 2.0, 3.0)
    if b.chance(0.5):
        for angle in angles:
            at = Frame(0.72 * radius * math.cos(angle), 0.72 * radius * math.sin(angle))
            b.begin()
            b.cylinder(at, 0, 0, 0.05 * radius, 0, finish.height, finish.trim)
            b.end()
            b.claim(at, 0.1 * radius)
    _furnish(b, room, finish.height)


def cross_room(b: SceneBuilder) -> None:
    """Two wings that cross."""
    x, y = b.uniform(3, 8), b.uniform(3, 10)
    u, v = b.uniform(0.25, 0.6) * x, b.uniform(0.25, 0.6) * y
    corners: tuple[Corner, ...] = (
        (-u, -y), (u, -y), (u, -v), (x, -v), (x, v), (u, v), (u, y), (-u, y), (-u, v), (-x, v), (-x, -v), (-u, -v),
    )  # fmt: skip
    finish = random_finish(b, b.uniform(2.3, 4.0))
    place_camera(b, corners, finish.height)
    _furnish(b, build_shell(b, corners, finish, 3.0, 3.0), finish.height)


def vault(b: SceneBuilder) -> None:
    """A long cellar under a barrel vault."""
    width, length, spring = b.uniform(2.6, 7), b.uniform(6, 30), b.uniform(1.2, 2.0)
    height = spring + width / 2
    finish = random_finish(b, height)
    place_camera(b, rectangle(width * 0.6, length), height)
    room = build_shell(b, rectangle(width, length), finish, 1.0, 0.3)
    blocks = 10
    half = math.pi * width / 4 / blocks * 1.15
    for i in range(blocks):
        angle = math.pi * (i + 0.5) / blocks
        middle = (math.cos(angle) * (width / 2 + 0.1), 0.0, spring + math.sin(angle) * (width / 2 + 0.1))
        b.box(WORLD, middle, (0.1, length / 2 + 0.1, half), finish.accent, pitch=-angle)
    _furnish(b, room, height - 0.4)


# ---- places


def market(b: SceneBuilder) -> None:
    """Rows of stalls with goods under awnings, and people."""
    ground(b, b.choose(("paving", "asphalt", "sand")))
    heading, lane = b.uniform(0, math.pi), b.uniform(1.6, 4.0)
    for side in (-1, 1):
        for slot in range(-6, 7):
            at = Frame(0, 0, 0, heading).at(slot * 3.2, side * lane, 0, -side * math.pi / 2)
            if b.chance(0.8) and b.claim(at, 0.6):
                _stall(b, at)
    for _ in range(b.count(2, 10)):
        at = Frame(b.uniform(-12, 12), b.uniform(-12, 12), 0, b.uniform(0, 6))
        if b.claim(at, 0.4):
            furniture.person(b, at)
    _blocks_around(b, b.count(4, 10), 14, 60)


def _stall(b: SceneBuilder, at: Frame) -> None:
    """Its front looks to +x."""
    wood, cloth = furniture.wooden(b), b.material("stripe", b.uniform(0.4, 1.0), b.vivid(0.2, 0.8), b.gray(0.6, 0.9))
    high = b.uniform(2.0, 2.6)
    b.begin()
    b.slab(at, (-1.1, -1.3, 0), (0, 1.3, b.uniform(0.7, 0.95)), wood)
    b.slab(at, (-0.9, -1.2, 0.95), (-0.2, 1.2, 1.0 + b.uniform(0.05, 0.3)), b.material("clutter", 0.8, b.vivid()))
    for y in (-1.35, 1.35):
        b.cylinder(at, -0.02, y, 0.03, 0, high, wood)
        b.cylinder(at, -1.3, y, 0.03, 0, high + 0.4, wood)
    b.box(at, (-0.6, 0, high + 0.25), (1.0, 1.6, 0.02), cloth, pitch=b.uniform(0.15, 0.35))
    b.end()


def container_yard(b: SceneBuilder) -> None:
    """Stacks of shipping containers, 2.44 m wide and 2.59 m high."""
    ground(b, "asphalt")
    yard = Frame(0, 0, 0, b.uniform(0, math.pi))
    along, across = b.uniform(13, 15), b.uniform(3.5, 6.5)
    for row in range(-3, 4):
        for slot in range(-2, 3):
            at = yard.at(slot * along, row * across + 2.6)
            if (slot == 0 and abs(row * across + 2.6) < 2.0) or b.chance(0.35):
                continue
            for level in range(b.count(1, 4)):
                steel = b.material("stripe", 0.6, b.vivid(0.05, 0.5))
                b.begin()
                b.slab(at, (-6.06, -1.22, 2.59 * level), (6.06, 1.22, 2.59 * (level + 1) - 0.03), steel)
                b.end()


def quarry(b: SceneBuilder) -> None:
    """Rock walls and boulders on all sides."""
    ground(b, b.choose(("rock", "sand")))
    stone = b.material("rock", b.uniform(2, 6), b.wood(0.15, 0.5), b.gray(0.05, 0.2))
    for _ in range(b.count(10, 26)):
        angle, away = b.uniform(0, 2 * math.pi), b.uniform(4, 60)
        size = away * b.uniform(0.15, 0.4)
        half = (size, size * b.uniform(0.6, 1.6), size * b.uniform(0.5, 2.0))
        b.begin()
        b.box(
            Frame(away * math.cos(angle), away * math.sin(angle), 0, angle),
            (size, 0, 0),
            half,
            stone,
            yaw=b.uniform(-0.5, 0.5),
            pitch=b.uniform(-0.3, 0.3),
            roll=b.uniform(-0.3, 0.3),
        )
        b.end()


def terraces(b: SceneBuilder) -> None:
    """Steps of land with walls of stone, up on one side; bushes on them."""
    ground(b, b.choose(("grass", "sand")))
    at = Frame(0, 0, 0, b.uniform(0, 2 * math.pi))
    stone = b.material("brick", b.uniform(1.5, 3), b.wood(0.2, 0.5))
    earth = b.material("grass", 3.0, (0.03, 0.05, 0.01), (b.uniform(0.1, 0.4), b.uniform(0.15, 0.3), 0.05))
    start, level = b.uniform(2.5, 8), 0.0
    for _ in range(b.count(3, 9)):
        rise, deep = b.uniform(0.6, 2.4), b.uniform(2, 9)
        b.slab(at, (start, -80, level - 0.5), (start + 0.4, 80, level + rise), stone)
        level += rise
        b.slab(at, (start + 0.3, -80, level - 0.7), (start + 100, 80, level - 0.02), earth)
        for _ in range(b.count(1, 5)):
            size = b.uniform(0.3, 0.9)
            middle = (start + deep / 2, b.uniform(-25, 25), level + size / 2)
            b.ellipsoid(at, middle, (size, size, size), b.material("leaf", 0.8, (0.02, 0.03, 0.01), (0.2, 0.2, 0.05)))
        start += deep
    _blocks_around(b, b.count(0, 4), 40, 90)


def _blocks_around(b: SceneBuilder, number: int, nearest: float, farthest: float) -> None:
    """Houses without windows to count storeys by."""
    for _ in range(number):
        angle, away = b.uniform(0, 2 * math.pi), b.uniform(nearest, farthest)
        at = Frame(away * math.cos(angle), away * math.sin(angle), 0, angle + b.uniform(-0.5, 0.5))
        wall = b.material(b.choose(("noise", "brick", "stripe")), b.uniform(1.5, 5), b.wood(0.15, 0.7))
        b.slab(at, (0, -b.uniform(3, 15), -1), (b.uniform(5, 15), b.uniform(3, 15), b.uniform(3, 18)), wall)


ROOMS: tuple[Callable[[RealLikeBuilder], None], ...] = (attic, rotunda, cross_room, vault)
PLACES: tuple[Callable[[RealLikeBuilder], None], ...] = (market, container_yard, quarry, terraces)


Camera = Callable[[random.Random, float], Faults]
"""Draws the faults of a camera; the number is the usual mean brightness of its pictures."""


def sample_real_like(b: RealLikeBuilder, seed: int, outdoors: bool, camera: Camera) -> Scene:
    """One scene of the domain from the builder's random numbers."""
    return (_place if outdoors else _room)(b, seed, camera)


def _room(b: RealLikeBuilder, seed: int, camera: Camera) -> Scene:
    recipe = b.choose(ROOMS)
    recipe(b)
    sky = outside(b, b.choose((0.02, 0.3, 2.0)), -0.15)
    base = b.uniform(0.04, 0.2)
    cool = b.uniform(0.7, 1.5)
    above = (base, base, base * cool)
    lift = b.uniform(0.2, 0.7)
    return b.scene(
        seed,
        recipe.__name__,
        ambient=(above, (above[0] * lift, above[1] * lift, above[2] * lift)),
        occlusion_reach=b.uniform(0.4, 1.2),
        heading=b.uniform(0, 2 * math.pi),
        tilt=random_tilt(b, upright=0.5),
        tilt_towards=b.uniform(0, 2 * math.pi),
        sky=sky,
        faults=camera(b.rng, 0.15),
    )


def _place(b: RealLikeBuilder, seed: int, camera: Camera) -> Scene:
    recipe = b.choose(PLACES)
    b.camera = (0.0, 0.0, b.normal(1.75, 0.25, 1.0, 2.8))
    b.footprints.append((0.0, 0.0, 0.5))
    recipe(b)
    sky, strength = random_sky(b, "mixed")
    # The sun of morning and evening: low, warm, with long shadows.
    low, azimuth = math.radians(b.uniform(4, 18)), math.atan2(sky.sun[1], sky.sun[0])
    sun = (math.cos(low) * math.cos(azimuth), math.cos(low) * math.sin(azimuth), math.sin(low))
    red, green, blue = sky.horizon
    warm = b.uniform(0.4, 0.8)
    sky = replace(
        sky, sun=sun, horizon=(red, green * warm, blue * warm * warm), cloud_texture=b.choose(TEXTURES["clouds"])
    )
    power = 5.0 * strength
    x, y, z = (c + SUN_DISTANCE * s for c, s in zip(b.camera, sun, strict=True))
    b.lamps = [[x, y, z, SUN_DISTANCE * 0.008, power, power * warm, power * warm * warm]]
    fill = b.uniform(0.25, 0.5)
    above = (blue * fill * 0.7, blue * fill * 0.85, blue * fill)
    return b.scene(
        seed,
        recipe.__name__,
        ambient=(above, (above[0] * 0.4, above[1] * 0.4, above[2] * 0.4)),
        occlusion_reach=b.uniform(1.0, 3.0),
        heading=b.uniform(0, 2 * math.pi),
        tilt=random_tilt(b, upright=0.5),
        tilt_towards=b.uniform(0, 2 * math.pi),
        sky=sky,
        faults=camera(b.rng, 0.11),
        sunlit=True,
    )
