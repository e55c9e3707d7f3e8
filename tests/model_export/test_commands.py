"""`dap export` and `dap verify`, as a shell sees them."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import onnx
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dap.checksums import sha256_of
from dap.command import main
from dap.errors import DapError, EngineUnavailable, InvalidParameter, VerificationFailed
from dap.graph import GraphMetadata, GraphPrecision, read_graph_metadata
from dap.model.checkpoints import load_network, save_network
from dap.models import find_model
from model_export import commands, quantize, symmetric
from model_export import onnx as exporter
from model_export import precision as precision_module
from model_export.commands import export, verify
from model_export.onnx import Target
from model_export.samples import sample_panoramas
from model_export.verify import LIMITS, Agreement, Reference, compare_by_onnx
from tests.dap.engines.onnx_doubles import CudaBuild, TensorrtProvider
from tests.dap.graphs import red_graph, save
from tests.model_export.test_verify import PERFECT

# Of a picture in one colour the group norms of this network see nothing but rounding, and make much of it.
FLAT = {"absrel": 1e-3, "depth_absolute": 1e-2}


def run(command: click.Command, *arguments: object) -> Result:
    return CliRunner().invoke(command, [*map(str, arguments), "--threads", "1"])


def test_verify_prints_the_numbers_beside_their_limits(checkpoint: Path, exported: Path) -> None:
    result = run(verify, exported, "--against", checkpoint)
    assert result.exit_code == 0
    for source in ("synthetic", "rendered"):
        assert f"fp32 by onnx, against the network on 6 {source} panoramas:" in result.stdout
    assert "absrel" in result.stdout
    assert "(limit 1e-05)" in result.stdout
    assert "network_seam_error" in result.stdout


def test_verify_takes_panoramas_of_ones_own_beside_its_own_and_speaks_json(
    checkpoint: Path, exported: Path, tmp_path: Path
) -> None:
    Image.fromarray(sample_panoramas((64, 128))[3]).save(tmp_path / "pano.png")
    result = run(verify, exported, "--against", checkpoint, "--panorama", tmp_path / "pano.png", "--json")
    found = json.loads(result.stdout)["agreements"]
    assert [(one["agreement"]["source"], one["agreement"]["panoramas"]) for one in found] == [
        ("synthetic", 6),
        ("rendered", 6),
        ("given", 1),
    ]
    assert {one["bytes"] for one in found} == {exported.stat().st_size}
    assert {one["limits"]["absrel"] for one in found} == {1e-5}


def test_export_holds_a_file_to_each_set_that_verify_compares_it_on(checkpoint: Path, tmp_path: Path) -> None:
    """To the same number: the same panoramas, the same answers of the network."""
    Image.fromarray(sample_panoramas((64, 128))[3]).save(tmp_path / "pano.png")
    given = ("--panorama", tmp_path / "pano.png", "--json")
    written = run(export, "--model", checkpoint, "--output", tmp_path / "tiny.onnx", *given)
    compared = run(verify, tmp_path / "tiny.onnx", "--against", checkpoint, *given)
    found = json.loads(written.stdout)["agreements"]
    assert [one["agreement"]["source"] for one in found] == ["synthetic", "rendered", "given"]
    assert found == json.loads(compared.stdout)["agreements"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, exported: Path) -> None:
    """Have the exporter of torch, which takes seconds, give the graph that it gave before."""
    monkeypatch.setattr(exporter, "to_graph", lambda network, metadata: onnx.load(exported))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("precision", "target"), [("bf16", "onnx"), ("int8", "onnx"), ("int8", "tensorrt"), ("fp8", "onnx")]
)
def test_what_is_beyond_its_limit_on_the_last_rung_is_refused_and_not_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: GraphPrecision, target: Target
) -> None:
    monkeypatch.setitem(LIMITS, precision, {"absrel": 1e-6})
    tried: list[Path] = []

    def compare(path: Path, references: Sequence[Reference]) -> tuple[Agreement, ...]:
        tried.append(path)
        return compare_by_onnx(path, references)

    monkeypatch.setattr(exporter, "compare_by_onnx", compare)
    for module in (precision_module, quantize, symmetric):
        name = "FLOAT16_LAYERS" if module is symmetric else "FLOAT32_LAYERS"
        monkeypatch.setattr(module, name, ((), ("network.depth_head.",)))
    path = tmp_path / "low.onnx"
    path.write_bytes(b"the last good one")
    arguments = ["--model", checkpoint, "--output", path, "--precision", precision, "--to", target]
    result = run(export, *arguments, *(["--no-plan"] if target == "tensorrt" else []))
    assert isinstance(result.exception, VerificationFailed)
    expected = rf"The {precision} model disagrees with the network on 6 rendered panoramas: absrel is .* 1e-06"
    assert re.match(expected, str(result.exception))
    assert result.stdout == ""
    assert path.read_bytes() == b"the last good one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["low.onnx"]
    assert len(tried) == 2


def test_verify_ends_with_an_error_where_the_two_disagree(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    metadata = read_graph_metadata(exported)
    result = run(verify, save(red_graph(metadata), tmp_path / "red.onnx"), "--against", checkpoint)
    assert isinstance(result.exception, VerificationFailed)
    assert "mask_iou" in result.stdout


def test_verify_takes_several_files_and_the_checkpoint_in_single_and_half_precision(
    checkpoint: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for precision in ("fp16", "bf16"):
        monkeypatch.setitem(LIMITS, precision, {"absrel": 0.1})  # weights at random keep no limit but by chance
    monkeypatch.setitem(LIMITS, "fp32", FLAT)
    half = tmp_path / "half.onnx"
    assert run(export, "--model", checkpoint, "--output", half, "--precision", "fp16").exit_code == 0
    result = run(verify, exported, half, "--against", checkpoint, "--engine", "onnx", "--engine", "torch", "--json")
    assert result.exit_code == 0, result.output
    found = [entry["agreement"] for entry in json.loads(result.stdout)["agreements"]]
    assert [(one["engine"], one["precision"], one["source"]) for one in found] == [
        ("onnx", "fp32", "synthetic"),
        ("onnx", "fp32", "rendered"),
        ("onnx", "fp16", "rendered"),
        ("torch", "fp32", "synthetic"),
        ("torch", "fp32", "rendered"),
        ("torch", "bf16", "rendered"),
    ]
    single, half_precision, by_torch, brain = (one["absrel"] for one in found if one["source"] == "rendered")
    assert max(single, by_torch) < 1e-5 < half_precision < brain
    assert found[0]["absrel"] < 1e-5
    assert found[3]["absrel"] < FLAT["absrel"]


def test_the_torch_engine_in_float32_is_held_to_the_limits_of_float32(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the panoramas that an export in float32 is held to, and on those given."""
    Image.fromarray(sample_panoramas((64, 128))[3]).save(tmp_path / "pano.png")
    arguments = ("--against", checkpoint, "--engine", "torch", "--panorama", tmp_path / "pano.png", "--json")
    monkeypatch.setitem(LIMITS, "bf16", {"absrel": 0.1})  # weights at random keep no limit but by chance
    monkeypatch.setitem(LIMITS, "fp32", FLAT)
    result = run(verify, *arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["agreements"]
    assert [(one["agreement"]["precision"], one["agreement"]["source"], one["limits"]) for one in found] == [
        ("fp32", "synthetic", LIMITS["fp32"]),
        *((precision, source, LIMITS[precision]) for precision in ("fp32", "bf16") for source in ("rendered", "given")),
    ]
    for one in found[1:3]:
        assert one["agreement"]["absrel"] < 1e-5
    monkeypatch.setitem(LIMITS, "fp32", {"absrel": 0.0})
    result = run(verify, *arguments)
    assert isinstance(result.exception, VerificationFailed)
    assert "The fp32 model disagrees with the network" in str(result.exception)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CudaBuild:
    """An ONNX Runtime for CUDA and TensorRT, played."""
    return CudaBuild(monkeypatch, starts=True, tensorrt=TensorrtProvider(monkeypatch, tmp_path / "home"))


@pytest.mark.parametrize(
    ("arguments", "engine", "provider"),
    [
        ([], "onnx, cuda:0", "CUDAExecutionProvider"),
        (["--device", "cuda", "--provider", "cuda"], "onnx, cuda:0", "CUDAExecutionProvider"),
        (["--provider", "tensorrt"], "onnx, cuda:0, TensorRT", "TensorrtExecutionProvider"),
    ],
)
def test_verify_runs_a_file_where_the_service_would_and_says_where(
    gpu: CudaBuild, checkpoint: Path, exported: Path, arguments: list[str], engine: str, provider: str
) -> None:
    result = run(verify, exported, "--against", checkpoint, *arguments, "--json")
    assert {entry["agreement"]["engine"] for entry in json.loads(result.stdout)["agreements"]} == {engine}
    assert {first[0] for first, *_ in gpu.asked} == {provider}


def test_a_provider_that_no_engine_here_takes_is_a_mistake(checkpoint: Path, exported: Path) -> None:
    result = run(verify, exported, "--against", checkpoint, "--engine", "tensorrt", "--provider", "tensorrt")
    assert isinstance(result.exception, InvalidParameter)
    assert "The provider tensorrt is of the onnx engine alone" in str(result.exception)


def test_that_tensorrt_is_not_here_is_said_before_the_network_runs(
    checkpoint: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(commands, "load_network", lambda path: pytest.fail("nothing is to be loaded"))
    result = run(verify, exported, "--against", checkpoint, "--engine", "onnx", "--engine", "tensorrt")
    assert isinstance(result.exception, EngineUnavailable)
    assert "TensorRT is needed" in str(result.exception)


def test_verify_of_nothing_is_a_mistake(checkpoint: Path) -> None:
    assert isinstance(run(verify, "--against", checkpoint).exception, InvalidParameter)


def test_an_exported_file_is_no_checkpoint(exported: Path, tmp_path: Path) -> None:
    for result in (
        run(export, "--model", exported, "--output", tmp_path / "again.onnx"),
        run(verify, exported, "--against", exported),
    ):
        assert isinstance(result.exception, InvalidParameter)
        assert "is exported already" in str(result.exception)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[GraphMetadata]:
    """What `export` asks of the exporter, which here leaves another graph with these metadata."""
    calls: list[GraphMetadata] = []

    def export_onnx(network: object, metadata: GraphMetadata, path: Path, *others: object) -> tuple[Agreement, ...]:
        calls.append(metadata)
        save(red_graph(metadata), path)
        return (PERFECT,)

    monkeypatch.setattr(commands, "export_onnx", export_onnx)
    monkeypatch.setattr(commands, "reference_sets", lambda *_: ())  # for which the network would run at each size
    return calls


def test_name_licence_and_size_are_the_checkpoints_unless_given(
    checkpoint: Path, tmp_path: Path, asked: list[GraphMetadata]
) -> None:
    path = tmp_path / "out.onnx"
    run(export, "--model", checkpoint, "--output", path)
    run(export, "--model", checkpoint, "--output", path, "--name", "n", "--licence", "MIT", "--size", "512x256")
    assert [(one.name, one.licence, one.input_size) for one in asked] == [
        ("tiny", "CC0-1.0", (64, 128)),
        ("n", "MIT", (256, 512)),
    ]


def test_each_size_has_a_file_the_others_beside_the_first_and_they_are_one_model(
    checkpoint: Path, tmp_path: Path, asked: list[GraphMetadata]
) -> None:
    path = tmp_path / "tiny.onnx"
    sizes = ("--size", "128x64", "--size", "256x128", "--size", "64x32", "--size", "128x64")
    result = run(export, "--model", checkpoint, "--output", path, *sizes, "--json")
    files = [Path(entry["file"]).name for entry in json.loads(result.stdout)["agreements"]]
    assert files == ["tiny.onnx", "tiny@256x128.onnx", "tiny@64x32.onnx"]
    assert {one.weights_sha256 for one in asked} == {sha256_of(checkpoint)}
    model = find_model(path)
    assert (model.name, model.sizes) == ("tiny", ((64, 128), (32, 64), (128, 256)))


def test_a_file_of_an_older_export_beside_the_new_one_is_told_at_once(
    checkpoint: Path, exported: Path, tmp_path: Path, asked: list[GraphMetadata]
) -> None:
    older = replace(read_graph_metadata(exported), input_size=(32, 64), weights_sha256="0" * 64)
    save(red_graph(older), tmp_path / "tiny@64x32.onnx")
    assert "tiny@64x32.onnx is not tiny.onnx" in str(
        run(export, "--model", checkpoint, "--output", tmp_path / "tiny.onnx").exception
    )
    both = run(export, "--model", checkpoint, "--output", tmp_path / "tiny.onnx", "--size", "128x64", "--size", "64x32")
    assert both.exit_code == 0, both.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--calibrate", "."], "--calibrate is of int8 and fp8: expected none in fp32."),
        (["--precision", "fp16", "--calibrate", "."], "--calibrate is of int8 and fp8: expected none in fp16."),
        (["--no-plan"], "--plan/--no-plan is of --to tensorrt: expected none with --to onnx."),
        (["--device", "cuda"], "--device is of a plan: expected none where none is built."),
        (["--max-batch-size", "4"], "--max-batch-size is of a plan: expected none where none is built."),
        (["--to", "tensorrt", "--no-plan", "--device", "cuda:1"], "--device is of a plan"),
    ],
)
def test_an_option_that_would_change_nothing_is_a_mistake(
    checkpoint: Path, tmp_path: Path, asked: list[GraphMetadata], arguments: list[str], said: str
) -> None:
    result = run(export, "--model", checkpoint, "--output", tmp_path / "out.onnx", *arguments)
    assert isinstance(result.exception, InvalidParameter)
    assert str(result.exception).startswith(said)
    assert asked == []


