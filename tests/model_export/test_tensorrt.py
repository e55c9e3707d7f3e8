"""Plans of exported files: held against the network, and made of nothing that TensorRT cannot read."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper
from PIL import Image

from dap.checksums import sha256_of
from dap.command import main
from dap.engines import create_engine
from dap.engines.tensorrt_builder import cast_pixels
from dap.errors import EngineUnavailable, ModelFileInvalid, VerificationFailed
from dap.graph import GraphMetadata
from dap.model.checkpoints import load_network
from dap.models import find_model, sibling_path
from model_export import commands
from model_export.commands import export, verify
from model_export.quantize import FLOAT32_LAYERS, Quantizer
from model_export.samples import sample_panoramas, scene_panoramas
from model_export.symmetric import SymmetricQuantizer
from model_export.tensorrt import export_tensorrt
from model_export.verify import LIMITS, Reference, reference_sets
from tests.dap.engines.tensorrt_doubles import FakeTensorrt, install
from tests.dap.graphs import METADATA, red_graph, save
from tests.model_export.test_verify import PERFECT

# Of the operators that TensorRT 10.15 supports (onnx-tensorrt, docs/operators.md), those that exports use. One that is
# not among them is to be looked up there, with its restrictions.
SUPPORTED = {
    *(
        "Add",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "Conv",
        "ConvTranspose",
        "Cos",
        "DequantizeLinear",
        "Div",
        "Exp",
        "Expand",
    ),
    *(
        "Gather",
        "Gelu",
        "InstanceNormalization",
        "LayerNormalization",
        "MatMul",
        "Mul",
        "Neg",
        "QuantizeLinear",
        "Relu",
    ),
    *("Reshape", "Resize", "Shape", "Sigmoid", "Sin", "Slice", "Softmax", "Split", "Squeeze", "Sub", "Transpose"),
    "Unsqueeze",
}


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTensorrt:
    monkeypatch.setenv("DAP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("dap.engines.cuda._KERNEL_MODULE", tmp_path / "nowhere")
    return install(monkeypatch)


@pytest.fixture(scope="module")
def symmetric(exported: Path) -> SymmetricQuantizer:
    return SymmetricQuantizer(onnx.load(exported), scene_panoramas((64, 128), 2, seed=0))


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Reference:
    return Reference.of(load_network(checkpoint), sample_panoramas((64, 128))[2:5], (64, 128))


def test_plans_that_agree_with_the_network_are_kept(trt: FakeTensorrt, exported: Path, reference: Reference) -> None:
    """The double runs in ONNX Runtime what the builder gave to TensorRT, so this holds of the graph with its cast."""
    (agreement,) = export_tensorrt(exported, [reference], max_batch_size=2)
    assert (agreement.engine, agreement.panoramas) == ("tensorrt", 3)
    assert agreement.absrel < 1e-5
    export_tensorrt(exported, [reference], max_batch_size=2)
    assert len(trt.builds) == 2, "with range masks and without"
    assert trt.cuda.memory == {}


def test_plans_that_do_not_on_any_set_of_panoramas_are_not(
    trt: FakeTensorrt, exported: Path, reference: Reference
) -> None:
    wrong = replace(reference, depth=1.1 * reference.depth, source="rendered")
    with pytest.raises(VerificationFailed, match=r"on 3 rendered panoramas: .*absrel is"):
        export_tensorrt(exported, [wrong, reference])
    assert trt.cuda.memory == {}
    export_tensorrt(exported, [reference])
    assert len(trt.builds) == 4


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch, exported: Path) -> None:
    """Have `dap export` write the file that is exported already: an export takes seconds."""

    def export_onnx(network: object, metadata: object, path: Path, *others: object) -> object:
        shutil.copy(exported, path)
        return (PERFECT,)

    monkeypatch.setattr(commands, "export_onnx", export_onnx)


def test_dap_export_builds_what_dap_verify_and_the_engine_then_find(
    trt: FakeTensorrt, no_export: None, checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.onnx"
    arguments = ["--model", checkpoint, "--to", "tensorrt", "--output", path, "--device", "cuda:1", "--json"]
    result = CliRunner().invoke(export, [*map(str, arguments), "--threads", "1"], catch_exceptions=False)
    found = [entry["agreement"] for entry in json.loads(result.stdout)["agreements"]]
    assert [one["engine"] for one in found] == ["onnx", "tensorrt", "tensorrt"]
    assert trt.cuda.current == 1
    arguments = [path, "--against", checkpoint, "--engine", "tensorrt", "--json"]
    result = CliRunner().invoke(verify, [*map(str, arguments), "--threads", "1"], catch_exceptions=False)
    found = json.loads(result.stdout)["agreements"]
    assert [one["agreement"]["source"] for one in found] == ["synthetic", "rendered"]
    for one in found:
        assert one["agreement"]["engine"] == "tensorrt"
        assert one["agreement"]["absrel"] < one["limits"]["absrel"]
    assert len(trt.builds) == 2


def test_a_file_whose_plan_disagrees_is_not_written_and_what_stood_there_stays(
    trt: FakeTensorrt, no_export: None, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left in its place it would be served: the engine builds a plan that it does not find, and compares nothing."""
    monkeypatch.setitem(LIMITS, "fp32", {"absrel": 0.0})
    path = tmp_path / "out" / "tiny.onnx"
    arguments = [*map(str, ["--model", checkpoint, "--to", "tensorrt", "--output", path, "--threads", "1"])]
    assert isinstance(CliRunner().invoke(export, arguments).exception, VerificationFailed)
    assert [*path.parent.iterdir()] == []
    path.write_bytes(b"the last good one")
    assert isinstance(CliRunner().invoke(export, arguments).exception, VerificationFailed)
    assert [(entry.name, entry.read_bytes()) for entry in path.parent.iterdir()] == [
        ("tiny.onnx", b"the last good one")
    ]
    assert not list((tmp_path / "home").rglob("*.plan"))


