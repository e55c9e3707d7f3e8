"""`dap render`: samples of the synthetic panoramas, to look at or to use."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from dap.depth import DepthMap
from dap.errors import InvalidParameter
from dap.formats import png16, preview
from dap.options import PixelSize, option
from dap.progress import log_to_stderr, progress
from training.synthetic.render import Rendered, render_batch
from training.synthetic.sampling import DOMAINS, KINDS, Domain, Kind

BATCH = 8
SHEET_COLUMNS = 3  # pairs of picture and depth in a row of the contact sheet
SHEET_HEIGHT = 128
_LEAST_HEIGHT = 8


@click.command()
@option("--count", type=click.IntRange(1), default=12, help="How many panoramas.")
@option("--seed", type=click.IntRange(0), default=0, help="Seed of the first scene; the others follow.")
@option("--size", type=PixelSize(), default="512x256", help="WxH of the panoramas.")
@option("--kind", type=click.Choice(KINDS), default="mixed", help="What scenes.")
@option(
    "--domain",
    type=click.Choice(DOMAINS),
    default="standard",
    help="How things look. clean: the standard scenes through a camera without a fault, as synthetic data sets are; "
    "real-like: other layouts, materials, lights and cameras, for what must not be seen before; in-the-wild: these "
    "through cameras from good to poor.",
)
@option("--device", default="cpu", help="Where to render: cpu, cuda or cuda:N.")
@option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default="rendered",
    help="Folder for the panoramas.",
)
def render(
    *, count: int, seed: int, size: tuple[int, int], kind: Kind, domain: Domain, device: str, output: Path
) -> None:
    """Draw synthetic panoramas with exact depth.

    For each seed: SEED.rgb.png, SEED.depth.npy (float32 metres along the ray; infinite on the sky, NaN where the
    picture has a hole), SEED.depth.png (16 bit, metres = value / 512, 0 = sky, hole or beyond 100 m), SEED.sky.png;
    and contact_sheet.png with all of them.
    """
    log_to_stderr()
    height, width = size
    if height < _LEAST_HEIGHT:
        raise click.BadParameter(f"expected at least {2 * _LEAST_HEIGHT}x{_LEAST_HEIGHT}", param_hint="--size")
    place = _device(device)
    output.mkdir(parents=True, exist_ok=True)
    tiles = []
    with progress("rendering", count) as advance:
        for start in range(seed, seed + count, BATCH):
            seeds = range(start, min(start + BATCH, seed + count))
            batch = render_batch(seeds, height, width, kind, place, domain)
            tiles += [_write(batch, i, output / f"{number:06d}") for i, number in enumerate(seeds)]
            advance(len(seeds))
    sheet = output / "contact_sheet.png"
    _contact_sheet(tiles).save(sheet)
    click.echo(str(sheet))


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidParameter(f"--device: expected cpu or cuda, got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidParameter(f"--device: {name!r} is not available here")
    return device


def _write(batch: Rendered, index: int, stem: Path) -> Image.Image:
    """Writes one panorama's files; gives its tile of the contact sheet."""
    rgb = batch.rgb[index].cpu().numpy()
    known = batch.known[index].cpu().numpy()
    sky = batch.sky[index].cpu().numpy()
    depth = np.where(known, batch.depth[index].cpu().numpy(), np.float32(np.nan))
    picture = Image.fromarray(rgb)
    picture.save(stem.with_name(f"{stem.name}.rgb.png"))
    np.save(stem.with_name(f"{stem.name}.depth.npy"), depth)
    Image.fromarray(sky).save(stem.with_name(f"{stem.name}.sky.png"))
    in_range = np.isfinite(depth) & (np.nan_to_num(depth) <= 100.0)
    depth_map = DepthMap(np.where(in_range, depth, 0.0).astype(np.float32), in_range, 100.0, "depth", "synthetic")
    stem.with_name(f"{stem.name}.depth.png").write_bytes(png16.encode(depth_map))
    return _tile(picture, depth_map)


def _tile(picture: Image.Image, depth_map: DepthMap) -> Image.Image:
    """Picture and coloured depth side by side."""
    size = (2 * SHEET_HEIGHT, SHEET_HEIGHT)
    tile = Image.new("RGB", (2 * size[0], size[1]))
    tile.paste(picture.resize(size, Image.Resampling.BOX), (0, 0))
    tile.paste(_coloured(depth_map).resize(size, Image.Resampling.BOX), (size[0], 0))
    return tile


def _coloured(depth_map: DepthMap) -> Image.Image:
    return Image.open(BytesIO(preview.encode(depth_map)))


def _contact_sheet(tiles: Sequence[Image.Image]) -> Image.Image:
    width, height = tiles[0].size
    columns = min(SHEET_COLUMNS, len(tiles))
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * width, i // columns * height))
    return sheet
