"""Light and colour at what the rays met: textures, lamps or sun with soft shadows, ambient light with occlusion, sky.

Shadows and occlusion are sampled at half resolution and brought up with weights that do not cross from one solid to another.
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
SUN_DISTANCE = 400.0  # metres
SHADOW_REACH = 60.0  # metres from the camera; farther ground is taken as lit
JITTER_TABLE = 1 << 16


@dataclass(frozen=True)
class Surface:
    """What each pixel of a batch shows; P = height * width. Points, normals: world frame, (B, P) each component; face: local axis across which
    the normal points, int64 (B, P); texture coordinates u, v in metres."""

    distance: Tensor
    solid: Tensor
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


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """table (B, N, F), index (B, P) -> (F, B * P) contiguous: each feature lies together."""
    batch, number = table.shape[:2]
    first = torch.arange(batch, device=index.device)[:, None] * number
    return table.reshape(batch * number, -1).index_select(0, (index + first).reshape(-1)).t().contiguous()


def surface(solids: Solids, distance: Tensor, solid: Tensor, camera: Tensor, rays: Vectors) -> Surface:
    """The surface at `distance` along world `rays` from `camera` (B, 3); pixels without a solid get harmless numbers."""
    batch, count = distance.shape
    reached = torch.where(torch.isinf(distance), 1.0, distance)
    points = tuple(torch.addcmul(camera[:, i, None], reached, ray) for i, ray in enumerate(rays))
    found = _rows(solids.attributes, solid.clamp_min(0).to(torch.int64)).reshape(-1, batch, count)
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
        points=(points[0], points[1], points[2]),
        normals=(normal[0], normal[1], normal[2]),
        material=material,
        u=torch.where(face == 0, local[1], local[0]),
        v=torch.where(face == 2, local[1], -local[2]),
    )


@functools.lru_cache(maxsize=4)
def _jitter(device: torch.device) -> Tensor:
    """Uniform numbers (2, JITTER_TABLE), repeated once so that any window of a table's length can be cut."""
    table = np.random.default_rng(7).random((2, JITTER_TABLE), dtype=np.float32)
    return torch.from_numpy(np.concatenate([table, table], 1)).to(device)


