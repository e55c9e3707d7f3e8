"""A lean load generator: it shares the cores with what it measures, so it does as little as it can.

The bytes of the request are made once, connections are kept alive, and an answer is read as far as its Content-Length
says and thrown away. Times are of the monotonic clock (`time.perf_counter`), in seconds.
"""

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast
from urllib.parse import urlsplit

import uvloop

T = TypeVar("T")

_BREATHER_S = 0.05

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class BrokenAnswer(Exception):
    """A connection that ended before its answer did, or an answer that is not HTTP/1.1 with a Content-Length."""


@dataclass(frozen=True)
class Request:
    """One request, ready to be sent again and again.

    Attributes:
        host: where the server listens.
        port: likewise.
        data: head and body.
    """

    host: str
    port: int
    data: bytes


@dataclass(frozen=True)
class Answer:
    """Status of an answer; its head and body where they were asked for."""

    status: int
    head: bytes = b""
    body: bytes = b""


@dataclass(frozen=True)
class Sample:
    """One request that came to its end.

    Attributes:
        due: when it was to be sent: in a closed loop when it was, in an open one when the schedule said so.
        ended: when its last byte was here.
        status: of the answer; 0 where there was none.
    """

    due: float
    ended: float
    status: int

    @property
    def seconds(self) -> float:
        return self.ended - self.due


@dataclass(frozen=True)
class Load:
    """What a server made of a load.

    Attributes:
        seconds: of the window that was looked at.
        samples: the requests that ended in it, or (open loop) were due in it.
    """

    seconds: float
    samples: tuple[Sample, ...]

    @property
    def answered(self) -> list[float]:
        """Seconds of each request that was answered with 200, ascending."""
        return sorted(sample.seconds for sample in self.samples if sample.status == 200)

    @property
    def failures(self) -> dict[int, int]:
        """How many requests ended otherwise, by status; 0 stands for no answer."""
        return dict(Counter(sample.status for sample in self.samples if sample.status != 200))

    @property
    def per_s(self) -> float:
        return len(self.answered) / self.seconds

    def percentile(self, share: float) -> float:
        """Seconds within which `share` (0 to 1) of the answered requests were; NaN where there was none."""
        return percentile(self.answered, share)

    def __add__(self, other: "Load") -> "Load":
        return Load(self.seconds + other.seconds, self.samples + other.samples)


