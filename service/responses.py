"""Answers of the pipeline as HTTP responses."""

import asyncio
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.pipeline import Answer

_CHUNK_BYTES = 256 * 1024
_STALL_S = 30.0


class AnswerResponse(Response):
    """An answer with what its headers say of it, sent in chunks.

    A server that is handed a large body whole has to keep what a slow reader has not taken yet, beyond every limit of
    ours; of chunks it takes the next when the last is nearly out. A reader that takes nothing at all is given up.
    """

    def __init__(self, answer: Answer[bytes], media_type: str, **headers: str) -> None:
        described = {
            "X-Model": answer.model,
            "X-Range": "none" if answer.range is None else f"{answer.range:g}",
            "X-Range-Mask": answer.range_mask,
            "Server-Timing": answer.timing.server_timing(),
            "Vary": "Accept",
        }
        if answer.scale_factor is not None:
            described["X-Scale-Factor"] = f"{answer.scale_factor:.6g}"
        super().__init__(answer.body, headers={**described, **headers}, media_type=media_type)

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        # A server closes the connection of an answer that was not completed.
        with suppress(TimeoutError):
            for start in range(0, len(self.body), _CHUNK_BYTES):
                chunk = self.body[start : start + _CHUNK_BYTES]
                async with asyncio.timeout(_STALL_S):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
