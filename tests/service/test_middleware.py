import asyncio
import functools
import json
import logging
import math
import re
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dap.errors import DapError, Overloaded
from service.middleware import AccessLog, Admission, BodyLimit, RequestHeaders
from service.problems import problem_response
from service.telemetry import Telemetry
from service.tracing import current_span


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the size of the body; an error of ours with its problem."""
    try:
        response: Response = PlainTextResponse(str(len(await Request(scope, receive).body())))
    except DapError as error:
        response = problem_response(scope, error)
    await response(scope, receive, send)


def client_of(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service")


async def chunks(count: int, size: int, sent: list[int] | None = None) -> AsyncIterator[bytes]:
    for number in range(count):
        if sent is not None:
            sent.append(number)
        yield bytes(size)


class TestRequestHeaders:
    async def test_a_request_id_of_the_client_comes_back(self) -> None:
        async with client_of(RequestHeaders(echo)) as client:
            answer = await client.get("/", headers={"x-request-id": "job-7/frame-12"})
        assert answer.headers["x-request-id"] == "job-7/frame-12"

    @pytest.mark.parametrize("asked", [None, "", "with space", "x" * 129, "tab\there"])
    async def test_without_a_usable_one_there_is_a_new_one(self, asked: str | None) -> None:
        async with client_of(RequestHeaders(echo)) as client:
            headers = {} if asked is None else {"x-request-id": asked}
            first, second = [(await client.get("/", headers=headers)).headers["x-request-id"] for _ in range(2)]
        assert re.fullmatch("[0-9a-f]{32}", first)
        assert first != second

    async def test_every_answer_has_the_security_headers(self) -> None:
        async with client_of(RequestHeaders(echo)) as client:
            headers = (await client.get("/")).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]

    @pytest.mark.parametrize(
        ("sent", "trace_id"),
        [(f"00-{'a' * 32}-{'b' * 16}-01", "a" * 32), (f"00-{'A' * 32}-{'b' * 16}-01", None), (None, None)],
    )
    async def test_within_it_the_callers_span_is_known_and_afterwards_no_more(
        self, sent: str | None, trace_id: str | None
    ) -> None:
        seen: list[str | None] = []

        async def look(scope: Scope, receive: Receive, send: Send) -> None:
            span = current_span.get()
            seen.append(span.trace_id if span else None)
            await echo(scope, receive, send)

        async with client_of(RequestHeaders(look)) as client:
            await client.get("/", headers={"traceparent": sent} if sent else {})
        assert seen == [trace_id]
        assert current_span.get() is None


class TestAccessLog:
    async def test_a_request_is_one_line_that_json_can_say(self, caplog) -> None:
        caplog.set_level(logging.INFO, "dap.access")
        async with client_of(RequestHeaders(AccessLog(echo, Telemetry()))) as client:
            await client.post("/x?secret=1", content=b"123", headers={"x-request-id": "r1"})
        (record,) = [record for record in caplog.records if record.name == "dap.access"]
        fields = json.loads(json.dumps(record.fields))
        assert fields.pop("seconds") >= 0
        assert fields == {
            "request_id": "r1",
            "client": "127.0.0.1",
            "method": "POST",
            "path": "/x",
            "status": 200,
            "problem": None,
            "bytes": 1,
        }

    async def test_a_probe_is_no_news(self, client, caplog) -> None:
        caplog.set_level(logging.INFO, "dap.access")
        for path in ("/healthz", "/readyz", "/metrics", "/models"):
            await client.get(path)
        assert [record.fields["path"] for record in caplog.records if record.name == "dap.access"] == ["/models"]

    async def test_an_answer_that_breaks_off_is_left_to_the_server(self, caplog) -> None:
        async def breaks_off(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise OSError("mid-answer")

        async with client_of(RequestHeaders(AccessLog(breaks_off, Telemetry()))) as client:
            with pytest.raises(OSError, match="mid-answer"):
                await client.get("/")


class TestAdmission:
    async def test_beyond_the_limit_a_post_is_429_at_once_and_told_when_to_come_back(self) -> None:
        inside, go_on = asyncio.Event(), asyncio.Event()

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            inside.set()
            await go_on.wait()
            await echo(scope, receive, send)

        async with client_of(Admission(slow, lambda: 1, lambda within_s: None, retry_after_s=lambda: 6.5)) as client:
            first = asyncio.create_task(client.post("/"))
            await inside.wait()
            refused = await client.post("/")
            go_on.set()
            assert (await first).status_code == 200
            assert (await client.post("/")).status_code == 200
        assert (refused.status_code, refused.json()["type"]) == (429, "/problems/overloaded")
        assert refused.headers["retry-after"] == "7"

    async def test_without_room_in_the_queue_a_post_is_refused_by_its_headers(self) -> None:
        def full(within_s: float) -> None:
            raise Overloaded("8 panoramas are waiting", retry_after_s=2.5)

        async def never(scope: Scope, receive: Receive, send: Send) -> None:
            raise AssertionError("it was let in")

        sent: list[int] = []
        async with client_of(Admission(never, lambda: 8, full, retry_after_s=lambda: 1)) as client:
            refused = await client.post("/depth", content=chunks(3, 10, sent))
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
        assert sent == [0, 1, 2]  # What comes after the answer is thrown away, so that the answer is not lost.

    @pytest.mark.parametrize(("said", "patience_s"), [(None, math.inf), ("2.5", 2.5), ("soon", math.inf)])
    async def test_room_is_asked_for_with_the_time_that_the_client_waits(
        self, said: str | None, patience_s: float
    ) -> None:
        asked: list[float] = []
        async with client_of(Admission(echo, lambda: 1, asked.append, retry_after_s=lambda: 1)) as client:
            await client.post("/", headers={"x-request-timeout": said} if said else {})
        assert asked == [patience_s]

    async def test_loading_a_model_is_no_panorama(self) -> None:
        async with client_of(Admission(echo, lambda: 0, lambda within_s: None, retry_after_s=lambda: 1)) as client:
            assert (await client.post("/models/dap-s:load")).status_code == 200

    async def test_a_get_is_always_let_in(self) -> None:
        async with client_of(Admission(echo, lambda: 0, lambda within_s: None, retry_after_s=lambda: 1)) as client:
            assert (await client.get("/")).status_code == 200
            assert (await client.post("/")).status_code == 429


class TestBodyLimit:
    def limited(self, max_bytes: int = 100, max_bytes_in_progress: int = 1000) -> httpx.AsyncClient:
        return client_of(BodyLimit(echo, max_bytes, max_bytes_in_progress, stall_s=5, bytes_per_s=1))

    @pytest.mark.parametrize("size", [0, 1, 100])
    async def test_up_to_the_limit_a_body_is_read(self, size: int) -> None:
        async with self.limited() as client:
            assert (await client.post("/", content=bytes(size))).text == str(size)

    async def test_an_announced_length_beyond_it_is_refused_before_a_byte_is_read(self) -> None:
        sent: list[int] = []
        started = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def watched_send(message) -> None:
                if message["type"] == "http.response.start":
                    started.append(len(sent))
                await send(message)

            await BodyLimit(echo, 100, 1000, stall_s=5, bytes_per_s=1)(scope, receive, watched_send)

        async with client_of(app) as client:
            answer = await client.post("/", content=chunks(3, 50, sent), headers={"content-length": "150"})
        assert (answer.status_code, answer.json()["type"]) == (413, "/problems/input-too-large")
        assert started == [0]

    async def test_a_length_of_thousands_of_digits_is_no_failure(self) -> None:
        async with self.limited() as client:
            padded, huge = [
                await client.post("/", content=b"12345", headers={"content-length": digits})
                for digits in ("5".zfill(6000), "9" * 6000)
            ]
        assert (padded.text, huge.status_code) == ("5", 413)

    async def test_without_a_length_bytes_are_counted_as_they_come(self) -> None:
        async with self.limited() as client:
            assert (await client.post("/", content=chunks(2, 50))).text == "100"
            assert (await client.post("/", content=chunks(3, 50))).status_code == 413

    async def test_a_body_longer_than_announced_is_no_way_around(self) -> None:
        async with self.limited() as client:
            answer = await client.post("/", content=chunks(3, 50), headers={"content-length": "10"})
        assert answer.status_code == 413

    async def test_the_connection_closes_after_the_rest_was_thrown_away(self) -> None:
        sent: list[int] = []
        async with self.limited() as client:
            answer = await client.post("/", content=chunks(10, 50, sent))
        assert answer.headers["connection"] == "close"
        assert len(sent) == 10

    async def test_a_body_that_stops_coming_is_ended(self) -> None:
        async def silent() -> AsyncIterator[bytes]:
            yield bytes(10)
            await asyncio.sleep(3600)

        async with client_of(BodyLimit(echo, 100, 1000, stall_s=0.05, bytes_per_s=1)) as client:
            answer = await asyncio.wait_for(client.post("/", content=silent()), 5)
        assert (answer.status_code, answer.json()["type"]) == (408, "/problems/upload-too-slow")
        assert answer.headers["connection"] == "close"

    async def test_a_body_that_crawls_is_ended_though_it_never_stops(self) -> None:
        sent: list[int] = []

        async def crawling() -> AsyncIterator[bytes]:
            for number in range(100):
                sent.append(number)
                yield b"x"
                await asyncio.sleep(0.02)

        async with client_of(BodyLimit(echo, 100, 1000, stall_s=0.1, bytes_per_s=1000)) as client:
            answer = await asyncio.wait_for(client.post("/", content=crawling()), 5)
        assert answer.status_code == 408
        assert len(sent) < 20

    async def test_a_body_that_came_quickly_may_rest_no_longer_than_any_other(self) -> None:
        async def quick_then_silent() -> AsyncIterator[bytes]:
            yield bytes(90)
            await asyncio.sleep(3600)

        async with client_of(BodyLimit(echo, 100, 1000, stall_s=0.05, bytes_per_s=0.01)) as client:
            answer = await asyncio.wait_for(client.post("/", content=quick_then_silent()), 5)
        assert answer.status_code == 408

    async def test_after_its_body_a_client_may_wait_as_long_as_it_likes(self) -> None:
        async def thinks(scope: Scope, receive: Receive, send: Send) -> None:
            body = await Request(scope, receive).body()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await receive()
            await PlainTextResponse(str(len(body)))(scope, receive, send)

        async with client_of(BodyLimit(thinks, 100, 1000, stall_s=0.05, bytes_per_s=1e6)) as client:
            assert (await client.post("/", content=bytes(20))).text == "20"

    async def test_bodies_in_progress_together_have_a_limit_too_and_leave_it_when_done(self) -> None:
        more = asyncio.Event()

        async def in_two_halves() -> AsyncIterator[bytes]:
            yield bytes(50)
            await more.wait()
            yield bytes(50)

        async with self.limited(max_bytes_in_progress=120) as client:
            first = asyncio.create_task(client.post("/", content=in_two_halves()))
            await asyncio.sleep(0.01)
            refused = await client.post("/", content=bytes(80))
            more.set()
            assert (await first).text == "100"
            assert (await client.post("/", content=bytes(80))).text == "80"
        assert (refused.status_code, refused.json()["type"]) == (429, "/problems/overloaded")


async def test_a_body_refused_for_the_memory_of_all_disturbs_none_that_came_before(
    serving, engine, panorama, until_queued
) -> None:
    async with serving(max_body_bytes=4096, max_bytes_in_progress=4096) as client:
        engine.gate.clear()
        first = asyncio.create_task(client.post("/depth", content=panorama()))
        await asyncio.to_thread(engine.entered.acquire)
        refused = await client.post("/depth", content=bytes(4096))
        second = asyncio.create_task(client.post("/depth", content=panorama()))
        await until_queued(client, 1)
        engine.gate.set()
        answers = await asyncio.gather(first, second)
    assert refused.status_code == 429
    assert [answer.status_code for answer in answers] == [200, 200]


async def test_a_full_service_refuses_with_a_time_from_its_queue(serving, engine, panorama, until_queued) -> None:
    async with serving(max_requests=2) as client:
        engine.gate.clear()
        first = asyncio.create_task(client.post("/depth", content=panorama()))
        await asyncio.to_thread(engine.entered.acquire)
        second = asyncio.create_task(client.post("/depth", content=panorama()))
        await until_queued(client, 1)
        refused = await client.post("/depth", content=panorama())
        alive = await client.get("/healthz")
        engine.gate.set()
        await asyncio.gather(first, second)
    assert (refused.status_code, refused.json()["type"]) == (429, "/problems/overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert alive.status_code == 200


async def test_a_full_queue_refuses_before_the_picture_is_looked_at(serving, engine, panorama, until_queued) -> None:
    async with serving(max_queued_pixels=32 * 64) as client:
        engine.gate.clear()
        first = asyncio.create_task(client.post("/depth", content=panorama()))
        await asyncio.to_thread(engine.entered.acquire)
        second = asyncio.create_task(client.post("/depth", content=panorama()))
        await until_queued(client, 1)
        refused = await client.post("/depth", content=b"no picture at all: 415 if anybody looked")
        engine.gate.set()
        answers = await asyncio.gather(first, second)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert (refused.status_code, "retry-after" in refused.headers) == (429, True)


@pytest.mark.parametrize(("size", "batch"), [((512, 1024), 16), ((32, 64), 40)], ids=["large panoramas", "many"])
async def test_with_the_defaults_batches_fill_and_nobody_is_refused(
    serving, engine, panorama, until_queued, size: tuple[int, int], batch: int
) -> None:
    engine.input_size, engine.thresholds = size, (10.0,)
    async with serving(max_batch_size=batch) as client:
        engine.gate.clear()
        post = functools.partial(client.post, "/depth?range=none&format=npy&size=64x32", content=panorama())
        posts = [asyncio.create_task(post())]
        await asyncio.to_thread(engine.entered.acquire)
        posts += [asyncio.create_task(post()) for _ in range(2 * batch)]
        await until_queued(client, 2 * batch)
        engine.gate.set()
        answers = await asyncio.gather(*posts)
    assert {answer.status_code for answer in answers} == {200}
    assert engine.batch_sizes == [1, batch, batch]
