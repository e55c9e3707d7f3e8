import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.run_log import RunLog, open_board


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def loss(value: float) -> dict[str, torch.Tensor]:
    return {"loss": torch.tensor(value)}


def board(folder: Path) -> EventAccumulator:
    """What TensorBoard would show."""
    return EventAccumulator(str(folder)).Reload()


def test_a_line_has_the_means_since_the_last_one_and_the_facts_of_its_step(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl", 2)
    for step, value in enumerate([1.0, 2.0, 3.0, 5.0], start=1):
        log.step(step, 4, loss(value), {"learning_rate": step / 10})
    first, second = lines(tmp_path / "log.jsonl")
    assert (first["event"], first["step"], first["loss"], first["learning_rate"]) == ("step", 2, 1.5, 0.2)
    assert (second["step"], second["loss"], second["learning_rate"]) == (4, 4.0, 0.4)


def test_half_a_line_of_a_killed_process_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "step", "step": 1}\n{"event": "st')
    RunLog(path, 1).event("note", "", step=2)
    assert [line["step"] for line in lines(path)] == [1, 2]


def test_of_several_processes_one_speaks(tmp_path: Path) -> None:
    silent = RunLog(None, 1)
    silent.step(1, 1, loss(1.0), {})
    silent.event("evaluation", "", step=1, absrel=0.5)
    silent.picture("rendered", np.zeros((2, 2, 3), np.uint8), 1)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_shows_numbers_by_event_and_set_and_pictures(tmp_path: Path) -> None:
    with RunLog(tmp_path / "log.jsonl", 1, open_board(tmp_path / "board", 1)) as log:
        log.step(1, 4, loss(0.25), {})
        log.event("evaluation", "", step=1, set="dev", absrel=0.5)
        log.picture("dev", np.full((8, 40, 3), 90, np.uint8), 1)
    shown = board(tmp_path / "board")
    assert {"step/loss", "evaluation/dev/absrel"} <= set(shown.Tags()["scalars"])
    assert [(event.step, event.value) for event in shown.Scalars("evaluation/dev/absrel")] == [(1, 0.5)]
    (picture,) = shown.Images("dev")
    assert (picture.height, picture.width) == (8, 40)


def test_tensorboard_forgets_what_a_resumed_run_does_again(tmp_path: Path) -> None:
    for first_step, value in ((1, 1.0), (3, 2.0)):
        with RunLog(tmp_path / "log.jsonl", 1, open_board(tmp_path / "board", first_step)) as log:
            for step in range(first_step, 5):
                log.step(step, 1, loss(value), {})
    values = [(event.step, event.value) for event in board(tmp_path / "board").Scalars("step/loss")]
    assert values == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    RunLog(tmp_path / "log.jsonl", 1).step(1, 1, loss(float("nan")), {"gradient_norm": float("inf")})
    (line,) = lines(tmp_path / "log.jsonl")
    assert (line["loss"], line["gradient_norm"]) == (None, None)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "tensorboard")
