"""POST /pointcloud: a panorama in, coloured points out."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from dap.cloud import PointCloud, Sampling, point_cloud
from dap.errors import InvalidParameter
from dap.formats.base import Format
from dap.formats.clouds import CLOUD_FORMATS
from dap.formats.negotiation import choose
from dap.sphere import Frame
from service.openapi import panorama_answer, panorama_body
from service.parameters import AcceptHeader, PanoramaQuery, SizeParameter, format_field, frame_field
from service.pipeline import Job, Result
from service.requests import Posted
from service.responses import AnswerResponse

router = APIRouter(tags=["panoramas"])


class PointCloudQuery(PanoramaQuery):
    size: SizeParameter = Field(
        default="model",
        description="Pixels of the depth map that the points are taken from. At `model` each point is a pixel of the "
        "network's own; larger maps are interpolated between those.",
        examples=["model", "input", "2048x1024"],
    )
    frame: Frame = frame_field("points")
    max_points: int | None = Field(
        default=None,
        ge=1,
        description="Points at most; as many as the map gives if not said.",
        examples=[100_000],
    )
    sampling: Sampling = Field(
        default="equal-area",
        description="`equal-area`: each point stands for the same solid angle. `erp`: each valid pixel is a point, so "
        "that they crowd towards the poles.",
        examples=["erp"],
    )
    normals: bool = Field(
        default=False,
        description="With the normals of the surfaces, in the same axes. Points whose neighbours are too few to span a "
        "surface are left out.",
        examples=[True],
    )
    max_edge: float | None = Field(
        default=None,
        gt=0,
        le=10,
        description="Leaves out points at depth edges, which hang between two surfaces: where the depth of neighbours "
        "differs by more than this share of it. 0.1 is a good start.",
        examples=[0.1],
    )
    format: str | None = format_field(CLOUD_FORMATS)


@router.post(
    "/pointcloud",
    summary="Coloured point cloud of a panorama",
    response_class=Response,
    responses=panorama_answer(CLOUD_FORMATS.values(), headers={"X-Frame": "Axes of the points."}),
    openapi_extra=panorama_body(),
)
async def pointcloud(
    query: Annotated[PointCloudQuery, Query()],
    posted: Posted,
    accept: AcceptHeader = None,
) -> Response:
    """The valid pixels of the depth map as points in metres around the camera, with the panorama's colours."""
    limit = posted.settings.max_cloud_points
    if query.max_points is not None and query.max_points > limit:
        raise InvalidParameter(f"max_points is at most {limit}; got {query.max_points}")
    chosen = choose(CLOUD_FORMATS, query.format, accept)
    encode = partial(_encode, chosen, query, query.max_points or limit)
    job = Job(query.options(), query.output_size, encode, needs_colours=True, resolution=query.input_size)
    answer = await posted.answer(job)
    return AnswerResponse(answer, chosen.media_type, **{"X-Frame": query.frame})


def _encode(chosen: Format[PointCloud], query: PointCloudQuery, max_points: int, result: Result) -> bytes:
    return chosen.encode(
        point_cloud(
            result.depth_map,
            result.colours,
            query.frame,
            max_points,
            query.sampling,
            normals=query.normals,
            max_edge=query.max_edge,
        )
    )
