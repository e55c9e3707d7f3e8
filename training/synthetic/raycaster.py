"""Where rays meet solids: a batched ray caster in torch, the same on CPU and GPU.

Rays are grouped in tiles of neighbouring pixels. For every tile a conservative test drops the solids that none of its rays can meet; what is left
is intersected one rank at a time (the first candidate of every tile, then the second, ...), so the Python loop is as long as the fullest tile's
list, whatever the number of scenes. A box, cylinder or ellipsoid is met in its own frame, where it is a unit cube, cylinder or sphere (the slab
method of Kay and Kajiya 1986 and the quadratic of the unit sphere).
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.synthetic.scene import BOX, CYLINDER, ELLIPSOID, Scene

NO_SOLID = -1
NEAREST_HIT = 1e-4  # metres; a ray does not meet the surface it starts on
CPU_CHUNK = 1 << 14  # rays of one step: a handful of float32 temporaries stay in a core's second-level cache
GPU_CHUNK = 1 << 23

Vectors = tuple[Tensor, Tensor, Tensor]  # x, y and z apart, so that every operation runs over contiguous memory


@dataclass(frozen=True)
class Tiling:
    """An image of height x width cut into tiles.

    pixels: int64 (T, S), row-major pixel index of each ray of each tile (border tiles repeat pixels); slots: int64 (height * width), the position of
    each pixel in the flattened tiles; planes: float32 (T, 4, 3), inward normals, camera frame, of the planes through the centre that bound a tile.
    """

    pixels: Tensor
    slots: Tensor
    planes: Tensor


def _tile_planes(height: int, width: int, rows: int, columns: int) -> np.ndarray:
    top = np.arange(0, height, rows)
    left = np.arange(0, width, columns)
    north = math.pi * (0.5 - top / height)
    south = math.pi * (0.5 - np.minimum(top + rows, height) / height)
    west = 2 * math.pi * (left / width - 0.5)
    east = 2 * math.pi * (np.minimum(left + columns, width) / width - 0.5)
    north, west = np.meshgrid(north, west, indexing="ij")
    south, east = np.meshgrid(south, east, indexing="ij")
    middle, cosine = (west + east) / 2, np.cos((east - west) / 2)

    def great_circle(latitude: np.ndarray, widen: np.ndarray) -> np.ndarray:
        """Upward normal of the great circle that passes the tile's middle meridian at `latitude`, moved so that the corners stay inside."""
        pitch = np.arctan2(np.sin(latitude), np.cos(latitude) * np.where(widen, cosine, 1.0))
        return np.stack([-np.sin(pitch) * np.cos(middle), np.sin(pitch) * np.sin(middle), np.cos(pitch)], -1)

    zero = np.zeros_like(west)
    planes = [
        np.stack([-np.sin(west), -np.cos(west), zero], -1),
        np.stack([np.sin(east), np.cos(east), zero], -1),
        great_circle(south, south < 0),
        -great_circle(north, north > 0),
    ]
    return np.stack(planes, -2).reshape(-1, 4, 3)


