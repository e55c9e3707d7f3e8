"""Answers of the pipeline as HTTP responses."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dap.errors import Overloaded
from dap.resolutions import resolution_text
from service.pipeline import Answer

_CHUNK_BYTES = 256 * 1024
_STALL_S = 30.0


class Unsent:
    """A bound on the bytes of all answers that are made and not yet sent, so that slow readers cannot fill the memory.

    An answer larger than the bound goes alone.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Count an answer of so many bytes while it is sent.

        Raises:
            Overloaded: there is no room for it beside the others.
        """
        if self._bytes and self._bytes + size > self._max_bytes:
            raise Overloaded("the answers that are not sent yet fill the memory set aside for them")
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size


class AnswerResponse(Response):
    """An answer with what its headers say of it, sent in chunks.

    A server that is handed a large body whole has to keep what a slow reader has not taken yet, beyond every limit of
    ours; of chunks it takes the next when the last is nearly out. A reader that takes nothing at all is given up.

    Args:
        answer: of the pipeline.
        media_type: of its body.
        headers: beside those of every answer.

    Raises, when it is called:
        Overloaded: as `Unsent` says. Nothing is sent yet then.
    """

    def __init__(self, answer: Answer[bytes], media_type: str, **headers: str) -> None:
        described = {
            "X-Model": answer.model,
            "X-Resolution": resolution_text(answer.resolution),
            "X-Range": "none" if answer.range is None else f"{answer.range:g}",
            "X-Range-Mask": answer.range_mask,
            "Server-Timing": answer.timing.server_timing(),
            "Vary": "Accept",
        }
        if answer.scale_factor is not None:
            described["X-Scale-Factor"] = f"{answer.scale_factor:.6g}"
        super().__init__(answer.body, headers={**described, **headers}, media_type=media_type)

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        unsent: Unsent = scope["app"].state.unsent
        with unsent.hold(len(self.body)):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            # A server closes the connection of an answer that was not completed.
            with suppress(TimeoutError):
                body = memoryview(self.body)  # whose slices are no copies
                for start in range(0, len(body), _CHUNK_BYTES):
                    chunk = body[start : start + _CHUNK_BYTES]
                    async with asyncio.timeout(_STALL_S):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