def percentile(ascending: Sequence[float], share: float) -> float:
    """The least of the numbers that `share` of them do not exceed (nearest rank); NaN of none."""
    if not ascending:
        return float("nan")
    rank = max(1, -int(-share * len(ascending) // 1))
    return ascending[rank - 1]


def post(url: str, body: bytes, headers: Mapping[str, str]) -> Request:
    """A POST of `body` to `url`, an http URL with host and port."""
    parts = urlsplit(url)
    if parts.hostname is None or parts.port is None:
        raise ValueError(f"expected http://HOST:PORT/PATH; got {url}")
    lines = [
        f"POST {parts.path}{'?' + parts.query if parts.query else ''} HTTP/1.1",
        f"Host: {parts.netloc}",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return Request(parts.hostname, parts.port, "\r\n".join([*lines, "", ""]).encode() + body)


def poisson_arrivals(per_s: float, seconds: float, seed: int) -> list[float]:
    """Seconds after the start at which requests are due that come independently, `per_s` on average."""
    gaps = random.Random(seed)
    arrivals: list[float] = []
    at = gaps.expovariate(per_s)
    while at < seconds:
        arrivals.append(at)
        at += gaps.expovariate(per_s)
    return arrivals


def even_arrivals(per_s: float, seconds: float) -> list[float]:
    """Seconds after the start at which requests are due that come like a clock."""
    return [i / per_s for i in range(int(per_s * seconds))]


class Connection(asyncio.Protocol):
    """One connection, kept alive; one request at a time."""

    def __init__(self, keep_answers: bool = False) -> None:
        self._keep_answers = keep_answers
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._head = bytearray()
        self._kept_head = b""
        self._body: list[bytes] = []
        self._status = 0
        self._missing = -1

    @classmethod
    async def open(cls, request: Request, keep_answers: bool = False) -> "Connection":
        """To the server that `request` names."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(keep_answers), request.host, request.port)
        return connection

    async def send(self, data: bytes) -> Answer:
        """Send a request and wait for the last byte of its answer.

        Raises:
            BrokenAnswer: there is no whole answer.
        """
        if self._transport is None or self._transport.is_closing():
            raise BrokenAnswer("the connection is closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            self._read_head(bytes(self._head[:end]))
            data = bytes(self._head[end + 4 :])
            self._head.clear()
        self._missing -= len(data)
        if self._keep_answers:
            self._body.append(data)
        if self._missing == 0:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(BrokenAnswer(f"the connection was lost: {exc or 'closed by the server'}"))

    def _read_head(self, head: bytes) -> None:
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if status is None or length is None:
            if self._transport is not None:
                self._transport.abort()
            return
        self._status, self._missing = int(status[1]), int(length[1])
        if self._keep_answers:
            self._kept_head = head

    def _finish(self) -> None:
        answer = Answer(self._status, self._kept_head, b"".join(self._body))
        self._missing = -1
        self._body.clear()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)


def run(work: Awaitable[T]) -> T:
    """Run a coroutine on uvloop."""

    async def main() -> T:
        return await work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


async def ask(request: Request) -> Answer:
    """One request on a connection of its own, its body kept."""
    connection = await Connection.open(request, keep_answers=True)
    try:
        return await connection.send(request.data)
    finally:
        connection.close()


async def timed(connection: Connection, data: bytes) -> tuple[float, Answer]:
    """The answer to a request, and the seconds from its first byte out to the answer's last byte in."""
    started = time.perf_counter()
    answer = await connection.send(data)
    return time.perf_counter() - started, answer


@dataclass
class _Client:
    """A connection that is opened when it is needed, and again when it was lost."""

    request: Request
    samples: list[Sample]
    connection: Connection | None = field(default=None, init=False)

    async def send(self, due: float) -> None:
        try:
            if self.connection is None:
                self.connection = await Connection.open(self.request)
            status = (await self.connection.send(self.request.data)).status
        except (BrokenAnswer, OSError):
            self.connection, status = None, 0
            await asyncio.sleep(_BREATHER_S)  # A server that is gone is asked again and again.
        self.samples.append(Sample(due, time.perf_counter(), status))

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()


async def closed_loop(
    request: Request,
    clients: int,
    seconds: float,
    warm_up_s: float,
    at_window: Callable[[], None] = lambda: None,
) -> Load:
    """Clients that each send the next request when the last is answered; what ended within a window of `seconds`.

    The window opens after `warm_up_s`, when the server is busy, and closes while it still is. `at_window` is called
    when it opens and when it closes.
    """
    samples: list[Sample] = []
    opens = time.perf_counter() + warm_up_s
    closes = opens + seconds

    async def loop(client: _Client) -> None:
        while (now := time.perf_counter()) < closes:
            await client.send(now)

    loops = [_Client(request, samples) for _ in range(clients)]
    work = asyncio.gather(*(loop(client) for client in loops))
    for moment in (opens, closes):
        await asyncio.sleep(max(0.0, moment - time.perf_counter()))
        at_window()
    await work
    for client in loops:
        client.close()
    return Load(seconds, tuple(sample for sample in samples if opens <= sample.ended < closes))


async def open_loop(request: Request, arrivals: Sequence[float]) -> Load:
    """Requests that are sent when they are due, whether or not the server keeps up.

    Seconds count from when a request was due, so a server that stalls is charged for all whom it kept waiting.
    """
    samples: list[Sample] = []
    idle: list[_Client] = []
    started = time.perf_counter()

    async def one(due: float) -> None:
        client = idle.pop() if idle else _Client(request, samples)
        await client.send(due)
        idle.append(client)

    sent = []
    for due in _at(arrivals, started):
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        sent.append(asyncio.ensure_future(one(due)))
    await asyncio.gather(*sent)
    for client in idle:
        client.close()
    return Load(max(sample.ended for sample in samples) - started if samples else 0.0, tuple(samples))


def _at(arrivals: Sequence[float], started: float) -> Iterator[float]:
    return (started + arrival for arrival in arrivals)
