"""uvicorn's HTTP connection with bounds on what comes before a body and beside it.

The parser below leaves them to its user: without them one client fills the memory with headers and holds up the event
loop, or keeps any number of connections open with a byte now and then. Bodies that are read have bounds of their own
(`service.middleware.BodyLimit`).
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Of a request line and headers; also of trailers, and of the extensions of a chunk. Usual servers take 8 to 64 KiB.
MAX_HEAD_BYTES = 64 * 1024
# For a head to come whole, from the first byte or the opening of the connection; and for a body that nobody reads.
HEAD_S = 10.0


class Connection(HttpToolsProtocol):
    """A connection that is closed where the head of a request is too long, or too long in coming."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0  # since something of a request was last complete
        self._in_body = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; what it led to is known only afterwards."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            self.send_400_response("The head of the request is too long.")
        elif self.cycle.response_complete if self._in_body else self._head_bytes:
            self._set_deadline()

    def on_headers_complete(self) -> None:
        """Of a request all but its body is there."""
        self._came()
        self._in_body = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body is there."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of a request is there."""
        self._came()
        self._in_body = False
        super().on_message_complete()

    def _set_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_S, self.transport.close)

    def _came(self) -> None:
        self._head_bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
