"""Light and colour at what the rays met: textures, lamps or sun with soft shadows, ambient light with occlusion, sky.

Light is gathered at half resolution and brought up with weights that do not cross from one face to another.

Shapes: B scenes, P = height * width pixels.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.synthetic.raycaster import NO_SOLID, Rays, Solids, Vectors, cast_nearby, cast_to_lamp, patches, tiling
from training.synthetic.scene import BOX, ELLIPSOID, Scene
from training.synthetic.textures import SIZE, texture_bank

SHADOWED_LAMPS = 2
LAMPS = 6
OCCLUSION_RAYS = 2
TILE = (8, 8)  # samples of the half grid
SHADOW_REACH = 60.0  # metres from the camera; farther ground is taken as lit


@dataclass(frozen=True)
class Surface:
    """What each pixel of a batch shows; all (B, P).

    Attributes:
        distance: metres, inf on the sky.
        solid: its number, NO_SOLID on the sky.
        side: a number for each solid and local axis across which its face lies.
        points: world frame.
        normals: world frame, unit.
        material: row of the scene's materials.
        u: texture coordinate in metres, to the right.
        v: texture coordinate in metres, downwards.
    """

    distance: Tensor
    solid: Tensor
    side: Tensor
    points: Vectors
    normals: Vectors
    material: Tensor
    u: Tensor
    v: Tensor


@dataclass(frozen=True)
class Lights:
    """Lamps (B, LAMPS, 7) as in Scene, ambient (B, 2, 3), occlusion_reach (B,), sunlit bool (B,)."""

    lamps: Tensor
    ambient: Tensor
    occlusion_reach: Tensor
    sunlit: Tensor


def pack_lights(scenes: Sequence[Scene], device: torch.device) -> Lights:
    lamps = np.zeros((len(scenes), LAMPS, 7), np.float32)
    lamps[..., 3] = 0.1
    for row, scene in zip(lamps, scenes, strict=True):
        chosen = scene.lamps[:LAMPS]
        row[: len(chosen)] = chosen
    return Lights(
        lamps=torch.from_numpy(lamps).to(device),
        ambient=torch.from_numpy(np.stack([scene.ambient for scene in scenes])).to(device),
        occlusion_reach=torch.tensor([scene.occlusion_reach for scene in scenes], dtype=torch.float32, device=device),
        sunlit=torch.tensor([scene.sunlit for scene in scenes], device=device),
    )


def pack_materials(scenes: Sequence[Scene], device: torch.device) -> Tensor:
    """(B, M, 12), padded to the longest list."""
    most = max(len(scene.materials) for scene in scenes)
    packed = np.zeros((len(scenes), most, 12), np.float32)
    packed[..., 1] = 1.0
    for row, scene in zip(packed, scenes, strict=True):
        row[: len(scene.materials)] = scene.materials
    return torch.from_numpy(packed).to(device)


def _columns(table: Tensor, index: Tensor) -> list[Tensor]:
    """Table (B, N, F), index int64 (B, P) -> F tensors (B, P), each contiguous."""
    return [column.contiguous().gather(1, index) for column in table.unbind(-1)]


def surface(solids: Solids, distance: Tensor, solid: Tensor, camera: Tensor, rays: Vectors) -> Surface:
    """The surface at `distance` along world `rays` from `camera` (B, 3); the sky gets harmless numbers."""
    reached = torch.where(torch.isinf(distance), 1.0, distance)
    points = tuple(torch.addcmul(camera[:, i, None], reached, ray) for i, ray in enumerate(rays))
    found = _columns(solids.attributes, solid.clamp_min(0).to(torch.int64))
    x, y, z = (points[i] - found[i] for i in range(3))
    local = [found[3 + i] * x + found[6 + i] * y + found[9 + i] * z for i in range(3)]
    unit = [local[i] / found[12 + i] for i in range(3)]
    kind = found[15]
    box, round_ = kind == BOX, kind == ELLIPSOID
    reach = [c.abs() for c in unit]
    axis = torch.where(reach[0] >= reach[1], 0, 1)
    axis = torch.where(torch.maximum(reach[0], reach[1]) >= reach[2], axis, 2)
    cap = unit[0].square() + unit[1].square() < reach[2].square()
    cylinder = ~box & ~round_
    parts = []
    for i in range(3):
        on_cylinder = cap if i == 2 else ~cap
        kept = torch.where(box, axis == i, round_ | (cylinder & on_cylinder))
        parts.append(torch.where(kept, unit[i] / found[12 + i], 0.0))
    normal = [found[3 + 3 * i] * parts[0] + found[4 + 3 * i] * parts[1] + found[5 + 3 * i] * parts[2] for i in range(3)]
    length = torch.rsqrt(normal[0].square() + normal[1].square() + normal[2].square() + 1e-20)
    normal = [c * length for c in normal]
    flat = [c.abs() for c in parts]
    face = torch.where(flat[0] >= flat[1], 0, 1)
    face = torch.where(torch.maximum(flat[0], flat[1]) >= flat[2], face, 2)
    material = torch.where(face == 0, found[16], torch.where(face == 1, found[17], found[18])).to(torch.int64)
    return Surface(
        distance=distance,
        solid=solid,
        side=torch.where(solid == NO_SOLID, NO_SOLID, solid * 3 + face),
        points=(points[0], points[1], points[2]),
        normals=(normal[0], normal[1], normal[2]),
        material=material,
        u=torch.where(face == 0, local[1], local[0]),
        v=torch.where(face == 2, local[1], -local[2]),
    )


@functools.lru_cache(maxsize=16)
def _stratum(rows: int, columns: int, device: torch.device) -> Tensor:
    """A number from 0 to 8 for each sample, float32 (rows * columns,): every 3 x 3 neighbourhood holds each once."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return ((y % 3) * 3 + x % 3).reshape(-1).to(device, torch.float32)


