"""POST /depth: a panorama in, metric depth out."""

import json
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from dap.depth import STEPS_PER_METRE, DepthMap
from dap.formats import statistics
from dap.formats.base import Format
from dap.formats.depth import DEPTH_FORMATS
from dap.formats.negotiation import choose
from dap.formats.png16 import INVALID
from service.openapi import panorama_answer, panorama_body
from service.parameters import AcceptHeader, PanoramaQuery
from service.pipeline import Job, Result
from service.requests import Posted
from service.responses import AnswerResponse

router = APIRouter(tags=["panoramas"])

# How a number of the answer becomes metres, where the answer is numbers: metres = value / scale.
_VALUE_HEADERS = {
    "png": {"X-Depth-Unit": "metre", "X-Depth-Scale": str(STEPS_PER_METRE), "X-Depth-Invalid": str(INVALID)},
    "npy": {"X-Depth-Unit": "metre", "X-Depth-Scale": "1", "X-Depth-Invalid": "NaN"},
}


class DepthQuery(PanoramaQuery):
    format: str | None = Field(
        default=None,
        description=f"Format of the answer: {', '.join(DEPTH_FORMATS)}. Goes before the header Accept.",
        examples=list(DEPTH_FORMATS),
    )


@router.post(
    "/depth",
    summary="Metric depth of a panorama",
    response_class=Response,
    responses=panorama_answer(DEPTH_FORMATS.values()),
    openapi_extra=panorama_body(),
)
async def depth(
    query: Annotated[DepthQuery, Query()],
    posted: Posted,
    accept: AcceptHeader = None,
) -> Response:
    """Distance from the camera along the ray of each pixel, in metres, valid within the range asked for."""
    chosen = choose(DEPTH_FORMATS, query.format, accept)
    answer = await posted.answer(Job(query.options(), query.output_size, lambda result: _encode(chosen, result)))
    return AnswerResponse(answer, chosen.media_type, **_VALUE_HEADERS.get(chosen.name, {}))


def _encode(chosen: Format[DepthMap], result: Result) -> bytes:
    if chosen is not statistics.FORMAT:
        return chosen.encode(result.depth_map)
    timing = {stage: round(seconds, 4) for stage, seconds in asdict(result.timing).items() if seconds is not None}
    return json.dumps({**statistics.describe(result.depth_map), "timing": timing}, allow_nan=False).encode()
