import random
from dataclasses import replace
from pathlib import Path

import pytest

from dap.checksums import sha256_of
from dap.errors import DatasetError, InvalidParameter
from tests.training.label_files import made_labels
from training.scoring import Score
from training.selection import Selection, best, select


def scores(place: str, values: dict[str, float | None]) -> list[Score]:
    return [Score(name, "a.tar", place, value) for name, value in values.items()]


FOUND = [
    *scores("indoor", {"a": 0.1, "b": 0.9, "c": 0.5, "d": 0.5}),
    *scores("outdoor", {"e": -2.0, "f": None, "g": -1.0}),
    *scores("not sorted", {"h": 5.0}),
]


def test_the_best_of_each_place_are_chosen_ascending_by_id() -> None:
    assert [one.id for one in best(FOUND, {"indoor": 1, "outdoor": 1})] == ["b", "g"]


def test_of_equal_scores_the_lower_id_is_chosen_in_whatever_order_they_come() -> None:
    for seed in range(5):
        shuffled = random.Random(seed).sample(FOUND, len(FOUND))
        assert [one.id for one in best(shuffled, {"indoor": 2})] == ["b", "c"]


def test_what_has_no_score_is_not_chosen_however_few_there_are() -> None:
    assert [one.id for one in best(FOUND, {"outdoor": 9})] == ["e", "g"]


def test_less_than_none_cannot_be_asked_for() -> None:
    with pytest.raises(InvalidParameter, match="0 or more"):
        best(FOUND, {"indoor": -1})


def test_a_selection_says_what_it_was_made_of_and_is_read_back(tmp_path: Path) -> None:
    labels, path = made_labels(tmp_path)
    selection = select(labels, path, indoor=2, outdoor=1)
    assert selection.labels == labels.manifest.fingerprint
    assert selection.scores == sha256_of(path)
    assert selection.counts() == {"indoor": 2, "outdoor": 1}
    selection.write(tmp_path / "selection.jsonl")
    assert Selection.read(tmp_path / "selection.jsonl") == selection


def test_a_stage_reads_a_selection_by_shard_and_of_these_labels_only(tmp_path: Path) -> None:
    labels, path = made_labels(tmp_path)
    selection = select(labels, path, indoor=9, outdoor=9)
    by_shard = selection.ids(labels)
    assert list(by_shard) == [shard.name for shard in labels.manifest.shards]
    assert sum(map(len, by_shard.values())) == len(labels)
    with pytest.raises(DatasetError, match="other labels"):
        replace(selection, labels="0" * 64).ids(labels)


def test_scores_of_other_labels_and_labels_of_no_place_are_refused(tmp_path: Path) -> None:
    labels, path = made_labels(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[1:]))
    with pytest.raises(DatasetError, match=r"5 scores.*6 labels"):
        select(labels, path, 1, 1)
    path.write_text("".join(lines).replace("indoor", "not sorted").replace("outdoor", "not sorted"))
    with pytest.raises(DatasetError, match="dap data curate"):
        select(labels, path, 1, 1)


@pytest.mark.parametrize("text", ["", "{}\n", '{"format": 9}\n', "no json\n"])
def test_a_file_that_is_no_selection_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "selection.jsonl").write_text(text)
    with pytest.raises(DatasetError, match=r"selection\.jsonl"):
        Selection.read(tmp_path / "selection.jsonl")
