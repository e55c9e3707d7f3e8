"""What exported files of every precision say on a GPU, by every engine there, within the limits. For `make test-gpu`.

Each file has kept them in ONNX Runtime on the CPU when it was exported.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dap.engines.cuda import CudaDevice
from dap.errors import EngineUnavailable
from dap.graph import GRAPH_PRECISIONS, GraphMetadata, GraphPrecision
from dap.model.checkpoints import load_network, network_from_state
from dap.model.dap import DapNetwork, PixelNetwork
from model_export.lean import LeanHead, lean
from model_export.onnx import Target, export_onnx, to_graph
from model_export.samples import scene_panoramas
from model_export.tensorrt import export_tensorrt
from model_export.verify import LIMITS, Agreement, Reference, compare_by_onnx, reference_sets
from model_export.winograd import WinogradConv2d
from tests.dap.model.conformance import official_state
from tests.gpu import require_gpu
from tests.model_export.test_lean import narrow_vit

pytestmark = pytest.mark.gpu

SIZE = (64, 128)

Exported = tuple[Path, tuple[Reference, ...]]

each_network = pytest.mark.parametrize("name", ["hybrid", "vit"])
each_precision = pytest.mark.parametrize("precision", GRAPH_PRECISIONS)


@pytest.fixture(scope="module", autouse=True)
def a_gpu() -> None:
    """Before anything is exported."""
    require_gpu("onnx")


@pytest.fixture(scope="module", autouse=True)
def a_folder_of_plans(a_gpu: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for all, since plans start from the timings of those built before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAP_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """Gives the file of a network in a precision, and what the network says of the panoramas to hold it to."""
    networks = {"hybrid": load_network(checkpoint), "vit": network_from_state(official_state("vits", seed=7)).eval()}
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def export(name: str, precision: GraphPrecision, target: Target) -> Exported:
        network, path = networks[name], folder / f"{name}-{precision}-{target}.onnx"
        references = reference_sets(network, None, precision, SIZE)
        export_onnx(network, described(network, SIZE, precision), path, references, target=target)
        return path, references

    return export


def described(network: DapNetwork, size: tuple[int, int], precision: GraphPrecision) -> GraphMetadata:
    licence, sha256 = "none: random weights", "0" * 64
    config = network.config
    return GraphMetadata("random", config.thresholds, size, licence, sha256, config.spherical, precision)


def require_arithmetic(precision: GraphPrecision) -> None:
    """Skip fp8 on a GPU that is older than Ada."""
    gpu = CudaDevice(0)
    capability = gpu.identity.compute_capability
    gpu.close()
    if precision == "fp8" and tuple(map(int, capability.split("."))) < (8, 9):
        pytest.skip(f"fp8 needs the compute capability 8.9, and this GPU has {capability}")


def require_limits(agreements: tuple[Agreement, ...], precision: GraphPrecision) -> None:
    """And that less than float32 was no float32."""
    for agreement in agreements:
        assert agreement.precision == precision
        assert agreement.broken == []
        assert (agreement.absrel > LIMITS["fp32"]["absrel"]) == (precision != "fp32")


@each_network
@each_precision
def test_plans_of_tensorrt_keep_the_limits(
    exported: Callable[..., Exported], name: str, precision: GraphPrecision
) -> None:
    require_gpu("tensorrt", "onnx")
    require_arithmetic(precision)
    require_limits(export_tensorrt(*exported(name, precision, "tensorrt")), precision)


@each_network
@each_precision
def test_onnx_runtime_on_cuda_keeps_the_limits_or_says_that_it_cannot(
    exported: Callable[..., Exported], name: str, precision: GraphPrecision
) -> None:
    """Of float32 the file that is for ONNX Runtime, with less to compute. It must take that and float16."""
    require_gpu("onnxruntime", "onnx")
    path, references = exported(name, precision, "onnx" if precision == "fp32" else "tensorrt")
    try:
        agreements = compare_by_onnx(path, references, device="cuda")
    except EngineUnavailable as error:
        if precision in ("fp32", "fp16"):
            raise
        pytest.skip(str(error))
    require_limits(agreements, precision)


@each_network
@each_precision
def test_onnx_runtime_by_tensorrt_keeps_the_limits(
    exported: Callable[..., Exported], name: str, precision: GraphPrecision
) -> None:
    require_gpu("onnxruntime", "tensorrt", "onnx")
    require_arithmetic(precision)
    require_limits(by_provider(*exported(name, precision, "tensorrt")), precision)


def by_provider(path: Path, references: tuple[Reference, ...]) -> tuple[Agreement, ...]:
    """By ONNX Runtime's TensorRT provider; skips where the TensorRT that is here is not the one it is built for."""
    try:
        return compare_by_onnx(path, references, device="cuda", provider="tensorrt")
    except EngineUnavailable as error:
        if "expected the major version" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def winograd(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The float32 file of a network with the heads of a ViT-B, at the least size at which they have Winograd."""
    network, size = narrow_vit("vit-b"), (256, 512)
    changed = lean(network, size)
    assert {LeanHead, WinogradConv2d} <= {type(module) for module in changed.modules()}
    path = tmp_path_factory.mktemp("winograd") / "winograd.onnx"
    path.write_bytes(to_graph(PixelNetwork(changed), described(network, size, "fp32")).SerializeToString())
    return path, (Reference.of(network, scene_panoramas(size, 2, seed=1), size),)


def test_a_file_with_less_to_compute_keeps_the_limits_on_cuda(winograd: Exported) -> None:
    """As a whole: none of it is left to the CPU, or the engine would refuse it."""
    require_gpu("onnxruntime", "onnx")
    path, references = winograd
    require_limits(compare_by_onnx(path, references, device="cuda"), "fp32")


def test_a_file_with_less_to_compute_keeps_the_limits_in_tensorrt(winograd: Exported) -> None:
    """It is for the CPU, but both take any file that `dap export` wrote."""
    require_gpu("tensorrt", "onnx")
    path, references = winograd
    require_limits(export_tensorrt(path, references), "fp32")
