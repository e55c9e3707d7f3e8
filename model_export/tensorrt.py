"""The TensorRT plans of an exported file, for the GPU of this machine, kept only if they say what the network says."""

from collections.abc import Sequence
from pathlib import Path

from dap.engines.cuda import CudaDevice
from dap.engines.plans import PlanFolder
from dap.engines.tensorrt import TensorrtEngine, gpu_number
from dap.engines.tensorrt_library import require_precision, tensorrt_version
from dap.graph import GraphPrecision, read_graph_metadata
from dap.models import cache_folder, find_model
from model_export.verify import Agreement, Reference


def require_builder(device: str, precision: GraphPrecision) -> None:
    """Ask for all that a plan needs, before minutes go into what it is to be of.

    Args:
        device: `auto`, `cuda` or `cuda:N`.
        precision: of the file.

    Raises:
        EngineUnavailable: TensorRT or the GPU is not here, the GPU has no arithmetic in this precision, or the folder
            of plans is not to be trusted.
    """
    tensorrt_version()
    require_precision(precision, CudaDevice(gpu_number(device)).identity)
    PlanFolder(cache_folder() / "tensorrt")


def export_tensorrt(
    path: Path, references: Sequence[Reference], *, device: str = "auto", max_batch_size: int = 4
) -> tuple[Agreement, ...]:
    """Build the plans of the ONNX file at `path`, with range masks and without, and compare them with the network.

    Those that fit and are kept already are not built. They are kept where the engine `tensorrt` looks for them
    (`dap.engines.plans`), unless one disagrees on any set of panoramas. Whoever opens the file after that has them
    built anew and compared with nothing, so a file that is not blessed is not to be left where it would be served.

    Args:
        path: as `model_export.onnx.export_onnx` writes it. Plans are of its content and go with the file wherever it is
            moved.
        references: what the network says of each set (`model_export.verify.reference_sets`).
        device: `auto`, `cuda` or `cuda:N`.
        max_batch_size: panoramas that will run together at most.

    Returns:
        How well the two agree on each set.

    Raises:
        EngineUnavailable: TensorRT or a GPU is not here, or the folder of plans is not to be trusted.
        EngineError: the build or a run failed.
        ModelFileInvalid: TensorRT cannot read the file.
        VerificationFailed: a plan says something else than the network; none is kept any longer.
    """
    engine = TensorrtEngine(path, find_model(path), device=device, max_batch_size=max_batch_size)
    try:
        precision = read_graph_metadata(path).precision
        agreements = tuple(
            reference.compare(engine, precision, max_batch_size=max_batch_size) for reference in references
        )
        if any(agreement.broken for agreement in agreements):
            engine.discard_plans()
    finally:
        engine.close()
    for agreement in agreements:
        agreement.require()
    return agreements
