"""The client against the service itself, and against services that are late, busy or none at all."""

import asyncio
import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dap.client import LONGEST_PAUSE_S, AsyncClient, Client
from dap.cloud import PointCloud
from dap.depth import DepthMap
from dap.engines.base import Inference, no_range
from dap.errors import (
    DapError,
    DeadlineExceeded,
    InvalidParameter,
    NotAPanorama,
    NotReady,
    Overloaded,
    ResolutionNotOffered,
    Unavailable,
    UnexpectedAnswer,
)
from dap.formats import png16
from service.app import create_app
from service.serving import State
from service.settings import Settings

SIZE = (32, 64)


class SlantEngine:
    """Depth grows from 1.0005 m by a millimetre a column, so that steps of 1/512 m are told from what is exact."""

    name, device, lanes = "slant", "cpu", 1
    input_size = SIZE
    sizes = (SIZE,)
    thresholds = (10.0, 20.0, 50.0, 100.0)

    def infer(self, panoramas: npt.NDArray[np.uint8], *, in_range: bool = True) -> Inference:
        depth = np.tile(1.0005 + np.arange(SIZE[1], dtype=np.float32) / 1000, (len(panoramas), SIZE[0], 1))
        depth[:, 0] = 15
        thresholds = self.thresholds if in_range else ()
        nearer = [(depth < threshold).astype(np.float32) for threshold in thresholds]
        return Inference(depth.astype(np.float32), np.stack(nearer, axis=1) if nearer else no_range(depth))

    def warm_up(self, batch_sizes: Any, size: Any) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DAP_")]:
        monkeypatch.delenv(name)


@asynccontextmanager
async def service() -> AsyncIterator[AsyncClient]:
    app = create_app(Settings(), lambda model, settings: SlantEngine())
    async with (
        asyncio.timeout(20),
        app.router.lifespan_context(app),
        AsyncClient("http://service", transport=httpx.ASGITransport(app)) as client,
    ):
        while app.state.serving.state is State.LOADING:
            await asyncio.sleep(0.001)
        yield client


PIXELS = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
SLANT = np.tile(1.0005 + np.arange(SIZE[1], dtype=np.float32) / 1000, (SIZE[0], 1)).astype(np.float32)


@pytest.fixture
def picture() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "PNG")
    return stream.getvalue()


class TestAgainstTheService:
    async def test_depth_comes_as_a_depth_map(self, picture: bytes) -> None:
        async with service() as client:
            depth_map = await client.depth(picture, range=10)
        assert (depth_map.range, depth_map.range_mask, depth_map.model) == (10, "head", "dap-s")
        assert depth_map.size == SIZE
        assert not depth_map.valid[0].any()
        assert depth_map.valid[1:].all()
        assert depth_map.depth[1:] == pytest.approx(SLANT[1:], abs=1 / 1024 + 1e-6)
        assert (depth_map.depth[1:] != SLANT[1:]).any()

    async def test_exact_depth_is_the_service_s_own_to_the_bit(self, picture: bytes) -> None:
        async with service() as client:
            depth_map = await client.depth(picture, exact=True, range=10)
        np.testing.assert_array_equal(depth_map.depth[1:], SLANT[1:])
        np.testing.assert_array_equal(depth_map.valid.all(axis=1), np.arange(SIZE[0]) > 0)
        assert (depth_map.range, depth_map.range_mask, depth_map.model) == (10, "head", "dap-s")

    async def test_a_panorama_is_a_path_bytes_or_pixels(self, picture: bytes, tmp_path: Path) -> None:
        file = tmp_path / "pano.png"
        file.write_bytes(picture)
        async with service() as client:
            maps = [await client.depth(panorama) for panorama in (file, str(file), picture, PIXELS)]
        for depth_map in maps:
            np.testing.assert_array_equal(depth_map.depth, maps[0].depth)

    async def test_every_parameter_arrives(self, picture: bytes) -> None:
        async with service() as client:
            depth_map = await client.depth(
                picture, range=None, size=(16, 32), seam="blend", upsample="guided", nadir_mask=30.0, resolution=SIZE
            )
            assert (depth_map.range, depth_map.size, depth_map.resolution) == (None, (16, 32), SIZE)
            with pytest.raises(ResolutionNotOffered, match="dap-s is offered at 64x32"):
                await client.depth(picture, resolution=(64, 128))
            assert depth_map.valid.any(axis=1).tolist() == [True] * 13 + [False] * 3
            with pytest.raises(InvalidParameter, match="camera_height"):
                await client.depth(picture, camera_height=-1.0)

    async def test_points_come_as_a_cloud_or_as_a_file(self, picture: bytes) -> None:
        async with service() as client:
            cloud = await client.point_cloud(picture, range=10, frame="opencv", sampling="erp", normals=True)
            ply = await client.point_cloud(picture, format="ply", max_points=100)
        assert isinstance(cloud, PointCloud)
        assert (cloud.frame, cloud.model) == ("opencv", "dap-s")
        assert cloud.normals is not None
        assert cloud.points.shape == cloud.colors.shape == cloud.normals.shape
        assert np.linalg.norm(cloud.points, axis=1) == pytest.approx(1.03, abs=0.04)
        assert ply.startswith(b"ply\n")

    async def test_normals_and_views_come_as_files(self, picture: bytes) -> None:
        async with service() as client:
            normals = np.load(io.BytesIO(await client.normals(picture, size="model")))
            views = await client.views(picture, layout="horizon", count=3, view_size=(16, 24))
        assert normals.shape == (*SIZE, 3)
        with zipfile.ZipFile(io.BytesIO(views)) as archive:
            assert archive.testzip() is None

    async def test_models_are_listed_with_the_one_that_answers_first(self) -> None:
        async with service() as client:
            assert await client.ready()
            models = await client.models()
        assert (models[0].name, models[0].state, models[0].input_size) == ("dap-s", "serving", (256, 512))
        assert models[0].sizes == ((256, 512),)
        assert models[0].thresholds == (10, 20, 50, 100)

    async def test_problems_are_raised_as_the_errors_they_are_with_detail_and_request_id(self, picture: bytes) -> None:
        async with service() as client:
            with pytest.raises(InvalidParameter, match=r"'range'.*'15'") as caught:
                await client.depth(picture, range=15)
            assert caught.value.request_id
            with pytest.raises(NotAPanorama, match="twice as wide as high"):
                await client.depth(square())