def jitter(seeds: Sequence[int], rows: int, columns: int, stream: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two numbers in [0, 1) for each sample of each scene, (B, rows * columns) each.

    They are spread evenly over every 3 x 3 neighbourhood: they follow Roberts's R2 sequence, based on the plastic
    number, from a start that depends on the scene's seed alone. So the mean over one neighbourhood hardly differs from
    the next one's, and smoothing leaves no grain. `stream` continues the sequence.
    """
    step = _stratum(rows, columns, device) + 9 * stream
    start = torch.tensor(
        [[(seed * 0.618034) % 1.0, (seed * 0.414214) % 1.0] for seed in seeds], dtype=torch.float32, device=device
    )
    first, second = start[:, 0, None] + step * 0.7548777, start[:, 1, None] + step * 0.5698403
    return first - first.floor(), second - second.floor()


def _on_sphere(first: Tensor, second: Tensor) -> Vectors:
    z = 1 - 2 * first
    ring = torch.sqrt((1 - z * z).clamp_min_(0))
    angle = second * (2 * np.pi)
    return ring * torch.cos(angle), ring * torch.sin(angle), z


@dataclass(frozen=True)
class HalfGrid:
    """Every second pixel of the picture in both directions: where light is gathered.

    `active` marks surfaces near enough to cast rays from.
    """

    rows: int
    columns: int
    points: Vectors
    normals: Vectors
    rays: Vectors
    active: Tensor
    side: Tensor


def _half_grid(found: Surface, rays: Vectors, height: int, width: int) -> HalfGrid:
    def halve(image: Tensor) -> Tensor:
        return image.reshape(-1, height, width)[:, ::2, ::2].reshape(image.shape[0], -1)

    def halves(v: Vectors) -> Vectors:
        return halve(v[0]), halve(v[1]), halve(v[2])

    distance, side = halve(found.distance), halve(found.side)
    lift = (distance * 1e-3).clamp_(2e-3, 0.05)
    normals = halves(found.normals)
    x, y, z = (torch.addcmul(p, lift, n) for p, n in zip(halves(found.points), normals, strict=True))
    return HalfGrid(
        rows=(height + 1) // 2,
        columns=(width + 1) // 2,
        points=(x, y, z),
        normals=normals,
        rays=halves(rays),
        active=(side != NO_SOLID) & (distance < SHADOW_REACH),
        side=side,
    )


class _Secondary:
    """Casts rays from the points of a half grid, in tiles."""

    def __init__(self, solids: Solids, grid: HalfGrid) -> None:
        self.solids, self.grid = solids, grid
        self.batch = grid.active.shape[0]
        self.tiles = tiling(grid.rows, grid.columns, *TILE, grid.active.device)
        self.origin = self._vectors(grid.points)
        self.where = patches(self.origin, self._vectors(grid.normals), self._cut(grid.active), self.batch)

    def _cut(self, image: Tensor) -> Tensor:
        return image.index_select(1, self.tiles.pixels.reshape(-1)).reshape(-1, self.tiles.pixels.shape[1])

    def _vectors(self, v: Vectors) -> Vectors:
        return self._cut(v[0]), self._cut(v[1]), self._cut(v[2])

    def _joined(self, image: Tensor) -> Tensor:
        return image.reshape(self.batch, -1).index_select(1, self.tiles.slots)

    def openness(self, seeds: Sequence[int], reach: Tensor) -> Tensor:
        """Mean free share of `reach` (B,) over OCCLUSION_RAYS cosine-weighted directions; 1 where nothing is near."""
        device = reach.device
        directions = []
        for ray in range(OCCLUSION_RAYS):
            x, y, z = (
                a + n
                for a, n in zip(
                    _on_sphere(*jitter(seeds, self.grid.rows, self.grid.columns, ray, device)),
                    self.grid.normals,
                    strict=True,
                )
            )
            length = torch.rsqrt(x * x + y * y + z * z + 1e-8)
            directions.append(self._vectors((x * length, y * length, z * length)))
        fan = [torch.cat([d[i] for d in directions], 1) for i in range(3)]
        start = [c.repeat(1, OCCLUSION_RAYS) for c in self.origin]
        far = self._cut(torch.where(self.grid.active, reach[:, None], 0.0)).repeat(1, OCCLUSION_RAYS)
        rays = Rays((start[0], start[1], start[2]), (fan[0], fan[1], fan[2]), far)
        free = cast_nearby(self.solids, rays, self.where, reach).reshape(far.shape[0], OCCLUSION_RAYS, -1).mean(1)
        return torch.where(self.grid.active, self._joined(free) / reach[:, None], 1.0)

    def lit(self, target: Vectors, lamp: Tensor, radius: Tensor) -> Tensor:
        """1 where the way from each point to its target near `lamp` is free, else 0."""
        offset = [t - p for t, p in zip(target, self.grid.points, strict=True)]
        length = torch.sqrt(offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2).clamp_min_(1e-3)
        reach = length - (radius[:, None] + 0.12)
        towards = self._vectors((offset[0] / length, offset[1] / length, offset[2] / length))
        rays = Rays(self.origin, towards, self._cut(torch.where(self.grid.active, reach, 0.0)))
        free = self._joined(cast_to_lamp(self.solids, rays, self.where, lamp, radius))
        return ((free >= reach) | ~self.grid.active).to(torch.float32)


def incoming_light(
    solids: Solids, found: Surface, rays: Vectors, lights: Lights, seeds: Sequence[int], height: int, width: int
) -> Tensor:
    """Light that falls on each surface, red, green, blue, and the strength of the lamps' mirror images: (B, 4, P)."""
    grid = _half_grid(found, rays, height, width)
    caster = _Secondary(solids, grid)
    device = found.distance.device
    seen = [caster.openness(seeds, lights.occlusion_reach)]
    for index in range(SHADOWED_LAMPS):
        lamp, radius = lights.lamps[:, index, :3], lights.lamps[:, index, 3]
        spread = [radius[:, None] * c for c in _on_sphere(*jitter(seeds, grid.rows, grid.columns, index, device))]
        target = (lamp[:, 0, None] + spread[0], lamp[:, 1, None] + spread[1], lamp[:, 2, None] + spread[2])
        seen.append(caster.lit(target, lamp, radius))
    smooth = _smooth(torch.stack(seen, 1), grid)
    return _enlarge(_gather_light(grid, smooth, lights), grid, found.side, height, width)


def _gather_light(grid: HalfGrid, seen: Tensor, lights: Lights) -> Tensor:
    """Ambient light and lamps at the points of the grid.

    `seen` (B, 1 + SHADOWED_LAMPS, h * w) holds the openness, then how much of each of the first lamps is seen.
    """
    normals, rays, openness = grid.normals, grid.rays, seen[:, 0]
    up = normals[2] * 0.5 + 0.5
    above, below = (lights.ambient[:, side, :, None] for side in range(2))
    light = [(below[:, i] + (above[:, i] - below[:, i]) * up) * openness for i in range(3)]
    shine = torch.zeros_like(up)
    toward_eye = normals[0] * rays[0] + normals[1] * rays[1] + normals[2] * rays[2]
    for index in range(lights.lamps.shape[1]):
        lamp = lights.lamps[:, index, :, None]
        x, y, z = (lamp[:, i] - grid.points[i] for i in range(3))
        square = x * x + y * y + z * z
        away = torch.rsqrt(square + 1e-4)
        slope = (x * normals[0] + y * normals[1] + z * normals[2]) * away
        fall = torch.where(lights.sunlit[:, None], 1.0, 1.0 / (square + 0.4))
        visible = fall * (seen[:, 1 + index] if index < SHADOWED_LAMPS else openness)
        strength = (slope.clamp_min(0) * 0.92 + 0.05) * visible
        light = [torch.addcmul(c, strength, lamp[:, 4 + i]) for i, c in enumerate(light)]
        if index < SHADOWED_LAMPS:
            mirrored = (x * rays[0] + y * rays[1] + z * rays[2]) * away - 2 * slope * toward_eye
            shine = torch.addcmul(shine, mirrored.clamp_min_(0).pow_(24) * visible, lamp[:, 5])
    return torch.stack([*light, shine], 1)


def _smooth(values: Tensor, grid: HalfGrid) -> Tensor:
    """Mean over the 3 x 3 neighbours on the same face; longitude is a circle."""
    batch = values.shape[0]
    image = values.reshape(batch, -1, grid.rows, grid.columns)
    side = grid.side.reshape(batch, 1, grid.rows, grid.columns)
    total, weight = image.clone(), torch.ones_like(side, dtype=torch.float32)
    above, below = slice(0, grid.rows - 1), slice(1, grid.rows)
    for shift in (-1, 1):
        same = (torch.roll(side, shift, 3) == side).to(torch.float32)
        total, weight = torch.addcmul(total, torch.roll(image, shift, 3), same), weight + same
    result, share = total.clone(), weight.clone()
    for here, there in ((above, below), (below, above)):
        same = (side[:, :, there] == side[:, :, here]).to(torch.float32)
        result[:, :, here] += total[:, :, there] * same
        share[:, :, here] += weight[:, :, there] * same
    return (result / share).reshape(batch, -1, grid.rows * grid.columns)


def _enlarge(image: Tensor, grid: HalfGrid, side: Tensor, height: int, width: int) -> Tensor:
    """Half grid (B, C, h * w) -> (B, C, P): bilinear among the samples on the pixel's own face."""
    batch, channels = image.shape[:2]
    device = image.device
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    far_row = torch.where(rows % 2 == 1, (rows // 2 + 1).clamp_max(grid.rows - 1), rows // 2)
    far_column = torch.where(columns % 2 == 1, (columns // 2 + 1) % grid.columns, columns // 2)
    own = side.reshape(batch, 1, height, width)
    names = grid.side.reshape(batch, 1, grid.rows, grid.columns)
    total = torch.zeros((batch, channels, height, width), device=device)
    weight = torch.full((batch, 1, height, width), 1e-6, device=device)
    for row in (rows // 2, far_row):
        for column in (columns // 2, far_column):
            index = (row[:, None] * grid.columns + column).reshape(-1)
            same = (names.reshape(batch, 1, -1)[..., index].reshape(own.shape) == own).to(torch.float32) + 1e-6
            total.addcmul_(image[..., index].reshape(total.shape), same)
            weight += same
    return (total / weight).reshape(batch, channels, -1)


def radiance(found: Surface, rays: Vectors, incoming: Tensor, materials: Tensor, pixel_angle: float) -> Tensor:
    """Linear light (B, 3, P) that each surface sends back; `pixel_angle` in radians chooses the mip level."""
    texture, scale, *colours, emission, gloss, u_offset, v_offset = _columns(materials, found.material)
    normals = found.normals
    facing = (normals[0] * rays[0] + normals[1] * rays[1] + normals[2] * rays[2]).abs().clamp_min_(0.1)
    texels = found.distance * (pixel_angle * SIZE) / (scale * torch.sqrt(facing))
    level = torch.log2(texels.clamp_(1.0, float(SIZE))) - 0.3
    weave = texture_bank(found.distance.device).look_up(
        texture, found.u / scale + u_offset, found.v / scale + v_offset, level
    )
    shine = gloss * incoming[:, 3]
    picture = [
        torch.lerp(colours[i], colours[3 + i], weave[..., i]) * (incoming[:, i] + emission) + shine for i in range(3)
    ]
    return torch.stack(picture, 1)


def sky_radiance(scenes: Sequence[Scene], rays: Vectors) -> Tensor:
    """Linear light (B, 3, P) of the sky along world rays."""
    device = rays[0].device

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)[:, None]

    skies = [scene.sky for scene in scenes]
    height = rays[2].clamp(0.0, 1.0)
    low = (1 - height).square()
    plane = (height + 0.08).reciprocal() * 0.15
    texture = column([float(s.cloud_texture) for s in skies]).expand_as(height)
    clouds = texture_bank(device).look_up(texture, rays[0] * plane, rays[1] * plane, torch.zeros_like(height))[..., 0]
    clouds = clouds * column([s.clouds for s in skies])
    x, y, z = (column([s.sun[i] for s in skies]) * rays[i] for i in range(3))
    sun = x + y + z
    glow = (sun - 0.6).clamp_min(0).pow(3) * 4 + torch.where(sun > 0.9993, 40.0, 0.0) + (sun - 0.98).clamp_min(0) * 60
    bands = []
    for i in range(3):
        clear = torch.lerp(
            column([s.zenith[i] for s in skies]).expand_as(low),
            column([s.horizon[i] for s in skies]).expand_as(low),
            low,
        )
        white = column([0.5 * max(s.horizon) + 0.5 * s.horizon[i] for s in skies])
        bands.append(
            torch.lerp(clear, white.expand_as(low), clouds)
            + glow * column([s.sun_color[i] for s in skies]) * (1 - 0.7 * clouds)
        )
    return torch.stack(bands, 1)
