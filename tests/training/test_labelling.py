import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from dap.engines.cores import available_cores
from dap.errors import DatasetError, InvalidParameter, ModelFileInvalid, TrainingError
from dap.predictor import Predictor
from tests.training.label_files import ALONE, model, packed, verdicts
from training.datasets.base import SKY
from training.datasets.shards import ShardReader
from training.labelling import EngineModel, Labeler, LabelWork, label
from training.labels import label_of
from training.shard_pipeline import Workers, in_this_process, started

ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    """What a run cannot catch."""


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def test_a_label_is_what_the_predictor_says_and_sky_beyond_its_widest_range(tmp_path: Path) -> None:
    shards, weights = packed(tmp_path), model(tmp_path)
    labels, throughput = label(shards.folder, tmp_path / "labels", Labeler.of(weights), ALONE)
    assert throughput.panoramas == len(labels) == 6
    with Predictor(weights) as predictor:
        for sample, member in zip(shards, (m for i in range(3) for m in labels.members(i)), strict=True):
            found = label_of(member)
            expected = predictor.predict(sample.rgb, range=100)
            assert found.id == sample.id
            np.testing.assert_array_equal(found.depth == SKY, ~expected.valid)
            near = expected.valid & (expected.depth > 0.01)
            np.testing.assert_allclose(found.depth[near], expected.depth[near], rtol=2e-4)


def test_the_folder_is_named_for_the_weights_and_each_label_says_whose_it_is(tmp_path: Path) -> None:
    shards, labeler = packed(tmp_path), Labeler.of(model(tmp_path))
    labels, _ = label(shards.folder, tmp_path / "labels", labeler, ALONE)
    assert labels.folder == tmp_path / "labels" / labeler.sha256[:16]
    assert [shard.name for shard in labels.manifest.shards] == [shard.name for shard in shards.manifest.shards]
    for index in range(3):
        labels.verify(index)
    said = next(labels.members(0)).metadata()
    assert (said["model"], said["model_sha256"], said["place"]) == ("tiny", labeler.sha256, "not sorted")


def test_only_what_curation_keeps_is_labelled_with_the_place_that_it_found(tmp_path: Path) -> None:
    shards = packed(tmp_path)
    curation = verdicts(shards, tmp_path / "curation", left_out=frozenset({"p1", "p2", "p3"}))
    labels, _ = label(shards.folder, tmp_path / "labels", Labeler.of(model(tmp_path)), ALONE, curation)
    places = {m.id: m.metadata()["place"] for index in range(3) for m in labels.members(index)}
    assert places == {"p0": "indoor", "p4": "outdoor", "p5": "outdoor"}
    assert [shard.samples for shard in labels.manifest.shards] == [1, 0, 2]


def test_a_run_that_was_killed_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards, labeler = packed(tmp_path), Labeler.of(model(tmp_path))
    expected, _ = label(shards.folder, tmp_path / "unbroken", labeler, ALONE)
    writing, read = LabelWork.write, []

    def write(work: LabelWork, row: dict[str, object]) -> dict[str, object]:
        if row["index"] == 1:
            raise Killed
        return writing(work, row)

    with monkeypatch.context() as patch:
        patch.setattr(LabelWork, "write", write)
        with pytest.raises(Killed):
            label(shards.folder, tmp_path / "labels", labeler, ALONE)
    half = labeler.folder(tmp_path / "labels")
    assert len(tars(half)) == 1
    with pytest.raises(DatasetError, match="did not end"):
        ShardReader(half)
    monkeypatch.setattr(
        LabelWork, "read", lambda work, row, real=LabelWork.read: read.append(row["index"]) or real(work, row)
    )
    labels, throughput = label(shards.folder, tmp_path / "labels", labeler, ALONE)
    assert read == [1, 2]
    assert throughput.panoramas == 4
    assert tars(labels.folder) == tars(expected.folder)
    assert labels.manifest.fingerprint == expected.manifest.fingerprint


