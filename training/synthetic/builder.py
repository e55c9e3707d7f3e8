"""The hand that puts a scene together, piece by piece: solids, materials and lamps, all chance from one generator."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from training.synthetic.scene import (
    BOX,
    CYLINDER,
    ELLIPSOID,
    Color,
    Faults,
    Frame,
    Scene,
    Sky,
    Vector,
    rotation,
    tilted,
)
from training.synthetic.textures import TEXTURES

T = TypeVar("T")
Materials = int | tuple[int, int, int]

STRUCTURE = 0  # owner of walls, floors and whatever else must stay, however near the camera
CLEARANCE = 0.22  # metres between the camera and the nearest movable thing


@dataclass
class SceneBuilder:
    """Collects the parts of one scene; all chance comes from `rng`, so a seed says everything.

    Attributes:
        camera: metres; movable things keep away from it.
        solids: rows of kind, centre, half sizes, rotation and three materials.
        owners: for each solid, the movable object it belongs to, or STRUCTURE.
        materials: rows as in Scene.
        lamps: rows as in Scene.
        footprints: circles on the floor that are taken, x, y and radius in metres.
        uplight: light on faces that look down, beyond the usual, as a share of what falls on those that look up.
    """

    rng: random.Random
    camera: Vector = (0.0, 0.0, 1.6)
    solids: list[list[float]] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    materials: list[list[float]] = field(default_factory=list)
    lamps: list[list[float]] = field(default_factory=list)
    footprints: list[tuple[float, float, float]] = field(default_factory=list)
    uplight: float = 0.0
    owner: int = STRUCTURE
    owner_count: int = 0

    # ---- chance
    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.rng.random()

    def normal(self, mean: float, deviation: float, low: float, high: float) -> float:
        return min(max(self.rng.gauss(mean, deviation), low), high)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def count(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return low + int(self.rng.random() * (high - low + 1))

    def choose(self, options: Sequence[T]) -> T:
        return options[int(self.rng.random() * len(options))]

    def weighted(self, options: Sequence[tuple[float, T]]) -> T:
        """One of the options, each a weight and what it is the weight of."""
        rest = self.rng.random() * sum(weight for weight, _ in options)
        for weight, option in options:
            rest -= weight
            if rest < 0:
                return option
        return options[-1][1]

    # ---- colours, linear RGB
    def gray(self, low: float, high: float, tint: float = 0.06) -> Color:
        g = self.uniform(low, high)
        r, b = 1 + self.uniform(-tint, tint), 1 + self.uniform(-tint, tint)
        return g * r, g, g * b

    def vivid(self, low: float = 0.03, high: float = 0.6) -> Color:
        hue = [self.rng.random() for _ in range(3)]
        least, most = min(hue), max(hue)
        value, depth = self.uniform(low, high), self.uniform(0.3, 1.0)
        r, g, b = (value * (1 - depth * (1 - (h - least) / (most - least + 1e-6))) for h in hue)
        return r, g, b

    def wood(self, low: float = 0.04, high: float = 0.55) -> Color:
        g = self.uniform(low, high)
        return g, g * self.uniform(0.48, 0.75), g * self.uniform(0.2, 0.55)

    # ---- parts
    def material(
        self,
        texture: str,
        scale: float,
        color: Color,
        second: Color | None = None,
        emission: float = 0.0,
        gloss: float = 0.0,
    ) -> int:
        """Adds a material and gives its number.

        Args:
            texture: a family of the texture bank.
            scale: metres after which the texture repeats.
            color: linear RGB where the texture is dark.
            second: linear RGB where it is bright; by default a shade of `color`, a faint one on plain surfaces.
            emission: light given off, as a multiple of the colour.
            gloss: strength of the mirror images of lamps.
        """
        if second is None:
            faint = texture == "plain"
            factor = (
                self.uniform(0.8, 0.97)
                if faint
                else self.uniform(0.4, 0.75)
                if self.chance(0.7)
                else self.uniform(1.1, 1.5)
            )
            second = (color[0] * factor, color[1] * factor, color[2] * factor)
        index = self.choose(TEXTURES[texture])
        self.materials.append(
            [
                index,
                scale,
                *(min(c, 1.0) for c in (*color, *second)),
                emission,
                gloss,
                self.rng.random(),
                self.rng.random(),
            ]
        )
        return len(self.materials) - 1

    def lamp(self, position: Vector, radius: float, color: Color) -> None:
        self.lamps.append([*position, radius, *color])

    def begin(self) -> None:
        """Starts a movable object: solids up to `end` are left out together if they come too near the camera."""
        self.owner_count += 1
        self.owner = self.owner_count

    def end(self) -> None:
        self.owner = STRUCTURE

    def claim(self, at: Frame, radius: float) -> bool:
        """True, and the circle on the floor is taken, if nothing stands there yet."""
        if any((at.x - x) ** 2 + (at.y - y) ** 2 < (radius + r) ** 2 for x, y, r in self.footprints):
            return False
        self.footprints.append((at.x, at.y, radius))
        return True

    def _solid(self, kind: int, at: Frame, center: Vector, half: Vector, material: Materials, turn: Vector) -> None:
        """Adds a solid; one without thickness is left out."""
        if min(half) < 1e-4:
            return
        faces = (material, material, material) if isinstance(material, int) else material
        yaw, pitch, roll = turn
        row = [float(kind), *at.point(*center), *half, *rotation(at.yaw + yaw, pitch, roll), *faces]
        self.solids.append(row)
        self.owners.append(self.owner)

    def box(
        self,
        at: Frame,
        center: Vector,
        half: Vector,
        material: Materials,
        yaw: float = 0.0,
        pitch: float = 0.0,
        roll: float = 0.0,
    ) -> None:
        self._solid(BOX, at, center, half, material, (yaw, pitch, roll))

    def slab(self, at: Frame, low: Vector, high: Vector, material: Materials) -> None:
        """A box between two corners; nothing if it is empty."""
        half = ((high[0] - low[0]) / 2, (high[1] - low[1]) / 2, (high[2] - low[2]) / 2)
        self.box(at, ((high[0] + low[0]) / 2, (high[1] + low[1]) / 2, (high[2] + low[2]) / 2), half, material)

    def cylinder(
        self,
        at: Frame,
        x: float,
        y: float,
        radius: float,
        low: float,
        high: float,
        material: Materials,
        pitch: float = 0.0,
        roll: float = 0.0,
    ) -> None:
        """A cylinder between two heights; pitch or roll of a quarter turn lay it down about its middle."""
        half = (radius, radius, (high - low) / 2)
        self._solid(CYLINDER, at, (x, y, (low + high) / 2), half, material, (0.0, pitch, roll))

    def ellipsoid(self, at: Frame, center: Vector, half: Vector, material: Materials, yaw: float = 0.0) -> None:
        self._solid(ELLIPSOID, at, center, half, material, (yaw, 0.0, 0.0))

    # ---- the scene
    def _kept(self, solids: np.ndarray) -> np.ndarray:
        """Which solids stay: all but those of movable objects that come within CLEARANCE of the camera."""
        offset = np.asarray(self.camera) - solids[:, 1:4]
        turns = solids[:, 7:16].reshape(-1, 3, 3)
        local = np.abs(np.einsum("ni,nij->nj", offset, turns))
        gap = np.linalg.norm(np.maximum(local - solids[:, 4:7], 0.0), axis=1)
        owners = np.asarray(self.owners)
        near = np.unique(owners[(gap < CLEARANCE) & (owners != STRUCTURE)])
        kept: np.ndarray = ~np.isin(owners, near)
        return kept

    def scene(
        self,
        seed: int,
        kind: str,
        *,
        ambient: tuple[Color, Color],
        occlusion_reach: float,
        heading: float,
        tilt: float,
        tilt_towards: float,
        sky: Sky,
        faults: Faults,
        sunlit: bool = False,
    ) -> Scene:
        solids = np.asarray(self.solids, np.float64)
        solids = solids[self._kept(solids)]
        lamps = np.asarray(self.lamps, np.float32).reshape(-1, 7)
        nearest = np.argsort(np.linalg.norm(lamps[:, :3] - np.asarray(self.camera, np.float32), axis=1), kind="stable")
        return Scene(
            seed=seed,
            kind=kind,
            kinds=solids[:, 0].astype(np.int64),
            centers=solids[:, 1:4].astype(np.float32),
            half_sizes=solids[:, 4:7].astype(np.float32),
            rotations=solids[:, 7:16].reshape(-1, 3, 3).astype(np.float32),
            materials_of=solids[:, 16:19].astype(np.int64),
            materials=np.asarray(self.materials, np.float32),
            lamps=lamps[nearest],
            sunlit=sunlit,
            ambient=np.asarray(ambient, np.float32),
            occlusion_reach=occlusion_reach,
            camera=np.asarray(self.camera, np.float32),
            camera_rotation=tilted(heading, tilt, tilt_towards).astype(np.float32),
            sky=sky,
            faults=faults,
        )


def random_tilt(builder: SceneBuilder, upright: float) -> float:
    """Radians: nearly upright with that probability, else up to 20 degrees, as in hand-held and scanned panoramas."""
    degrees = abs(builder.rng.gauss(0, 1.2)) if builder.chance(upright) else builder.uniform(0, 20)
    return math.radians(min(degrees, 20.0))
