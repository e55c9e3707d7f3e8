"""`resolution=` of every path that takes a panorama.

The model is exported for 64x32, where its depth is the red channel / 2, and for 128x64, where it is the red channel
/ 4: one sees at which it was asked.
"""

import asyncio
import dataclasses
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dap.models import sibling_path
from service.app import create_app
from service.serving import State
from service.settings import Settings
from tests.dap.graphs import METADATA, red_graph, save

SIZE, LARGER = (32, 64), (64, 128)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "red.onnx"
    save(red_graph(dataclasses.replace(METADATA, input_size=SIZE)), path)
    save(red_graph(dataclasses.replace(METADATA, input_size=LARGER), divisor=4.0), sibling_path(path, LARGER))
    return path


@asynccontextmanager
async def serving(model: Path, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(model=str(model), device="cpu", threads=1, **settings))
    async with (
        asyncio.timeout(20),
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
    ):
        while app.state.serving.state is State.LOADING:
            await asyncio.sleep(0.001)
        client.app = app
        yield client


@pytest.fixture
async def client(model: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(model) as ready:
        yield ready


@pytest.mark.parametrize(
    ("asked", "resolution", "metres"),
    [("", "64x32", 10), ("&resolution=64x32", "64x32", 10), ("&resolution=128x64", "128x64", 5)],
)
async def test_the_model_sees_the_panorama_at_the_resolution_asked_for(
    client, panorama, asked: str, resolution: str, metres: float
) -> None:
    answer = await client.post(f"/depth?format=npy&size=input{asked}", content=panorama(red=20, height=48))
    depth = np.load(io.BytesIO(answer.content))
    assert depth.shape == (48, 96)
    assert (depth == metres).all()
    assert answer.headers["x-resolution"] == resolution
    model_size = await client.post(f"/depth?format=json&size=model{asked}", content=panorama(red=20, height=48))
    said = model_size.json()
    assert (f"{said['width']}x{said['height']}", said["resolution"], said["median"]) == (resolution, resolution, metres)


@pytest.mark.parametrize("path", ["/depth", "/pointcloud", "/normals", "/views"])
async def test_every_path_takes_it_and_refuses_what_is_not_offered(client, panorama, path: str) -> None:
    answer = await client.post(f"{path}?resolution=128x64", content=panorama(red=20))
    assert (answer.status_code, answer.headers["x-resolution"]) == (200, "128x64")
    refused = await client.post(f"{path}?resolution=256x128", content=panorama())
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/resolution-not-offered")
    assert "red is offered at 64x32, 128x64; the resolution asked for is 256x128" in refused.json()["detail"]


async def test_an_evaluation_is_of_the_resolution_asked_for(client, panorama) -> None:
    truth = io.BytesIO()
    np.save(truth, np.full((32, 64), 10, np.float32))
    form = {"image": panorama(red=20), "truth": truth.getvalue()}
    for resolution, absrel in (("64x32", 0.0), ("128x64", 0.5)):
        answer = await client.post(f"/evaluate?protocol=raw&resolution={resolution}", files=form)
        assert answer.json()["metrics"]["absrel"] == pytest.approx(absrel)
    assert (await client.post("/evaluate?resolution=32x16", files=form)).status_code == 422


async def test_it_is_refused_before_the_body_is_read(client) -> None:
    read: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        read.append(b"panorama")
        yield read[-1]

    refused = await client.post("/depth?resolution=256x128", content=body())
    assert (refused.status_code, read) == (422, [])


@pytest.mark.parametrize("text", ["128", "model", "128X64", ""])
async def test_what_is_no_resolution_is_a_wrong_parameter(client, panorama, text: str) -> None:
    refused = await client.post(f"/depth?resolution={text}", content=panorama())
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/invalid-parameter")


async def test_the_schema_and_the_list_of_models_say_what_is_offered(client) -> None:
    schema = (await client.get("/openapi.json")).json()
    for path in ("/depth", "/pointcloud", "/normals", "/views", "/evaluate"):
        parameters = {entry["name"]: entry["schema"] for entry in schema["paths"][path]["post"]["parameters"]}
        assert parameters["resolution"]["enum"] == ["64x32", "128x64"]
    assert (await client.get("/models")).json()["models"][0]["resolutions"] == ["64x32", "128x64"]


async def test_an_operator_chooses_what_is_offered_and_who_does_not_ask_gets_the_first(model, panorama) -> None:
    async with serving(model, resolutions="128x64") as client:
        assert (await client.post("/depth", content=panorama())).headers["x-resolution"] == "128x64"
        assert (await client.post("/depth?resolution=64x32", content=panorama())).status_code == 422
    async with serving(model, resolutions="128x64, 64x32") as client:
        assert (await client.post("/depth", content=panorama())).headers["x-resolution"] == "128x64"
        assert (await client.post("/depth?resolution=64x32", content=panorama())).status_code == 200


async def test_a_resolution_that_the_model_has_no_file_for_fails_the_start(model, caplog) -> None:
    async with serving(model, resolutions="64x32,256x128") as client:
        assert client.app.state.serving.state is State.FAILED
        assert (await client.get("/readyz")).status_code == 503
    assert "red is offered at 64x32, 128x64; the resolution asked for is 256x128" in caplog.text


async def test_inference_is_counted_by_resolution_each_of_which_was_warm_before(client, panorama) -> None:
    for resolution in ("64x32", "128x64", "128x64"):
        await client.post(f"/depth?resolution={resolution}", content=panorama())
    counted = {
        sample.labels["resolution"]: sample.value
        for family in text_string_to_metric_families((await client.get("/metrics")).text)
        for sample in family.samples
        if sample.name == "dap_inference_duration_seconds_count"
    }
    assert counted == {"64x32": 1, "128x64": 2}


async def test_tensors_say_by_their_shape_at_which_resolution_they_are(client) -> None:
    metadata = (await client.get("/v2/models/red")).json()
    assert metadata["inputs"][0]["shape"] == [-1, -1, -1, 3]
    for (rows, columns), metres in ((SIZE, 10), (LARGER, 5)):
        pixels = np.full((1, rows, columns, 3), 20, np.uint8)
        tensor = {"name": "panorama", "datatype": "UINT8", "shape": [*pixels.shape], "data": pixels.ravel().tolist()}
        answer = await client.post("/v2/models/red/infer", json={"inputs": [tensor], "outputs": [{"name": "depth"}]})
        (depth,) = answer.json()["outputs"]
        assert (depth["shape"], set(depth["data"])) == ([1, rows, columns], {metres})
        assert answer.headers["x-resolution"] == f"{columns}x{rows}"
