import asyncio
import threading

import pytest

from dap.errors import NotReady, TooManyPixels
from service import pipeline as pipeline_module
from service.pipeline import Job, Pipeline, State
from service.settings import Settings
from service.telemetry import Telemetry


def as_posted(model_size, input_size):
    return input_size


@pytest.fixture
async def pipeline(engine):
    pipeline = Pipeline(Settings(), Telemetry(), lambda model, settings: engine)
    pipeline.start()
    while pipeline.state is State.LOADING:
        await asyncio.sleep(0.001)
    engine.batches.clear()
    yield pipeline
    await pipeline.stop()


async def test_nothing_but_passing_on_happens_on_the_event_loop(pipeline, engine, panorama, monkeypatch) -> None:
    threads: dict[str, str] = {}

    def noting(name: str, function):
        def noted(*args, **kwargs):
            threads[name] = threading.current_thread().name
            return function(*args, **kwargs)

        return noted

    for name in ("read_header", "decode", "apply_range"):
        monkeypatch.setattr(pipeline_module, name, noting(name, getattr(pipeline_module, name)))
    engine.infer = noting("infer", engine.infer)
    await pipeline.answer(panorama(), Job(100.0, as_posted, noting("encode", lambda result: b"")))
    assert {name: thread.partition("_")[0] for name, thread in threads.items()} == {
        "read_header": "decode",
        "decode": "decode",
        "infer": "engine",
        "apply_range": "encode",
        "encode": "encode",
    }


async def test_the_job_gets_the_depth_at_the_size_it_asked_for_and_the_timing_so_far(pipeline, panorama) -> None:
    results = []
    answer = await pipeline.answer(panorama(height=40), Job(20.0, as_posted, lambda r: results.append(r) or b"bytes"))
    (result,) = results
    assert answer.body == b"bytes"
    assert result.depth_map.size == (40, 80)
    assert result.depth_map.range == answer.range == 20
    assert result.timing.encode is None
    assert answer.timing.encode > 0


@pytest.mark.parametrize(("needs_colours", "size"), [(True, (40, 80)), (False, (32, 64))])
async def test_colours_come_at_the_size_of_the_depth_where_they_are_needed(
    pipeline, panorama, needs_colours: bool, size: tuple[int, int]
) -> None:
    shapes = []
    job = Job(100.0, as_posted, lambda result: shapes.append(result.colours.shape) or b"", needs_colours)
    await pipeline.answer(panorama(height=40), job)
    assert shapes == [(*size, 3)]


async def test_a_size_beyond_the_limit_is_refused_before_anything_is_decoded(pipeline, engine, panorama) -> None:
    with pytest.raises(TooManyPixels, match="20000x10000"):
        await pipeline.answer(panorama(), Job(100.0, lambda model, source: (10_000, 20_000), lambda result: b""))
    assert engine.batches == []


async def test_a_failing_encoder_fails_its_request_alone(pipeline, panorama) -> None:
    def fail(result) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await pipeline.answer(panorama(), Job(100.0, as_posted, fail))
    assert (await pipeline.answer(panorama(), Job(100.0, as_posted, lambda result: b"well"))).body == b"well"
    assert pipeline.state is State.READY


async def test_ready_comes_after_the_largest_batch_and_one_panorama_through_every_stage(engine) -> None:
    telemetry = Telemetry()
    pipeline = Pipeline(Settings(max_batch_size=3), telemetry, lambda model, settings: engine)
    pipeline.start()
    while pipeline.state is State.LOADING:
        await asyncio.sleep(0.001)
    await pipeline.stop()
    assert engine.batch_sizes == [3, 1]
    for stage in ("decode", "queue", "inference", "encode"):
        assert telemetry.registry.get_sample_value(f"dap_{stage}_duration_seconds_count") == 1


async def test_stop_while_the_model_loads_ends_at_once_it_is_loaded(engine) -> None:
    engine.gate.clear()
    pipeline = Pipeline(Settings(), Telemetry(), lambda model, settings: engine)
    pipeline.start()
    await asyncio.to_thread(engine.entered.acquire)
    stopping = asyncio.create_task(pipeline.stop())
    await asyncio.sleep(0.01)
    engine.gate.set()
    await asyncio.wait_for(stopping, 5)
    assert engine.closed
    with pytest.raises(NotReady):
        pipeline.require_ready()


async def test_a_model_that_is_warm_after_the_service_began_to_go_down_is_not_ready(engine) -> None:
    engine.gate.clear()
    pipeline = Pipeline(Settings(), Telemetry(), lambda model, settings: engine)
    pipeline.start()
    await asyncio.to_thread(engine.entered.acquire)
    pipeline.drain()
    engine.gate.set()
    async with asyncio.timeout(10):
        while engine.batch_sizes != [4, 1]:
            await asyncio.sleep(0.001)
    assert pipeline.state is State.DRAINING
    await pipeline.stop()


async def test_an_engine_that_cannot_be_made_is_a_failure_and_no_hang(caplog) -> None:
    def explode(model, settings):
        raise ImportError("no such library")

    pipeline = Pipeline(Settings(), Telemetry(), explode)
    pipeline.start()
    while pipeline.state is State.LOADING:
        await asyncio.sleep(0.001)
    assert pipeline.state is State.FAILED
    assert pipeline.model is None
    assert "no such library" in caplog.text
    await pipeline.stop()
