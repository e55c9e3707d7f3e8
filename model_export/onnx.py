"""The network as an ONNX file: uint8 panoramas in, metres and in-range probabilities out, whole in itself.

The graph has one input, `panorama` uint8 (batch, H, W, 3), and two outputs, `depth` float32 (batch, H, W) in metres and
`in_range` float32 (batch, T, H, W) in [0, 1]. Normalisation and the scale to metres are inside. H and W are fixed, the
batch is open. What the graph is stands in its metadata (`dap.graph.GraphMetadata`).
"""

import logging
import tempfile
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
import torch

from dap.errors import ExportError, InvalidParameter
from dap.graph import GraphMetadata
from dap.model.dap import DapNetwork, PixelNetwork
from dap.panorama import resize_pixels
from model_export import precision, quantize, symmetric
from model_export.attention import TRANSLATIONS, fuse_rotary, say_meaning
from model_export.lean import LeanHead, lean, own_weights
from model_export.precision import lowered
from model_export.quantize import Quantizer
from model_export.samples import scene_panoramas
from model_export.symmetric import SymmetricQuantizer
from model_export.verify import Agreement, Reference, compare_by_onnx, reference_sets

# ONNX Runtime 1.18 and later read this opset and the format (IR 10) that goes with it.
_OPSET = 20
_LARGEST_BATCH = 1024
_CALIBRATION_SCENES, _CALIBRATION_SEED = 16, 0

Target = Literal["onnx", "tensorrt"]


def export_onnx(
    network: DapNetwork,
    metadata: GraphMetadata,
    path: Path,
    references: Sequence[Reference] = (),
    calibration: Sequence[npt.NDArray[np.uint8]] | None = None,
    target: Target = "onnx",
) -> tuple[Agreement, ...]:
    """Write `network` to `path`, unless what would be written disagrees with it on any set of panoramas.

    In float32 for ONNX Runtime the network is written with less to compute (`model_export.lean`). In less than float32
    some layers stay float32, and in `fp8` float16: as few as keep the limit of the precision.

    Args:
        network: in evaluation mode.
        metadata: what the file will say of itself; its input size and precision become the graph's.
        path: the file, whole in itself; replaced at once, and only by an export that agrees.
        references: what the network says of the sets of panoramas to hold the file to, each by itself; by default
            those of this project (`model_export.verify.reference_sets`).
        calibration: of `int8` and `fp8`: panoramas, uint8 (H, W, 3) of any size, on which the ranges of values are
            measured; by default those of `model_export.samples.scene_panoramas`.
        target: what is to run it fast: ONNX Runtime on the CPU, or TensorRT. They take different graphs in `int8`
            (`model_export.quantize`, `model_export.symmetric`); `fp8` is TensorRT's.

    Returns:
        How well the two agree on each set.

    Raises:
        ExportError, InvalidParameter: see `to_graph`.
        VerificationFailed: the exported graph says something else than the network, the message says on which set;
            nothing is written.
    """
    exported = lean(network, metadata.input_size) if metadata.precision == "fp32" and target == "onnx" else network
    graph = to_graph(PixelNetwork(exported), metadata)
    references = references or reference_sets(network, None, metadata.precision, metadata.input_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder,
        closing(_candidates(graph, metadata, calibration, target)) as candidates,
    ):
        draft = Path(folder) / path.name
        for candidate in candidates:
            onnx.helper.set_model_props(candidate, metadata.entries())
            draft.write_bytes(candidate.SerializeToString(deterministic=True))
            agreements = compare_by_onnx(draft, references)
            if not any(agreement.broken for agreement in agreements):
                break
        for agreement in agreements:
            agreement.require()
        draft.replace(path)
    return agreements


def _candidates(
    graph: onnx.ModelProto,
    metadata: GraphMetadata,
    calibration: Sequence[npt.NDArray[np.uint8]] | None,
    target: Target,
) -> Generator[onnx.ModelProto, None, None]:
    """The graph in its precision, with ever less of it lowered."""
    if metadata.precision == "fp32":
        yield graph
    elif metadata.precision == "int8" or metadata.precision == "fp8":
        found = calibration or scene_panoramas(metadata.input_size, _CALIBRATION_SCENES, _CALIBRATION_SEED)
        panoramas = [resize_pixels(panorama, metadata.input_size) for panorama in found]
        if metadata.precision == "fp8" or target == "tensorrt":
            symmetrical = SymmetricQuantizer(graph, panoramas)
            for layers in symmetric.FLOAT16_LAYERS:
                yield symmetrical.quantized(metadata.precision, layers)
        else:
            with Quantizer(graph, panoramas) as quantizer:
                for layers in quantize.FLOAT32_LAYERS:
                    yield quantizer.quantized(layers)
    else:
        for layers in precision.FLOAT32_LAYERS:
            yield lowered(graph, metadata.precision, layers)


def to_graph(network: PixelNetwork, metadata: GraphMetadata) -> onnx.ModelProto:
    """The network as an ONNX message; the same network gives the same bytes.

    Raises:
        ExportError: the exporter failed, or the metadata are not those of this network.
        InvalidParameter: the network cannot run at the input size of the metadata.
    """
    thresholds = network.network.config.thresholds
    if metadata.thresholds != thresholds:
        raise ExportError(f"The network has the thresholds {thresholds}, not {metadata.thresholds}.")
    example = torch.zeros((2, *metadata.input_size, 3), dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                network.eval(),
                (example,),
                input_names=["panorama"],
                output_names=["depth", "in_range"],
                dynamic_shapes=({0: batch},),
                opset_version=_OPSET,
                custom_translation_table=TRANSLATIONS,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        if isinstance(error.__cause__, InvalidParameter):
            raise error.__cause__ from None
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise ExportError(f"torch cannot export this network: {reason}") from error
    if program is None:
        raise ExportError("torch gave no ONNX program.")
    graph: onnx.ModelProto = program.model_proto
    _strip(graph)
    fuse_rotary(graph)
    own_weights(graph)
    if not any(isinstance(module, LeanHead) for module in network.modules()):
        graph.graph.ClearField("value_info")  # it can be inferred
    say_meaning(graph)
    graph.graph.name = metadata.name
    onnx.helper.set_model_props(graph, metadata.entries())
    return graph


def _strip(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes on the machine it ran on (source files, stacks)."""
    model.ClearField("metadata_props")
    graph = model.graph
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns of its own deprecated calls, and of torchvision's operators, which nothing here uses."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        registration.setLevel(level)
