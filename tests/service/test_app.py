"""The service and the library are one: what comes over HTTP is what `Predictor` gives. Here with real models."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from dap.formats import png16
from dap.models import DEFAULT_MODEL, find_model
from dap.predictor import Predictor
from service.app import create_app
from service.serving import State
from service.settings import Settings

SAMPLE = Path(__file__).parent.parent.parent / "demo" / "sample.jpg"
BUNDLED = pytest.param(
    DEFAULT_MODEL,
    marks=pytest.mark.skipif(not find_model(DEFAULT_MODEL).path.is_file(), reason="the bundled model is not here"),
)


@pytest.fixture(params=["red", BUNDLED])
def model(request: pytest.FixtureRequest, red_model: Path) -> str:
    return str(red_model) if request.param == "red" else request.param


@pytest.fixture
async def client(model: str) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(model=model, max_batch_size=2))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://service", timeout=60) as ready,
    ):
        while app.state.serving.state is State.LOADING:
            await asyncio.sleep(0.01)
        yield ready


@pytest.mark.parametrize("range_m", [20, 100, None])
async def test_depth_over_http_is_depth_in_python(client, model: str, range_m: int | None) -> None:
    expected = Predictor(model).predict(SAMPLE, range=range_m)
    answer = await client.post(f"/depth?range={range_m or 'none'}", content=SAMPLE.read_bytes())
    assert answer.status_code == 200, answer.text
    depth_map = png16.decode(answer.content)
    assert depth_map.size == expected.size
    assert (depth_map.valid == expected.valid).all()
    assert depth_map.depth[depth_map.valid] == pytest.approx(expected.depth[expected.valid], abs=0.5 / 512 + 1e-4)
    assert (answer.headers["x-model"], answer.headers["x-range-mask"]) == (expected.model, expected.range_mask)


async def test_every_format_of_a_photograph_agrees(client) -> None:
    body = SAMPLE.read_bytes()
    answers = {
        name: await client.post(f"/depth?format={name}", content=body) for name in ("png", "npy", "jpeg", "json")
    }
    metres = np.load(io.BytesIO(answers["npy"].content))
    said = answers["json"].json()
    assert said["max"] == pytest.approx(float(np.nanmax(metres)), abs=1e-3)
    with Image.open(SAMPLE) as photograph:
        assert (said["width"], said["height"]) == photograph.size
    assert (np.isnan(metres) == ~png16.decode(answers["png"].content).valid).all()
    with Image.open(io.BytesIO(answers["jpeg"].content)) as preview:
        assert preview.size == (said["width"], said["height"])


async def test_panoramas_of_one_batch_are_answered_as_if_alone(client) -> None:
    body = SAMPLE.read_bytes()
    turned = io.BytesIO()
    with Image.open(SAMPLE) as photograph:
        Image.fromarray(np.roll(np.asarray(photograph), 512, axis=1)).save(turned, "PNG")
    alone = [await client.post("/depth?format=npy&range=none", content=image) for image in (body, turned.getvalue())]
    together = await asyncio.gather(
        *(client.post("/depth?format=npy&range=none", content=image) for image in (body, turned.getvalue(), body))
    )
    for one, same in zip([*alone, alone[0]], together, strict=True):
        np.testing.assert_allclose(np.load(io.BytesIO(one.content)), np.load(io.BytesIO(same.content)), rtol=1e-3)


async def test_what_is_made_is_held_by_the_application_alone(client, model: str) -> None:
    settings = Settings(model=model)
    one, other = create_app(settings), create_app(settings)
    assert one.state.serving is not other.state.serving
    assert one.state.telemetry.registry is not other.state.telemetry.registry


class TestOrigins:
    HOME, ELSEWHERE = "https://maps.example.org", "https://elsewhere.example.org"

    async def test_without_any_no_page_of_another_origin_may_read_an_answer(self, serving) -> None:
        async with serving() as client:
            answer = await client.get("/models", headers={"Origin": self.HOME})
        assert not [name for name in answer.headers if name.startswith("access-control")]

    async def test_the_origins_that_are_set_may_read_answers_and_their_headers(self, serving, panorama) -> None:
        async with serving(cors_origins=f"{self.HOME}, http://localhost:3000") as client:
            answer = await client.post("/depth", content=panorama(), headers={"Origin": self.HOME})
            elsewhere = await client.post("/depth", content=panorama(), headers={"Origin": self.ELSEWHERE})
        assert answer.headers["access-control-allow-origin"] == self.HOME
        exposed = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
        ours = {name for name in answer.headers if name.startswith("x-")} - {"x-content-type-options"}
        assert ours <= exposed
        assert "access-control-allow-origin" not in elsewhere.headers

    async def test_a_browser_that_asks_first_needs_no_key_for_that(self, serving) -> None:
        asking = {
            "Origin": self.HOME,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type",
        }
        async with serving(cors_origins=self.HOME, api_keys="a-key-of-some-length") as client:
            answer = await client.options("/depth", headers=asking)
            refused = await client.post("/depth", headers={"Origin": self.HOME})
        assert answer.status_code == 200
        assert "authorization" in answer.headers["access-control-allow-headers"].lower()
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, self.HOME)
