"""A scene: solids, materials, lamps, sky and one camera, as plain arrays.

World frame: x and y horizontal, z up, metres, the floor (or the ground below the camera) near z = 0. Every solid is
the image of a unit shape (cube, upright cylinder of radius 1 and half height 1, sphere) under a scaling by half sizes,
a rotation and a shift.
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
    """A place to put things: origin in metres and heading; local x runs along the heading, y to its left, z up."""

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
    """What is seen where no solid is; colours are linear RGB.

    Attributes:
        horizon: colour at the horizon.
        zenith: colour straight up.
        clouds: how much they cover, 0 to 1.
        cloud_texture: number of their texture.
        sun: unit vector towards the sun.
        sun_color: of its disc and glow; zero for none.
    """

    horizon: Color = (0.9, 0.95, 1.0)
    zenith: Color = (0.25, 0.45, 0.9)
    clouds: float = 0.3
    cloud_texture: int = 0
    sun: Vector = (0.0, 0.0, 1.0)
    sun_color: Color = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Faults:
    """What the camera and the scanner do to the picture; the defaults do nothing but expose.

    Attributes:
        exposure: linear brightness that the geometric mean of the light gets.
        gains: factors of red, green and blue.
        gamma: exponent on top of 1 / 2.2.
        saturation: factor of the distance from gray.
        contrast: factor of the distance from the picture's mean.
        haze: share of white light added.
        shading_strength: of a smooth uneven brightness, in natural logarithms.
        blur: standard deviation in pixels.
        noise: standard deviation, of display values in [0, 1].
        jpeg_quality: 1 to 95; 0 for no JPEG.
        hole_share: share of the picture where the scan has holes.
        lens_mismatch: how much brighter the front lens is than the back one, in natural logarithms; the two meet at the
            quarter turns to the left and right.
        seam_ghosting: degrees of longitude by which the two lenses see a thing apart where they meet: it shows twice.
        sharpening: share of the difference from a picture blurred by a pixel that is added again.
        local_contrast: the same with a blur as wide as a sixteenth of the picture's height, of brightness only.
    """

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
    lens_mismatch: float = 0.0
    seam_ghosting: float = 0.0
    sharpening: float = 0.0
    local_contrast: float = 0.0


@dataclass(frozen=True)
class Scene:
    """Everything the ray caster needs; arrays are float32 unless said otherwise.

    Attributes:
        seed: of which the scene is a function.
        kind: name of the recipe, such as "office" or "street".
        kinds: int64 (N,), BOX, CYLINDER or ELLIPSOID.
        centers: (N, 3) metres.
        half_sizes: (N, 3) metres.
        rotations: (N, 3, 3), local axes as columns.
        materials_of: int64 (N, 3), the material on the faces across local x, y and z.
        materials: (M, 12): texture, scale in metres, two linear colours, emission, gloss, two texture offsets.
        lamps: (L, 7): position, radius in metres, colour times power; the nearest to the camera first.
        sunlit: whether the lamp is the sun, whose light does not fade with distance.
        ambient: (2, 3), linear light that falls on faces that look up, and on those that look down.
        occlusion_reach: metres within which solids take ambient light away.
        camera: (3,) metres.
        camera_rotation: (3, 3), from the camera's frame (x forward, y left, z up) to the world.
        sky: what is seen behind everything.
        faults: of the camera.
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
    """Camera rotation (3, 3): heading `yaw`, then the vertical leaned by `tilt` towards azimuth `towards`; radians."""
    lean = (
        np.array(rotation(towards)).reshape(3, 3)
        @ np.array(rotation(0.0, tilt)).reshape(3, 3)
        @ np.array(rotation(-towards)).reshape(3, 3)
    )
    result: NDArray[np.float64] = lean @ np.array(rotation(yaw)).reshape(3, 3)
    return result