def test_of_several_sizes_no_file_is_written_where_the_plan_of_one_disagrees(
    trt: FakeTensorrt, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export_onnx(network: object, metadata: object, path: Path, *others: object) -> object:
        path.write_bytes(b"a graph")
        return (PERFECT,)

    def export_tensorrt(path: Path, *others: object, **options: object) -> object:
        replace(PERFECT, absrel=1.0 if path.name == "tiny@256x128.onnx" else 0.0).require()
        return (PERFECT,)

    monkeypatch.setattr(commands, "export_onnx", export_onnx)
    monkeypatch.setattr(commands, "export_tensorrt", export_tensorrt)
    monkeypatch.setattr(commands, "reference_sets", lambda *_: ())
    arguments = ["--model", checkpoint, "--to", "tensorrt", "--output", tmp_path / "out" / "tiny.onnx"]
    arguments += ["--size", "128x64", "--size", "256x128", "--threads", "1"]
    result = CliRunner().invoke(export, [*map(str, arguments)])
    assert isinstance(result.exception, VerificationFailed)
    assert [*(tmp_path / "out").iterdir()] == []


def test_a_plan_is_held_to_the_panoramas_given_apart_from_others_with_what_the_network_said_of_them_once(
    trt: FakeTensorrt, no_export: None, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[tuple[Reference, ...]] = []

    def counted(*arguments: Any) -> tuple[Reference, ...]:
        computed.append(reference_sets(*arguments))
        return computed[-1]

    monkeypatch.setattr(commands, "reference_sets", counted)
    Image.fromarray(sample_panoramas((64, 128))[3]).save(tmp_path / "pano.png")
    arguments = ["--model", checkpoint, "--to", "tensorrt", "--output", tmp_path / "tiny.onnx"]
    arguments += ["--panorama", tmp_path / "pano.png", "--json", "--threads", "1"]
    result = CliRunner().invoke(export, [*map(str, arguments)], catch_exceptions=False)
    found = [entry["agreement"] for entry in json.loads(result.stdout)["agreements"]]
    by_plan = [(one["source"], one["panoramas"]) for one in found if one["engine"] == "tensorrt"]
    assert by_plan == [("synthetic", 6), ("rendered", 6), ("given", 1)]
    assert len(computed) == 1


def test_dap_export_builds_for_the_batches_it_is_told(
    trt: FakeTensorrt, no_export: None, checkpoint: Path, tmp_path: Path
) -> None:
    arguments = [
        "--model",
        checkpoint,
        "--to",
        "tensorrt",
        "--output",
        tmp_path / "tiny.onnx",
        "--max-batch-size",
        "16",
    ]
    CliRunner().invoke(export, [*map(str, arguments), "--threads", "1"], catch_exceptions=False)
    assert [profile[-1][0] for profile in trt.builds[0].profiles] == [1, 4, 16]


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("TensorRT", "TensorRT is needed"),
        ("GPU", "CUDA finds 0 devices here"),
        ("fp8", r"fp8 needs a GPU of compute capability 8\.9"),
        ("folder", "is not trusted"),
    ],
)
def test_what_a_plan_needs_is_asked_for_before_the_network_is_loaded(
    trt: FakeTensorrt, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str, said: str
) -> None:
    monkeypatch.setattr(commands, "load_network", lambda path: pytest.fail("nothing is to be loaded"))
    (tmp_path / "home" / "tensorrt").mkdir(parents=True, mode=0o700)
    if lacks == "TensorRT":
        monkeypatch.setitem(sys.modules, "tensorrt", None)
    elif lacks == "folder":
        (tmp_path / "home" / "tensorrt").chmod(0o777)
    trt.cuda.gpus = 0 if lacks == "GPU" else 2
    trt.cuda.compute_capability = (8, 6)
    arguments = ["--model", checkpoint, "--to", "tensorrt", "--output", tmp_path / "tiny.onnx", "--threads", "1"]
    precision = "fp8" if lacks == "fp8" else "fp16"
    result = CliRunner().invoke(export, [*map(str, arguments), "--precision", precision])
    assert isinstance(result.exception, EngineUnavailable)
    assert re.search(said, str(result.exception))


