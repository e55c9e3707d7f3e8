"""The sub-commands `dap export` and `dap verify`."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch

from dap.engines.cores import available_cores
from dap.errors import InvalidParameter
from dap.graph import GraphMetadata
from dap.model.checkpoints import load_network
from dap.models import Model, find_model, model_file
from dap.options import PixelSize, json_option, option, threads_option
from dap.panorama import decode
from model_export.onnx import export_onnx
from model_export.verify import LIMITS, Agreement
from model_export.verify import verify as compare

panorama_option = option(
    "--panorama",
    "files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Panorama to compare on, once for each; by default some that are drawn.",
)


@click.command()
@option("--model", required=True, envvar="DAP_MODEL", help="A name that `dap models` lists, or a checkpoint's file.")
@option("--to", "target", type=click.Choice(["onnx"]), default="onnx", help="What to export to.")
@option("--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write.")
@option("--size", type=PixelSize(), help="WxH of the input, multiples of 16; by default the model's own.")
@option("--name", help="Name of the model in the file; by default the model's own.")
@option("--licence", help="Licence of the weights, as the file will say it; by default what is known of the model.")
@panorama_option
@threads_option
@json_option
def export(
    model: str,
    target: str,  # noqa: ARG001 - the one choice there is
    output: Path,
    size: tuple[int, int] | None,
    name: str | None,
    licence: str | None,
    files: tuple[Path, ...],
    threads: int | None,
    as_json: bool,
) -> None:
    """Write a checkpoint as a file that the service runs without torch.

    The file is compared with the network first, and is not written if the two disagree.
    """
    torch.set_num_threads(threads or available_cores())
    source, path = _checkpoint(model)
    network = load_network(path)
    metadata = GraphMetadata(
        name=name or source.name,
        thresholds=network.config.thresholds,
        input_size=size or source.input_size,
        licence=licence or source.licence,
        weights_sha256=_sha256(path),
        spherical=network.config.spherical,
    )
    agreement = export_onnx(network, metadata, output, _panoramas(files, metadata.input_size))
    _report(output, agreement, as_json)


@click.command()
@click.argument("exported", metavar="MODEL.onnx", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@option("--against", required=True, metavar="CHECKPOINT", help="The network: a name or a checkpoint's file.")
@panorama_option
@threads_option
@json_option
def verify(exported: Path, against: str, files: tuple[Path, ...], threads: int | None, as_json: bool) -> None:
    """Compare an exported model with the network, and end with an error if the two disagree."""
    torch.set_num_threads(threads or available_cores())
    _, path = _checkpoint(against)
    size = find_model(exported).input_size
    agreement = compare(exported, load_network(path), _panoramas(files, size))
    _report(exported, agreement, as_json)
    agreement.require()


def _checkpoint(name_or_path: str) -> tuple[Model, Path]:
    model = find_model(name_or_path)
    if model.path.suffix == ".onnx":
        raise InvalidParameter(f"{name_or_path} is exported already: expected a checkpoint, .pth or .safetensors.")
    return model, model_file(model)


def _panoramas(files: tuple[Path, ...], size: tuple[int, int]) -> Sequence[npt.NDArray[np.uint8]] | None:
    return [decode(file.read_bytes(), size=size).pixels for file in files] or None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _report(path: Path, agreement: Agreement, as_json: bool) -> None:
    numbers = asdict(agreement)
    if as_json:
        click.echo(
            json.dumps({"file": str(path), "bytes": path.stat().st_size, "agreement": numbers, "limits": LIMITS})
        )
        return
    click.echo(f"{path}, {path.stat().st_size / 1e6:.1f} MB, against the network on {agreement.panoramas} panoramas:")
    for name, value in numbers.items():
        if name != "panoramas":
            limit = f"  (limit {LIMITS[name]:g})" if name in LIMITS else ""
            click.echo(f"  {name:18} {value:.3g}{limit}")