@functools.lru_cache(maxsize=16)
def tiling(height: int, width: int, rows: int, columns: int, device: torch.device) -> Tiling:
    """Tiles of at most rows x columns pixels; none is wider than a quarter turn."""
    rows, columns = min(rows, height), max(1, min(columns, width // 4))
    y = np.minimum(np.arange(-(-height // rows) * rows), height - 1).reshape(-1, rows)
    x = np.minimum(np.arange(-(-width // columns) * columns), width - 1).reshape(-1, columns)
    pixels = (y[:, None, :, None] * width + x[None, :, None, :]).reshape(-1, rows * columns)
    slots = np.empty(height * width, np.int64)
    slots[pixels.reshape(-1)[::-1]] = np.arange(pixels.size)[::-1]
    planes = _tile_planes(height, width, rows, columns).astype(np.float32)
    return Tiling(*(torch.from_numpy(array).to(device) for array in (pixels, slots, planes)))


@functools.lru_cache(maxsize=16)
def pixel_rays(height: int, width: int, device: torch.device) -> Tensor:
    """Unit rays through the pixel centres, camera frame: float32 (3, height * width); longitude grows to the right, so y = -cos(lat) sin(lon)."""
    latitude = (0.5 - (torch.arange(height, dtype=torch.float64) + 0.5) / height) * math.pi
    longitude = ((torch.arange(width, dtype=torch.float64) + 0.5) / width - 0.5) * 2 * math.pi
    lat, lon = torch.meshgrid(latitude, longitude, indexing="ij")
    rays = torch.stack([lat.cos() * lon.cos(), -lat.cos() * lon.sin(), lat.sin()])
    return rays.reshape(3, -1).to(device, torch.float32)


@dataclass(frozen=True)
class Family:
    """The solids of one kind in a batch, padded to the fullest scene.

    centers (B, N, 3), half_sizes (B, N, 3), rotations (B, N, 3, 3), present bool (B, N); to_unit (B * N, 12): the rows of the matrix that takes the
    world to the unit shape, then the shift; first: where this family starts in the numbering of all solids.
    """

    kind: int
    first: int
    centers: Tensor
    half_sizes: Tensor
    rotations: Tensor
    present: Tensor
    to_unit: Tensor


@dataclass(frozen=True)
class Solids:
    """All solids of a batch; attributes (B, N, 19): centre, rotation, half sizes, kind, three materials."""

    families: tuple[Family, ...]
    attributes: Tensor


def pack_solids(scenes: Sequence[Scene], device: torch.device) -> Solids:
    """The scenes' solids as tensors on `device`."""
    families, attributes, first = [], [], 0
    for kind in (BOX, CYLINDER, ELLIPSOID):
        chosen = [scene.kinds == kind for scene in scenes]
        most = max(int(mask.sum()) for mask in chosen)
        if most == 0:
            continue
        rows = np.zeros((len(scenes), most, 19), np.float32)
        rows[..., 12:15] = 1.0
        present = np.zeros((len(scenes), most), bool)
        for row, here, scene, mask in zip(rows, present, scenes, chosen, strict=True):
            count = int(mask.sum())
            here[:count] = True
            row[:count, 0:3] = scene.centers[mask]
            row[:count, 3:12] = scene.rotations[mask].reshape(-1, 9)
            row[:count, 12:15] = scene.half_sizes[mask]
            row[:count, 15] = kind
            row[:count, 16:19] = scene.materials_of[mask]
        turns = rows[..., 3:12].reshape(len(scenes), most, 3, 3).astype(np.float64)
        matrix = turns.swapaxes(-1, -2) / rows[..., 12:15, None]
        shift = -np.einsum("bnij,bnj->bni", matrix, rows[..., 0:3])
        to_unit = np.concatenate([matrix.reshape(len(scenes), most, 9), shift], -1).reshape(-1, 12).astype(np.float32)
        on_device = torch.from_numpy(rows).to(device)
        families.append(
            Family(
                kind=kind,
                first=first,
                centers=on_device[..., 0:3].contiguous(),
                half_sizes=on_device[..., 12:15].contiguous(),
                rotations=on_device[..., 3:12].reshape(len(scenes), most, 3, 3),
                present=torch.from_numpy(present).to(device),
                to_unit=torch.from_numpy(to_unit).to(device),
            )
        )
        attributes.append(on_device)
        first += most
    return Solids(tuple(families), torch.cat(attributes, 1))


# ---- one ray, one unit shape: distance to the near side, inf where missed or where the ray starts inside


def _interval(near: Tensor, far: Tensor) -> Tensor:
    return torch.where((near < far) & (near > NEAREST_HIT), near, torch.inf)


def _meet_box(o: Vectors, d: Vectors) -> Tensor:
    inverse = [c.reciprocal() for c in d]
    middle = [torch.mul(a, b).neg_() for a, b in zip(o, inverse, strict=True)]
    half = [c.abs_() for c in inverse]
    near = torch.maximum(torch.maximum(middle[0] - half[0], middle[1] - half[1]), middle[2] - half[2])
    far = torch.minimum(torch.minimum(middle[0].add_(half[0]), middle[1].add_(half[1])), middle[2].add_(half[2]))
    return _interval(near, far)


def _meet_cylinder(o: Vectors, d: Vectors) -> Tensor:
    square = torch.addcmul(d[0] * d[0], d[1], d[1])
    closest = torch.addcmul(o[0] * d[0], o[1], d[1]).neg_().div_(square)
    x, y = torch.addcmul(o[0], closest, d[0]), torch.addcmul(o[1], closest, d[1])
    half = torch.sqrt((1.0 - torch.addcmul(x * x, y, y)) / square)  # NaN where the axis is passed outside: never met
    inverse = d[2].reciprocal()
    middle = -o[2] * inverse
    near = torch.maximum(closest - half, middle - inverse.abs())
    far = torch.minimum(closest + half, middle + inverse.abs())
    return _interval(near, far)


def _meet_ellipsoid(o: Vectors, d: Vectors) -> Tensor:
    square = torch.addcmul(torch.addcmul(d[0] * d[0], d[1], d[1]), d[2], d[2])
    closest = torch.addcmul(torch.addcmul(o[0] * d[0], o[1], d[1]), o[2], d[2]).neg_().div_(square)
    x, y, z = (torch.addcmul(a, closest, b) for a, b in zip(o, d, strict=True))
    half = torch.sqrt((1.0 - torch.addcmul(torch.addcmul(x * x, y, y), z, z)) / square)
    return _interval(closest - half, closest + half)


_MEET: dict[int, Callable[[Vectors, Vectors], Tensor]] = {
    BOX: _meet_box,
    CYLINDER: _meet_cylinder,
    ELLIPSOID: _meet_ellipsoid,
}


def _into_unit(rows: Tensor, v: Vectors, *, shift: bool) -> Vectors:
    """Points (shift) or directions of (M, S) in the unit frame of each row of `rows` (M, 12). The tiny summand keeps directions off exact zero."""
    x, y, z = v
    start = [rows[:, 9 + i, None] for i in range(3)] if shift else [rows.new_full((1, 1), 1e-12)] * 3
    a, b, c = (
        torch.addcmul(torch.addcmul(torch.addcmul(start[i], rows[:, 3 * i, None], x), rows[:, 3 * i + 1, None], y), rows[:, 3 * i + 2, None], z)
        for i in range(3)
    )
    return a, b, c


@dataclass(frozen=True)
class Rays:
    """Rays in tiles: origin and direction (components of shape (B * T, S) or (B * T, 1)), reach (B * T, S): nothing beyond is met."""

    origin: Vectors
    direction: Vectors
    reach: Tensor


def _cast_family(family: Family, maybe: Tensor, rays: Rays, nearest: Tensor, solid: Tensor | None) -> None:
    """Shortens `nearest` (and names the `solid`) where a solid of this family is met; `maybe` bool (B, T, N) says which tiles may meet which."""
    batch, tiles, number = maybe.shape
    tile, index = (maybe & family.present[:, None]).reshape(batch * tiles, number).nonzero(as_tuple=True)
    if tile.numel() == 0:
        return
    counts = torch.bincount(tile, minlength=batch * tiles)
    rank = torch.arange(tile.numel(), device=tile.device) - (counts.cumsum(0) - counts)[tile]
    fullest, order = counts.sort(descending=True, stable=True)
    sizes = fullest[fullest > 0].tolist()
    order = order[: len(sizes)]
    candidates = torch.zeros((batch * tiles, sizes[0]), dtype=torch.int64, device=tile.device)
    candidates[tile, rank] = index
    candidates = candidates[order]
    base = (torch.div(order, tiles, rounding_mode="floor") * number)[:, None]
    meet = _MEET[family.kind]
    limit = max(1, (CPU_CHUNK if tile.device.type == "cpu" else GPU_CHUNK) // nearest.shape[1])
    for start in range(0, len(sizes), limit):
        rows = order[start : start + limit]
        counted = sizes[start : start + limit]
        o = [c.index_select(0, rows) for c in rays.origin]
        d = [c.index_select(0, rows) for c in rays.direction]
        best = nearest.index_select(0, rows)
        name = None if solid is None else solid.index_select(0, rows)
        chosen = candidates[start : start + limit]
        live = len(counted)
        for step in range(counted[0]):
            while counted[live - 1] <= step:
                live -= 1
            which = chosen[:live, step]
            table = family.to_unit.index_select(0, base[start : start + live, 0] + which)
            distance = meet(
                _into_unit(table, (o[0][:live], o[1][:live], o[2][:live]), shift=True),
                _into_unit(table, (d[0][:live], d[1][:live], d[2][:live]), shift=False),
            )
            if name is not None:
                closer = distance < best[:live]
                name[:live] = torch.where(closer, (which + family.first)[:, None].to(name.dtype), name[:live])
            torch.minimum(best[:live], distance, out=best[:live])
        nearest.index_copy_(0, rows, best)
        if solid is not None and name is not None:
            solid.index_copy_(0, rows, name)


def cast_from_camera(solids: Solids, tiles: Tiling, camera: Tensor, camera_rotation: Tensor, rays: Rays) -> tuple[Tensor, Tensor]:
    """Distance (B * T, S) [m], inf where nothing is met, and the number of the solid (int32), NO_SOLID there."""
    nearest = rays.reach.clone()
    solid = torch.full_like(nearest, NO_SOLID, dtype=torch.int32)
    batch = camera.shape[0]
    planes = (tiles.planes.reshape(1, -1, 3) @ camera_rotation.transpose(1, 2)).contiguous()
    for family in solids.families:
        offset = planes @ (family.centers - camera[:, None]).transpose(1, 2)
        axes = family.rotations * family.half_sizes[:, :, None, :]
        extents = [planes @ axes[..., i].transpose(1, 2) for i in range(3)]
        if family.kind == ELLIPSOID:
            extent = torch.sqrt(extents[0] ** 2 + extents[1] ** 2 + extents[2] ** 2)
        else:
            extent = extents[0].abs_().add_(extents[1].abs_()).add_(extents[2].abs_())
        inside = (offset + extent > -1e-3).reshape(batch, -1, 4, offset.shape[-1])
        _cast_family(family, inside.all(2), rays, nearest, solid)
    return nearest, solid


@dataclass(frozen=True)
class Patches:
    """Where the rays of each tile start: the middle and half extents (B, T, 3) of the axis-aligned box about the origins that are in use, NaN where
    none is. normal (B, T, 3): the common surface normal of a flat patch, zero where it is not flat; floor (B, T): the least height along it."""

    middle: Tensor
    half: Tensor
    normal: Tensor
    floor: Tensor


def patches(origin: Vectors, normals: Vectors, used: Tensor, batch: int) -> Patches:
    """Bounds of tiles of surface points; all inputs (B * T, S)."""

    def least(values: Sequence[Tensor]) -> Tensor:
        return torch.stack([torch.where(used, c, torch.inf).amin(1) for c in values], -1).reshape(batch, -1, len(values))

    def most(values: Sequence[Tensor]) -> Tensor:
        return torch.stack([torch.where(used, c, -torch.inf).amax(1) for c in values], -1).reshape(batch, -1, len(values))

    low, high = least(origin), most(origin)
    facing, spread = least(normals), most(normals)
    flat = ((spread - facing) < 1e-3).all(-1)
    normal = torch.where(flat[..., None], facing, 0.0)
    n = normal.reshape(-1, 3)
    floor = least([origin[0] * n[:, 0, None] + origin[1] * n[:, 1, None] + origin[2] * n[:, 2, None]])[..., 0]
    return Patches((low + high) / 2, (high - low) / 2, normal, floor)


def _along(family: Family, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and half extent of every solid along directions (B, T, 3): (B, T, N) each."""
    middle = directions @ family.centers.transpose(1, 2)
    axes = family.rotations * family.half_sizes[:, :, None, :]
    half = sum((directions @ axes[..., i].transpose(1, 2)).abs() for i in range(3))
    assert isinstance(half, Tensor)
    return middle, half


def _before(family: Family, where: Patches) -> Tensor:
    """bool (B, T, N): whether the solid reaches the side of a patch to which its rays go; False for the solid a flat patch lies on."""
    middle, half = _along(family, where.normal)
    flat = (where.normal != 0).any(-1)
    return (middle + half > where.floor[..., None] + 1e-4) | ~flat[..., None]


def _local(family: Family, axis: int, points: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (middle and half extents (B, T, 3)) along one local axis of the solids: middle and half extent (B, T, N)."""
    direction = family.rotations[..., axis]
    offset = points @ direction.transpose(1, 2) - (family.centers * direction).sum(-1)[:, None]
    return offset, half @ direction.abs().transpose(1, 2)


def cast_nearby(solids: Solids, rays: Rays, where: Patches, reach: Tensor) -> Tensor:
    """Distance (B * T, S) to the nearest solid, at most the ray's reach; `reach` (B,) bounds the rays' reach in each scene."""
    nearest = rays.reach.clone()
    for family in solids.families:
        square = torch.zeros(())
        for axis in range(3):
            offset, half = _local(family, axis, where.middle, where.half)
            gap = (offset.abs() - half - family.half_sizes[:, None, :, axis]).clamp_min_(0)
            square = gap.square() if axis == 0 else square.addcmul_(gap, gap)
        near = square <= reach.square()[:, None, None]
        _cast_family(family, near & _before(family, where), rays, nearest, None)
    return nearest


def cast_to_lamp(solids: Solids, rays: Rays, where: Patches, lamp: Tensor, lamp_radius: Tensor) -> Tensor:
    """Like `cast_nearby`, for rays that all end within `lamp_radius` (B,) of `lamp` (B, 3). Solids are kept if the hull of patch and lamp cannot be
    told from them along their own axes and along two axes across the beam."""
    nearest = rays.reach.clone()
    radius = lamp_radius[:, None, None]
    beam = torch.nn.functional.normalize(lamp[:, None] - where.middle, dim=-1)
    side = torch.nn.functional.normalize(torch.stack([-beam[..., 1], beam[..., 0], torch.full_like(beam[..., 0], 1e-6)], -1), dim=-1)
    for family in solids.families:
        maybe = _before(family, where)
        for axis in range(3):
            start, half = _local(family, axis, where.middle, where.half)
            end = ((lamp[:, None] - family.centers) * family.rotations[..., axis]).sum(-1)[:, None]
            size = family.half_sizes[:, None, :, axis]
            maybe &= (torch.minimum(start - half, end - radius) <= size) & (torch.maximum(start + half, end + radius) >= -size)
        for across in (side, torch.linalg.cross(beam, side)):
            middle, half = _along(family, across)
            own = torch.maximum((across.abs() * where.half).sum(-1), lamp_radius[:, None])
            offset = middle - (across * where.middle).sum(-1)[..., None]
            maybe &= offset.abs() <= half + own[..., None]
        _cast_family(family, maybe, rays, nearest, None)
    return nearest
