"""What is kept of plans and timings, under which key, and what is trusted to be loaded again."""

import dataclasses
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dap.engines.cuda import GpuIdentity
from dap.engines.plans import PlanFolder, PlanKey, batch_ranges
from dap.errors import EngineUnavailable

GPU = GpuIdentity("NVIDIA H200", "9.0", 132, "580.159.04")
KEY = PlanKey("DAP s", "ab" * 32, batch_ranges(4), GPU, "11.4.0.106")


@pytest.fixture
def folder(tmp_path: Path) -> PlanFolder:
    return PlanFolder(tmp_path / "home" / "tensorrt")


@pytest.fixture
def kept(folder: PlanFolder) -> Path:
    """A plan that is kept, and would be loaded."""
    folder.write(KEY.plan(), b"a program")
    return folder.path / KEY.plan().name


@pytest.mark.parametrize(
    ("largest", "ranges"),
    [
        (1, ((1, 1),)),
        (2, ((1, 1), (2, 2))),
        (4, ((1, 1), (2, 4))),
        (8, ((1, 1), (2, 4), (5, 8))),
        (16, ((1, 1), (2, 4), (5, 16))),
        (256, ((1, 1), (2, 4), (5, 16), (17, 64), (65, 256))),
    ],
)
def test_every_batch_size_is_in_one_range(largest: int, ranges: tuple[tuple[int, int], ...]) -> None:
    assert batch_ranges(largest) == ranges
    assert [size for least, most in ranges for size in range(least, most + 1)] == list(range(1, largest + 1))


def test_what_is_kept_is_read_again(folder: PlanFolder, kept: Path) -> None:
    assert PlanFolder(folder.path).read(KEY.plan()) == b"a program"
    assert kept.name.startswith("dap-s-")
    assert kept.suffix == ".plan"


