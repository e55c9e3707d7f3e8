"""The core's sub-commands: `dap predict`, `dap models`."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import click

from dap.cloud import point_cloud
from dap.depth import FILLS, DepthMap, Fill
from dap.errors import DapError, InvalidParameter, with_cause
from dap.formats import npz
from dap.formats.base import EncodeOptions
from dap.formats.clouds import CLOUD_FORMATS
from dap.formats.colormaps import COLORMAPS
from dap.formats.depth import DEPTH_FORMATS
from dap.models import DEFAULT_MODEL, Model, find_model, known_models
from dap.models import pull as pull_model
from dap.options import PixelSize, depth_options, engine_options, json_option, option, resolution_option
from dap.panorama import decode
from dap.postprocess import DepthOptions
from dap.predictor import Predictor
from dap.progress import log_to_stderr, progress
from dap.resolutions import resolution_list, resolution_text
from dap.sphere import FRAMES

_PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_WRITTEN = ".depth"  # pano.jpg gives pano.depth.png, which is no input of the next run
_CLOUDS = {name: entry for name, entry in CLOUD_FORMATS.items() if name not in DEPTH_FORMATS} | {
    f"cloud-{name}": replace(entry, extension=f".cloud{entry.extension}")
    for name, entry in CLOUD_FORMATS.items()
    if name in DEPTH_FORMATS
}
_CLOUD_OPTIONS = ("frame", "max_points", "normals", "max_edge")


@dataclass(frozen=True)
class _Wanted:
    """What is written of each panorama."""

    formats: tuple[str, ...]
    depth: DepthOptions
    size: tuple[int, int] | Literal["input", "model"]
    cloud: dict[str, Any]
    encode: EncodeOptions


@click.command()
@click.argument("source", metavar="FILE|FOLDER", type=click.Path(exists=True, path_type=Path))
@option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the results; of a folder, its subfolders are kept.",
)
@option(
    "-f",
    "--format",
    "formats",
    type=click.Choice([*DEPTH_FORMATS, *_CLOUDS]),
    multiple=True,
    envvar="DAP_PREDICT_FORMAT",
    default=(next(iter(DEPTH_FORMATS)),),
    help="What to write; give it once for each.",
)
@depth_options
@option(
    "--size",
    type=PixelSize("input", "model"),
    default="input",
    help="Pixels of the depth: as many as the panorama has, as the network gives, or WxH.",
)
@option("--fill", type=click.Choice(FILLS), default="nan", help="What float formats hold where depth is not valid.")
@option("--colormap", type=click.Choice([*COLORMAPS]), default="turbo", help="Colours of pictures of depth.")
@option("--frame", type=click.Choice(FRAMES), default="ros", help="Axes of a point cloud.")
@option("--max-points", type=click.IntRange(min=1), help="Points of a cloud at most; by default as dense as the depth.")
@option("--normals", is_flag=True, help="Give the points of a cloud normals.")
@option(
    "--max-edge",
    type=click.FloatRange(0, min_open=True),
    help="Leave out points of a cloud where the depth of neighbours differs by more than this share; 0.1 is a good "
    "start. Too small a share thins out surfaces seen at a flat angle, too large a one lets points hang at edges.",
)
@engine_options
@resolution_option
@json_option
def predict(
    source: Path,
    output: Path,
    formats: tuple[str, ...],
    size: tuple[int, int] | Literal["input", "model"],
    fill: Fill,
    colormap: str,
    model: str,
    resolution: tuple[int, int] | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the metric depth of a panorama, or of every panorama in a folder.

    A file that cannot be used is reported and the others go on; the exit status is then 1.
    """
    log_to_stderr()
    depth = {field.name: options.pop(field.name) for field in fields(DepthOptions) if field.name in options}
    wanted = _Wanted(
        formats,
        DepthOptions(**depth, keep_in_range=npz.FORMAT.name in formats),
        size,
        {name: options.pop(name) for name in _CLOUD_OPTIONS},
        EncodeOptions(fill, colormap),
    )
    jobs = _jobs(source, output)
    written: list[dict[str, object]] = []
    failed: list[dict[str, object]] = []
    with (
        Predictor(find_model(model, resolution), **options) as predictor,
        progress("depth", len(jobs)) as advance,
    ):
        for file, stem in jobs:
            try:
                written.append({"input": str(file)} | _write(predictor, file, stem, wanted))
            except (DapError, OSError) as error:
                detail = with_cause(error)
                failed.append({"input": str(file), "error": getattr(error, "slug", "file"), "detail": detail})
                click.echo(f"{file}: {detail}", err=True)
            advance(1)
        summary = {
            "model": predictor.model.name,
            "resolution": resolution_text(predictor.engine.input_size),
            "engine": predictor.engine.name,
            "device": predictor.engine.device,
        }
    if as_json:
        click.echo(json.dumps(summary | {"written": written, "failed": failed}, indent=2))
    else:
        click.echo(f"{len(written)} of {len(jobs)} panoramas written to {output}")
    if failed:
        sys.exit(1)


