import asyncio

from service import responses
from service.pipeline import Answer
from service.responses import AnswerResponse
from service.telemetry import Timing


def answer(body: bytes) -> Answer:
    return Answer(body, 20.0, "head", "dap-s", None, Timing(decode=0.001))


async def sent_by(response: AnswerResponse, send) -> None:
    await response({"type": "http"}, None, send)


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