def test_an_empty_slot_has_nothing_and_the_log_says_so(folder: PlanFolder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert folder.read(KEY.plan()) is None
    assert f"there is no {KEY.plan().name} yet" in caplog.text


OTHER_KEYS = {
    "model": dataclasses.replace(KEY, model_sha256="cd" * 32),
    "batches": dataclasses.replace(KEY, batch_ranges=batch_ranges(8)),
    "outputs": dataclasses.replace(KEY, in_range=False),
    "gpu": dataclasses.replace(KEY, gpu=dataclasses.replace(GPU, name="NVIDIA H200 MIG 1g.18gb")),
    "capability": dataclasses.replace(KEY, gpu=dataclasses.replace(GPU, compute_capability="10.0")),
    "multiprocessors": dataclasses.replace(KEY, gpu=dataclasses.replace(GPU, multiprocessors=114)),
}
UPDATED_KEYS = {
    "driver": dataclasses.replace(KEY, gpu=dataclasses.replace(GPU, driver="590.1")),
    "tensorrt": dataclasses.replace(KEY, tensorrt="11.4.1.2"),
}


@pytest.mark.parametrize("key", OTHER_KEYS.values(), ids=OTHER_KEYS)
def test_what_is_for_something_else_is_kept_elsewhere(folder: PlanFolder, kept: Path, key: PlanKey) -> None:
    assert folder.read(key.plan()) is None
    folder.write(key.plan(), b"another")
    assert (folder.read(KEY.plan()), folder.read(key.plan())) == (b"a program", b"another")


@pytest.mark.parametrize(("field", "key"), UPDATED_KEYS.items(), ids=UPDATED_KEYS)
def test_an_update_makes_stale_and_takes_no_more_room(
    folder: PlanFolder, kept: Path, field: str, key: PlanKey, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert folder.read(key.plan()) is None
    assert f"{kept.name} is stale, it was built for {field} " in caplog.text
    folder.write(key.plan(), b"newer")
    assert folder.read(key.plan()) == b"newer"
    assert {path.name for path in folder.path.iterdir()} == {kept.name, f"{kept.name}.json"}


def test_another_way_to_build_makes_stale(folder: PlanFolder, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dap.engines.plans._RECIPE", "next")
    assert folder.read(KEY.plan()) is None


def test_timings_are_of_a_gpu_and_not_of_a_model() -> None:
    assert KEY.timings() == OTHER_KEYS["model"].timings() == OTHER_KEYS["batches"].timings()
    assert KEY.timings().name != OTHER_KEYS["gpu"].timings().name
    assert KEY.timings().built_for != UPDATED_KEYS["driver"].timings().built_for
    assert KEY.timings().built_for != UPDATED_KEYS["tensorrt"].timings().built_for


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", ".hidden", "a\0b", "ä" * 300, ""])
def test_no_name_of_a_model_leads_out_of_the_folder(folder: PlanFolder, name: str) -> None:
    slot = dataclasses.replace(KEY, model_name=name).plan()
    folder.write(slot, b"a program")
    assert (folder.path / slot.name).resolve().parent == folder.path.resolve()
    assert folder.read(slot) == b"a program"


def test_nobody_else_can_read_or_write_what_is_kept(folder: PlanFolder, kept: Path) -> None:
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.path.iterdir()} == {0o600}


@pytest.mark.parametrize("content", [b"b program", b"a progra", b"a program ", b""])
def test_a_plan_that_is_not_what_its_record_says_is_not_loaded(
    folder: PlanFolder, kept: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    kept.write_bytes(content)
    assert folder.read(KEY.plan()) is None
    assert "is not what its record says, and is not used" in caplog.text


@pytest.mark.parametrize("record", [b"", b"{}", b"[1]", b"\xff", b'{"built_for": [], "sha256": 3}', None])
def test_a_plan_without_a_record_of_ours_is_not_loaded(folder: PlanFolder, kept: Path, record: bytes | None) -> None:
    beside = kept.with_name(f"{kept.name}.json")
    beside.unlink()
    if record is not None:
        beside.write_bytes(record)
    assert folder.read(KEY.plan()) is None


def test_a_record_without_its_plan_is_no_plan(folder: PlanFolder, kept: Path) -> None:
    kept.unlink()
    assert folder.read(KEY.plan()) is None


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
@pytest.mark.parametrize("suffix", ["", ".json"])
def test_what_others_may_write_to_is_refused(folder: PlanFolder, kept: Path, mode: int, suffix: str) -> None:
    kept.with_name(kept.name + suffix).chmod(mode)
    with pytest.raises(EngineUnavailable, match="is not trusted, since a plan is a program"):
        folder.read(KEY.plan())


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(folder: PlanFolder, mode: int) -> None:
    folder.path.chmod(mode)
    with pytest.raises(EngineUnavailable, match="is not trusted"):
        PlanFolder(folder.path)


def test_what_belongs_to_somebody_else_is_refused(
    folder: PlanFolder, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = os.geteuid()
    monkeypatch.setattr("dap.engines.plans.os.geteuid", lambda: owner + 1)
    with pytest.raises(EngineUnavailable, match=f"belongs to user {owner + 1} .* it belongs to {owner}, mode -rw----"):
        folder.read(KEY.plan())
    with pytest.raises(EngineUnavailable, match="is not trusted"):
        PlanFolder(folder.path)


@pytest.mark.parametrize("suffix", ["", ".json"])
def test_a_link_out_of_the_folder_is_refused(folder: PlanFolder, kept: Path, tmp_path: Path, suffix: str) -> None:
    path = kept.with_name(kept.name + suffix)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineUnavailable, match="expected a plain file"):
        folder.read(KEY.plan())


def test_a_pipe_is_refused_and_nobody_waits_for_it(folder: PlanFolder, kept: Path) -> None:
    kept.unlink()
    os.mkfifo(kept, 0o600)
    with pytest.raises(EngineUnavailable, match="expected a plain file"):
        folder.read(KEY.plan())


def test_a_folder_that_is_a_link_is_refused(folder: PlanFolder, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder.path)
    with pytest.raises(EngineUnavailable, match="cannot be kept in"):
        PlanFolder(tmp_path / "link")


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineUnavailable, match="DAP_HOME names another place"):
        PlanFolder(tmp_path / "file" / "tensorrt")


def test_a_full_disk_is_an_error_of_ours_and_leaves_no_half_a_plan(
    folder: PlanFolder, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dap.engines.plans.os.fsync", no_room)
    with pytest.raises(EngineUnavailable, match=r"cannot be kept in .*: No space left on device"):
        folder.write(KEY.plan(), b"newer")
    assert folder.read(KEY.plan()) == b"a program"
    assert not list(folder.path.glob(".new-*"))


def test_a_process_waits_for_another_that_builds_the_same_plan(folder: PlanFolder) -> None:
    """Locks are of open files, so threads that open it by themselves stand for processes."""

    def build_if_missing() -> int:
        with folder.locked(KEY.plan()):
            if folder.read(KEY.plan()) is not None:
                return 0
            folder.write(KEY.plan(), b"a program")
            return 1

    with ThreadPoolExecutor(4) as processes:
        assert sum(processes.map(lambda _: build_if_missing(), range(16))) == 1


def test_a_lock_that_cannot_be_had_is_an_error_of_ours(folder: PlanFolder) -> None:
    (folder.path / f"{KEY.plan().name}.lock").mkdir()
    with pytest.raises(EngineUnavailable, match="Nothing can be written to"), folder.locked(KEY.plan()):
        pass


def test_a_plan_that_is_forgotten_is_gone(folder: PlanFolder, kept: Path) -> None:
    folder.discard(KEY.plan())
    assert folder.read(KEY.plan()) is None
    assert list(folder.path.iterdir()) == []
    folder.discard(KEY.plan())


def test_a_record_can_be_read_by_a_person(folder: PlanFolder, kept: Path) -> None:
    built_for = json.loads(kept.with_name(f"{kept.name}.json").read_text())["built_for"]
    expected = {"name": "NVIDIA H200", "driver": "580.159.04", "tensorrt": "11.4.0.106", "model": "ab" * 32}
    assert expected.items() <= built_for.items()


@pytest.fixture
def filled(folder: PlanFolder) -> Path:
    """A folder in which a library, under a umask that lets its group write, has kept a plan."""
    with folder.opened(KEY.onnxruntime("1.31.1")) as path:
        (path / "a.engine").write_bytes(b"a program")
        (path / "a.engine").chmod(0o664)
    return path


def test_what_a_library_keeps_by_itself_is_there_again(folder: PlanFolder, filled: Path) -> None:
    with folder.opened(KEY.onnxruntime("1.31.1")) as path:
        assert path == filled
        assert (path / "a.engine").read_bytes() == b"a program"
        assert (path / "a.engine").stat().st_mode & 0o777 == 0o600
    assert filled.name.startswith("dap-s-")


def test_another_version_of_the_library_finds_nothing(folder: PlanFolder, filled: Path) -> None:
    with folder.opened(KEY.onnxruntime("1.32.0")) as path:
        assert (path, list(path.iterdir())) == (filled, [])


def test_what_was_kept_when_the_library_failed_is_not_there_again(folder: PlanFolder, filled: Path) -> None:
    def fail(path: Path) -> None:
        (path / "b.engine").write_bytes(b"half a pro")
        raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"), folder.opened(KEY.onnxruntime("1.31.1")) as path:
        fail(path)
    with folder.opened(KEY.onnxruntime("1.31.1")) as path:
        assert list(path.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_is_no_plain_file_in_a_librarys_folder_is_an_error_of_ours(
    folder: PlanFolder, filled: Path, kind: str
) -> None:
    (filled / "b.engine").symlink_to(filled / "a.engine") if kind == "link" else (filled / "b.engine").mkdir()
    with pytest.raises(EngineUnavailable), folder.opened(KEY.onnxruntime("1.31.1")):
        pass
