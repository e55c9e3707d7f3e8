import asyncio
import threading

import pytest

from dap.errors import TooManyPixels
from dap.postprocess import DepthOptions
from service import pipeline as pipeline_module
from service.pipeline import Job, Pipeline
from service.serving import Serving, State
from service.settings import Settings
from service.telemetry import Telemetry


def as_posted(model_size, input_size):
    return input_size


@pytest.fixture
async def pipeline(engine):
    settings, telemetry = Settings(), Telemetry()
    serving = Serving(settings, telemetry, lambda model, settings: engine)
    pipeline = Pipeline(settings, telemetry, serving)
    serving.start(pipeline.rehearse)
    while serving.state is State.LOADING:
        await asyncio.sleep(0.001)
    engine.batches.clear()
    yield pipeline
    await serving.stop()
    await pipeline.close()


async def test_nothing_but_passing_on_happens_on_the_event_loop(pipeline, engine, panorama, monkeypatch) -> None:
    threads: dict[str, str] = {}

    def noting(name: str, function):
        def noted(*args, **kwargs):
            threads[name] = threading.current_thread().name
            return function(*args, **kwargs)

        return noted

    for name in ("read_header", "decode", "finish"):
        monkeypatch.setattr(pipeline_module, name, noting(name, getattr(pipeline_module, name)))
    engine.infer = noting("infer", engine.infer)
    await pipeline.answer(panorama(), Job(DepthOptions(), as_posted, noting("encode", lambda result: b"")))
    assert {name: thread.partition("_")[0] for name, thread in threads.items()} == {
        "read_header": "decode",
        "decode": "decode",
        "infer": "engine",
        "finish": "encode",
        "encode": "encode",
    }


async def test_the_job_gets_the_depth_at_the_size_it_asked_for_and_the_timing_so_far(pipeline, panorama) -> None:
    results = []
    answer = await pipeline.answer(
        panorama(height=40), Job(DepthOptions(range=20.0), as_posted, lambda r: results.append(r) or b"bytes")
    )
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
    job = Job(DepthOptions(), as_posted, lambda result: shapes.append(result.colours.shape) or b"", needs_colours)
    await pipeline.answer(panorama(height=40), job)
    assert shapes == [(*size, 3)]


async def test_a_size_beyond_the_limit_is_refused_before_anything_is_decoded(pipeline, engine, panorama) -> None:
    with pytest.raises(TooManyPixels, match="20000x10000"):
        await pipeline.answer(
            panorama(), Job(DepthOptions(), lambda model, source: (10_000, 20_000), lambda result: b"")
        )
    assert engine.batches == []


async def test_a_failing_encoder_fails_its_request_alone(pipeline, panorama) -> None:
    def fail(result) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await pipeline.answer(panorama(), Job(DepthOptions(), as_posted, fail))
    assert (await pipeline.answer(panorama(), Job(DepthOptions(), as_posted, lambda result: b"well"))).body == b"well"
