import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from dap import sphere
from dap.errors import EngineError, Overloaded, TooManyPixels
from dap.postprocess import DepthOptions
from service import pipeline as pipeline_module
from service.pipeline import Job, Pipeline
from service.serving import Serving, State
from service.settings import Settings
from service.telemetry import Telemetry


def as_posted(model_size, input_size):
    return input_size


def single() -> Job:
    return Job(DepthOptions(), as_posted, lambda result: result.depth_map)


def depth_of(result) -> Any:
    return result.depth_map.depth


@asynccontextmanager
async def running(engine, **settings: Any) -> AsyncIterator[Pipeline]:
    configured, telemetry = Settings(**settings), Telemetry()
    serving = Serving(configured, telemetry, lambda model, settings: engine)
    pipeline = Pipeline(configured, telemetry, serving)
    pipeline.queued = lambda: telemetry.registry.get_sample_value("dap_queue_panoramas")
    serving.start(pipeline.rehearse)
    while serving.state is State.LOADING:
        await asyncio.sleep(0.001)
    engine.batches.clear()
    engine.entered = threading.Semaphore(0)
    pipeline.model = serving.model
    yield pipeline
    await serving.stop()
    await pipeline.close()


@pytest.fixture
async def pipeline(engine):
    async with running(engine) as ready:
        yield ready


async def until(holds) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


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


async def test_an_answer_of_many_pixels_is_refused_though_its_depth_map_is_small(pipeline, engine, panorama) -> None:
    job = Job(DepthOptions(), as_posted, lambda result: b"", pixels=lambda size: 10**9)
    with pytest.raises(TooManyPixels, match="128x64, 1000000000 in all"):
        await pipeline.answer(panorama(height=64), job)
    assert engine.batches == []


@pytest.mark.parametrize("seam", ["none", "blend"])
async def test_who_asks_for_no_range_has_no_range_masks_computed(pipeline, engine, panorama, seam) -> None:
    engine.asked_in_range.clear()
    maps = [
        (await pipeline.answer(panorama(), Job(DepthOptions(range=range_m, seam=seam), as_posted, depth_of))).body
        for range_m in (None, 100)
    ]
    assert set(engine.asked_in_range) == {False, True}
    assert not engine.asked_in_range[0]
    np.testing.assert_array_equal(maps[0], maps[1])


async def test_pixels_of_the_models_size_need_no_decoding(pipeline) -> None:
    pixels = np.full((32, 64, 3), 80, np.uint8)
    answer = await pipeline.answer(pixels, Job(DepthOptions(), as_posted, lambda result: result.depth_map))
    assert (answer.body.depth == 40).all()


class TestSeamBlend:
    """A panorama whose red grows to the right: two predictions half a turn apart differ nowhere, for this engine.

    The model is one that may have a seam.
    """

    blend = Job(DepthOptions(seam="blend"), as_posted, lambda result: result.depth_map)

    @pytest.fixture
    def ramp(self) -> np.ndarray:
        return np.broadcast_to(np.arange(10, 74, dtype=np.uint8)[None, :, None], (32, 64, 3))

    async def test_two_panoramas_half_a_turn_apart_run_in_one_batch(self, engine, ramp, red_model) -> None:
        async with running(engine, model=str(red_model)) as pipeline:
            answer = await pipeline.answer(ramp, self.blend)
        (batch,) = engine.batches
        np.testing.assert_array_equal(batch[1], np.roll(batch[0], 32, axis=1))
        np.testing.assert_allclose(answer.body.depth, ramp[..., 0] / 2, rtol=1e-5)

    async def test_a_model_that_goes_round_the_circle_predicts_once(self, pipeline, engine, ramp) -> None:
        assert pipeline.model.spherical
        answer = await pipeline.answer(ramp, self.blend)
        assert engine.batch_sizes == [1]
        np.testing.assert_array_equal(answer.body.depth, ramp[..., 0] / np.float32(2))

    async def test_room_for_both_is_asked_for_before_anything_is_decoded(self, engine, panorama, red_model) -> None:
        async with running(engine, model=str(red_model), max_queued_pixels=2 * 32 * 64, max_batch_size=1) as pipeline:
            engine.gate.clear()
            runs = asyncio.create_task(pipeline.answer(panorama(), self.blend))
            await asyncio.to_thread(engine.entered.acquire)
            waiting = asyncio.create_task(pipeline.answer(panorama(), single()))
            await until(lambda: pipeline.queued() == 2)
            with pytest.raises(Overloaded):
                await pipeline.answer(b"never looked at", self.blend)
            engine.gate.set()
            await asyncio.gather(runs, waiting)

    async def test_where_one_fails_the_answer_is_its_error_and_the_service_goes_on(
        self, engine, panorama, red_model
    ) -> None:
        def fail(panoramas) -> None:
            if panoramas.any():  # it is the panorama, then, and not the engine
                raise EngineError("no depth for this one")

        async with running(engine, model=str(red_model), max_batch_size=1) as pipeline:
            engine.before = fail
            with pytest.raises(EngineError, match="no depth for this one"):
                await pipeline.answer(panorama(), self.blend)
            engine.before = lambda panoramas: None
            assert (await pipeline.answer(panorama(red=80), single())).body.depth[0, 0] == 40

    async def test_a_caller_who_leaves_takes_both_out_of_the_queue(self, engine, panorama, red_model) -> None:
        async with running(engine, model=str(red_model), max_batch_size=1) as pipeline:
            engine.gate.clear()
            runs = asyncio.create_task(pipeline.answer(panorama(), single()))
            await asyncio.to_thread(engine.entered.acquire)
            leaving = asyncio.create_task(pipeline.answer(panorama(), self.blend))
            await until(lambda: pipeline.queued() == 2)
            leaving.cancel()
            await asyncio.wait([leaving])
            assert pipeline.queued() == 0
            engine.gate.set()
            await runs


async def test_a_camera_height_scales_the_depth_and_the_answer_says_by_how_much(pipeline) -> None:
    """The engine sees a floor 20 m below the camera, out to 100 m."""
    down = -sphere.latitudes(32)
    metres = np.where(down > 0, np.minimum(100, 20 / np.sin(down)), 100)
    red = np.broadcast_to(np.rint(2 * metres).astype(np.uint8)[:, None, None], (32, 64, 3))
    known = Job(DepthOptions(camera_height=10.0), as_posted, lambda result: result.depth_map)
    answer = await pipeline.answer(red, known)
    assert answer.scale_factor == pytest.approx(0.5, rel=0.03)
    assert answer.body.depth == pytest.approx(red[..., 0] / 2 * answer.scale_factor)
    assert (await pipeline.answer(red, single())).scale_factor is None


async def test_a_failing_encoder_fails_its_request_alone(pipeline, panorama) -> None:
    def fail(result) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await pipeline.answer(panorama(), Job(DepthOptions(), as_posted, fail))
    assert (await pipeline.answer(panorama(), Job(DepthOptions(), as_posted, lambda result: b"well"))).body == b"well"
