"""What comes before a body and beside it, from clients that mean no good."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from uvicorn.server import ServerState

from service import connections
from service.connections import MAX_HEAD_BYTES, Connection

CHUNKED = b"POST / HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n"


async def echo(scope, receive, send) -> None:
    """Answer /unread at once, anything else when its body is there, with its length."""
    request = Request(scope, receive)
    body = b"" if scope["path"] == "/unread" else await request.body()
    await PlainTextResponse(f"read {len(body)}")(scope, receive, send)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    config = uvicorn.Config(echo, http=Connection, log_config=None)
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(config, ServerState(), {}), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def answer(port: int, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """All that comes back until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(10):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_heads_and_bodies_within_bounds_are_read(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: s\r\nX: " + b"x" * (MAX_HEAD_BYTES - 1000) + b"\r\nContent-Length: 300000\r\n\r\n"
    got = await answer(port, head, bytes(200_000), bytes(100_000), LAST)
    assert (got.count(b" 200 OK"), got.count(b"read 300000")) == (2, 1)


async def test_a_body_in_many_small_chunks_is_no_long_head(port: int) -> None:
    got = await answer(port, CHUNKED, b"1;of=many\r\n.\r\n" * 20_000, b"0\r\n\r\n", LAST)
    assert b"read 20000" in got


@pytest.mark.parametrize(
    ("start", "endless"),
    [
        (b"GET / HTTP/1.1\r\nX: ", b"x" * 1024),
        (b"GET / HTTP/1.1\r\n", b"X: x\r\n" * 200),
        (b"GET /", b"x" * 1024),
        (b"", b"\r\n" * 512),
        (CHUNKED + b"5;", b"x" * 1024),
        (CHUNKED + b"0\r\n", b"X: x\r\n" * 200),
    ],
    ids=["header", "headers", "path", "empty lines", "chunk extension", "trailers"],
)
async def test_what_has_no_end_is_cut_off(port: int, start: bytes, endless: bytes) -> None:
    got = await answer(port, start, *[endless] * (2 * MAX_HEAD_BYTES // len(endless)))
    assert got == b"" or got.startswith(b"HTTP/1.1 400 ")
    assert b"read 0" in await answer(port, LAST)


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"GET / HTTP/1.1\r\n", *[b"X: x\r\n"] * 40],
        [b"\r\n"] * 40,
        [LAST.replace(b"close", b"keep-alive"), *[b"G"] * 40],
        [b"POST /unread HTTP/1.1\r\nHost: s\r\nContent-Length: 9999\r\n\r\n", *[b"."] * 40],
    ],
    ids=["nothing", "a head", "empty lines", "a second head", "a body that nobody reads"],
)
async def test_who_drips_is_cut_off(port: int, monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.2)
    loop = asyncio.get_running_loop()
    started = loop.time()
    await answer(port, *pieces, pause_s=0.02)
    assert loop.time() - started < 0.75  # of 0.8 to send it all, and more of uvicorn's patience after that


async def test_a_request_that_came_in_time_may_take_longer_than_its_head(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.1)
    head = b"POST / HTTP/1.1\r\nHost: s\r\nConnection: close\r\nContent-Length: 10\r\n\r\n"
    assert b"read 10" in await answer(port, head, *[b"."] * 10, pause_s=0.04)
