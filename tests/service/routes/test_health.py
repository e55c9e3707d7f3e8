import asyncio

import httpx

from dap.errors import EngineUnavailable, ModelFileMissing
from service.app import create_app
from service.serving import State
from service.settings import Settings


async def test_a_service_that_is_ready_says_so(client) -> None:
    assert (await client.get("/healthz")).json() == {"status": "alive"}
    assert (await client.get("/readyz")).json() == {"status": "ready"}


async def test_while_the_model_loads_the_port_answers_alive_but_not_ready(engine, panorama) -> None:
    engine.gate.clear()
    app = create_app(Settings(), lambda model, settings: engine)
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://s") as client:
        await asyncio.to_thread(engine.entered.acquire)
        alive, ready = await client.get("/healthz"), await client.get("/readyz")
        depth = await client.post("/depth", content=panorama())
        engine.gate.set()
    assert alive.status_code == 200
    for refused in (ready, depth):
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/not-ready")
        assert int(refused.headers["retry-after"]) >= 1
        assert "loading" in refused.json()["detail"]


async def test_a_model_that_cannot_be_loaded_turns_both_red_and_tells_no_path() -> None:
    def nothing_there(model, settings):
        raise ModelFileMissing("expected /srv/secret/model.onnx")

    app = create_app(Settings(), nothing_there)
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://s") as client:
        while app.state.serving.state is State.LOADING:
            await asyncio.sleep(0.001)
        answers = [await client.get("/healthz"), await client.get("/readyz"), await client.post("/depth", content=b"x")]
    assert [answer.status_code for answer in answers] == [503] * 3
    assert not any("secret" in answer.text for answer in answers)


async def test_a_dead_batching_task_turns_both_red_and_fails_its_requests(client, engine, panorama) -> None:
    def device_lost(panoramas) -> None:
        raise EngineUnavailable("the device fell off the bus")

    engine.before = device_lost
    dying = await client.post("/depth", content=panorama())
    assert (dying.status_code, dying.json()["type"]) == (500, "/problems/engine-error")
    assert (await client.get("/healthz")).status_code == 503
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.post("/depth", content=panorama())).status_code == 503


async def test_going_down_is_not_ready_but_alive_and_still_answers(client, panorama) -> None:
    client.app.state.serving.drain()
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/healthz")).status_code == 200
    assert (await client.post("/depth", content=panorama())).status_code == 200


async def test_the_engine_is_closed_at_the_end(serving, engine) -> None:
    async with serving():
        assert not engine.closed
    assert engine.closed
