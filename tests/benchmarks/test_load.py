"""The load generator's statistics and schedules, and its way with answers, on a server that says what it is told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from benchmarks import load
from benchmarks.load import BrokenAnswer, Load, Sample


@pytest.mark.parametrize(("share", "expected"), [(0.0, 15), (0.05, 15), (0.3, 20), (0.4, 20), (0.5, 35), (1.0, 50)])
def test_percentiles_are_of_the_nearest_rank(share: float, expected: int) -> None:
    """The example of https://en.wikipedia.org/wiki/Percentile#Worked_examples_of_the_nearest-rank_method."""
    assert load.percentile([15, 20, 35, 40, 50], share) == expected


def test_of_nothing_there_is_no_percentile() -> None:
    assert load.percentile([], 0.5) != load.percentile([], 0.5)  # NaN


def test_a_load_counts_what_was_answered_and_what_was_not() -> None:
    samples = (Sample(0.0, 2.0, 200), Sample(1.0, 2.0, 200), Sample(1.0, 1.5, 429), Sample(1.0, 1.1, 0))
    result = Load(4.0, samples)
    assert (result.answered, result.per_s) == ([1.0, 2.0], 0.5)
    assert result.failures == {429: 1, 0: 1}


def test_two_loads_make_one() -> None:
    one, other = Load(1.0, (Sample(0.0, 1.0, 200),)), Load(3.0, (Sample(0.0, 2.0, 200),) * 3)
    assert ((one + other).per_s, (one + other).answered) == (1.0, [1.0, 2.0, 2.0, 2.0])


def test_even_arrivals_come_like_a_clock() -> None:
    assert load.even_arrivals(2.0, 2.0) == [0.0, 0.5, 1.0, 1.5]


def test_poisson_arrivals_are_as_many_and_as_uneven_as_they_should_be() -> None:
    """Gaps of a Poisson process: mean 1 / rate, standard deviation the same. 20,000 gaps know it to 1%."""
    arrivals = load.poisson_arrivals(10.0, 2000.0, seed=1)
    gaps = [later - earlier for earlier, later in zip([0.0, *arrivals], arrivals, strict=False)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(0.1, rel=0.03)
    assert deviation == pytest.approx(0.1, rel=0.03)
    assert arrivals == sorted(arrivals)
    assert arrivals == load.poisson_arrivals(10.0, 2000.0, seed=1)


def test_a_request_says_where_it_goes_and_how_long_it_is() -> None:
    request = load.post("http://127.0.0.1:80/depth?size=model", b"abc", {"Accept": "image/png"})
    assert (request.host, request.port) == ("127.0.0.1", 80)
    assert request.data == (
        b"POST /depth?size=model HTTP/1.1\r\nHost: 127.0.0.1:80\r\nContent-Length: 3\r\nAccept: image/png\r\n\r\nabc"
    )


class Saying(asyncio.Protocol):
    """Answers each request that ends with `abc` with these pieces, one after the other."""

    def __init__(self, pieces: tuple[bytes, ...], then_close: bool) -> None:
        self._pieces = pieces
        self._then_close = then_close

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"abc"):
            self._say(self._pieces)

    def _say(self, pieces: tuple[bytes, ...]) -> None:
        if pieces:
            self._transport.write(pieces[0])
            asyncio.get_running_loop().call_later(0.001, self._say, pieces[1:])
        elif self._then_close:
            self._transport.close()


@asynccontextmanager
async def server(*pieces: bytes, then_close: bool = False) -> AsyncIterator[load.Request]:
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Saying(pieces, then_close), "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        yield load.post(f"http://127.0.0.1:{port}/", b"abc", {})


async def test_an_answer_in_pieces_is_read_to_its_end() -> None:
    async with server(b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 5\r\n\r\nab", b"cde") as request:
        answer = await load.ask(request)
    assert (answer.status, answer.body) == (200, b"abcde")
    assert answer.head == b"HTTP/1.1 200 OK\r\nContent-Length: 5"


async def test_an_answer_without_a_body_is_an_answer() -> None:
    async with server(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n") as request:
        assert (await load.ask(request)).status == 503


@pytest.mark.parametrize("said", [b"HTTP/1.1 200 OK\r\n\r\n", b"SMTP ready\r\n\r\n"], ids=["no length", "no HTTP"])
async def test_what_cannot_be_read_is_no_answer(said: bytes) -> None:
    async with server(said) as request:
        with pytest.raises(BrokenAnswer):
            await load.ask(request)


async def test_a_connection_that_ends_early_is_no_answer() -> None:
    async with server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", then_close=True) as request:
        with pytest.raises(BrokenAnswer, match="lost"):
            await load.ask(request)


async def test_a_closed_loop_counts_what_ends_in_its_window() -> None:
    looks: list[None] = []
    async with server(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", b"x") as request:
        result = await load.closed_loop(request, 2, 0.05, 0.02, lambda: looks.append(None))
    assert result.seconds == 0.05
    assert len(result.answered) == len(result.samples) > 2
    assert len(looks) == 2


async def test_an_open_loop_sends_what_is_due_and_no_more() -> None:
    async with server(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", b"x") as request:
        result = await load.open_loop(request, [0.0, 0.0, 0.01, 0.02])
    assert len(result.answered) == 4


async def test_a_connection_that_was_lost_is_counted_as_no_answer() -> None:
    async with server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", then_close=True) as request:
        result = await load.open_loop(request, [0.0, 0.0])
    assert result.failures == {0: 2}
