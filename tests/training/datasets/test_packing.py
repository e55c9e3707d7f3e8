import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from dap.errors import DatasetError, InvalidParameter
from tests.training.datasets.files import SIZE, write_npy, write_rgb
from training.datasets import packing, rendered
from training.datasets.base import Dataset
from training.datasets.deep360 import Deep360
from training.datasets.images import Images
from training.datasets.labelled_folder import LabelledFolder
from training.datasets.packing import PackOptions, pack
from training.datasets.rendered import Rendered
from training.datasets.shards import Manifest, ShardReader

ROOT = Path(__file__).parents[3]
OPTIONS = PackOptions(shard_size=2)


def add(root: Path, name: str, shift: int = 0) -> None:
    write_rgb(root / f"{name}.rgb.png", (32, 64), shift)
    write_npy(root / f"{name}.depth_m.npy", np.full((32, 64), 3.0, np.float32))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(5):
        add(tmp_path / "root", f"p{number}", number)
    return tmp_path / "root"


def written(folder: Path) -> dict[str, bytes]:
    """All that a pack leaves, but the lock."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


def test_shards_are_named_for_webdataset_and_each_has_its_record(root: Path, tmp_path: Path) -> None:
    manifest = pack(LabelledFolder(root), "all", tmp_path / "out", OPTIONS)
    stems = [f"labelled-folder-all-{index:06d}" for index in range(3)]
    assert set(written(tmp_path / "out")) == {
        "manifest.json",
        *(f"{s}.tar" for s in stems),
        *(f"{s}.json" for s in stems),
    }
    assert [shard.samples for shard in manifest.shards] == [2, 2, 1]
    assert manifest.config["entries"] == 5
    assert Manifest.read(tmp_path / "out") == manifest


def test_packing_again_changes_nothing_and_reads_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(LabelledFolder(root), "all", tmp_path / "out", OPTIONS)
    before = written(tmp_path / "out")

    def never(*_: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(LabelledFolder, "read", never)
    pack(LabelledFolder(root), "all", tmp_path / "out", OPTIONS)
    assert written(tmp_path / "out") == before


@pytest.mark.parametrize("stop", range(1, 14))
def test_stopped_at_any_write_and_run_again_it_leaves_the_same_bytes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Every fsync is a moment at which something is half written: the process ends there, its files as they are."""
    pack(LabelledFolder(root), "all", tmp_path / "whole", OPTIONS)
    real = os.fsync
    calls = 0

    def fsync(file: int) -> None:
        nonlocal calls
        calls += 1
        if calls == stop:
            raise KeyboardInterrupt
        real(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(KeyboardInterrupt):
            pack(LabelledFolder(root), "all", tmp_path / "out", OPTIONS)
    pack(LabelledFolder(root), "all", tmp_path / "out", OPTIONS)
    assert written(tmp_path / "out") == written(tmp_path / "whole")


def test_killed_with_its_workers_and_run_again_it_leaves_the_same_bytes(root: Path, tmp_path: Path) -> None:
    for number in range(60):
        add(root, f"q{number}")
    out = tmp_path / "out"
    size = ["--shard-size", "1", "--workers", "2"]
    arguments = ["pack", "labelled-folder", "--root", str(root), *size, "--output", str(out)]
    program = "from training.datasets.commands import data; data()"
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], cwd=ROOT, stderr=subprocess.DEVNULL)
    until(lambda: any(out.glob("*.tar")) or process.poll() is not None)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # They notice a moment later, and may leave something half written until then.
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    assert not Manifest.read(out).complete
    options = PackOptions(shard_size=1)
    pack(LabelledFolder(root), "all", out, options)
    pack(LabelledFolder(root), "all", tmp_path / "whole", options)
    assert written(out) == written(tmp_path / "whole")


def until(happened: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_tar_without_a_record_and_one_of_another_size_are_written_again(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(LabelledFolder(root), "all", out, OPTIONS)
    before = written(out)
    (out / "labelled-folder-all-000000.json").unlink()
    (out / "labelled-folder-all-000001.tar").write_bytes(b"cut")
    (out / "labelled-folder-all-000002.json").write_text("{")
    pack(LabelledFolder(root), "all", out, OPTIONS)
    assert written(out) == before


def test_workers_write_the_same_bytes(root: Path, tmp_path: Path) -> None:
    pack(LabelledFolder(root), "all", tmp_path / "one", OPTIONS)
    pack(LabelledFolder(root), "all", tmp_path / "two", OPTIONS, workers=2)
    assert written(tmp_path / "one") == written(tmp_path / "two")


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (PackOptions(shard_size=3), "shard_size 2; asked for shard_size 3"),
        (PackOptions(shard_size=2, height=16), "height None; asked for height 16"),
        (PackOptions(shard_size=2, image="png"), "image jpeg, jpeg_quality 95; asked for image png"),
    ],
)
def test_a_folder_holds_one_configuration(root: Path, tmp_path: Path, other: PackOptions, complaint: str) -> None:
    pack(LabelledFolder(root), "all", tmp_path / "out", OPTIONS)
    before = written(tmp_path / "out")
    with pytest.raises(DatasetError, match=complaint):
        pack(LabelledFolder(root), "all", tmp_path / "out", other)
    assert written(tmp_path / "out") == before


