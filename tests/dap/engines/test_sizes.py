"""One model at several input sizes: the right file answers, and none is opened before it is needed."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from dap.engines import create_engine, lanes
from dap.engines.lanes import Crowd
from dap.engines.onnx import OnnxEngine
from dap.engines.sizes import EngineOfSizes
from dap.errors import EngineError, ModelFileInvalid
from dap.models import Model, find_model, sibling_path
from tests.dap.graphs import METADATA, SIZE, red_graph, red_panorama, save

LARGER = (32, 64)


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """Depth is red / 2 at the model's own size, red / 4 at the larger one: one sees which answers."""
    path = save(red_graph(), tmp_path / "red.onnx")
    larger = red_graph(dataclasses.replace(METADATA, input_size=LARGER), divisor=4.0)
    save(larger, sibling_path(path, LARGER))
    return path


def test_each_batch_is_answered_by_the_file_for_its_size(red: Path) -> None:
    engine = create_engine(find_model(red), device="cpu", threads=2)
    assert (engine.name, engine.device, engine.lanes) == ("onnx", "cpu", 2)
    assert (engine.input_size, engine.sizes) == (SIZE, (SIZE, LARGER))
    for size, metres in ((SIZE, 10.0), (LARGER, 5.0), (SIZE, 10.0)):
        inference = engine.infer(red_panorama(10.0, 10.0, size=size))
        np.testing.assert_array_equal(inference.depth, np.full((2, *size), metres, np.float32))


def test_panoramas_of_another_size_are_refused_with_those_it_takes(red: Path) -> None:
    engine = create_engine(find_model(red), threads=1)
    with pytest.raises(EngineError, match=r"shape \(B, 16, 32, 3\) or \(B, 32, 64, 3\); got uint8 \(1, 64, 128, 3\)"):
        engine.infer(red_panorama(5.0, size=(64, 128)))


@pytest.fixture
def counted(red: Path) -> tuple[EngineOfSizes, list[tuple[int, int]], list[tuple[int, int]]]:
    """An engine, the sizes that it has opened, and those that it has closed."""
    opened: list[tuple[int, int]] = []
    closed: list[tuple[int, int]] = []

    def open_engine(model: Model) -> OnnxEngine:
        opened.append(model.input_size)
        engine = OnnxEngine(model.path, model, device="cpu", threads=1)
        engine.close = _also(engine.close, lambda: closed.append(model.input_size))  # type: ignore[method-assign]
        return engine

    return EngineOfSizes(find_model(red), open_engine), opened, closed


def _also(first: Callable[[], None], then: Callable[[], None]) -> Callable[[], None]:
    return lambda: (first(), then())[1]


def test_a_size_is_opened_when_it_is_first_used_and_once(counted) -> None:
    engine, opened, _ = counted
    engine.infer(red_panorama(5.0))
    assert opened == [SIZE]
    for _ in range(2):
        engine.infer(red_panorama(5.0, size=LARGER))
    assert opened == [SIZE, LARGER]


def test_warming_up_opens_the_size_that_is_warmed(counted) -> None:
    engine, opened, _ = counted
    engine.warm_up([1])
    assert opened == [SIZE]
    engine.warm_up([1, 2], LARGER)
    assert opened == [SIZE, LARGER]


def test_closing_closes_what_was_opened_and_nothing_runs_after(counted) -> None:
    engine, _, closed = counted
    engine.infer(red_panorama(5.0, size=LARGER))
    engine.close()
    assert closed == [SIZE, LARGER]
    with pytest.raises(EngineError, match="closed"):
        engine.infer(red_panorama(5.0))


def test_a_panorama_takes_one_core_while_one_of_another_size_runs(red: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crowds: list[Crowd] = []
    were_alone: list[bool] = []

    class Watched(Crowd):
        def __init__(self) -> None:
            super().__init__()
            crowds.append(self)

        @contextmanager
        def one_more(self) -> Iterator[bool]:
            with super().one_more() as is_alone:
                were_alone.append(is_alone)
                yield is_alone

    monkeypatch.setattr(lanes, "Crowd", Watched)
    engine = create_engine(find_model(red), device="cpu", threads=2)
    (crowd,) = crowds
    with crowd.one_more():
        engine.infer(red_panorama(5.0, size=LARGER))
        engine.infer(red_panorama(5.0))
    assert were_alone == [True, False, False]


def test_a_file_that_breaks_later_is_an_error_of_its_size_alone(red: Path) -> None:
    engine = create_engine(find_model(red), threads=1)
    sibling_path(red, LARGER).write_bytes(b"")
    with pytest.raises(ModelFileInvalid, match=r"red@64x32\.onnx is empty"):
        engine.infer(red_panorama(5.0, size=LARGER))
    assert engine.infer(red_panorama(5.0)).depth[0, 0, 0] == 5
