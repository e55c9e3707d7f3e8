"""The exported file: whole, clean, the same every time, and the same numbers as the network in every engine."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from dap.engines import create_engine
from dap.errors import ExportError, InvalidParameter, VerificationFailed
from dap.graph import GraphMetadata, GraphPrecision, read_graph_metadata
from dap.model.checkpoints import load_network, network_from_state
from dap.model.dap import PixelNetwork
from dap.models import find_model
from model_export import onnx as exporter
from model_export import precision as precision_module
from model_export.lean import lean
from model_export.onnx import export_onnx, to_graph
from model_export.samples import scene_panoramas
from model_export.verify import LIMITS, Agreement, Reference, reference_sets
from tests.dap.graphs import red_graph
from tests.dap.model.conformance import official_state, vector
from tests.model_export.test_verify import PERFECT

PANORAMAS = np.random.default_rng(5).integers(0, 256, (3, 64, 128, 3), dtype=np.uint8)


@pytest.fixture
def metadata(exported: Path) -> GraphMetadata:
    return read_graph_metadata(exported)


def test_the_file_says_what_it_is(metadata: GraphMetadata, checkpoint: Path) -> None:
    assert metadata == GraphMetadata(
        name="tiny",
        thresholds=(10.0, 20.0, 50.0, 100.0),
        input_size=(64, 128),
        licence="CC0-1.0",
        weights_sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        spherical=True,
    )


def test_inputs_and_outputs_are_those_of_every_model(exported: Path) -> None:
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    found = {
        value.name: (
            onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type),
            [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim],
        )
        for value in (*model.graph.input, *model.graph.output)
    }
    assert found == {
        "panorama": ("UINT8", ["batch", 64, 128, 3]),
        "depth": ("FLOAT", ["batch", 64, 128]),
        "in_range": ("FLOAT", ["batch", 4, 64, 128]),
    }
    assert model.ir_version == 10
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 20, "com.microsoft": 1}


def test_what_is_enlarged_by_whole_factors_says_so(exported: Path) -> None:
    """By factors ONNX Runtime keeps the layout of its convolutions through a resize, by sizes it does not."""
    model = onnx.load(exported)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    resizes = [node for node in model.graph.node if node.op_type == "Resize"]
    assert resizes
    for node in resizes:
        _, _, factors = node.input
        np.testing.assert_array_equal(constants[factors], [1, 1, 2, 2])


def test_the_file_holds_nothing_of_the_machine_it_was_made_on(exported: Path) -> None:
    content = exported.read_bytes()
    here = Path(exporter.__file__).parents[1]
    for trace in (str(here), str(Path.home()), str(exported.parent), ".py", "site-packages", "stack_trace"):
        assert trace.encode() not in content, trace


def test_no_draft_is_left_beside_the_file(exported: Path) -> None:
    assert [path.name for path in exported.parent.iterdir()] == ["tiny.onnx"]


def test_the_same_network_gives_the_same_bytes(checkpoint: Path, exported: Path, metadata: GraphMetadata) -> None:
    graph = to_graph(PixelNetwork(lean(load_network(checkpoint), metadata.input_size)), metadata)
    assert graph.SerializeToString(deterministic=True) == exported.read_bytes()


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_every_engine_gives_the_same_metres(checkpoint: Path, exported: Path, batch_size: int) -> None:
    panoramas = PANORAMAS[:batch_size]
    by_torch = create_engine(find_model(checkpoint), threads=1).infer(panoramas)
    by_onnx = create_engine(find_model(exported), threads=1).infer(panoramas)
    assert np.ptp(by_torch.depth) > 0.1, "a flat answer would agree with anything"
    np.testing.assert_allclose(by_onnx.depth, by_torch.depth, rtol=1e-4)
    np.testing.assert_allclose(by_onnx.in_range, by_torch.in_range, atol=1e-4)


def test_the_exported_graph_knows_that_longitude_is_a_circle_and_says_so(exported: Path) -> None:
    assert find_model(exported).spherical
    engine = create_engine(find_model(exported), threads=1)
    straight = engine.infer(PANORAMAS[:1])
    rolled = engine.infer(np.roll(PANORAMAS[:1], 48, axis=2))
    np.testing.assert_allclose(rolled.depth, np.roll(straight.depth, 48, axis=2), rtol=1e-4)


@pytest.mark.parametrize(("size", "is_lean"), [((128, 256), False), ((256, 512), True)])
def test_the_official_network_meets_its_vectors_as_onnx(size: tuple[int, int], is_lean: bool, tmp_path: Path) -> None:
    """In the graph a pixel is divided by 255 and normalised; the vectors were made without the latter."""
    official = network_from_state(official_state("vits", seed=7)).eval()
    network = PixelNetwork(lean(official, size) if is_lean else official)
    network.mean.zero_()
    network.std.fill_(1)
    path = tmp_path / "vits.onnx"
    metadata = GraphMetadata("vits", (100.0,), size, "none: random weights", "0" * 64)
    path.write_bytes(to_graph(network, metadata).SerializeToString())
    expected = vector(f"{size[0]}x{size[1]}")
    pixels = (expected.image * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    inference = create_engine(find_model(path), threads=1).infer(pixels)
    np.testing.assert_allclose(inference.depth[0] / 100, expected.depth, atol=2e-4, rtol=0)
    np.testing.assert_allclose(1 - inference.in_range[0, 0], expected.beyond, atol=2e-4, rtol=0)


def test_an_export_that_disagrees_is_not_written(
    checkpoint: Path, metadata: GraphMetadata, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "to_graph", lambda network, metadata: red_graph(metadata))
    path = tmp_path / "tiny.onnx"
    path.write_bytes(b"the last good one")
    with pytest.raises(VerificationFailed, match=r"on 6 synthetic panoramas: depth_absolute is"):
        export_onnx(load_network(checkpoint), metadata, path)
    assert path.read_bytes() == b"the last good one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.onnx"]


def test_metadata_of_another_network_are_refused(checkpoint: Path, metadata: GraphMetadata) -> None:
    with pytest.raises(ExportError, match=r"has the thresholds \(10.0, 20.0, 50.0, 100.0\), not \(100.0,\)"):
        to_graph(PixelNetwork(load_network(checkpoint)), dataclasses.replace(metadata, thresholds=(100.0,)))


def test_a_size_that_the_network_cannot_take_is_a_wrong_parameter(checkpoint: Path, metadata: GraphMetadata) -> None:
    with pytest.raises(InvalidParameter, match="multiples of 16; the image is 50x100"):
        to_graph(PixelNetwork(load_network(checkpoint)), dataclasses.replace(metadata, input_size=(50, 100)))


@pytest.mark.parametrize(
    ("precision", "target"),
    [("bf16", "onnx"), ("fp16", "onnx"), ("int8", "onnx"), ("int8", "tensorrt"), ("fp8", "onnx")],
)
def test_an_export_in_less_than_float32_says_so(
    checkpoint: Path,
    metadata: GraphMetadata,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: GraphPrecision,
    target: exporter.Target,
) -> None:
    monkeypatch.setitem(LIMITS, precision, {"absrel": 0.1})  # weights at random keep no limit but by chance
    path = tmp_path / "low.onnx"
    pictures = scene_panoramas((64, 128), 2, seed=2)
    network = load_network(checkpoint)
    references = [Reference.of(network, pictures, (64, 128))]
    (agreement,) = export_onnx(
        network, dataclasses.replace(metadata, precision=precision), path, references, pictures, target
    )
    agreement.require()
    assert agreement.precision == precision
    assert (agreement.engine == "onnx, emulated") == (precision == "bf16")
    assert agreement.absrel > 1e-5
    assert read_graph_metadata(path) == dataclasses.replace(metadata, precision=precision)
    assert str(tmp_path).encode() not in path.read_bytes()


def test_more_stays_float32_where_the_least_does_not_keep_the_limit(
    checkpoint: Path, metadata: GraphMetadata, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision_module, "FLOAT32_LAYERS", ((), ("",)))
    monkeypatch.setitem(LIMITS, "bf16", {"absrel": 1e-3})
    half = dataclasses.replace(metadata, precision="bf16")
    (agreement,) = export_onnx(load_network(checkpoint), half, tmp_path / "low.onnx")
    assert agreement.absrel < 1e-3
    monkeypatch.setattr(precision_module, "FLOAT32_LAYERS", ((),))
    with pytest.raises(VerificationFailed, match=r"The bf16 model disagrees .* absrel is .*, the limit is 0.001"):
        export_onnx(load_network(checkpoint), half, tmp_path / "none.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["low.onnx"]


@pytest.fixture
def sets(checkpoint: Path, metadata: GraphMetadata, exported: Path, monkeypatch: pytest.MonkeyPatch) -> list[Reference]:
    """What the network says of each set, given panoramas among them; torch's exporter gives what it gave before."""
    monkeypatch.setattr(exporter, "to_graph", lambda network, metadata: onnx.load(exported))
    return [*reference_sets(load_network(checkpoint), list(PANORAMAS), metadata.precision, metadata.input_size)]


