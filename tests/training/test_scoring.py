import json
import shutil
from pathlib import Path

import pytest
import torch

from dap.errors import DatasetError, ModelFileInvalid, TrainingError
from tests.training.label_files import ALONE, discriminator, made_labels
from training import scoring
from training.discriminator import load_discriminator, score
from training.labels import label_of
from training.scoring import Score, read_scores, score_labels


def test_each_label_has_the_score_that_the_discriminator_gives_its_depth(tmp_path: Path) -> None:
    labels, path = made_labels(tmp_path)
    judge = load_discriminator(discriminator(tmp_path), torch.device("cpu"))
    expected = {}
    for index in range(len(labels.manifest.shards)):
        for label in map(label_of, labels.members(index)):
            expected[label.id] = float(score(judge, torch.from_numpy(label.depth.copy())[None])[0])
    found = list(read_scores(path))
    assert [one.id for one in found] == sorted(expected)
    for one in found:
        assert one.score == pytest.approx(expected[one.id], abs=1e-6)
        assert one.place == ("indoor" if one.id < "p3" else "outdoor")
        assert one.id in {
            member.id for member in labels.members([s.name for s in labels.manifest.shards].index(one.shard))
        }


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
    again, throughput = score_labels(labels, discriminator(tmp_path), ALONE)
    assert read == [1]
    assert throughput.panoramas == 2
    assert again == path
    assert path.read_bytes() == before


def test_another_discriminator_has_scores_of_its_own(tmp_path: Path) -> None:
    labels, path = made_labels(tmp_path)
    other, _ = score_labels(labels, discriminator(tmp_path, seed=1), ALONE)
    assert other != path
    assert other.read_bytes() != path.read_bytes()


def test_one_id_for_two_labels_is_refused(tmp_path: Path) -> None:
    labels, path = made_labels(tmp_path)
    record = next(path.with_suffix("").glob("*-000001.json"))
    values = json.loads(record.read_bytes())
    values["result"]["scores"][0]["id"] = "p0"
    record.write_text(json.dumps(values))
    with pytest.raises(DatasetError, match="6 labels have 5 ids"):
        score_labels(labels, discriminator(tmp_path), ALONE)


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
        score_labels(labels, tmp_path / "d.safetensors", ALONE)


def test_what_is_no_discriminator_is_refused(tmp_path: Path) -> None:
    labels, _ = made_labels(tmp_path)
    shutil.copy(tmp_path / "tiny.safetensors", tmp_path / "network.safetensors")
    with pytest.raises(ModelFileInvalid, match="not a discriminator"):
        score_labels(labels, tmp_path / "network.safetensors", ALONE)
