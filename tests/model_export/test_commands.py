"""`dap export` and `dap verify`, as a shell sees them."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dap.errors import DapError, InvalidParameter, VerificationFailed
from dap.graph import GraphMetadata, read_graph_metadata
from dap.model.checkpoints import load_network, save_network
from model_export import commands
from model_export.commands import export, verify
from model_export.samples import sample_panoramas
from model_export.verify import LIMITS, Agreement
from tests.dap.graphs import red_graph, save
from tests.model_export.test_verify import PERFECT


def run(command: click.Command, *arguments: object) -> Result:
    return CliRunner().invoke(command, [*map(str, arguments), "--threads", "1"])


def test_verify_prints_the_numbers_beside_their_limits(checkpoint: Path, exported: Path) -> None:
    result = run(verify, exported, "--against", checkpoint)
    assert result.exit_code == 0
    assert "fp32 by onnx, against the network on 6 panoramas" in result.stdout
    assert "absrel" in result.stdout
    assert "(limit 1e-05)" in result.stdout
    assert "network_seam_error" in result.stdout


def test_verify_takes_panoramas_of_ones_own_and_speaks_json(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    Image.fromarray(sample_panoramas((64, 128))[3]).save(tmp_path / "pano.png")
    result = run(verify, exported, "--against", checkpoint, "--panorama", tmp_path / "pano.png", "--json")
    (found,) = json.loads(result.stdout)["agreements"]
    assert found["agreement"]["panoramas"] == 1
    assert found["bytes"] == exported.stat().st_size
    assert found["limits"]["absrel"] == 1e-5


def test_verify_ends_with_an_error_where_the_two_disagree(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    metadata = read_graph_metadata(exported)
    result = run(verify, save(red_graph(metadata), tmp_path / "red.onnx"), "--against", checkpoint)
    assert isinstance(result.exception, VerificationFailed)
    assert "mask_iou" in result.stdout


def test_verify_takes_several_files_and_the_checkpoint_in_half_precision(
    checkpoint: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for precision in ("fp16", "bf16"):
        monkeypatch.setitem(LIMITS, precision, {"absrel": 0.1})  # weights at random keep no limit but by chance
    half = tmp_path / "half.onnx"
    assert run(export, "--model", checkpoint, "--output", half, "--precision", "fp16").exit_code == 0
    result = run(verify, exported, half, "--against", checkpoint, "--engine", "onnx", "--engine", "torch", "--json")
    assert result.exit_code == 0, result.output
    found = [entry["agreement"] for entry in json.loads(result.stdout)["agreements"]]
    assert [(one["engine"], one["precision"]) for one in found] == [
        ("onnx", "fp32"),
        ("onnx", "fp16"),
        ("torch", "bf16"),
    ]
    assert found[0]["absrel"] < 1e-5 < found[1]["absrel"] < found[2]["absrel"]


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
    """What `export` asks of the exporter, which here only leaves an empty file."""
    calls: list[GraphMetadata] = []

    def export_onnx(network: object, metadata: GraphMetadata, path: Path, *panoramas: object) -> Agreement:
        calls.append(metadata)
        path.touch()
        return PERFECT

    monkeypatch.setattr(commands, "export_onnx", export_onnx)
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