def square() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "PNG")
    return stream.getvalue()


def depth_png() -> bytes:
    depth = np.full((2, 4), 2, np.float32)
    return png16.FORMAT.encode(DepthMap(depth, depth > 0, 100.0, "head", "m"))


def problem(slug: str, status: int, **headers: str) -> httpx.Response:
    said = {"type": f"/problems/{slug}", "title": "T", "status": status, "detail": f"it is {slug}", "request_id": "r1"}
    headers = {"content-type": "application/problem+json", "x-request-id": "r1", **headers}
    return httpx.Response(status, content=json.dumps(said), headers=headers)


class Script:
    """A service that gives these answers one after the other, and depth when they are used up."""

    def __init__(self, answers: list[httpx.Response | Exception]) -> None:
        self.answers = answers
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else httpx.Response(200, content=depth_png())
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


Asked = tuple[DepthMap | DapError, Script, list[float]]
Ask = Callable[..., Asked]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """What comes of a panorama, the service that was asked, and the pauses that were made; of either client."""

    def ask(*answers: httpx.Response | Exception, **options: Any) -> Asked:
        script, pauses = Script([*answers]), []
        transport = httpx.MockTransport(script)

        def by_sync() -> DepthMap:
            monkeypatch.setattr(Client, "_sleep", staticmethod(pauses.append))
            with Client("http://service", transport=transport, **options) as client:
                return client.depth(b"picture")

        async def by_async() -> DepthMap:
            async def sleep(seconds: float) -> None:
                pauses.append(seconds)

            monkeypatch.setattr(AsyncClient, "_sleep", staticmethod(sleep))
            async with AsyncClient("http://service", transport=transport, **options) as client:
                return await client.depth(b"picture")

        try:
            return by_sync() if request.param == "sync" else asyncio.run(by_async()), script, pauses
        except DapError as error:
            return error, script, pauses

    return ask


