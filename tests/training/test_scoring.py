import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from dap.errors import DatasetError, ModelFileInvalid, TrainingError
from tests.training.label_files import ALONE, discriminator, made_labels, packed
from training import scoring
from training.datasets.shards import ShardReader
from training.discriminator import load_discriminator, score
from training.labels import label_of
from training.scoring import Score, read_scores, score_labels


@pytest.mark.parametrize("left_out", [frozenset(), frozenset({"p1", "p4", "p5"})], ids=["all", "curated"])
@pytest.mark.parametrize("picture", ["none", "grey"])
def test_each_label_has_the_score_that_the_discriminator_gives_its_depth_and_its_panorama(
    tmp_path: Path, picture: Literal["none", "grey"], left_out: frozenset[str]
) -> None:
    labels, path = made_labels(tmp_path, left_out=left_out, picture=picture)
    judge = load_discriminator(discriminator(tmp_path, picture=picture), torch.device("cpu"))
    panoramas = {sample.id: torch.from_numpy(sample.rgb) for sample in ShardReader(tmp_path / "shards")}
    assert len(labels) == 6 - len(left_out)
    expected = {}
    for index in range(len(labels.manifest.shards)):
        for label in map(label_of, labels.members(index)):
            depth = torch.from_numpy(label.depth.copy())
            expected[label.id] = float(score(judge, depth[None], panoramas[label.id][None])[0])
    found = list(read_scores(path))
    assert [one.id for one in found] == sorted(expected)
    for one in found:
        assert one.score == pytest.approx(expected[one.id], abs=1e-6)
        assert one.place == ("indoor" if one.id < "p3" else "outdoor")
        assert one.id in {
            member.id for member in labels.members([s.name for s in labels.manifest.shards].index(one.shard))
        }


def test_a_discriminator_sees_panoramas_at_the_size_at_which_the_labeler_saw_them(tmp_path: Path) -> None:
    """Of larger blocks of pixels of one colour nothing is left that tells them from smaller ones."""
    for block in (4, 8):
        (tmp_path / str(block)).mkdir()
    small, large = (list(read_scores(made_labels(tmp_path / str(block), block)[1])) for block in (4, 8))
    assert [one.score for one in large] == pytest.approx([one.score for one in small], abs=1e-6)


def test_labels_beside_other_panoramas_than_their_own_are_refused(tmp_path: Path) -> None:
    labels, _ = made_labels(tmp_path)
    others = packed(tmp_path / "others", count=3, shard_size=1)
    judge = discriminator(tmp_path, seed=1)
    with pytest.raises(DatasetError, match="labels of other shards than those of"):
        score_labels(labels, others.folder, judge, ALONE)
    config = {**labels.manifest.config, "source": others.manifest.fingerprint}
    replace(labels.manifest, config=config).write(labels.folder)
    with pytest.raises(DatasetError, match=r"-000000\.tar holds no panorama of the label p1"):
        score_labels(labels, others.folder, judge, ALONE)


def test_panoramas_that_changed_since_they_were_labelled_are_refused(tmp_path: Path) -> None:
    labels, _ = made_labels(tmp_path)
    shard = tmp_path / "shards" / labels.manifest.shards[0].name
    data = bytearray(shard.read_bytes())
    data[1024] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DatasetError, match="the manifest says SHA-256"):
        score_labels(labels, tmp_path / "shards", discriminator(tmp_path, seed=1), ALONE)


def test_a_discriminator_that_sees_depth_alone_needs_no_panoramas(tmp_path: Path) -> None:
    labels, _ = made_labels(tmp_path)
    shutil.rmtree(tmp_path / "shards")
    scores, _ = score_labels(labels, tmp_path / "shards", discriminator(tmp_path, picture="none"), ALONE)
    assert len(list(read_scores(scores))) == 6
    with pytest.raises(DatasetError, match="no folder of shards"):
        score_labels(labels, tmp_path / "shards", discriminator(tmp_path, seed=1), ALONE)


def test_what_is_scored_is_not_scored_again_and_the_file_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, path = made_labels(tmp_path)
    before = path.read_bytes()
    path.unlink()
    next(path.with_suffix("").glob("*-000001.json")).unlink()
    read = []
    real = scoring.ScoreWork.read
    monkeypatch.setattr(scoring.ScoreWork, "read", lambda work, row: read.append(row["index"]) or real(work, row))
    again, throughput = score_labels(labels, tmp_path / "shards", discriminator(tmp_path), ALONE)
    assert read == [1]
    assert throughput.panoramas == 2
    assert again == path
    assert path.read_bytes() == before


def test_another_discriminator_has_scores_of_its_own(tmp_path: Path) -> None:
    labels, path = made_labels(tmp_path)
    other, _ = score_labels(labels, tmp_path / "shards", discriminator(tmp_path, seed=1), ALONE)
    assert other != path
    assert other.read_bytes() != path.read_bytes()


def test_one_id_for_two_labels_is_refused(tmp_path: Path) -> None:
    labels, path = made_labels(tmp_path)
    record = next(path.with_suffix("").glob("*-000001.json"))
    values = json.loads(record.read_bytes())
    values["result"]["scores"][0]["id"] = "p0"
    record.write_text(json.dumps(values))
    with pytest.raises(DatasetError, match="6 labels have 5 ids"):
        score_labels(labels, tmp_path / "shards", discriminator(tmp_path), ALONE)


def test_a_label_without_any_depth_has_no_score(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text('{"id": "a", "place": "indoor", "score": null, "shard": "s.tar"}\n')
    assert list(read_scores(path)) == [Score("a", "s.tar", "indoor", None)]


def test_labels_of_another_size_than_the_discriminator_sees_are_refused(tmp_path: Path) -> None:
    labels, _ = made_labels(tmp_path)
    from training.config import DiscriminatorConfig
    from training.discriminator import Discriminator, save_discriminator

    save_discriminator(Discriminator(DiscriminatorConfig(height=24, channels=(8, 8, 8, 8))), tmp_path / "d.safetensors")
    with pytest.raises(TrainingError, match="whole multiple"):
        score_labels(labels, tmp_path / "shards", tmp_path / "d.safetensors", ALONE)


def test_what_is_no_discriminator_is_refused(tmp_path: Path) -> None:
    labels, _ = made_labels(tmp_path)
    shutil.copy(tmp_path / "tiny.safetensors", tmp_path / "network.safetensors")
    with pytest.raises(ModelFileInvalid, match="not a discriminator"):
        score_labels(labels, tmp_path / "shards", tmp_path / "network.safetensors", ALONE)
