"""POST /depth: a panorama in, metric depth out."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import Field, model_validator
from starlette.responses import Response

from dap.depth import DepthMap, Fill
from dap.errors import InvalidParameter
from dap.formats import npz, preview, statistics
from dap.formats.base import EncodeOptions, Format
from dap.formats.bundle import MULTIPART, ZIP, Part, bundle_of
from dap.formats.colormaps import COLORMAPS
from dap.formats.depth import DEPTH_FORMATS
from dap.formats.negotiation import choose_many, negotiate, quality
from service.openapi import BUNDLES, panorama_answer, panorama_body
from service.parameters import AcceptHeader, PanoramaQuery, format_field, one_of
from service.pipeline import Job, Result
from service.requests import Posted
from service.responses import AnswerResponse

router = APIRouter(tags=["panoramas"])

_FLOATS = [entry for entry in DEPTH_FORMATS.values() if entry.numbers and entry.numbers.invalid is None]
_PICTURES = [preview.JPEG, preview.PNG]
_NUMBER_HEADERS = {
    "X-Depth-Unit": "Unit of the numbers, where the answer is numbers in one format.",
    "X-Depth-Scale": "Metres are the number divided by this.",
    "X-Depth-Invalid": "The number that is no depth.",
}


class DepthQuery(PanoramaQuery):
    format: str | None = format_field(DEPTH_FORMATS, "png,exr,json")
    fill: Fill = Field(
        default="nan",
        description=f"What {', '.join(entry.name for entry in _FLOATS)} hold where depth is not valid: NaN, the range "
        "in metres, or zero. `range` needs a range.",
        examples=["range"],
    )
    colormap: str = Field(
        default="turbo",
        description=f"Colours of {' and '.join(entry.name for entry in _PICTURES)}.",
        examples=list(COLORMAPS),
        json_schema_extra=one_of(COLORMAPS),
    )

    @model_validator(mode="after")
    def _fill_has_a_value(self) -> Self:
        if self.fill == "range" and self.range == "none":
            raise InvalidParameter("fill=range needs a range of 10, 20, 50 or 100; range=none was asked for")
        return self

    def formats(self, accept: str | None) -> Sequence[Format[DepthMap]]:
        """What the answer holds.

        Raises:
            InvalidParameter: there is no such format, or a parameter is given that none of them heeds.
            NotAcceptable: as `negotiate` says.
        """
        chosen = choose_many(DEPTH_FORMATS, self.format) if self.format else [negotiate(DEPTH_FORMATS, accept)]
        for parameter, heeding in (("fill", _FLOATS), ("colormap", _PICTURES)):
            if parameter in self.model_fields_set and not any(entry in heeding for entry in chosen):
                raise InvalidParameter(
                    f"{parameter} is for the formats {', '.join(entry.name for entry in heeding)}; "
                    f"the answer would be {', '.join(entry.name for entry in chosen)}"
                )
        return chosen


@router.post(
    "/depth",
    summary="Metric depth of a panorama",
    response_class=Response,
    responses=panorama_answer(DEPTH_FORMATS.values(), BUNDLES, _NUMBER_HEADERS),
    openapi_extra=panorama_body(),
)
async def depth(
    query: Annotated[DepthQuery, Query()],
    posted: Posted,
    accept: AcceptHeader = None,
) -> Response:
    """Distance from the camera along the ray of each pixel, in metres, valid within the range asked for."""
    formats = query.formats(accept)
    write = partial(
        _write,
        formats=formats,
        options=EncodeOptions(query.fill, query.colormap),
        as_multipart=quality(MULTIPART, accept) > quality(ZIP, accept),
    )
    options = query.options(keep_in_range=npz.FORMAT in formats)
    job = Job(
        options,
        query.output_size,
        write,
        pixels=lambda size: len(formats) * math.prod(size),
        resolution=query.input_size,
    )
    answer = await posted.answer(job)
    body, media_type = answer.body
    return AnswerResponse(answer.with_body(body), media_type, **_number_headers(query, formats))


def _number_headers(query: DepthQuery, formats: Sequence[Format[DepthMap]]) -> dict[str, str]:
    """How a number of the answer becomes metres, where the answer is numbers of one kind."""
    numbers = formats[0].numbers
    if len(formats) > 1 or numbers is None:
        return {}
    invalid = numbers.invalid_text(query.fill, query.range_m)
    return {"X-Depth-Unit": "metre", "X-Depth-Scale": f"{numbers.scale:g}", "X-Depth-Invalid": invalid}


def _write(
    result: Result, formats: Sequence[Format[DepthMap]], options: EncodeOptions, as_multipart: bool
) -> tuple[bytes, str]:
    """The body of the answer and its media type."""
    parts = [Part(f"depth{entry.extension}", entry.media_type, _encode(entry, options, result)) for entry in formats]
    return bundle_of(parts, as_multipart=as_multipart)


def _encode(chosen: Format[DepthMap], options: EncodeOptions, result: Result) -> bytes:
    if chosen is not statistics.FORMAT:
        return chosen.encode(result.depth_map, options)
    timing = {stage: round(seconds, 4) for stage, seconds in asdict(result.timing).items() if seconds is not None}
    return json.dumps({**statistics.describe(result.depth_map), "timing": timing}, allow_nan=False).encode()
