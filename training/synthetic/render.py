"""From seeds to pictures: `render_batch` is what the trainer and `dap render` call."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from training.synthetic.camera_faults import photograph, scan_holes
from training.synthetic.raycaster import (
    NO_SOLID,
    Rays,
    Solids,
    Vectors,
    cast_from_camera,
    pack_solids,
    pixel_rays,
    tiling,
)
from training.synthetic.sampling import Domain, Kind, sample_scene
from training.synthetic.scene import Scene
from training.synthetic.shading import (
    Surface,
    incoming_light,
    pack_lights,
    pack_materials,
    radiance,
    sky_radiance,
    surface,
)

CPU_PIXELS = 1 << 18  # rendered at once: more falls out of the caches, fewer spends its time in calls
GPU_PIXELS = 1 << 22  # 600 bytes each (measured on a CPU): a GPU may have a training in its memory as well
# Small enough that few solids meet a tile, large enough that an operation on a row of tiles is worth its call.
TILE = (8, 16)


@dataclass(frozen=True)
class Rendered:
    """A batch of panoramas (ERP, column W/2 looks forward) and their exact geometry, all on one device.

    Attributes:
        rgb: uint8 (B, H, W, 3).
        depth: float32 (B, H, W), Euclidean distance along the ray in metres; +inf on the sky, which belongs to the
            range mask (out of range) and to no depth loss.
        sky: bool (B, H, W), where the ray meets nothing.
        known: bool (B, H, W), False in the holes of a scan: rgb is black there, and depth, although given, must not be
            learnt from.
        normals: float32 (B, H, W, 3), unit, camera frame (x forward, y left, z up), facing the camera; zero on the sky.
    """

    rgb: Tensor
    depth: Tensor
    sky: Tensor
    known: Tensor
    normals: Tensor


def _trace(
    scenes: Sequence[Scene], solids: Solids, height: int, width: int, device: torch.device
) -> tuple[Surface, Vectors, Tensor]:
    """The surface each pixel shows, the world rays (B, P) and the camera rotations (B, 3, 3)."""
    camera = torch.from_numpy(np.stack([scene.camera for scene in scenes])).to(device)
    turn = torch.from_numpy(np.stack([scene.camera_rotation for scene in scenes])).to(device)
    x, y, z = pixel_rays(height, width, device)
    rays = tuple(turn[:, i, 0, None] * x + turn[:, i, 1, None] * y + turn[:, i, 2, None] * z for i in range(3))
    tiles = tiling(height, width, *TILE, device)
    count, size = tiles.pixels.shape
    cut = [ray[:, tiles.pixels.reshape(-1)].reshape(-1, size) for ray in rays]
    origin = [camera[:, i].repeat_interleave(count)[:, None] for i in range(3)]
    reach = torch.full_like(cut[0], torch.inf)
    tiled = Rays((origin[0], origin[1], origin[2]), (cut[0], cut[1], cut[2]), reach)
    distance, solid = cast_from_camera(solids, tiles, camera, turn, tiled)
    distance = distance.reshape(len(scenes), -1)[:, tiles.slots]
    solid = solid.reshape(len(scenes), -1)[:, tiles.slots]
    world = (rays[0], rays[1], rays[2])
    return surface(solids, distance, solid, camera, world), world, turn


def _render_group(scenes: Sequence[Scene], height: int, width: int, device: torch.device) -> Rendered:
    seeds = [scene.seed for scene in scenes]
    faults = [scene.faults for scene in scenes]
    solids = pack_solids(scenes, device)
    found, rays, turn = _trace(scenes, solids, height, width, device)
    incoming = incoming_light(solids, found, rays, pack_lights(scenes, device), seeds, height, width)
    light = radiance(found, rays, incoming, pack_materials(scenes, device), np.pi / height)
    sky = found.solid == NO_SOLID
    if bool(sky.any()):
        light = torch.where(sky[:, None], sky_radiance(scenes, rays), light)
    shape = (len(scenes), height, width)
    known = ~scan_holes(seeds, faults, height, width, device)
    n = found.normals
    normals = torch.stack(
        [turn[:, 0, i, None] * n[0] + turn[:, 1, i, None] * n[1] + turn[:, 2, i, None] * n[2] for i in range(3)], -1
    )
    return Rendered(
        rgb=photograph(light.reshape(len(scenes), 3, height, width), faults, seeds, known),
        depth=found.distance.reshape(shape),
        sky=sky.reshape(shape),
        known=known,
        normals=torch.where(sky[..., None], 0.0, normals).reshape(*shape, 3),
    )


@torch.no_grad()
def render(scenes: Sequence[Scene], height: int, width: int, device: str | torch.device = "cpu") -> Rendered:
    """Renders scenes; what a scene looks like does not depend on its neighbours in the batch."""
    device = torch.device(device)
    most = max(1, (CPU_PIXELS if device.type == "cpu" else GPU_PIXELS) // (height * width))
    groups = [_render_group(scenes[i : i + most], height, width, device) for i in range(0, len(scenes), most)]
    if len(groups) == 1:
        return groups[0]
    return Rendered(*(torch.cat([getattr(group, field.name) for group in groups]) for field in fields(Rendered)))


def render_batch(
    seeds: Sequence[int],
    height: int,
    width: int,
    kind: Kind = "mixed",
    device: str | torch.device = "cpu",
    domain: Domain = "standard",
) -> Rendered:
    """Samples and renders one scene a seed.

    Args:
        seeds: whole numbers from 0; the same seed always gives the same panorama.
        height: pixels, at least 8.
        width: pixels, at least 8; twice the height for a whole panorama.
        kind: of scene; with "mixed" the seed decides also whether it is outdoors.
        device: where to render and where the result lies.
        domain: how things look and stand; see `training.synthetic.real_like`.
    """
    return render([sample_scene(seed, kind, domain) for seed in seeds], height, width, device)
