"""What every request passes, as pure ASGI (docs/decisions/0010-pure-asgi-middleware.md)."""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dap.errors import DapError, InputTooLarge, Overloaded
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
    """Takes a bounded number of POST requests at a time, from the first byte in to the last byte out."""

    def __init__(self, app: ASGIApp, max_requests: int, retry_after_s: Callable[[], float]) -> None:
        self._app = app
        self._max_requests = max_requests
        self._retry_after_s = retry_after_s
        self._in_progress = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._in_progress >= self._max_requests:
            error = Overloaded(f"{self._in_progress} requests are in progress already", self._retry_after_s())
            await problem_response(scope, error)(scope, receive, send)
            return
        self._in_progress += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_progress -= 1


class BodyLimit:
    """Counts the bytes of bodies as they arrive. What is announced or comes beyond a limit is refused where it is read.

    Raises, from `receive`:
        InputTooLarge: this body has more than `max_bytes`.
        Overloaded: the bodies in progress together have more than `max_bytes_in_progress`.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_bytes_in_progress: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_bytes_in_progress = max_bytes_in_progress
        self._bytes_in_progress = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        announced = int(length) if length.isdecimal() else 0
        received = 0
        refused = False

        async def counted_receive() -> Message:
            nonlocal received, refused
            try:
                self._check(announced)
                message = await receive()
                arrived = len(message.get("body", b""))
                self._check(received + arrived)
                self._reserve(arrived)
            except DapError:
                refused = True
                raise
            received += arrived
            return message

        async def lingering_send(message: Message) -> None:
            if refused and message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            if refused and message["type"] == "http.response.body" and not message.get("more_body"):
                await send({**message, "more_body": True})
                await _linger(receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            await self._app(scope, counted_receive, lingering_send)
        finally:
            self._bytes_in_progress -= received

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise InputTooLarge(f"a body has at most {self._max_bytes} bytes; this one has {size} or more")

    def _reserve(self, size: int) -> None:
        if size and self._bytes_in_progress + size > self._max_bytes_in_progress:
            raise Overloaded("the bodies in progress fill the memory set aside for them")
        self._bytes_in_progress += size


async def _linger(receive: Receive) -> None:
    """Throw away what the client still sends, for a while.

    A connection that is closed on unread data is reset, and some clients then lose the answer that says why.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (await receive()).get("more_body", False):
                pass
