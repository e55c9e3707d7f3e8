"""All parts of one measurement: which there are, and that none costs another its numbers."""

import os
import signal
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import contenders, suite
from benchmarks.commands import bench
from benchmarks.contenders import available
from benchmarks.suite import Part, Plan, parts, run
from dap.model.checkpoints import save_network
from dap.model.config import NetworkConfig
from dap.model.dap import DapNetwork

PLAN = Plan(
    Path("vit-l.safetensors"),
    "cuda:1",
    batches=(1, 4, 16),
    contenders=("eager:fp32", "torch:bf16", "compiled:bf16", "onnx:fp16", "tensorrt:fp16"),
    rounds=5,
    seconds=2.0,
    price_per_hour=3.5,
)
QUICK = (
    Part("wrong", "What is no command", ("engines",)),
    Part("help", "What there is", ("soak", "--help")),
)


def value_of(words: tuple[str, ...], option: str) -> list[str]:
    return [value for name, value in pairwise(words) if name == option]


def test_each_number_of_panoramas_is_a_part_and_all_exports_are_one(tmp_path: Path) -> None:
    words = {part.name: part.words for part in parts(PLAN, tmp_path)}
    assert [name for name in words if name.startswith("engine")] == [
        "engine-1",
        "engine-4",
        "engine-16",
        "engine-exported",
    ]
    assert value_of(words["engine-4"], "--batch") == ["4"]
    assert value_of(words["engine-4"], "--contender") == ["eager:fp32", "torch:bf16", "compiled:bf16"]
    assert value_of(words["engine-4"], "--price-per-hour") == ["3.5"]
    assert value_of(words["engine-exported"], "--batch") == ["1", "4", "16"]
    assert value_of(words["engine-exported"], "--contender") == ["eager:fp32", "onnx:fp16", "tensorrt:fp16"]


def test_the_service_runs_the_largest_batches_and_is_kept_busy(tmp_path: Path) -> None:
    (service,) = (part.words for part in parts(PLAN, tmp_path) if part.name == "service")
    assert value_of(service, "--max-batch-size") == ["16"]
    assert int(*value_of(service, "--clients")) > 2 * 16
    assert value_of(service, "--precision") == ["bf16"]


def test_the_command_line_takes_every_part(tmp_path: Path) -> None:
    for part in parts(PLAN, tmp_path):
        name, *words = [word for word in part.words if word not in ("--device", "cuda:1")]
        command = bench.commands[name]
        context = command.make_context(name, [*words, "--output", str(tmp_path / "numbers.json")])
        assert context.params["model"] == "vit-l.safetensors"


def test_a_part_that_fails_leaves_the_others_theirs_and_is_told(tmp_path: Path) -> None:
    told: list[int] = []
    failed = run(QUICK, 60, {"tensorrt:fp16": "needs tensorrt, not installed here"}, tmp_path, told.append)
    summary = (tmp_path / suite.SUMMARY).read_text()
    assert [outcome.part.name for outcome in failed] == ["wrong"]
    assert "**Failed**, it ended with 2: Error: No such command 'engines'" in summary
    assert summary.index("## What is no command") < summary.index("## What there is") < summary.index("Usage:")
    assert "- tensorrt:fp16 needs tensorrt" in summary
    assert told == [1, 1]


def test_a_part_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    (outcome,) = run([QUICK[1]], 0.01, {}, tmp_path, lambda _: None)
    assert outcome.failure == "it was not done after 0 s"


def test_who_ends_the_suite_ends_the_part_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def wait(self, timeout: float | None = None) -> int:
            if not begun:
                begun.append(self)
                os.kill(os.getpid(), signal.SIGTERM)
            return super().wait(timeout)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        run(QUICK, 60, {}, tmp_path, lambda _: None)
    assert ended.value.code == 128 + signal.SIGTERM
    assert [process.returncode for process in begun] == [-signal.SIGKILL]
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_cannot_run_is_left_out_with_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where torch is, and neither TensorRT nor an ONNX Runtime for CUDA."""
    monkeypatch.setattr(contenders, "find_spec", lambda name: None if name in ("tensorrt", "triton") else object())
    names, left_out = available("cuda")
    assert names == ["eager:fp32", "eager:bf16", "torch:bf16"]
    assert left_out["compiled:bf16"] == "needs triton, not installed here"
    assert left_out["onnx:fp16"] == "needs an ONNX Runtime with the CUDAExecutionProvider, not installed here"
    assert left_out["tensorrt:fp16"] == "needs tensorrt, not installed here"


def test_without_what_exports_need_only_checkpoints_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "find_spec", lambda name: None if name == "onnxscript" else object())
    _, left_out = available("cuda")
    exported = ("onnx:fp16", "onnx-tensorrt:fp16", "tensorrt:fp16")
    assert [left_out[name] for name in exported] == ["needs onnxscript, not installed here"] * 3


def test_the_command_ends_with_1_where_a_part_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "parts", lambda *_: QUICK)
    checkpoint = tmp_path / "small.safetensors"
    save_network(DapNetwork(NetworkConfig("hybrid-xs")), checkpoint)
    result = CliRunner().invoke(bench, ["suite", "--model", str(checkpoint), "--output", str(tmp_path)])
    assert result.exit_code == 1
    assert "Failed" in result.output


def test_paths_are_those_of_the_folder_that_the_command_was_given_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[Path, Path]] = []
    monkeypatch.setattr(suite, "parts", lambda plan, folder: given.append((plan.checkpoint, folder)) or QUICK[1:])
    monkeypatch.chdir(tmp_path)
    save_network(DapNetwork(NetworkConfig("hybrid-xs")), Path("small.safetensors"))
    result = CliRunner().invoke(bench, ["suite", "--model", "small.safetensors", "--output", "found"])
    assert result.exit_code == 0, result.output
    assert given == [(tmp_path / "small.safetensors", tmp_path / "found")]
