"""Who takes part, and with which file."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.contenders import Contender, Subject, choose, find_subject
from dap.errors import InvalidParameter
from tests.dap.graphs import METADATA, SIZE, red_graph, save


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, Path]:
    return (
        save(red_graph(), tmp_path / "red.onnx"),
        save(red_graph(replace(METADATA, precision="int8")), tmp_path / "red-int8.onnx"),
    )


def test_an_exported_file_is_run_with_those_given_beside_it(exported: tuple[Path, Path], tmp_path: Path) -> None:
    plain, int8 = exported
    subject = find_subject(str(plain), None, [int8], None, tmp_path)
    assert subject == Subject("red", SIZE, None, (plain, int8))
    chosen, left_out = choose(subject, [], "cpu", 1, Path(), tmp_path)
    assert chosen == [
        Contender("onnx fp32", "onnx", "fp32", plain),
        Contender("onnx int8, red-int8.onnx", "onnx", "int8", int8),
    ]
    assert left_out.keys() == {"eager fp32", "torch fp32"}
    assert all("--against" in reason for reason in left_out.values())


def test_the_order_is_that_of_the_names(exported: tuple[Path, Path], tmp_path: Path) -> None:
    subject = Subject("red", SIZE, tmp_path / "red.pth", exported)
    names = ["onnx:int8", "eager:bf16", "onnx:fp32", "onnx-tensorrt:fp32"]
    chosen, left_out = choose(subject, names, "cpu", 1, Path(), tmp_path)
    assert [contender.name for contender in chosen] == ["onnx int8", "eager bf16", "onnx fp32", "onnx-tensorrt fp32"]
    assert [contender.path for contender in chosen[2:]] == [exported[0], exported[0]]
    assert not left_out


def test_what_is_neither_there_nor_can_be_exported_is_left_out(exported: tuple[Path, Path], tmp_path: Path) -> None:
    subject = Subject("red", SIZE, None, exported)
    _, left_out = choose(subject, ["onnx:fp16"], "cpu", 1, Path(), tmp_path)
    assert "no checkpoint to export" in left_out["onnx fp16"]


def test_an_export_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.pth").write_bytes(b"no checkpoint")
    subject = Subject("broken", SIZE, tmp_path / "broken.pth", ())
    chosen, left_out = choose(subject, ["onnx:fp32"], "cpu", 1, Path(), tmp_path)
    assert chosen == []
    assert "broken.pth is not a checkpoint" in left_out["onnx fp32"]


@pytest.mark.parametrize("name", ["eager", "eager:int8", "compiled:fp8", "openvino:fp32", "onnx:fp64"])
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="No contender is named"):
        choose(Subject("red", SIZE, None, ()), [name], "cpu", 1, Path(), tmp_path)


def test_a_checkpoint_needs_no_other(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.pth"
    checkpoint.write_bytes(b"")
    with pytest.raises(InvalidParameter, match="checkpoint itself"):
        find_subject(str(checkpoint), "dap-s", [], None, tmp_path)
