"""What /proc says of a process and its children, and what machine this is."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import processes
from benchmarks.processes import describe_machine


def test_processor_seconds_are_read_whatever_the_process_is_called() -> None:
    """Fields 14 and 15 of proc_pid_stat(5), user and system, in ticks."""
    stat = "12 (a ) b) S 1 1 1 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 1 0 100"
    assert processes._cpu_seconds(stat) == 200 / os.sysconf("SC_CLK_TCK")


def test_a_process_is_counted_with_its_children() -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        family = processes.tree(parent.pid)
        used = processes.usage(parent.pid)
        parent.communicate(b"\n")
    assert family[0] == parent.pid
    assert len(family) == 2
    assert used.memory_mb > 1


def test_of_a_process_that_has_ended_nothing_is_left() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert processes.tree(child.pid) == []
    assert processes.usage(child.pid) == processes.Usage(0.0, 0.0)


def test_of_a_gpu_its_name_and_its_driver_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "version"
    driver.write_text("580.159.04\n")
    found = SimpleNamespace(name="NVIDIA H200", total_memory=150_754_820_096)
    monkeypatch.setattr("dap.engines.cuda._KERNEL_MODULE", driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: {"cuda:1": found}[device])
    assert describe_machine().gpu is None
    machine = describe_machine("cuda:1")
    assert str(machine).startswith(f"NVIDIA H200, 150.8 GB, driver 580.159.04, torch {torch.__version__}; ")


def test_what_was_measured_on_a_gpu_is_not_lost_where_torch_is_built_without_cuda(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert describe_machine("cuda:0").gpu is None