class TestTryingAgain:
    def test_after_429_and_503_until_it_is_answered(self, ask: Ask) -> None:
        found, script, pauses = ask(problem("overloaded", 429), problem("not-ready", 503))
        assert isinstance(found, DepthMap)
        assert len(script.requests) == 3
        assert len(pauses) == 2

    def test_not_before_the_time_that_the_service_names(self, ask: Ask) -> None:
        _, _, pauses = ask(problem("overloaded", 429, **{"retry-after": "7"}))
        assert 7 <= pauses[0] <= 7 * 1.25

    def test_at_the_date_that_a_proxy_names(self, ask: Ask) -> None:
        _, _, pauses = ask(httpx.Response(503, headers={"retry-after": formatdate(time.time() + 9, usegmt=True)}))
        assert 7 <= pauses[0] <= 9 * 1.25

    @pytest.mark.parametrize("named", ["soon", "-5", ""])
    def test_after_a_time_that_is_none_as_if_none_was_named(self, ask: Ask, named: str) -> None:
        _, _, pauses = ask(problem("overloaded", 429, **{"retry-after": named}))
        assert 0.5 <= pauses[0] <= 0.5 * 1.25

    def test_later_each_time_where_no_time_is_named(self, ask: Ask) -> None:
        _, _, pauses = ask(*[httpx.Response(503)] * 4)
        for pause, expected in zip(pauses, [0.5, 1, 2, 4], strict=True):
            assert expected <= pause <= expected * 1.25

    def test_never_after_more_than_the_longest_pause(self, ask: Ask) -> None:
        _, _, pauses = ask(problem("overloaded", 429, **{"retry-after": "9999"}), timeout=120)
        assert LONGEST_PAUSE_S <= pauses[0] <= LONGEST_PAUSE_S * 1.25

    def test_not_all_at_the_same_moment(self, ask: Ask) -> None:
        pauses = [ask(problem("overloaded", 429, **{"retry-after": "8"}))[2][0] for _ in range(5)]
        assert len(set(pauses)) > 1

    @pytest.mark.parametrize(
        "failure",
        [
            httpx.ConnectError("refused"),
            httpx.ReadError("reset"),
            httpx.RemoteProtocolError("gone"),
            httpx.ConnectTimeout("slow"),
        ],
        ids=lambda failure: type(failure).__name__,
    )
    def test_when_the_connection_fails(self, ask: Ask, failure: Exception) -> None:
        found, script, _ = ask(failure)
        assert isinstance(found, DepthMap)
        assert len(script.requests) == 2

    def test_sends_the_same_picture_each_time(self, ask: Ask) -> None:
        _, script, _ = ask(problem("overloaded", 429))
        assert [request.content for request in script.requests] == [b"picture", b"picture"]


class TestGivingUp:
    def test_after_as_many_tries_as_allowed_with_the_last_error(self, ask: Ask) -> None:
        found, script, pauses = ask(*[problem("overloaded", 429, **{"retry-after": "1"})] * 5, retries=2)
        assert isinstance(found, Overloaded)
        assert (str(found), found.request_id, found.retry_after_s) == ("it is overloaded", "r1", 1)
        assert (len(script.requests), len(pauses)) == (3, 2)

    def test_at_once_if_the_service_names_a_time_beyond_the_deadline(self, ask: Ask) -> None:
        found, script, pauses = ask(problem("not-ready", 503, **{"retry-after": "20"}), timeout=10)
        assert isinstance(found, NotReady)
        assert (len(script.requests), pauses) == (1, [])

    def test_when_nobody_is_there(self, ask: Ask) -> None:
        found, _, _ = ask(httpx.ConnectError("refused"), retries=0)
        assert type(found) is Unavailable
        assert str(found) == "no answer from service: refused"

    @pytest.mark.parametrize("status", [500, 422, 404])
    def test_at_once_on_what_would_not_change(self, ask: Ask, status: int) -> None:
        found, script, _ = ask(problem("engine-error", status))
        assert (found.slug, str(found)) == ("engine-error", "it is engine-error")
        assert len(script.requests) == 1

    def test_when_the_service_ran_out_of_time(self, ask: Ask) -> None:
        found, script, _ = ask(problem("deadline-exceeded", 504))
        assert isinstance(found, DeadlineExceeded)
        assert len(script.requests) == 1

    def test_when_an_answer_does_not_come(self, ask: Ask) -> None:
        found, script, _ = ask(httpx.ReadTimeout("slow"), timeout=3)
        assert isinstance(found, DeadlineExceeded)
        assert str(found) == "no answer within 3 seconds"
        assert len(script.requests) == 1


class TestDeadline:
    def test_is_told_to_the_service_and_is_what_is_left_of_it(self, ask: Ask) -> None:
        _, script, _ = ask(problem("overloaded", 429, **{"retry-after": "0"}), timeout=40)
        told = [float(request.headers["x-request-timeout"]) for request in script.requests]
        assert 39 < told[0] <= 40
        assert told[1] <= told[0]

    def test_holds_for_an_answer_that_drips(self) -> None:
        class Dripping(httpx.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                while True:
                    time.sleep(0.01)
                    yield b"."

        transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=Dripping()))
        with Client("http://service", timeout=0.05, transport=transport) as client, pytest.raises(DeadlineExceeded):
            client.depth(b"picture")

    async def test_holds_for_an_answer_that_does_not_come(self) -> None:
        async def never(request: httpx.Request) -> httpx.Response:
            await asyncio.sleep(60)
            raise AssertionError

        async with AsyncClient("http://service", timeout=0.05, transport=httpx.MockTransport(never)) as client:
            with pytest.raises(DeadlineExceeded, match=r"0\.05 seconds"):
                await client.depth(b"picture")


