"""Contenders in processes of their own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.race import RacerFailed, race, racing
from benchmarks.racer import Entry, take_turn, work_of
from dap.errors import EngineUnavailable
from tests.dap.graphs import SIZE, red_graph, save


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """Depth in metres is half of the red channel."""
    np.save(tmp_path / "panoramas.npy", np.full((2, *SIZE, 3), (80, 0, 0), np.uint8))
    model = save(red_graph(), tmp_path / "red.onnx")
    panoramas, depth = (str(tmp_path / name) for name in ("panoramas.npy", "depth.npy"))
    return Entry("onnx", "fp32", "cpu", 1, SIZE, str(model), True, panoramas, depth)


def test_a_turn_lasts_as_long_as_it_should_and_one_run_at_least() -> None:
    runs: list[None] = []
    assert len(take_turn(lambda: runs.append(None), 0.0).seconds) == len(runs) == 1
    turn = take_turn(lambda: runs.append(None), 0.01)
    assert len(turn.seconds) == len(runs) - 1 > 1
    assert turn.running_mb > 1


def test_an_entry_is_the_same_after_its_way_to_the_process(entry: Entry) -> None:
    assert Entry.from_json(entry.to_json()) == entry


def test_a_contender_may_be_the_engine_onnx_by_its_other_provider(entry: Entry) -> None:
    with pytest.raises(EngineUnavailable, match="The provider tensorrt is for GPUs"):
        work_of(replace(entry, kind="onnx-tensorrt"))


def test_contenders_run_when_it_is_their_turn_and_say_what_they_saw(entry: Entry) -> None:
    told: list[int] = []
    broken = replace(entry, model=entry.panoramas)
    other = replace(entry, in_range=False)
    records, failed = race([entry, broken, other], seconds=0.0, rounds=2, advance=told.append)
    assert np.load(entry.depth).tolist() == np.full((2, *SIZE), 40.0).tolist()
    assert [*records] == [entry, other]
    assert [len(turn.seconds) for record in records.values() for turn in record.turns] == [1] * 4
    assert told == [1] * 4
    assert records[entry].ready.loading_mb > records[entry].ready.imported_mb > 10
    assert records[entry].device_mb is None
    assert "panoramas.npy" in failed[broken]


def test_who_cannot_run_says_why(entry: Entry, tmp_path: Path) -> None:
    (tmp_path / "red.onnx").write_bytes(b"no graph")
    with pytest.raises(RacerFailed, match=r"ModelFileInvalid.*red\.onnx"), racing(entry):
        pass