def test_labels_of_another_source_do_not_mix_with_these(tmp_path: Path) -> None:
    labeler = Labeler.of(model(tmp_path))
    label(packed(tmp_path / "one").folder, tmp_path / "labels", labeler, ALONE)
    with pytest.raises(DatasetError, match="give another folder"):
        label(packed(tmp_path / "other", count=4).folder, tmp_path / "labels", labeler, ALONE)


def test_a_shard_that_is_not_what_its_manifest_says_is_not_labelled(tmp_path: Path) -> None:
    shards = packed(tmp_path)
    path = shards.folder / shards.manifest.shards[1].name
    changed = bytearray(path.read_bytes())
    changed[700] ^= 1
    path.write_bytes(changed)
    with pytest.raises(DatasetError, match="SHA-256"):
        label(shards.folder, tmp_path / "labels", Labeler.of(model(tmp_path)), ALONE)


def test_a_worker_with_other_weights_refuses_to_work(tmp_path: Path) -> None:
    labeler = Labeler.of(model(tmp_path))
    with pytest.raises(ModelFileInvalid, match="on a worker it has"):
        EngineModel(replace(labeler, sha256="0" * 64), "cpu", 1)


def stages_of(driver: int) -> list[psutil.Process]:
    """The worker processes of a run that hold its model."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            if "_Stage" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def test_a_worker_killed_in_the_middle_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """`dap label` as a process on a Ray of its own, with the bundled model in two workers, of which one is killed.

    One shard is there from a run before, and of one nothing is to be labelled.
    """
    # Enough that there is much left to do when the first labels of this run are seen.
    shards = packed(tmp_path, count=32)
    curation = verdicts(shards, tmp_path / "curation", left_out=frozenset({"p2", "p3"}))
    labeler = Labeler.of("dap-s")
    alone = in_this_process("cpu", max(1, available_cores() // 2))
    expected, _ = label(shards.folder, tmp_path / "alone", labeler, alone, curation)

    folder = labeler.folder(tmp_path / "labels")
    folder.mkdir(parents=True)
    before = folder / shards.manifest.shards[0].name
    for path in (before, before.with_suffix(".json")):
        path.write_bytes((expected.folder / path.name).read_bytes())
    written = before.stat().st_mtime_ns

    arguments = ["--model", "dap-s", "--shards", shards.folder, "--output", tmp_path / "labels", "--curation", curation]
    arguments += ["--workers", "2", "--device", "cpu", "--price-per-hour", "2.5", "--json"]
    program = "from training.labelling_commands import label; label()"
    driver = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while len(tars(folder)) < 2 and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    killed = stages_of(driver.pid)
    for process in killed[:1]:
        process.kill()
    done_when_killed = len(tars(folder))
    output, complaints = driver.communicate(timeout=600)

    assert killed, complaints
    assert done_when_killed < len(shards.manifest.shards)
    assert driver.returncode == 0, complaints
    assert before.stat().st_mtime_ns == written
    assert tars(folder) == tars(expected.folder)
    assert ShardReader(folder).manifest.fingerprint == expected.manifest.fingerprint
    assert [path.name for path in folder.rglob(".*") if path.name != ".lock"] == []
    said = json.loads(output)
    assert (said["samples"], said["panoramas"]) == (30, 28)
    rate = said["panoramas_per_second"]
    assert said["forecast"]["hours"] == pytest.approx(2_000_000 / rate / 3600)
    assert said["forecast"]["cost"] == pytest.approx(2.5 * 2 * 2_000_000 / rate / 3600)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TrainingError, match=r"depth-any-panorama\[label\]"), started(Workers()):
        pass


def test_a_ray_client_is_told_to_run_on_the_cluster() -> None:
    with pytest.raises(InvalidParameter, match="ray job submit"), started(Workers(address="ray://head:10001")):
        pass
