"""Threads are as many as the cores that the scheduler and the container's quota leave."""

import os
from pathlib import Path

import pytest

from dap.engines import cores


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of control groups of a process that the scheduler lets onto 8 cores."""
    monkeypatch.setattr(cores, "_CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(cores, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    return tmp_path


def limit(group: Path, text: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "cpu.max").write_text(f"{text}\n")


def test_without_a_quota_all_cores_of_the_affinity_mask_count(container: Path) -> None:
    assert cores.available_cores() == 8


def test_no_limit_is_no_quota(container: Path) -> None:
    limit(container, "max 100000")
    assert cores.available_cores() == 8


@pytest.mark.parametrize(("quota", "expected"), [("200000 100000", 2), ("150000 100000", 2), ("25000 100000", 1)])
def test_a_quota_counts_in_whole_cores_rounded_up(container: Path, quota: str, expected: int) -> None:
    limit(container, quota)
    assert cores.available_cores() == expected


def test_a_quota_above_the_affinity_mask_changes_nothing(container: Path) -> None:
    limit(container, "6400000 100000")
    assert cores.available_cores() == 8


def test_the_least_quota_on_the_way_to_the_root_counts(container: Path) -> None:
    (container / "membership").write_text("0::/pod/container\n")
    limit(container / "pod", "300000 100000")
    limit(container / "pod" / "container", "max 100000")
    assert cores.available_cores() == 3


@pytest.mark.parametrize(("quota", "expected"), [("400000", 4), ("-1", 8)])
def test_the_first_version_of_control_groups_is_understood(container: Path, quota: str, expected: int) -> None:
    (container / "cpu").mkdir()
    (container / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (container / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores.available_cores() == expected