class TestRequest:
    def test_has_the_bytes_of_the_file_as_they_are_and_no_parameter_that_was_not_given(self, ask: Ask) -> None:
        _, script, _ = ask()
        request = script.requests[0]
        assert (request.method, str(request.url)) == ("POST", "http://service/depth?format=png")
        assert request.content == b"picture"
        assert request.headers["content-type"] == "application/octet-stream"
        assert "authorization" not in request.headers

    def test_has_the_key_where_there_is_one(self, ask: Ask) -> None:
        _, script, _ = ask(api_key="secret")
        assert script.requests[0].headers["authorization"] == "Bearer secret"

    def test_goes_below_the_path_of_the_url(self) -> None:
        script = Script([])
        with Client("https://host/maps/", transport=httpx.MockTransport(script)) as client:
            client.depth(b"picture")
        assert script.requests[0].url.path == "/maps/depth"

    def test_of_pixels_of_another_shape_is_not_sent(self) -> None:
        script = Script([])
        with (
            Client("http://service", transport=httpx.MockTransport(script)) as client,
            pytest.raises(NotAPanorama, match=r"\(H, 2 H, 3\)"),
        ):
            client.depth(np.zeros((4, 4, 3), np.uint8))
        assert script.requests == []


class TestNotTheService:
    @pytest.mark.parametrize(
        "answer",
        [
            httpx.Response(404, html="<h1>Not found</h1>"),
            httpx.Response(301, headers={"location": "https://elsewhere/"}),
            httpx.Response(200, html="<h1>Welcome</h1>"),
            httpx.Response(418, json=["teapot"]),
            httpx.Response(422, json={"type": "/problems/from-the-future", "detail": "new"}),
            httpx.Response(200, content=depth_png(), headers={"x-range": "far"}),
        ],
        ids=["404", "redirect", "page", "teapot", "unknown problem", "odd header"],
    )
    def test_is_said_at_once(self, ask: Ask, answer: httpx.Response) -> None:
        found, script, _ = ask(answer)
        assert isinstance(found, UnexpectedAnswer)
        assert len(script.requests) == 1

    def test_a_gateway_without_a_service_behind_it_is_not_available(self, ask: Ask) -> None:
        found, _, _ = ask(httpx.Response(502, html="<h1>Bad Gateway</h1>"))
        assert type(found) is Unavailable

    @pytest.mark.parametrize("body", [b"PK\x03\x04", b"", depth_png(), b"\x93NUMPY\x01\x00"])
    def test_a_cloud_that_is_none(self, body: bytes) -> None:
        transport = httpx.MockTransport(lambda request: httpx.Response(200, content=body))
        with Client("http://service", transport=transport) as client, pytest.raises(UnexpectedAnswer, match="a point"):
            client.point_cloud(b"picture")

    def test_models_that_are_none(self) -> None:
        transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"models": [{}]}))
        with Client("http://service", transport=transport) as client, pytest.raises(UnexpectedAnswer, match="models"):
            client.models()


class TestReady:
    @pytest.mark.parametrize("answer", [problem("not-ready", 503), httpx.ConnectError("refused")])
    def test_is_no_without_asking_again(self, answer: httpx.Response | Exception) -> None:
        script = Script([answer])
        with Client("http://service", transport=httpx.MockTransport(script)) as client:
            assert client.ready() is False
        assert len(script.requests) == 1


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"url": "localhost:8000"}, "begins with http"),
        ({"url": "ftp://host"}, "begins with http"),
        ({"url": "http://"}, "begins with http"),
        ({"url": "http://host", "timeout": 0}, "timeout is seconds above 0"),
        ({"url": "http://host", "retries": -1}, "retries is 0 or more"),
    ],
)
def test_a_client_that_could_never_ask_is_refused(kind: type, arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidParameter, match=expected):
        kind(**arguments)


def test_threads_may_share_one() -> None:
    script = Script([])
    with Client("http://service", transport=httpx.MockTransport(script)) as client:
        threads = [threading.Thread(target=client.depth, args=(b"picture",)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(script.requests) == 4


def test_asking_a_service_loads_no_engine_here() -> None:
    program = "import sys, dap.client; print(sorted({'torch', 'onnxruntime', 'fastapi', 'OpenEXR'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
