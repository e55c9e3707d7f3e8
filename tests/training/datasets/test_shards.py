import gc
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from dap.errors import DatasetError
from tests.training.datasets.files import SIZE, write_npy, write_rgb
from training.datasets import shards
from training.datasets.labelled_folder import LabelledFolder
from training.datasets.packing import PackOptions, pack
from training.datasets.shards import Manifest, ShardReader, write_atomically, write_shard

NAMES = ("a", "b", "c.d", "e", "f")


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Five panoramas without loss in shards of two; depth 2, 3, 4, ... metres with a hole and sky."""
    root = tmp_path / "root"
    for number, name in enumerate(NAMES):
        write_rgb(root / "house" / f"{name}.rgb.png", shift=number)
        depth = np.full(SIZE, 2.0 + number, np.float32)
        depth[0, :2] = 0, np.inf
        write_npy(root / "house" / f"{name}.depth_m.npy", depth)
    pack(LabelledFolder(root), "all", tmp_path / "shards", PackOptions(image="png", shard_size=2))
    return tmp_path / "shards"


def tar(packed: Path, index: int) -> Path:
    return packed / f"labelled-folder-all-{index:06d}.tar"


def test_a_reader_gives_the_samples_in_order(packed: Path) -> None:
    reader = ShardReader(packed)
    samples = list(reader)
    assert len(reader) == len(samples) == 5
    assert [sample.id for sample in samples] == ["house/a", "house/b", "house/c%2Ed", "house/e", "house/f"]
    for number, sample in enumerate(samples):
        original = Image.open(packed.parent / "root" / "house" / f"{NAMES[number]}.rgb.png")
        np.testing.assert_array_equal(sample.rgb, np.asarray(original))
        assert sample.depth is not None
        assert sample.depth[0, :2].tolist() == [0, np.inf]
        assert sample.depth[1:] == pytest.approx(2.0 + number, rel=8.9e-5)
        assert sample.metadata["dataset"] == "labelled-folder"
        assert sample.metadata["depth"]["codes"] == "log"


def test_a_shard_can_be_read_alone(packed: Path) -> None:
    reader = ShardReader(packed)
    assert [sample.id for sample in reader.samples(1, verify=True)] == ["house/c%2Ed", "house/e"]
    assert [sorted(member.files) for member in reader.members(2)] == [["depth.png", "json", "png"]]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves closing to the collector
def test_webdataset_reads_the_same_samples(packed: Path) -> None:
    """The package whose naming we follow, by its own way of naming many shards."""
    urls = str(packed / "labelled-folder-all-{000000..000002}.tar")
    theirs = list(webdataset.WebDataset(urls, shardshuffle=False))
    gc.collect()
    ours = list(ShardReader(packed))
    assert [sample["__key__"] for sample in theirs] == [sample.id for sample in ours]
    for their, our in zip(theirs, ours, strict=True):
        assert {key for key in their if not key.startswith("__")} == {"png", "depth.png", "json"}
        assert json.loads(their["json"]) == our.metadata
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(their["png"]))), our.rgb)
        codes = np.asarray(Image.open(io.BytesIO(their["depth.png"])))
        assert codes[0, :2].tolist() == [0, 65535], "unknown, sky"


def test_whole_shards_verify(packed: Path) -> None:
    reader = ShardReader(packed)
    for index in range(3):
        reader.verify(index)


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_shard_is_told(packed: Path, damage: str) -> None:
    path = tar(packed, 1)
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[700] ^= 1
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[:-512])
    else:
        path.unlink()
    reader = ShardReader(packed)
    reader.verify(0)
    with pytest.raises(DatasetError, match=r"000001\.tar"):
        reader.verify(1)
    with pytest.raises(DatasetError, match=r"000001\.tar"):
        list(reader.samples(1, verify=True))


def test_a_shard_with_a_sample_too_few_is_told_without_its_hash(packed: Path) -> None:
    write_shard(tar(packed, 1), [(member.id, member.files) for member in list(ShardReader(packed).members(1))[:1]])
    with pytest.raises(DatasetError, match="the manifest says 2 samples; it has 1"):
        list(ShardReader(packed).samples(1))


def test_a_file_that_is_no_tar_is_told(packed: Path) -> None:
    tar(packed, 0).write_bytes(b"no tar" * 200)
    with pytest.raises(DatasetError, match=r"000000\.tar cannot be read as a shard"):
        list(ShardReader(packed))


def test_a_sample_that_cannot_be_decoded_is_named(packed: Path) -> None:
    (first, second) = ShardReader(packed).members(1)
    write_shard(tar(packed, 1), [(first.id, first.files), (second.id, {**second.files, "png": b"no picture"})])
    with pytest.raises(DatasetError, match=r"000001\.tar: house/e: "):
        list(ShardReader(packed).samples(1))


def test_a_folder_without_a_manifest_or_with_half_a_pack_is_refused(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no manifest\.json"):
        ShardReader(tmp_path)
    replace(Manifest.read(packed), complete=False).write(packed)
    with pytest.raises(DatasetError, match="packing did not end"):
        ShardReader(packed)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 2}'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DatasetError, match="manifest"):
        Manifest.read(tmp_path)


def test_a_manifest_reads_back_as_it_was_written(packed: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(packed)
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    assert manifest.samples == 5


def test_the_fingerprint_changes_with_the_bytes_of_any_shard(packed: Path) -> None:
    manifest = Manifest.read(packed)
    other = replace(manifest.shards[2], sha256="0" * 64)
    assert replace(manifest, shards=(*manifest.shards[:2], other)).fingerprint != manifest.fingerprint
    assert replace(manifest, source={"root": "elsewhere"}).fingerprint == manifest.fingerprint


def test_a_shard_has_no_time_and_no_owner(packed: Path) -> None:
    with tarfile.open(tar(packed, 0)) as archive:
        assert {(member.mtime, member.uid, member.uname) for member in archive} == {(0, 0, "")}


@pytest.mark.parametrize("key", ["a.b", "", "a b", "ä"])
def test_a_key_that_webdataset_would_read_as_another_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(DatasetError, match="a key of a sample"):
        write_shard(tmp_path / "x.tar", [(key, {"json": b"{}"})])
    assert not (tmp_path / "x.tar").exists()


def test_a_key_comes_once(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="comes once; got 'a'"):
        write_shard(tmp_path / "x.tar", [("a", {"json": b"{}"})] * 2)


def test_a_shard_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(_file: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(shards.os, "fsync", no_space)
    with pytest.raises(OSError, match="no space"):
        write_shard(tmp_path / "x.tar", [("a", {"json": b"{}"})])
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


def test_a_file_that_could_not_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_file: int) -> None:
        raise OSError("no space left on device")

    write_atomically(tmp_path / "manifest.json", b"before")
    monkeypatch.setattr(shards.os, "fsync", no_space)
    with pytest.raises(OSError, match="no space"):
        write_atomically(tmp_path / "manifest.json", b"after")
    assert (tmp_path / "manifest.json").read_bytes() == b"before"
