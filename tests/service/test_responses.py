import asyncio
from types import SimpleNamespace

import pytest

from dap.errors import Overloaded
from service import responses
from service.pipeline import Answer
from service.responses import AnswerResponse, Unsent
from service.telemetry import Timing


def answer(body: bytes, scale_factor: float | None = None) -> Answer[bytes]:
    return Answer(body, 20.0, "head", "dap-s", scale_factor, Timing(decode=0.001), (256, 512))


async def sent_by(response: AnswerResponse, send, unsent: Unsent | None = None) -> None:
    app = SimpleNamespace(state=SimpleNamespace(unsent=unsent or Unsent(2**30)))
    await response({"type": "http", "app": app}, None, send)


async def test_a_large_answer_goes_out_in_pieces_and_complete() -> None:
    body = bytes(range(256)) * 4096
    messages: list[dict] = []

    async def send(message: dict) -> None:
        messages.append(message)

    await sent_by(AnswerResponse(answer(body), "image/png"), send)
    start, *pieces = messages
    assert dict(start["headers"])[b"content-length"] == str(len(body)).encode()
    assert max(len(piece["body"]) for piece in pieces) <= 256 * 1024
    assert b"".join(piece["body"] for piece in pieces) == body
    assert [piece.get("more_body", False) for piece in pieces] == [True] * (len(pieces) - 1) + [False]


async def test_a_reader_that_takes_nothing_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr(responses, "_STALL_S", 0.01)
    complete = False

    async def send(message: dict) -> None:
        nonlocal complete
        if message.get("body"):
            await asyncio.sleep(60)
        complete = complete or message["type"] == "http.response.body"

    async with asyncio.timeout(5):
        await sent_by(AnswerResponse(answer(b"depth"), "image/png"), send)
    assert not complete


@pytest.mark.parametrize(("factor", "header"), [(None, None), (1.0, "1"), (0.123456789, "0.123457")])
def test_the_factor_of_a_known_camera_height_is_a_header(factor: float | None, header: str | None) -> None:
    assert AnswerResponse(answer(b"", factor), "image/png").headers.get("x-scale-factor") == header


class TestUnsent:
    async def test_answers_that_slow_readers_leave_are_bounded_together(self) -> None:
        unsent, taken = Unsent(100), asyncio.Event()

        async def slow(message: dict) -> None:
            await taken.wait()

        first = asyncio.create_task(sent_by(AnswerResponse(answer(bytes(60)), "image/png"), slow, unsent))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await sent_by(AnswerResponse(answer(bytes(60)), "image/png"), pytest.fail, unsent)
        taken.set()
        await first
        await sent_by(AnswerResponse(answer(bytes(60)), "image/png"), slow, unsent)

    def test_an_answer_beyond_the_bound_goes_alone(self) -> None:
        unsent = Unsent(100)
        with unsent.hold(500), pytest.raises(Overloaded), unsent.hold(1):
            pass
        with unsent.hold(500):
            pass

    def test_an_answer_that_breaks_off_is_counted_no_more(self) -> None:
        unsent = Unsent(100)
        with pytest.raises(ConnectionError), unsent.hold(100):
            raise ConnectionError
        with unsent.hold(100):
            pass

    async def test_who_finds_no_room_is_told_so_by_the_service(self, serving, panorama) -> None:
        """The first reader takes nothing, the second comes while its answer waits."""
        async with serving(max_answer_bytes_in_progress=1000) as client:
            begun, taken = asyncio.Event(), asyncio.Event()
            pieces = iter([{"type": "http.request", "body": panorama(), "more_body": False}])

            async def receive() -> dict:
                for piece in pieces:
                    return piece
                return await asyncio.Event().wait()

            async def send(message: dict) -> None:
                begun.set()
                await taken.wait()

            scope = {"type": "http", "method": "POST", "path": "/depth", "query_string": b"format=npy", "headers": []}
            slow = asyncio.create_task(client.app(scope, receive, send))
            await begun.wait()
            refused = await client.post("/depth?format=npy", content=panorama())
            taken.set()
            await slow
            served = await client.post("/depth?format=npy", content=panorama())
        assert (refused.status_code, refused.json()["type"]) == (429, "/problems/overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert served.status_code == 200