@pytest.mark.parametrize(
    ("index", "said"),
    [(0, "on 6 synthetic panoramas: "), (1, "on 6 rendered panoramas: "), (2, "on 3 given panoramas: ")],
)
def test_an_export_that_disagrees_on_one_set_alone_is_not_written_and_the_error_says_on_which(
    checkpoint: Path, metadata: GraphMetadata, sets: list[Reference], tmp_path: Path, index: int, said: str
) -> None:
    sets[index] = dataclasses.replace(sets[index], depth=1.001 * sets[index].depth)
    with pytest.raises(VerificationFailed, match=said):
        export_onnx(load_network(checkpoint), metadata, tmp_path / "tiny.onnx", sets)
    assert list(tmp_path.iterdir()) == []


def test_more_stays_float32_where_the_least_keeps_the_limit_on_one_set_alone(
    checkpoint: Path,
    metadata: GraphMetadata,
    sets: list[Reference],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    *others, given = (dataclasses.replace(PERFECT, precision="bf16", source=one.source) for one in sets)
    far = dataclasses.replace(given, absrel=0.1)
    found = iter([(*others, far), (*others, given)])
    drafts: list[bytes] = []

    def compare(path: Path, references: Sequence[Reference]) -> tuple[Agreement, ...]:
        assert references is sets
        drafts.append(path.read_bytes())
        return next(found)

    monkeypatch.setattr(exporter, "compare_by_onnx", compare)
    half, path = dataclasses.replace(metadata, precision="bf16"), tmp_path / "low.onnx"
    assert export_onnx(load_network(checkpoint), half, path, sets) == (*others, given)
    assert drafts[0] != drafts[1] == path.read_bytes()


@pytest.fixture
def failing_exporter(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise torch.onnx.OnnxExporterError("Failed to decompose.\nA page of advice.")

    monkeypatch.setattr(torch.onnx, "export", fail)
    return fail


@pytest.mark.usefixtures("failing_exporter")
def test_what_torch_cannot_export_is_one_line(checkpoint: Path, metadata: GraphMetadata) -> None:
    with pytest.raises(ExportError) as caught:
        to_graph(PixelNetwork(load_network(checkpoint)), metadata)
    assert str(caught.value) == "torch cannot export this network: Failed to decompose."