def test_a_data_set_that_has_changed_is_not_packed_over_what_it_was(root: Path, tmp_path: Path) -> None:
    pack(LabelledFolder(root), "all", tmp_path / "out", OPTIONS)
    add(root, "p9")
    with pytest.raises(DatasetError, match=r"entries 5.*asked for entries 6"):
        pack(LabelledFolder(root), "all", tmp_path / "out", OPTIONS)


def test_two_processes_do_not_pack_into_one_folder(root: Path, tmp_path: Path) -> None:
    with packing.alone_in(tmp_path), pytest.raises(DatasetError, match="another process works in"):
        pack(LabelledFolder(root), "all", tmp_path, OPTIONS)


def test_panoramas_are_resized(root: Path, tmp_path: Path) -> None:
    pack(LabelledFolder(root), "all", tmp_path / "out", PackOptions(height=16, image="png"))
    sample = next(iter(ShardReader(tmp_path / "out")))
    assert sample.rgb.shape == (*SIZE, 3)
    assert sample.depth is not None
    assert sample.depth.shape == SIZE
    assert sample.metadata["source_size"] == [32, 64]
    np.testing.assert_array_equal(sample.rgb, LabelledFolder(root).read(LabelledFolder(root).entries("all")[0], 16).rgb)


def test_jpeg_stays_near_the_picture(root: Path, tmp_path: Path) -> None:
    pack(LabelledFolder(root), "all", tmp_path / "out", OPTIONS)
    dataset = LabelledFolder(root)
    for entry, sample in zip(dataset.entries("all"), ShardReader(tmp_path / "out"), strict=True):
        error = np.abs(sample.rgb.astype(int) - dataset.read(entry).rgb)
        assert error.mean() < 3


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_stored_pictures_keep_their_own_bytes(tmp_path: Path, ending: str) -> None:
    write_rgb(tmp_path / "root" / f"a.{ending}")
    pack(Images(tmp_path / "root"), "all", tmp_path / "out", PackOptions(image="stored"))
    reader = ShardReader(tmp_path / "out")
    (member,) = reader.members(0)
    assert member.files[ending] == (tmp_path / "root" / f"a.{ending}").read_bytes()
    assert not reader.labelled
    (sample,) = reader
    assert sample.depth is None


def test_what_is_not_stored_as_a_panorama_cannot_be_packed_as_stored(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="deep360 has no files of panoramas to keep"):
        pack(Deep360(tmp_path), "train", tmp_path / "out", PackOptions(image="stored"))
    with pytest.raises(InvalidParameter, match="leave --height away"):
        PackOptions(image="stored", height=256)


def test_a_broken_panorama_stops_the_packing_and_is_named(root: Path, tmp_path: Path) -> None:
    (root / "p3.rgb.png").write_bytes(b"broken")
    with pytest.raises(DatasetError, match=r"p3\.rgb\.png"):
        pack(LabelledFolder(root), "all", tmp_path / "out", OPTIONS)
    with pytest.raises(DatasetError, match="did not end"):
        ShardReader(tmp_path / "out")


def test_with_leave_to_skip_it_is_left_out_and_listed(root: Path, tmp_path: Path) -> None:
    (root / "p3.rgb.png").write_bytes(b"broken")
    skipping = PackOptions(shard_size=2, skip_broken=True)
    manifest = pack(LabelledFolder(root), "all", tmp_path / "out", skipping)
    assert [sample.id for sample in ShardReader(tmp_path / "out")] == ["p0", "p1", "p2", "p4"]
    (left_out,) = manifest.shards[1].left_out
    assert left_out.id == "p3"
    assert "p3.rgb.png" in left_out.reason
    assert json.loads((tmp_path / "out" / "labelled-folder-all-000001.json").read_text())["left_out"][0]["id"] == "p3"


def test_what_was_left_out_is_packed_once_it_can_be_read(root: Path, tmp_path: Path) -> None:
    whole = (root / "p3.rgb.png").read_bytes()
    (root / "p3.rgb.png").write_bytes(b"broken")
    pack(LabelledFolder(root), "all", tmp_path / "out", PackOptions(shard_size=2, skip_broken=True))
    (root / "p3.rgb.png").write_bytes(whole)
    assert pack(LabelledFolder(root), "all", tmp_path / "out", OPTIONS).samples == 5


def test_rendered_scenes_are_packed_like_any_data_set(tmp_path: Path) -> None:
    pack(Rendered(3, "outdoor", 4), "all", tmp_path / "out", PackOptions(height=16, image="png", shard_size=2))
    samples = list(ShardReader(tmp_path / "out"))
    assert [sample.metadata["seed"] for sample in samples] == [4, 5, 6]
    entry = Rendered(3, "outdoor", 4).entries("all")[2]
    truth = Rendered(1, "outdoor", 6).read(entry, 16)
    np.testing.assert_array_equal(samples[2].rgb, truth.rgb)
    assert samples[2].depth is not None
    assert truth.depth is not None
    np.testing.assert_array_equal(np.isposinf(samples[2].depth), np.isposinf(truth.depth))


def test_scenes_rendered_many_at_a_time_and_one_by_one_are_packed_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendered, "RENDERED_AT_ONCE", 4)
    scenes, options = Rendered(8), PackOptions(height=16, shard_size=6)
    pack(scenes, "all", tmp_path / "many", options)
    monkeypatch.setattr(Rendered, "read_many", Dataset.read_many)
    pack(scenes, "all", tmp_path / "one", options)
    assert written(tmp_path / "many") == written(tmp_path / "one")