def test_without_its_plan_a_file_for_gpus_is_written_where_there_is_neither_tensorrt_nor_a_gpu(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets: list[object] = []

    def export_onnx(network: object, metadata: GraphMetadata, path: Path, *others: object) -> object:
        targets.append(others[-1])
        save(red_graph(metadata), path)
        return (PERFECT,)

    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setattr(commands, "export_onnx", export_onnx)
    monkeypatch.setattr(commands, "reference_sets", lambda *_: ())
    arguments = ["--model", checkpoint, "--to", "tensorrt", "--no-plan", "--output", tmp_path / "tiny.onnx"]
    result = CliRunner().invoke(export, [*map(str, arguments), "--threads", "1", "--json"])
    assert [entry["agreement"]["engine"] for entry in json.loads(result.stdout)["agreements"]] == ["onnx"]
    assert targets == ["tensorrt"]
    assert (tmp_path / "tiny.onnx").is_file()


def test_dap_verify_compares_the_plan_that_is_served_in_all_of_its_profiles(
    trt: FakeTensorrt, exported: Path, checkpoint: Path
) -> None:
    create_engine(find_model(exported), "tensorrt", max_batch_size=16).warm_up([1])
    served = len(trt.builds)
    arguments = [exported, "--against", checkpoint, "--engine", "tensorrt", "--max-batch-size", "16", "--threads", "1"]
    result = CliRunner().invoke(verify, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert len(trt.builds) == served == 2
    for context in trt.contexts[served:]:
        assert set(context.profiles) == {0, 1, 2}
        assert max(context.batches) == 16


def test_dap_verify_builds_for_the_batches_that_are_told_to_the_service(
    trt: FakeTensorrt, exported: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAP_MAX_BATCH_SIZE", "2")
    arguments = [exported, "--against", checkpoint, "--engine", "tensorrt", "--threads", "1"]
    result = CliRunner().invoke(main, ["verify", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert [profile[-1][0] for profile in trt.builds[0].profiles] == [1, 2]


def test_dap_verify_compares_a_file_for_more_pixels_in_as_many_fewer_panoramas_as_are_served(
    trt: FakeTensorrt, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load_network(checkpoint)
    metadata = GraphMetadata("red", METADATA.thresholds, (16, 32), "CC0-1.0", sha256_of(checkpoint))
    path = save(red_graph(metadata), tmp_path / "red.onnx")
    larger = sibling_path(path, (32, 64))
    save(red_graph(replace(metadata, input_size=(32, 64))), larger)
    few = Reference.of(network, [np.zeros((16, 32, 3), np.uint8)], (32, 64))
    monkeypatch.setattr(commands, "reference_sets", lambda *_: (few,))
    arguments = [larger, "--against", checkpoint, "--engine", "tensorrt", "--max-batch-size", "8", "--threads", "1"]
    CliRunner().invoke(verify, [*map(str, arguments)])
    assert [build.profiles[-1][-1][0] for build in trt.builds] == [2, 2]


def test_dap_export_to_onnx_asks_for_no_gpu(
    trt: FakeTensorrt, no_export: None, checkpoint: Path, tmp_path: Path
) -> None:
    trt.cuda.gpus = 0
    arguments = [*map(str, ["--model", checkpoint, "--output", tmp_path / "tiny.onnx", "--threads", "1"])]
    assert CliRunner().invoke(export, arguments).exit_code == 0
    result = CliRunner().invoke(export, [*arguments, "--to", "tensorrt"])
    assert isinstance(result.exception, EngineUnavailable)


@pytest.mark.parametrize("name", ["tiny", "dap-s", "int8", "fp8"])
def test_exports_have_nothing_in_them_that_tensorrt_cannot_read(
    exported: Path, symmetric: SymmetricQuantizer, name: Literal["tiny", "dap-s", "int8", "fp8"]
) -> None:
    if name == "int8" or name == "fp8":
        content = symmetric.quantized(name, ()).SerializeToString()
    else:
        content = (exported if name == "tiny" else find_model(name).path).read_bytes()
    graph = onnx.load_model_from_string(cast_pixels(content)).graph
    assert {node.op_type for node in graph.node} - SUPPORTED == set()
    assert [node.op_type for node in graph.node if "panorama" in node.input] == ["Cast"]
    given = {one.name for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Clip":
            assert set(node.input[1:]) <= given, "its bounds are constants"
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        if node.op_type == "Resize":
            assert attributes["mode"] in (b"linear", b"nearest")
            assert attributes["coordinate_transformation_mode"] in (b"half_pixel", b"align_corners", b"asymmetric")
            assert attributes.get("antialias", 0) == 0
            assert attributes.get("keep_aspect_ratio_policy", b"stretch") == b"stretch"
    quantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.op_type in ("Conv", "MatMul", "Add"):
            assert len(quantised.intersection(node.input)) in (0, 2), "both sides, and never a bias"
    zeros = {node.input[2] for node in graph.node if node.op_type.endswith("quantizeLinear") and len(node.input) > 2}
    assert not any(np.any(numpy_helper.to_array(one)) for one in graph.initializer if one.name in zeros)


def test_a_graph_quantised_for_onnx_runtime_is_refused_with_what_would_not_be(exported: Path) -> None:
    with Quantizer(onnx.load(exported), scene_panoramas((64, 128), 2, seed=0)) as quantizer:
        content = quantizer.quantized(FLOAT32_LAYERS[0]).SerializeToString()
    with pytest.raises(ModelFileInvalid, match="expected one that `dap export --to tensorrt --precision int8` wrote"):
        cast_pixels(content)