def test_variables_that_are_set_for_the_service_are_none(
    checkpoint: Path, tmp_path: Path, asked: list[GraphMetadata], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pano.png").write_bytes(b"that nobody reads")
    for name, value in (
        ("DAP_DEVICE", "cuda"),
        ("DAP_MAX_BATCH_SIZE", "16"),
        ("DAP_EXPORT_PLAN", "0"),
        ("DAP_EXPORT_CALIBRATE", str(tmp_path / "pano.png")),
    ):
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(main, ["export", "--model", str(checkpoint), "--output", str(tmp_path / "out.onnx")])
    assert result.exit_code == 0, result.output
    assert len(asked) == 1


def test_a_licence_that_is_not_stated_is_not_made_up(
    checkpoint: Path, tmp_path: Path, asked: list[GraphMetadata]
) -> None:
    save_network(load_network(checkpoint), tmp_path / "bare.safetensors")
    run(export, "--model", tmp_path / "bare.safetensors", "--output", tmp_path / "out.onnx")
    assert asked[0].licence == "not stated in the file"


def test_a_missing_model_is_an_error_of_ours(tmp_path: Path) -> None:
    result = run(export, "--model", "dap-xl", "--output", tmp_path / "out.onnx")
    assert isinstance(result.exception, DapError)
    assert "No model is named 'dap-xl'" in str(result.exception)
