"""POST /normals: a panorama in, surface normals out."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from dap.formats.base import Format
from dap.formats.negotiation import choose
from dap.formats.normals import NORMAL_FORMATS
from dap.normals import NormalMap, normals
from dap.sphere import Frame
from service.openapi import panorama_answer, panorama_body
from service.parameters import AcceptHeader, PanoramaQuery, SizeParameter, format_field, frame_field
from service.pipeline import Job, Result
from service.requests import Posted
from service.responses import AnswerResponse

router = APIRouter(tags=["panoramas"])


class NormalsQuery(PanoramaQuery):
    size: SizeParameter = Field(
        default="model",
        description="Pixels of the depth map that the normals are of, and of the answer. At `model` each is of the "
        "network's own depth; larger maps are interpolated between those.",
        examples=["model", "input", "2048x1024"],
    )
    frame: Frame = frame_field("normals")
    format: str | None = format_field(NORMAL_FORMATS)


@router.post(
    "/normals",
    summary="Surface normals of a panorama",
    response_class=Response,
    responses=panorama_answer(NORMAL_FORMATS.values(), headers={"X-Frame": "Axes of the normals."}),
    openapi_extra=panorama_body(),
)
async def surface_normals(
    query: Annotated[NormalsQuery, Query()],
    posted: Posted,
    accept: AcceptHeader = None,
) -> Response:
    """Unit vectors that surfaces face along, on the side that the camera sees; none where depth is not valid."""
    chosen = choose(NORMAL_FORMATS, query.format, accept)
    encode = partial(_encode, chosen, query.frame)
    answer = await posted.answer(Job(query.options(), query.output_size, encode, resolution=query.input_size))
    return AnswerResponse(answer, chosen.media_type, **{"X-Frame": query.frame})


def _encode(chosen: Format[NormalMap], frame: Frame, result: Result) -> bytes:
    return chosen.encode(normals(result.depth_map, frame))
