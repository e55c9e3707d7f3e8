"""A scene: solids, materials, lamps, sky and one camera, as plain arrays.

World frame: x and y horizontal, z up, metres, the floor (or the ground below the camera) near z = 0. Every solid is the image of a unit shape
(cube, upright cylinder of radius 1 and half height 1, sphere) under a rotation, a scaling by half sizes and a shift.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOX, CYLINDER, ELLIPSOID = 0, 1, 2

Color = tuple[float, float, float]
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Frame:
    """A place to put things: origin (metres) and heading; local x points along the heading, local y to its left, z up."""

    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    yaw: float = 0.0

    def point(self, x: float, y: float, z: float = 0.0) -> Vector:
        """Local coordinates in the world frame."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return self.x + c * x - s * y, self.y + s * x + c * y, self.z + z

    def at(self, x: float, y: float, z: float = 0.0, yaw: float = 0.0) -> "Frame":
        """A frame given in the coordinates of this one."""
        return Frame(*self.point(x, y, z), self.yaw + yaw)


WORLD = Frame()


@dataclass(frozen=True)
class Sky:
    """Colours (linear RGB) at the horizon and the zenith, clouds in [0, 1], sun towards `sun` (unit) with its colour; zero colour: no disc."""

    horizon: Color = (0.9, 0.95, 1.0)
    zenith: Color = (0.25, 0.45, 0.9)
    clouds: float = 0.3
    cloud_texture: int = 0
    sun: Vector = (0.0, 0.0, 1.0)
    sun_color: Color = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Faults:
    """What the camera and the scanner do to the picture; the defaults do nothing. Exposure is the brightness (linear) that the geometric mean of the light gets."""

    exposure: float = 0.2
    gains: Color = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    saturation: float = 1.0
    contrast: float = 1.0
    haze: float = 0.0
    shading_strength: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    jpeg_quality: int = 0
    hole_share: float = 0.0


@dataclass(frozen=True)
class Scene:
    """Everything the ray caster needs; arrays are float32 unless said otherwise.

    kinds: int64 (N,) BOX, CYLINDER or ELLIPSOID. centers (N, 3), half_sizes (N, 3), rotations (N, 3, 3) with local axes as columns.
    materials_of: int64 (N, 3), the material on the faces across local x, y and z. materials: (M, 12) texture index, scale [m], two linear colours,
    emission, gloss, texture offsets (2). lamps: (L, 7) position, radius [m], colour times power. camera (3,), camera_rotation (3, 3) from the
    camera's frame (x forward, y left, z up) to the world. ambient (2, 3): linear light that falls on faces that look up, and down.
    """

    seed: int
    kind: str
    kinds: NDArray[np.int64]
    centers: NDArray[np.float32]
    half_sizes: NDArray[np.float32]
    rotations: NDArray[np.float32]
    materials_of: NDArray[np.int64]
    materials: NDArray[np.float32]
    lamps: NDArray[np.float32]
    sunlit: bool
    ambient: NDArray[np.float32]
    occlusion_reach: float
    camera: NDArray[np.float32]
    camera_rotation: NDArray[np.float32]
    sky: Sky
    faults: Faults


def rotation(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> list[float]:
    """Rz(yaw) Ry(pitch) Rx(roll), row by row; radians."""
    cy, sy, cp, sp, cr, sr = (
        math.cos(yaw),
        math.sin(yaw),
        math.cos(pitch),
        math.sin(pitch),
        math.cos(roll),
        math.sin(roll),
    )
    return [
        cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr,
        sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr,
        -sp, cp * sr, cp * cr,
    ]  # fmt: skip


def tilted(yaw: float, tilt: float, towards: float) -> NDArray[np.float64]:
    """Camera rotation (3, 3): heading `yaw`, then the vertical axis leaned by `tilt` towards the azimuth `towards`; radians."""
    lean = (
        np.array(rotation(towards)).reshape(3, 3)
        @ np.array(rotation(0.0, tilt)).reshape(3, 3)
        @ np.array(rotation(-towards)).reshape(3, 3)
    )
    result: NDArray[np.float64] = lean @ np.array(rotation(yaw)).reshape(3, 3)
    return result
