"""The sub-commands `dap export` and `dap verify`."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import click
import torch
from click.core import ParameterSource

from dap.checksums import sha256_of
from dap.engines import PRECISIONS, Provider, create_engine
from dap.engines.cores import available_cores
from dap.errors import InvalidParameter
from dap.graph import GRAPH_PRECISIONS, GraphMetadata, GraphPrecision, read_graph_metadata
from dap.model.checkpoints import load_network
from dap.models import Model, find_model, first_path, model_file, sibling_path
from dap.options import (
    PixelSize,
    device_option,
    json_option,
    max_batch_size_option,
    option,
    provider_option,
    threads_option,
)
from dap.resolutions import Size, batch_limit
from model_export.onnx import Target, export_onnx
from model_export.samples import read_panoramas
from model_export.tensorrt import export_tensorrt, require_builder
from model_export.verify import (
    LIMITS,
    Agreement,
    Reference,
    compare_and_close,
    compare_by_onnx,
    reference_sets,
    synthetic_set,
)

panorama_option = option(
    "--panorama",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="Panorama to compare on, or folder of them; give it once for each. They come beside six rendered scenes that "
    "nothing is calibrated on (two in fp32 where the network is large) and, in fp32, six synthetic pictures. Each set "
    "is held to the limits by itself.",
)


@click.command()
@option("--model", required=True, envvar="DAP_MODEL", help="A name that `dap models` lists, or a checkpoint's file.")
@option(
    "--to",
    "target",
    type=click.Choice(["onnx", "tensorrt"]),
    default="onnx",
    envvar="DAP_EXPORT_TO",
    help="What to export to; tensorrt: a file for GPUs, and its plan for the GPU of this machine, which is kept "
    "where `--engine tensorrt` finds it.",
)
@option(
    "--plan/--no-plan",
    "with_plan",
    default=True,
    envvar="DAP_EXPORT_PLAN",
    help="Of tensorrt: whether to build the plan. Without it the file is written and compared by itself, which needs "
    "neither TensorRT nor a GPU; `--engine tensorrt` builds its plan when it is served.",
)
@option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The file to write; of several sizes that of the first, with the others beside it: NAME@WxH.onnx.",
)
@option(
    "--precision",
    type=click.Choice(GRAPH_PRECISIONS),
    default="fp32",
    help="In which most of the graph runs; what needs float32 stays float32. ONNX Runtime's CPU provider runs fp32, "
    "int8, and fp16 by way of float32; TensorRT bf16, too, int8 --to tensorrt, and fp8 on GPUs of compute capability "
    "8.9 or later.",
)
@option(
    "--calibrate",
    "calibration",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    envvar="DAP_EXPORT_CALIBRATE",
    help="Of int8 and fp8: panorama, or folder of them, to measure the ranges of values on; give it once for each. "
    "Best are a hundred like those the model is for (`dap render` draws some). By default twelve rendered "
    "scenes, indoors and outdoors.",
)
@option(
    "--size",
    "sizes",
    type=PixelSize(),
    multiple=True,
    envvar="DAP_EXPORT_SIZE",
    help="WxH of the input, multiples of 16; give it once for each resolution that the model is to be offered at, "
    "first that for who asks for none. By default the model's own.",
)
@option("--name", help="Name of the model in the file; by default the model's own.")
@option("--licence", help="Licence of the weights, as the file will say it; by default what is known of the model.")
@max_batch_size_option
@option(
    "--device",
    default="auto",
    envvar="DAP_DEVICE",
    help="Of tensorrt: the GPU to build the plan on and for, cuda or cuda:N; auto: the first. An exported file is "
    "compared with the network on the CPU.",
)
@panorama_option
@threads_option
@json_option
def export(
    model: str,
    target: Target,
    with_plan: bool,
    output: Path,
    precision: GraphPrecision,
    calibration: tuple[Path, ...],
    sizes: tuple[tuple[int, int], ...],
    name: str | None,
    licence: str | None,
    max_batch_size: int,
    device: str,
    panorama: tuple[Path, ...],
    threads: int | None,
    as_json: bool,
) -> None:
    """Write a checkpoint as a file that the service runs without torch, for each size.

    A file is compared with the network first, on what `dap verify` would compare it on, and so is its plan. If one of
    them disagrees none is written, and files that stand there already stay as they are.
    """
    if precision not in ("int8", "fp8"):
        _refuse_given(["calibration"], f"is of int8 and fp8: expected none in {precision}")
        calibration = ()
    if target != "tensorrt":
        _refuse_given(["with_plan"], f"is of --to tensorrt: expected none with --to {target}")
        with_plan = False
    if with_plan:
        require_builder(device, precision)
    else:
        _refuse_given(["device", "max_batch_size"], "is of a plan: expected none where none is built")
    torch.set_num_threads(threads or available_cores())
    source, path = _checkpoint(model)
    network = load_network(path)
    sizes = tuple(dict.fromkeys(sizes or (source.input_size,)))
    metadata = GraphMetadata(
        name=name or source.name,
        thresholds=network.config.thresholds,
        input_size=sizes[0],
        licence=licence or source.licence,
        weights_sha256=sha256_of(path),
        spherical=network.config.spherical,
        precision=precision,
    )
    outputs = {size: output if size == sizes[0] else sibling_path(output, size) for size in sizes}
    found: list[tuple[Path, tuple[Agreement, ...]]] = []
    references: dict[Size, tuple[Reference, ...]] = {}
    with _placed_together([*outputs.values()]) as drafts:
        for size, file in outputs.items():
            panoramas, pictures = (read_panoramas(paths, size) for paths in (panorama, calibration))
            references[size] = reference_sets(network, panoramas, precision, size)
            of_size = replace(metadata, input_size=size)
            found.append((file, export_onnx(network, of_size, drafts[file], references[size], pictures, target)))
        if with_plan:
            for size, file in outputs.items():
                largest = batch_limit(max_batch_size, size, sizes[0])
                plans = export_tensorrt(drafts[file], references[size], device=device, max_batch_size=largest)
                found.append((file, plans))
    find_model(output)  # what is left beside it of an older export is told now, and not when it is served
    _report(found, as_json)


@click.command()
@click.argument(
    "exported", metavar="MODEL.onnx...", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@option("--against", required=True, metavar="CHECKPOINT", help="The network: a name or a checkpoint's file.")
@option(
    "--engine",
    "engines",
    type=click.Choice(["onnx", "tensorrt", "torch"]),
    multiple=True,
    default=["onnx"],
    envvar="DAP_VERIFY_ENGINE",
    help="What runs the files: onnx or tensorrt; give it once for each. torch runs the checkpoint itself in fp32 and "
    "bf16, and on a GPU in fp16, too.",
)
@device_option
@provider_option
@max_batch_size_option
@panorama_option
@threads_option
@json_option
def verify(
    exported: tuple[Path, ...],
    against: str,
    engines: tuple[str, ...],
    device: str,
    provider: Provider,
    max_batch_size: int,
    panorama: tuple[Path, ...],
    threads: int | None,
    as_json: bool,
) -> None:
    """Compare exported models with the network, and end with an error if one of them disagrees with it."""
    if provider != "auto" and "onnx" not in engines:
        raise InvalidParameter(f"The provider {provider} is of the onnx engine alone: expected --engine onnx with it.")
    if "tensorrt" in engines:
        for file in exported:
            require_builder(device, read_graph_metadata(file).precision)
    torch.set_num_threads(threads or available_cores())
    source, path = _checkpoint(against)
    network = load_network(path)
    found: list[tuple[Path, tuple[Agreement, ...]]] = []
    for file in exported:
        of_file = read_graph_metadata(file)
        size = of_file.input_size
        references = reference_sets(network, read_panoramas(panorama, size), of_file.precision, size)
        largest = batch_limit(max_batch_size, size, read_graph_metadata(first_path(file)).input_size)
        if "onnx" in engines:
            by_onnx = compare_by_onnx(file, references, device=device, provider=provider, max_batch_size=largest)
            found.append((file, by_onnx))
        if "tensorrt" in engines:
            engine = create_engine(find_model(file).at(size), "tensorrt", device=device, max_batch_size=largest)
            plans = compare_and_close(engine, references, of_file.precision, max_batch_size=largest)
            found.append((file, plans))
    if "torch" in engines:
        size = source.input_size
        lower = reference_sets(network, read_panoramas(panorama, size), "bf16", size)
        exact = (synthetic_set(network, size), *lower)
        for precision in PRECISIONS:
            engine = create_engine(source, "torch", device=device, threads=threads, precision=precision)
            references = exact if precision == "fp32" else lower
            by_torch = compare_and_close(engine, references, precision, max_batch_size=max_batch_size)
            found.append((path, by_torch))
            if engine.device == "cpu" and precision == "bf16":
                break  # the CPU has no fp16 that is worth the wait
    if not found:
        raise InvalidParameter("Nothing to compare: expected exported files, or --engine torch.")
    _report(found, as_json)
    for _, agreements in found:
        for agreement in agreements:
            agreement.require()


def _refuse_given(names: Sequence[str], reason: str) -> None:
    """Refuse options on the command line that would change nothing. What a variable says may be for other commands."""
    context = click.get_current_context()
    for parameter in context.command.params:
        if parameter.name in names and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE:
            raise InvalidParameter(f"{'/'.join((*parameter.opts, *parameter.secondary_opts))} {reason}.")


@contextmanager
def _placed_together(paths: Sequence[Path]) -> Iterator[dict[Path, Path]]:
    """A draft of each file, under the same name beside it. When all is well they take their places, else they go."""
    folder = paths[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as apart:
        drafts = {path: Path(apart) / path.name for path in paths}
        yield drafts
        for path, draft in drafts.items():
            draft.replace(path)


def _checkpoint(name_or_path: str) -> tuple[Model, Path]:
    model = find_model(name_or_path)
    if model.path.suffix == ".onnx":
        raise InvalidParameter(f"{name_or_path} is exported already: expected a checkpoint, .pth or .safetensors.")
    return model, model_file(model)


def _report(found: Sequence[tuple[Path, Sequence[Agreement]]], as_json: bool) -> None:
    """One after another, file by file and engine by engine, each set of panoramas of theirs by itself."""
    each = [(path, agreement) for path, agreements in found for agreement in agreements]
    if as_json:
        entries = [
            {
                "file": str(path),
                "bytes": path.stat().st_size,
                "agreement": asdict(agreement),
                "limits": LIMITS[agreement.precision],
            }
            for path, agreement in each
        ]
        click.echo(json.dumps({"agreements": entries}))
        return
    for path, agreement in each:
        click.echo(
            f"{path}, {path.stat().st_size / 1e6:.1f} MB, {agreement.precision} by {agreement.engine}, "
            f"against the network on {agreement.panoramas} {agreement.source} panoramas:"
        )
        limits = LIMITS[agreement.precision]
        for name, value in asdict(agreement).items():
            if isinstance(value, float):
                limit = f"  (limit {limits[name]:g})" if name in limits else ""
                click.echo(f"  {name:18} {value:.3g}{limit}")
