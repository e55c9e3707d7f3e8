"""Answers of the pipeline as HTTP responses."""

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.pipeline import Answer

_CHUNK_BYTES = 256 * 1024


class AnswerResponse(Response):
    """An answer with what its headers say of it, sent in chunks.

    A server that is handed a large body whole has to keep what a slow reader has not taken yet, beyond every limit of
    ours; of chunks it takes the next when the last is nearly out.
    """

    def __init__(self, answer: Answer, media_type: str, **headers: str) -> None:
        described = {
            "X-Model": answer.model,
            "X-Range": "none" if answer.range is None else f"{answer.range:g}",
            "X-Range-Mask": answer.range_mask,
            "Server-Timing": answer.timing.server_timing(),
            "Vary": "Accept",
        }
        super().__init__(answer.body, headers={**described, **headers}, media_type=media_type)

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = self.body
        for start in range(0, len(body), _CHUNK_BYTES):
            await send({"type": "http.response.body", "body": body[start : start + _CHUNK_BYTES], "more_body": True})
        await send({"type": "http.response.body", "body": b""})
