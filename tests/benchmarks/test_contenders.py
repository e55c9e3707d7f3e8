"""Who takes part, and with which file."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.contenders import Contender, Subject, choose, find_subject
from dap.errors import InvalidParameter
from model_export.commands import export
from tests.dap.graphs import METADATA, SIZE, red_graph, save


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, Path]:
    return (
        save(red_graph(), tmp_path / "red.onnx"),
        save(red_graph(replace(METADATA, precision="int8")), tmp_path / "red-int8.onnx"),
    )


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `dap export` makes of each command line it was called with; in bf16 it fails."""
    called: list[dict[str, Any]] = []

    def run(command: Sequence[str], **_: object) -> "subprocess.CompletedProcess[str]":
        assert command[:4] == [sys.executable, "-m", "dap", "export"]
        called.append(export.make_context("export", [*command[4:]]).params)
        return subprocess.CompletedProcess(command, int("bf16" in command), stderr="Building\nError: it disagrees.\n")

    monkeypatch.setattr(subprocess, "run", run)
    return called


@pytest.fixture
def unexported(tmp_path: Path) -> Subject:
    return Subject("red", SIZE, tmp_path / "red.pth", ())


PANORAMA = Path(__file__)


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


def test_files_are_those_of_the_folder_that_the_command_was_given_in(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain, int8 = (path.relative_to(tmp_path) for path in exported)
    assert find_subject(str(plain), None, [int8], None, tmp_path).exported == exported


def test_an_export_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.pth").write_bytes(b"no checkpoint")
    subject = Subject("broken", SIZE, tmp_path / "broken.pth", ())
    chosen, left_out = choose(subject, ["onnx:fp32"], "cpu", 1, Path(), tmp_path)
    assert chosen == []
    assert "broken.pth is not a checkpoint" in left_out["onnx fp32"]


@pytest.mark.parametrize("kind", ["onnx", "onnx-tensorrt", "tensorrt"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "fp8"])
def test_for_a_gpu_is_exported_what_is_for_gpus_without_a_plan(
    kind: str, precision: str, exports: list[dict[str, Any]], unexported: Subject, tmp_path: Path
) -> None:
    (contender,), left_out = choose(unexported, [f"{kind}:{precision}"], "cuda", 3, PANORAMA, tmp_path)
    (made,) = exports
    assert (made["target"], made["with_plan"]) == ("tensorrt", False)
    assert (made["precision"], made["output"]) == (precision, contender.path)
    assert (made["model"], made["sizes"], made["threads"]) == (str(unexported.checkpoint), (SIZE,), 3)
    assert made["panorama"] == (PANORAMA,)
    assert not left_out


def test_onnx_on_the_cpu_and_tensorrt_get_each_their_own_file(
    exports: list[dict[str, Any]], unexported: Subject, tmp_path: Path
) -> None:
    (onnx, tensorrt), _ = choose(unexported, ["onnx:int8", "tensorrt:int8"], "cpu", 1, PANORAMA, tmp_path)
    assert {made["output"]: made["target"] for made in exports} == {onnx.path: "onnx", tensorrt.path: "tensorrt"}


def test_what_several_run_is_exported_once(exports: list[dict[str, Any]], unexported: Subject, tmp_path: Path) -> None:
    names = ["onnx:fp16", "tensorrt:int8", "onnx-tensorrt:fp16", "tensorrt:fp16"]
    chosen, _ = choose(unexported, names, "cuda", 1, PANORAMA, tmp_path)
    assert [made["precision"] for made in exports] == ["fp16", "int8"]
    fp16, int8 = (made["output"] for made in exports)
    assert [contender.path for contender in chosen] == [fp16, int8, fp16, fp16]


def test_an_export_that_failed_is_not_tried_again(
    exports: list[dict[str, Any]], unexported: Subject, tmp_path: Path
) -> None:
    _, left_out = choose(unexported, ["onnx:bf16", "tensorrt:bf16"], "cuda", 1, PANORAMA, tmp_path)
    assert left_out == {"onnx bf16": "Error: it disagrees.", "tensorrt bf16": "Error: it disagrees."}
    assert len(exports) == 1


def test_of_several_given_files_each_is_run_by_all_in_its_precision(
    exported: tuple[Path, Path], exports: list[dict[str, Any]], tmp_path: Path
) -> None:
    plain, int8 = exported
    other = save(red_graph(replace(METADATA, precision="int8")), tmp_path / "other-int8.onnx")
    subject = Subject("red", SIZE, tmp_path / "red.pth", (int8, plain, other))
    chosen, _ = choose(subject, ["onnx:int8", "tensorrt:int8", "onnx:fp32"], "cuda", 1, PANORAMA, tmp_path)
    assert [(contender.name, contender.path) for contender in chosen] == [
        ("onnx int8, red-int8.onnx", int8),
        ("onnx int8, other-int8.onnx", other),
        ("tensorrt int8, red-int8.onnx", int8),
        ("tensorrt int8, other-int8.onnx", other),
        ("onnx fp32", plain),
    ]
    assert not exports


@pytest.mark.parametrize("name", ["eager", "eager:int8", "compiled:fp8", "openvino:fp32", "onnx:fp64"])
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="No contender is named"):
        choose(Subject("red", SIZE, None, ()), [name], "cpu", 1, Path(), tmp_path)


def test_a_checkpoint_needs_no_other(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.pth"
    checkpoint.write_bytes(b"")
    with pytest.raises(InvalidParameter, match="checkpoint itself"):
        find_subject(str(checkpoint), "dap-s", [], None, tmp_path)
