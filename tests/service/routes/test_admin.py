import asyncio
import dataclasses
import io
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest

from dap.errors import EngineUnavailable, ModelFileMissing
from dap.models import known_models
from service import serving as serving_module
from service.app import create_app
from service.serving import State
from service.settings import Settings

KEY = {"Authorization": "Bearer an-admin-key-of-length"}


@pytest.fixture
def engines(engine, monkeypatch):
    """The engine of each model that is made, by name: `engines["dap-x"]`; an error in its place is raised."""
    (small, *_) = known_models()
    other = dataclasses.replace(small, name="dap-x", input_size=(16, 32), thresholds=(100.0,))
    monkeypatch.setattr(serving_module, "known_models", lambda: (small, other))
    second = type(engine)(input_size=(16, 32), thresholds=(100.0,))
    return {"dap-s": engine, "dap-x": second}


@pytest.fixture
async def client(engines) -> AsyncIterator[httpx.AsyncClient]:
    def open_engine(model, settings):
        if isinstance(engines[model.name], Exception):
            raise engines[model.name]
        return engines[model.name]

    app = create_app(Settings(admin_key=KEY["Authorization"].split()[1]), open_engine)
    transport = httpx.ASGITransport(app)
    async with (
        asyncio.timeout(20),
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service", headers=KEY) as ready,
    ):
        while app.state.serving.state is State.LOADING:
            await asyncio.sleep(0.001)
        ready.app = app
        yield ready


async def model_of(client: httpx.AsyncClient, panorama) -> str:
    answer = await client.post("/depth?format=npy&size=model", content=panorama())
    assert answer.status_code == 200
    return answer.headers["x-model"]


async def test_another_model_is_served_after_it_was_loaded_and_the_old_one_is_closed(client, engines, panorama) -> None:
    assert await model_of(client, panorama) == "dap-s"
    loaded = await client.post("/models/dap-x:load")
    assert (loaded.status_code, loaded.json()["name"], loaded.json()["state"]) == (200, "dap-x", "serving")
    answer = await client.post("/depth?format=npy&size=model", content=panorama(red=80))
    assert (answer.headers["x-model"], answer.headers["x-range-mask"]) == ("dap-x", "head")
    assert np.load(io.BytesIO(answer.content)).shape == (16, 32)
    assert (await client.get("/models")).json()["models"][0]["name"] == "dap-x"
    registry = client.app.state.telemetry.registry
    assert registry.get_sample_value("dap_model_info", {"model": "dap-x", "engine": "red", "device": "cpu"}) == 1
    while not engines["dap-s"].closed:
        await asyncio.sleep(0.001)
    assert not engines["dap-x"].closed


async def test_a_panorama_in_progress_is_finished_by_the_old_model_which_is_closed_only_then(
    client, engines, panorama
) -> None:
    old = engines["dap-s"]
    await asyncio.to_thread(old.entered.acquire)  # the warm-up's
    await asyncio.to_thread(old.entered.acquire)
    old.gate.clear()
    in_progress = asyncio.create_task(model_of(client, panorama))
    await asyncio.to_thread(old.entered.acquire)
    assert (await client.post("/models/dap-x:load")).status_code == 200
    assert await model_of(client, panorama) == "dap-x"
    assert not old.closed
    old.gate.set()
    assert await in_progress == "dap-s"
    while not old.closed:
        await asyncio.sleep(0.001)


async def test_while_a_model_is_loaded_the_old_one_answers_and_a_second_load_is_refused(
    client, engines, panorama
) -> None:
    engines["dap-x"].gate.clear()
    loading = asyncio.create_task(client.post("/models/dap-x:load"))
    await asyncio.to_thread(engines["dap-x"].entered.acquire)
    assert await model_of(client, panorama) == "dap-s"
    assert (await client.get("/readyz")).status_code == 200
    second = await client.post("/models/dap-s:load")
    assert (second.status_code, second.json()["type"]) == (409, "/problems/load-in-progress")
    assert int(second.headers["retry-after"]) >= 1
    engines["dap-x"].gate.set()
    assert (await loading).status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (ModelFileMissing("put it at /srv/secret/model.onnx"), 503, "model-file-missing"),
        (EngineUnavailable("no libsecret.so"), 500, "engine-unavailable"),
        (ImportError("/srv/secret.py"), 500, "engine-error"),
    ],
)
async def test_a_load_that_fails_leaves_the_old_one_serving_and_says_why_in_general(
    client, engines, panorama, caplog, error: Exception, status: int, slug: str
) -> None:
    engines["dap-x"] = error
    answer = await client.post("/models/dap-x:load")
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
    assert "dap-s is served on" in answer.json()["detail"]
    assert "secret" not in answer.text
    assert str(error) in caplog.text
    assert await model_of(client, panorama) == "dap-s"
    assert (await client.get("/healthz")).status_code == 200


async def test_a_model_that_dies_of_its_first_panorama_is_not_served_and_is_closed(client, engines, panorama) -> None:
    def fail_on_a_picture(panoramas) -> None:
        if panoramas.any():
            raise EngineUnavailable("the device fell off the bus")

    engines["dap-x"].before = fail_on_a_picture
    assert (await client.post("/models/dap-x:load")).status_code == 500
    assert engines["dap-x"].closed
    assert await model_of(client, panorama) == "dap-s"
    assert client.app.state.serving.state is State.READY


async def test_a_load_goes_on_when_the_client_leaves(client, engines, panorama) -> None:
    engines["dap-x"].gate.clear()
    leaving = asyncio.create_task(client.post("/models/dap-x:load"))
    await asyncio.to_thread(engines["dap-x"].entered.acquire)
    leaving.cancel()
    await asyncio.wait([leaving])
    engines["dap-x"].gate.set()
    while client.app.state.serving.model.name != "dap-x":
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("name", ["dap-huge", "..%2Fdap-s", "%2Fetc%2Fpasswd", "dap-s.onnx"])
async def test_only_a_name_that_is_known_here_is_loaded(client, name: str) -> None:
    answer = await client.post(f"/models/{name}:load")
    assert answer.status_code == 404
    assert client.app.state.serving.model.name == "dap-s"


async def test_a_service_that_goes_down_loads_nothing(client) -> None:
    client.app.state.serving.drain()
    assert (await client.post("/models/dap-x:load")).status_code == 503


async def test_without_an_admin_key_the_path_is_switched_off(serving) -> None:
    async with serving() as client:
        answer = await client.post("/models/dap-s:load", headers=KEY)
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/access-denied")
