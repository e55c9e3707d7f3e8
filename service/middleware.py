"""What every request passes, as pure ASGI (docs/decisions/0010-pure-asgi-middleware.md)."""

import asyncio
import logging
import math
import re
import time
from collections.abc import Callable
from contextlib import suppress
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dap.errors import DapError, InputTooLarge, Overloaded, UploadTooSlow
from service.problems import CLIENT_CLOSED_REQUEST, problem_response, unexpected_response
from service.telemetry import PROBES, Telemetry
from service.tracing import current_span, parse_traceparent

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_LINGER_S = 2.0
_SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_access_log = logging.getLogger("dap.access")
_log = logging.getLogger("dap.service")


class RequestHeaders:
    """Gives each request an id, the client's own if it sent one, and each answer that id and the security headers.

    Within it `service.tracing.current_span` is the caller's span, if `traceparent` names one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        request_id = asked if _REQUEST_ID.fullmatch(asked) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update({"X-Request-Id": request_id, **_SECURITY_HEADERS})
            await send(message)

        token = current_span.set(parse_traceparent(headers.getlist("traceparent")))
        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            current_span.reset(token)


class AccessLog:
    """Counts and logs each request when it has ended, and answers what nobody foresaw with a bare 500."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        answered: Message = {}
        sent_bytes = 0

        async def watched_send(message: Message) -> None:
            nonlocal answered, sent_bytes
            if message["type"] == "http.response.start":
                answered = message
            sent_bytes += len(message.get("body", b""))
            await send(message)

        with self._telemetry.in_progress.track_inprogress():
            try:
                await self._app(scope, receive, watched_send)
            except Exception:
                request_id = scope["state"]["request_id"]
                _log.exception("request failed", extra={"fields": {"request_id": request_id}})
                if answered:
                    raise  # Only the server can break off an answer that has begun.
                await unexpected_response(scope)(scope, receive, watched_send)
            finally:
                status = answered.get("status", CLIENT_CLOSED_REQUEST)
                self._report(scope, status, sent_bytes, time.perf_counter() - started)

    def _report(self, scope: Scope, status: int, sent_bytes: int, seconds: float) -> None:
        state = scope["state"]
        problem = state.get("problem")
        route = getattr(scope.get("route"), "path", "unmatched")
        self._telemetry.request_answered(scope["method"], route, status, seconds, problem if status != 500 else None)
        client = scope.get("client")
        fields = {
            "request_id": state["request_id"],
            "client": client[0] if client else None,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "problem": problem,
            "seconds": round(seconds, 4),
            "bytes": sent_bytes,
        }
        _access_log.log(logging.DEBUG if route in PROBES else logging.INFO, "request", extra={"fields": fields})


class Admission:
    """Takes a bounded number of panoramas at a time, from the first byte in to the last byte out, while there is room.

    Who is refused is refused by the headers, before anything is read or looked up: under overload there are many.

    Args:
        app: what takes panoramas with POST.
        max_requests: says how many at a time, which depends on the model that is served.
        require_room: raises Overloaded if a panorama whose client waits so many seconds could not be queued now.
        retry_after_s: when to come back.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_requests: Callable[[], int],
        require_room: Callable[[float], None],
        retry_after_s: Callable[[], float],
    ) -> None:
        self._app = app
        self._max_requests = max_requests
        self._require_room = require_room
        self._retry_after_s = retry_after_s
        self._in_progress = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"].startswith("/models/"):
            await self._app(scope, receive, send)
            return
        try:
            self._require_place(_patience_s(scope))
        except Overloaded as error:
            await refuse(error, scope, receive, send)
            return
        self._in_progress += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_progress -= 1

    def _require_place(self, within_s: float) -> None:
        if self._in_progress >= self._max_requests():
            raise Overloaded(f"{self._in_progress} requests are in progress already", self._retry_after_s())
        self._require_room(within_s)


def _patience_s(scope: Scope) -> float:
    """Seconds that a client waits, as far as it says. Whether it says it well is judged where it is let in."""
    try:
        return float(Headers(scope=scope).get("x-request-timeout", "inf"))
    except ValueError:
        return math.inf


class BodyLimit:
    """Counts the bytes of bodies as they arrive. What is announced or comes beyond a limit is refused where it is read.

    Raises, from `receive`:
        InputTooLarge: this body has more than `max_bytes`.
        Overloaded: the bodies in progress together have more than `max_bytes_in_progress`.
        UploadTooSlow: the next bytes took longer than `stall_s`, or this body, that time aside, comes at less than
            `bytes_per_s`.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, max_bytes_in_progress: int, stall_s: float, bytes_per_s: float
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_bytes_in_progress = max_bytes_in_progress
        self._stall_s = stall_s
        self._bytes_per_s = bytes_per_s
        self._bytes_in_progress = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        announced = int(length[:20]) if length.isdecimal() else 0  # an int of thousands of digits is a ValueError
        received = 0
        started: float | None = None
        is_complete = False
        refusal: DapError | None = None

        async def counted_receive() -> Message:
            nonlocal received, started, is_complete, refusal
            try:
                self._check(announced)
                if is_complete:
                    return await receive()
                started = started or time.monotonic()
                message = await self._next(receive, received, time.monotonic() - started)
                arrived = len(message.get("body", b""))
                self._check(received + arrived)
                self._reserve(arrived)
            except DapError as error:
                refusal = error
                raise
            received += arrived
            is_complete = not message.get("more_body", False)
            return message

        async def last_send(message: Message) -> None:
            if refusal and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            if isinstance(refusal, UploadTooSlow):
                await send(message)  # There is nothing to wait for.
            else:
                await _lingering(receive, send)(message)

        async def chosen_send(message: Message) -> None:
            await (last_send if refusal else send)(message)

        try:
            await self._app(scope, counted_receive, chosen_send)
        finally:
            self._bytes_in_progress -= received

    async def _next(self, receive: Receive, received: int, seconds: float) -> Message:
        """The next bytes of a body that has come so far in so many seconds."""
        left_s = self._stall_s + received / self._bytes_per_s - seconds
        try:
            async with asyncio.timeout(min(self._stall_s, left_s)):
                return await receive()
        except TimeoutError:
            raise UploadTooSlow(
                f"{received} bytes came in {seconds:.1f} seconds and then none: a body comes at {self._bytes_per_s:g} "
                f"bytes a second or more and never stops for {self._stall_s:g} seconds"
            ) from None

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise InputTooLarge(f"a body has at most {self._max_bytes} bytes; this one has {size} or more")

    def _reserve(self, size: int) -> None:
        if size and self._bytes_in_progress + size > self._max_bytes_in_progress:
            raise Overloaded("the bodies in progress fill the memory set aside for them")
        self._bytes_in_progress += size


async def refuse(error: DapError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with a problem though its body has not been read."""
    await problem_response(scope, error)(scope, receive, _lingering(receive, send))


def _lingering(receive: Receive, send: Send) -> Send:
    """Sends all of an answer, but ends it only when the rest of the request has come, or was waited for long enough."""

    async def lingering_send(message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            await send({**message, "more_body": True})
            await _linger(receive)
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    return lingering_send


async def _linger(receive: Receive) -> None:
    """Throw away what the client still sends, for a while.

    A connection that is closed on unread data is reset, and some clients then lose the answer that says why.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (await receive()).get("more_body", False):
                pass
