from pathlib import Path

import pytest

from dap.errors import TrainingError
from training.datasets.packing import alone_in
from training.pipeline_state import RunState, StageRecord, is_busy


def test_a_new_run_waits(tmp_path: Path) -> None:
    assert RunState(tmp_path).read() == {}
    assert RunState(tmp_path).of("labels-1") == StageRecord("waiting")


def test_a_stage_is_begun_and_finished_on_disk(tmp_path: Path) -> None:
    RunState(tmp_path).begin("labels-1", {"settings": "a"})
    running = RunState(tmp_path).of("labels-1")
    assert (running.state, running.inputs, running.seconds) == ("running", {"settings": "a"}, None)
    RunState(tmp_path).finish("labels-1", "hash", {"labels": 3})
    done = RunState(tmp_path).of("labels-1")
    assert (done.state, done.inputs, done.output, done.result) == ("done", {"settings": "a"}, "hash", {"labels": 3})
    assert done.started == running.started
    assert done.seconds is not None
    assert done.seconds >= 0


def test_stages_are_kept_apart(tmp_path: Path) -> None:
    state = RunState(tmp_path)
    state.begin("labels-1", {})
    state.begin("selection", {})
    state.finish("selection", "b", {})
    assert [(name, record.state) for name, record in state.read().items()] == [
        ("labels-1", "running"),
        ("selection", "done"),
    ]


def test_a_file_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"stages": {"labels-1": {"mood": "good"}}}')
    with pytest.raises(TrainingError, match=r"state\.json is no state of a pipeline"):
        RunState(tmp_path).read()


def test_a_folder_is_busy_while_a_process_works_in_it(tmp_path: Path) -> None:
    assert not is_busy(tmp_path)
    with alone_in(tmp_path):
        assert is_busy(tmp_path)
    assert not is_busy(tmp_path)