def jitter(seeds: Sequence[int], count: int, stream: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two numbers in [0, 1) for each of `count` points of each scene: (B, count) each; a scene's numbers depend on its seed and `stream` only."""
    table = _jitter(device)
    windows = []
    for seed in seeds:
        start = (seed * 40503 + stream * 9973 + 12345) % JITTER_TABLE
        window = table[:, start : start + min(count, JITTER_TABLE)]
        windows.append(window if count <= JITTER_TABLE else window.repeat(1, -(-count // JITTER_TABLE))[:, :count])
    both = torch.stack(windows, 1)
    return both[0], both[1]


def _on_sphere(first: Tensor, second: Tensor) -> Vectors:
    z = 1 - 2 * first
    ring = torch.sqrt((1 - z * z).clamp_min_(0))
    angle = second * (2 * np.pi)
    return ring * torch.cos(angle), ring * torch.sin(angle), z


@dataclass(frozen=True)
class HalfGrid:
    """Every second pixel of the picture in both directions, as points to shade from."""

    rows: int
    columns: int
    points: Vectors
    normals: Vectors
    active: Tensor
    solid: Tensor


def _half_grid(found: Surface, height: int, width: int) -> HalfGrid:
    def halve(image: Tensor) -> Tensor:
        return image.reshape(-1, height, width)[:, ::2, ::2].reshape(image.shape[0], -1)

    distance, solid = halve(found.distance), halve(found.solid)
    lift = (distance * 1e-3).clamp_(2e-3, 0.05)
    normals = tuple(halve(c) for c in found.normals)
    points = tuple(torch.addcmul(halve(p), lift, n) for p, n in zip(found.points, normals, strict=True))
    return HalfGrid(
        rows=(height + 1) // 2,
        columns=(width + 1) // 2,
        points=(points[0], points[1], points[2]),
        normals=(normals[0], normals[1], normals[2]),
        active=(solid != NO_SOLID) & (distance < SHADOW_REACH),
        solid=solid,
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
        count, device = self.grid.active.shape[1], reach.device
        directions = []
        for ray in range(OCCLUSION_RAYS):
            x, y, z = (a + n for a, n in zip(_on_sphere(*jitter(seeds, count, ray, device)), self.grid.normals, strict=True))
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


def visibility(solids: Solids, found: Surface, lights: Lights, seeds: Sequence[int], height: int, width: int) -> Tensor:
    """(B, 1 + SHADOWED_LAMPS, P): openness of the surroundings in [0, 1] and how much of each of the first lamps is seen."""
    grid = _half_grid(found, height, width)
    caster = _Secondary(solids, grid)
    count, device = grid.rows * grid.columns, found.distance.device
    channels = [caster.openness(seeds, lights.occlusion_reach)]
    for index in range(SHADOWED_LAMPS):
        lamp, radius = lights.lamps[:, index, :3], lights.lamps[:, index, 3]
        spread = [radius[:, None] * c for c in _on_sphere(*jitter(seeds, count, 10 + index, device))]
        target = (lamp[:, 0, None] + spread[0], lamp[:, 1, None] + spread[1], lamp[:, 2, None] + spread[2])
        channels.append(caster.lit(target, lamp, radius))
    smooth = _smooth(torch.stack(channels, 1), grid)
    return _enlarge(smooth, grid, found.solid, height, width)


def _smooth(values: Tensor, grid: HalfGrid) -> Tensor:
    """Mean over the 3 x 3 neighbours on the same solid; longitude is a circle."""
    batch = values.shape[0]
    image = values.reshape(batch, -1, grid.rows, grid.columns)
    solid = grid.solid.reshape(batch, 1, grid.rows, grid.columns)
    total, weight = image.clone(), torch.ones_like(solid, dtype=torch.float32)
    above, below = slice(0, grid.rows - 1), slice(1, grid.rows)
    for shift in (-1, 1):
        same = (torch.roll(solid, shift, 3) == solid).to(torch.float32)
        total, weight = torch.addcmul(total, torch.roll(image, shift, 3), same), weight + same
    result, share = total.clone(), weight.clone()
    for here, there in ((above, below), (below, above)):
        same = (solid[:, :, there] == solid[:, :, here]).to(torch.float32)
        result[:, :, here] += total[:, :, there] * same
        share[:, :, here] += weight[:, :, there] * same
    return result / share


def _enlarge(image: Tensor, grid: HalfGrid, solid: Tensor, height: int, width: int) -> Tensor:
    """Half grid (B, C, h, w) -> (B, C, P): bilinear among the samples on the pixel's own solid."""
    batch, channels = image.shape[:2]
    device = image.device
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    far_row = torch.where(rows % 2 == 1, (rows // 2 + 1).clamp_max(grid.rows - 1), rows // 2)
    far_column = torch.where(columns % 2 == 1, (columns // 2 + 1) % grid.columns, columns // 2)
    own = solid.reshape(batch, 1, height, width)
    names = grid.solid.reshape(batch, 1, grid.rows, grid.columns)
    total = torch.zeros((batch, channels, height, width), device=device)
    weight = torch.full((batch, 1, height, width), 1e-6, device=device)
    for row in (rows // 2, far_row):
        for column in (columns // 2, far_column):
            index = (row[:, None] * grid.columns + column).reshape(-1)
            same = (names.reshape(batch, 1, -1)[..., index].reshape(own.shape) == own).to(torch.float32) + 1e-6
            total.addcmul_(image.reshape(batch, channels, -1)[..., index].reshape(total.shape), same)
            weight += same
    return (total / weight).clamp_(0, 1).reshape(batch, channels, -1)


def radiance(found: Surface, rays: Vectors, seen: Tensor, lights: Lights, materials: Tensor, pixel_angle: float) -> Tensor:
    """Linear light (B, 3, P) that comes from each surface; `pixel_angle` [rad] chooses the mip level."""
    batch, count = found.distance.shape
    m = _rows(materials, found.material).reshape(-1, batch, count)
    normals = found.normals
    facing = (normals[0] * rays[0] + normals[1] * rays[1] + normals[2] * rays[2]).abs().clamp_min_(0.1)
    texels = found.distance * (pixel_angle * SIZE) / (m[1] * torch.sqrt(facing))
    level = torch.log2(texels.clamp_(1.0, float(SIZE)))
    bank = texture_bank(found.distance.device)
    weave = bank.look_up(m[0], found.u / m[1] + m[10], found.v / m[1] + m[11], level)
    lamps = lights.lamps
    up = normals[2] * 0.5 + 0.5
    ambient = lights.ambient
    incoming = [
        torch.lerp(ambient[:, 1, i, None].expand_as(up), ambient[:, 0, i, None].expand_as(up), up) * seen[:, 0] for i in range(3)
    ]
    shine = torch.zeros_like(up)
    for index in range(lamps.shape[1]):
        x, y, z = (lamps[:, index, i, None] - found.points[i] for i in range(3))
        square = x * x + y * y + z * z
        away = torch.rsqrt(square + 1e-4)
        slope = (x * normals[0] + y * normals[1] + z * normals[2]) * away
        fall = torch.where(lights.sunlit[:, None], 1.0, 1.0 / (square + 0.4))
        strength = slope.clamp_min(0) * 0.92 + 0.05
        strength = strength * fall * (seen[:, 1 + index] if index < SHADOWED_LAMPS else seen[:, 0])
        for i in range(3):
            incoming[i] = torch.addcmul(incoming[i], strength, lamps[:, index, 4 + i, None])
        if index < SHADOWED_LAMPS:
            mirrored = (x * rays[0] + y * rays[1] + z * rays[2]) * away - 2 * slope * (
                normals[0] * rays[0] + normals[1] * rays[1] + normals[2] * rays[2]
            )
            shine = shine + mirrored.clamp_min_(0).pow_(24) * seen[:, 1 + index] * fall * lamps[:, index, 5, None]
    picture = []
    for i in range(3):
        albedo = torch.lerp(m[2 + i], m[5 + i], weave[..., i])
        picture.append(albedo * (incoming[i] + m[8]) + m[9] * shine)
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
    sun = sum(column([s.sun[i] for s in skies]) * rays[i] for i in range(3))
    assert isinstance(sun, Tensor)
    glow = (sun - 0.6).clamp_min(0).pow(3) * 4 + torch.where(sun > 0.9993, 40.0, 0.0) + (sun - 0.98).clamp_min(0) * 60
    bands = []
    for i in range(3):
        clear = torch.lerp(column([s.zenith[i] for s in skies]).expand_as(low), column([s.horizon[i] for s in skies]).expand_as(low), low)
        white = column([0.5 * max(s.horizon) + 0.5 * s.horizon[i] for s in skies])
        bands.append(torch.lerp(clear, white.expand_as(low), clouds) + glow * column([s.sun_color[i] for s in skies]) * (1 - 0.7 * clouds))
    return torch.stack(bands, 1)
