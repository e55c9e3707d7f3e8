"""POST /views: a panorama in, perspective depth views and their cameras out."""

import math
import re
from functools import partial
from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import Field, model_validator
from starlette.responses import Response

from dap.errors import InvalidParameter
from dap.formats.base import Format
from dap.formats.negotiation import choose
from dap.formats.views import VIEW_FORMATS
from dap.sphere import Frame
from dap.views import FOV_LIMITS_DEG, MAX_COUNT, SIDE_LIMITS, Layout, Measure, Views, pixel_count, views
from service.openapi import panorama_answer, panorama_body
from service.parameters import AcceptHeader, PanoramaQuery, PixelSize, format_field, frame_field
from service.pipeline import Job, Result
from service.requests import Posted
from service.responses import AnswerResponse

router = APIRouter(tags=["panoramas"])

_SIDES = re.compile(r"([1-9][0-9]{1,3})(?:x([1-9][0-9]{1,3}))?")


class ViewsQuery(PanoramaQuery):
    layout: Layout = Field(
        default="cube",
        description="Where the cameras look. `cube`: front, right, back, left, up, down; `horizon`: `count` level "
        "cameras, the first to the front, the others evenly to its right; `icosahedron`: 12 level cameras at its "
        "vertices.",
        examples=["horizon"],
    )
    count: int = Field(
        default=8, ge=1, le=MAX_COUNT, description="Views of `horizon`; the others have their own.", examples=[4]
    )
    fov: float = Field(
        default=90.0,
        ge=FOV_LIMITS_DEG[0],
        le=FOV_LIMITS_DEG[1],
        description="Horizontal field of view in degrees; pixels are square.",
        examples=[60],
    )
    view_size: str = Field(
        default="512",
        pattern=f"^{_SIDES.pattern}$",
        description=f"Pixels of each view: one number for a square, or WxH; a side has {SIDE_LIMITS[0]} to "
        f"{SIDE_LIMITS[1]}.",
        examples=["512", "640x480"],
    )
    depth: Measure = Field(
        default="z",
        description="What the depth of a view is: `z`, along its optical axis; `ray`, along the ray of each pixel.",
        examples=["ray"],
    )
    frame: Frame = frame_field("world that the poses lead to")
    format: str | None = format_field(VIEW_FORMATS)

    @model_validator(mode="after")
    def _views_can_be_made(self) -> Self:
        if "count" in self.model_fields_set and self.layout != "horizon":
            raise InvalidParameter(f"count is for layout=horizon; the layout asked for is {self.layout}")
        self.view_pixels()
        return self

    def view_shape(self) -> PixelSize:
        """(h, w) of each view."""
        width, _, height = self.view_size.partition("x")
        return int(height or width), int(width)

    def view_pixels(self) -> int:
        """Pixels of all views together.

        Raises:
            InvalidParameter: a side is too long or too short, or all together have too many.
        """
        return pixel_count(self.layout, self.count, self.view_shape(), self.fov)


@router.post(
    "/views",
    summary="Perspective depth views of a panorama",
    response_class=Response,
    responses=panorama_answer(VIEW_FORMATS.values(), headers={"X-Frame": "Axes of the world that the poses lead to."}),
    openapi_extra=panorama_body(),
)
async def perspective_views(
    query: Annotated[ViewsQuery, Query()],
    posted: Posted,
    accept: AcceptHeader = None,
) -> Response:
    """Depth and colours as cameras in the panorama's place would see them, with their matrices."""
    chosen = choose(VIEW_FORMATS, query.format, accept)
    job = Job(
        query.options(),
        query.output_size,
        partial(_encode, chosen, query),
        needs_colours=True,
        pixels=lambda size: math.prod(size) + query.view_pixels(),
        resolution=query.input_size,
    )
    return AnswerResponse(await posted.answer(job), chosen.media_type, **{"X-Frame": query.frame})


def _encode(chosen: Format[Views], query: ViewsQuery, result: Result) -> bytes:
    return chosen.encode(
        views(
            result.depth_map,
            result.colours,
            query.layout,
            count=query.count,
            size=query.view_shape(),
            fov_deg=query.fov,
            measure=query.depth,
            frame=query.frame,
        )
    )
