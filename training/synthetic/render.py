"""From seeds to pictures: `render_batch` is what the trainer and `dap render` call."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.synthetic.camera_faults import photograph, scan_holes
from training.synthetic.raycaster import NO_SOLID, Rays, Solids, Vectors, cast_from_camera, pack_solids, pixel_rays, tiling
from training.synthetic.sampling import Kind, sample_scene
from training.synthetic.scene import Scene
from training.synthetic.shading import Surface, pack_lights, pack_materials, radiance, sky_radiance, surface, visibility

TILE = (8, 16)  # pixels; small enough that few solids meet a tile, large enough that an operation on a row of tiles is worth its call


@dataclass(frozen=True)
class Rendered:
    """A batch of panoramas (ERP, column W/2 looks forward) and their exact geometry, all on one device.

    rgb: uint8 (B, H, W, 3). depth: float32 (B, H, W), Euclidean distance along the ray [m], +inf on the sky (leave the sky out of depth losses;
    a range mask calls it out of range). sky: bool (B, H, W). known: bool (B, H, W), False in the holes of a scan, where rgb is black and depth,
    although given, must not be learnt from. normals: float32 (B, H, W, 3), unit, camera frame (x forward, y left, z up), facing the camera;
    zero on the sky.
    """

    rgb: Tensor
    depth: Tensor
    sky: Tensor
    known: Tensor
    normals: Tensor


def _trace(scenes: Sequence[Scene], solids: Solids, height: int, width: int, device: torch.device) -> tuple[Surface, Vectors, Tensor]:
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


@torch.no_grad()
def render(scenes: Sequence[Scene], height: int, width: int, device: str | torch.device = "cpu") -> Rendered:
    """Renders scenes in one batch. What a scene looks like does not depend on its neighbours in the batch."""
    device = torch.device(device)
    seeds = [scene.seed for scene in scenes]
    faults = [scene.faults for scene in scenes]
    solids = pack_solids(scenes, device)
    found, rays, turn = _trace(scenes, solids, height, width, device)
    lights = pack_lights(scenes, device)
    seen = visibility(solids, found, lights, seeds, height, width)
    light = radiance(found, rays, seen, lights, pack_materials(scenes, device), np.pi / height)
    sky = found.solid == NO_SOLID
    if bool(sky.any()):
        light = torch.where(sky[:, None], sky_radiance(scenes, rays), light)
    shape = (len(scenes), height, width)
    known = ~scan_holes(seeds, faults, height, width, device)
    n = found.normals
    normals = torch.stack([turn[:, 0, i, None] * n[0] + turn[:, 1, i, None] * n[1] + turn[:, 2, i, None] * n[2] for i in range(3)], -1)
    return Rendered(
        rgb=photograph(light.reshape(len(scenes), 3, height, width), faults, seeds, known),
        depth=found.distance.reshape(shape),
        sky=sky.reshape(shape),
        known=known,
        normals=torch.where(sky[..., None], 0.0, normals).reshape(*shape, 3),
    )


def render_batch(seeds: Sequence[int], height: int, width: int, kind: Kind = "mixed", device: str | torch.device = "cpu") -> Rendered:
    """Samples and renders one scene a seed; `kind`: "indoor", "outdoor", or "mixed", where the seed also decides which."""
    return render([sample_scene(seed, kind) for seed in seeds], height, width, device)
