import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dap.errors import EngineError, NotReady
from dap.models import find_model
from service.pipeline import Pipeline
from service.serving import EngineFactory, Serving, State, open_engine
from service.settings import Settings
from service.telemetry import Telemetry


@asynccontextmanager
async def loading(
    engine_factory: EngineFactory, telemetry: Telemetry | None = None, **settings
) -> AsyncIterator[Serving]:
    """A serving whose model loads in the background; stopped at the end unless it is already."""
    chosen, telemetry = Settings(**settings), telemetry or Telemetry()
    serving = Serving(chosen, telemetry, engine_factory)
    pipeline = Pipeline(chosen, telemetry, serving)
    serving.start(pipeline.rehearse)
    async with asyncio.timeout(10):
        yield serving
        await serving.stop()
        await pipeline.close()


async def until_loaded(serving: Serving) -> None:
    while serving.state is State.LOADING:
        await asyncio.sleep(0.001)


def test_the_engine_is_opened_as_the_settings_say(red_model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr("service.serving.create_engine", lambda model, engine, **options: asked.update(options))
    chosen: dict[str, object] = {
        "device": "cuda:1", "threads": 3, "precision": "bf16", "execution": "eager",
        "provider": "tensorrt", "max_batch_size": 7, "gpu_arena_gb": 2.5,
    }  # fmt: skip
    open_engine(find_model(red_model), Settings(engine="onnx", **chosen))
    assert asked == chosen


async def test_ready_comes_after_the_largest_batch_and_one_panorama_through_the_pipeline(engine) -> None:
    async with loading(lambda model, settings: engine, max_batch_size=3) as serving:
        await until_loaded(serving)
        assert serving.state is State.READY
    assert engine.batch_sizes == [3, 1]
    assert engine.batches[1].any()  # the panorama is none of the black ones that warm the engine


async def test_ready_comes_after_each_size_was_warmed_so_with_smaller_batches_of_larger_ones(engine) -> None:
    engine.other_sizes = ((64, 128), (16, 32))
    async with loading(lambda model, settings: engine, max_batch_size=8) as serving:
        await until_loaded(serving)
        assert serving.state is State.READY
        assert serving.sizes == engine.sizes
    warmed = [batch.shape[:3] for batch in engine.batches]
    assert warmed[:3] == [(8, 32, 64), (2, 64, 128), (8, 16, 32)]
    assert warmed[3:] == [(1, 32, 64), (1, 64, 128), (1, 16, 32)]


async def test_each_lane_of_an_engine_is_warm_at_each_size(engine) -> None:
    engine.lanes, engine.other_sizes = 2, ((64, 128),)
    async with loading(lambda model, settings: engine, max_batch_size=4) as serving:
        await until_loaded(serving)
    assert engine.batch_sizes[:2] == [4, 2]


async def test_on_a_gpu_each_number_of_panoramas_that_may_come_is_warm_at_each_size(engine) -> None:
    engine.device, engine.lanes, engine.other_sizes = "cuda:0", 2, ((64, 128),)
    async with loading(lambda model, settings: engine, max_batch_size=6) as serving:
        await until_loaded(serving)
    warmed = [batch.shape[:2] for batch in engine.batches]
    assert warmed == [(1, 32), (2, 32), (3, 32), (4, 32), (6, 32), (1, 64), (1, 32), (1, 64)]


async def test_on_a_gpu_several_lanes_take_batches_and_on_a_cpu_single_panoramas(engine) -> None:
    engine.lanes = 2
    for device, items in (("cuda:0", 6), ("cpu", 1)):
        engine.device = device
        async with loading(lambda model, settings: engine, max_batch_size=6) as serving:
            await until_loaded(serving)
            limits = serving.current().limits
        assert (limits.lanes, limits.items, limits.prepared) == (2, items, device != "cpu")


async def test_the_queue_has_room_for_full_batches_of_the_size_whose_full_batch_is_largest(engine) -> None:
    # Of 1024x512 four run together; of 2304x1152, where one already has more pixels than those, still one.
    engine.device, engine.input_size, engine.thresholds = "cuda:0", (512, 1024), (10.0,)
    for others, largest in (((), 4 * 512 * 1024), (((1152, 2304), (256, 512)), 1152 * 2304)):
        engine.other_sizes = others
        async with loading(lambda model, settings: engine, max_batch_size=4) as serving:
            await until_loaded(serving)
            assert serving.current().limits.queued_pixels == (1 + 2) * largest


async def test_requests_let_in_follow_the_model_that_is_served(engine) -> None:
    engine.device, engine.lanes = "cuda:0", 2
    async with loading(lambda model, settings: engine, max_batch_size=16) as serving:
        assert serving.max_requests == 64
        await until_loaded(serving)
        assert serving.max_requests == 128


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        ({"max_queued_pixels": 8 * 32 * 64 - 1}, ["8 panoramas of 64x32", "max_queued_pixels has room for 7", "16384"]),
        ({"max_requests": 7}, ["8 panoramas of 64x32", "max_requests has room for 7", "give 8 or more"]),
        ({"max_queued_pixels": 8 * 32 * 64, "max_requests": 8}, []),
        ({"max_queued_pixels": 1, "max_batch_size": 1}, []),
        ({}, []),
    ],
)
async def test_who_gives_too_little_room_for_a_full_batch_is_warned_and_served(
    engine, caplog, given: dict[str, int], warned: list[str]
) -> None:
    async with loading(lambda model, settings: engine, **{"max_batch_size": 8, **given}) as serving:
        await until_loaded(serving)
        assert serving.state is State.READY
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == bool(warned)
    assert all(part in warnings[0] for part in warned)


async def test_stop_while_the_model_loads_ends_at_once_it_is_loaded(engine) -> None:
    engine.gate.clear()
    async with loading(lambda model, settings: engine) as serving:
        await asyncio.to_thread(engine.entered.acquire)
        stopping = asyncio.create_task(serving.stop())
        await asyncio.sleep(0.01)
        engine.gate.set()
        await stopping
        assert engine.closed
        with pytest.raises(NotReady):
            serving.current()


async def test_a_model_that_is_warm_after_the_service_began_to_go_down_is_not_ready(engine) -> None:
    engine.gate.clear()
    async with loading(lambda model, settings: engine) as serving:
        await asyncio.to_thread(engine.entered.acquire)
        serving.drain()
        engine.gate.set()
        while engine.batch_sizes != [4, 1]:
            await asyncio.sleep(0.001)
        assert serving.state is State.DRAINING


async def test_an_engine_that_cannot_be_made_is_a_failure_and_no_hang(caplog) -> None:
    def explode(model, settings):
        raise ImportError("no such library")

    async with loading(explode) as serving:
        await until_loaded(serving)
        assert serving.state is State.FAILED
        assert serving.model is None
    assert "no such library" in caplog.text


async def test_of_an_engine_that_cannot_be_made_the_log_has_its_librarys_words(caplog) -> None:
    def fail(model, settings):
        raise EngineError("TensorRT failed on a batch of 4.") from RuntimeError("no kernel for Conv\nat 0x7f")

    async with loading(fail) as serving:
        await until_loaded(serving)
    (critical,) = [record for record in caplog.records if record.levelname == "CRITICAL"]
    assert critical.getMessage().endswith("TensorRT failed on a batch of 4. Cause: no kernel for Conv")