def _jobs(source: Path, output: Path) -> list[tuple[Path, Path]]:
    """Each panorama with the path of its results, short of their extension."""
    if source.is_file():
        return [(source, output / f"{source.stem}{_WRITTEN}")]
    files = [
        file
        for file in sorted(source.rglob("*"))
        if file.suffix.lower() in _PICTURES and _WRITTEN not in file.suffixes and file.is_file()
    ]
    stems: dict[Path, Path] = {}
    for file in files:
        stem = output / file.relative_to(source).with_name(f"{file.stem}{_WRITTEN}")
        if stem in stems:
            raise InvalidParameter(f"The results of {stems[stem]} and {file} would have the same name: rename one.")
        stems[stem] = file
    if not files:
        raise InvalidParameter(f"There is no picture in {source}: expected files that end in {', '.join(_PICTURES)}.")
    return [(file, stem) for stem, file in stems.items()]


def _write(predictor: Predictor, file: Path, stem: Path, wanted: _Wanted) -> dict[str, object]:
    started = time.perf_counter()
    data = file.read_bytes()
    depth_map = predictor.predict(data, size=wanted.size, **asdict(wanted.depth))
    outputs: dict[str, str] = {}
    for name, extension, content in _encoded(depth_map, data, wanted):
        path = stem.with_name(stem.name + extension)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.part")
        draft.write_bytes(content)
        draft.replace(path)
        outputs[name] = str(path)
    return {
        "outputs": outputs,
        "range": depth_map.range,
        "range_mask": depth_map.range_mask,
        "scale_factor": round(depth_map.scale_factor, 6),
        "valid_share": round(depth_map.statistics().valid_share, 6),
        "seconds": round(time.perf_counter() - started, 3),
    }


def _encoded(depth_map: DepthMap, data: bytes, wanted: _Wanted) -> Iterator[tuple[str, str, bytes]]:
    """(format, extension, bytes) of everything wanted."""
    for name in wanted.formats:
        if name in DEPTH_FORMATS:
            yield name, DEPTH_FORMATS[name].extension, DEPTH_FORMATS[name].encode(depth_map, wanted.encode)
        else:
            cloud = point_cloud(depth_map, decode(data, size=depth_map.size).pixels, **wanted.cloud)
            yield name, _CLOUDS[name].extension, _CLOUDS[name].encode(cloud)


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def models(ctx: click.Context, /, as_json: bool) -> None:
    """List the models that are known, with their licences; `pull` fetches one."""
    if ctx.invoked_subcommand is not None:
        return
    if as_json:
        click.echo(json.dumps([_as_json(model) for model in known_models()], indent=2))
    else:
        click.echo("\n\n".join(_paragraph(model) for model in known_models()))
        click.echo("\nThe path of a .onnx, .pth or .safetensors file is a model too.")


@models.command("pull")
@click.argument("name")
def pull(name: str) -> None:
    """Fetch a model's weights from the hub; goes on where an earlier try broke off, and checks what came."""
    log_to_stderr()
    model = find_model(name)
    size = model.hub.size if model.hub else 0
    here = 0
    with progress(f"{name}, {size / 1e6:.0f} MB", size) as advance:

        def show(done: int, _: int) -> None:
            nonlocal here
            advance(done - here)
            here = done

        path = pull_model(model, progress=show)
    click.echo(f"{path}\nlicence: {model.licence}")


def _paragraph(model: Model) -> str:
    thresholds = ", ".join(f"{threshold:g}" for threshold in model.thresholds)
    default = ", the default" if model.name == DEFAULT_MODEL else ""
    return "\n".join(
        [
            f"{model.name}  ({model.state}{default})",
            f"  {model.description}; from {model.source}",
            f"  input {resolution_list(model.sizes)}, range mask at {thresholds} m",
            f"  licence: {model.licence}",
            f"  file: {model.path}",
        ]
    )


def _as_json(model: Model) -> dict[str, object]:
    return {
        "name": model.name,
        "state": model.state,
        "default": model.name == DEFAULT_MODEL,
        "description": model.description,
        "source": model.source,
        "input_size": model.input_size,
        "resolutions": [resolution_text(size) for size in model.sizes],
        "thresholds": model.thresholds,
        "licence": model.licence,
        "file": str(model.path),
    }
