"""POST /evaluate: a panorama and its true depth in, how far off the prediction is out."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from dap import truth
from dap.errors import InvalidParameter
from dap.evaluation import PROTOCOLS, Comparison, Protocol, find_protocol
from dap.formats import evaluations
from dap.formats.base import Format
from dap.formats.bundle import MULTIPART, ZIP, Part, bundle_of
from dap.formats.evaluations import EVALUATION_FORMATS
from dap.formats.negotiation import choose_many, negotiate, quality
from dap.panorama import Limits
from dap.postprocess import DepthOptions
from dap.truth import TruthFile
from service.openapi import BUNDLES, pair_body, panorama_answer
from service.parameters import AcceptHeader, PredictionQuery, format_field, one_of
from service.pipeline import Job, Pipeline, Result
from service.requests import Posted
from service.responses import AnswerResponse
from service.settings import Settings

router = APIRouter(tags=["panoramas"])


class EvaluateQuery(PredictionQuery):
    protocol: str = Field(
        default="dap",
        description="What is compared; a number without its protocol says nothing. "
        + "; ".join(f"`{protocol.name}`: {protocol.description}" for protocol in PROTOCOLS.values())
        + f". All but {' and '.join(f'`{protocol.name}`' for protocol in PROTOCOLS.values() if protocol.masked)} know "
        "no range mask: they take the depth without one.",
        examples=list(PROTOCOLS),
        json_schema_extra=one_of(PROTOCOLS),
    )
    truth_scale: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="Numbers of the true depth in a metre: metres = number / truth_scale. A PNG that says it itself, "
        "in a text chunk `Scale`, needs none; .npy and OpenEXR are in metres unless it is given.",
        examples=[512, 4000],
    )
    max_truth: float | None = Field(
        default=None,
        gt=0,
        le=1e9,
        description="Metres up to which truth is compared, for protocols without a limit of their own: that of the "
        "data set.",
        examples=[100],
    )
    format: str | None = format_field(EVALUATION_FORMATS, "json,jpeg")

    def compared(self) -> tuple[Protocol, DepthOptions]:
        """What is compared, and the prediction that it is compared of.

        Raises:
            InvalidParameter: no such protocol; a range or a limit of the truth for one that takes none.
        """
        protocol = find_protocol(self.protocol).capped(self.max_truth)
        if protocol.masked is None and "range" in self.model_fields_set and self.range_m is not None:
            raise InvalidParameter(
                f"the protocol {protocol.name} knows no range mask and compares the depth without one; got "
                f"range={self.range}"
            )
        range_m = None if protocol.masked is None else self.range_m
        return protocol, DepthOptions(range_m, self.seam, self.upsample, camera_height=self.camera_height)


@router.post(
    "/evaluate",
    summary="Error of the depth of a panorama against its true depth",
    response_class=Response,
    responses=panorama_answer(
        EVALUATION_FORMATS.values(), BUNDLES, {"X-Protocol": "Name of the protocol of the comparison."}
    ),
    openapi_extra=pair_body(),
)
async def evaluate(
    query: Annotated[EvaluateQuery, Query()],
    posted: Posted,
    accept: AcceptHeader = None,
) -> Response:
    """Metrics under a named protocol, and where the errors are. The prediction is brought to the size of the truth."""
    protocol, options = query.compared()
    formats = choose_many(EVALUATION_FORMATS, query.format) if query.format else [negotiate(EVALUATION_FORMATS, accept)]
    limits = _limits(posted.settings)

    async def job(pipeline: Pipeline, data: bytes) -> Job[tuple[bytes, str]]:
        file = await pipeline.decode(0, truth.read_header, data, query.truth_scale, limits)
        height, width = file.size
        await pipeline.decode(height * width, _check, file, protocol)
        as_multipart = quality(MULTIPART, accept) > quality(ZIP, accept)
        write = partial(_write, file=file, protocol=protocol, formats=formats, as_multipart=as_multipart)
        return Job(options, lambda _model_size, _input_size: file.size, write, resolution=query.input_size)

    answer = await posted.answer_with_truth(job, query.input_size)
    body, media_type = answer.body
    return AnswerResponse(answer.with_body(body), media_type, **{"X-Protocol": protocol.name})


def _limits(settings: Settings) -> Limits:
    """Of the truth: the prediction is brought to its size, so it can be no larger than an answer."""
    return Limits(settings.max_body_bytes, min(settings.max_image_pixels, settings.max_output_pixels))


def _check(file: TruthFile, protocol: Protocol) -> None:
    """Refuse a truth that cannot be compared before the panorama costs anything.

    The metres are let go and decoded again for the comparison: while a request waits for the engine it shall hold no
    more than its body, whose bytes are bounded.
    """
    protocol.compares(truth.decode(file))


def _write(
    result: Result,
    file: TruthFile,
    protocol: Protocol,
    formats: Sequence[Format[Comparison]],
    as_multipart: bool,
) -> tuple[bytes, str]:
    """The body of the answer and its media type."""
    comparison = Comparison(result.depth_map, truth.decode(file), protocol)
    parts = [
        Part(f"evaluation{entry.extension}", entry.media_type, _encode(entry, comparison, result)) for entry in formats
    ]
    return bundle_of(parts, as_multipart=as_multipart)


def _encode(chosen: Format[Comparison], comparison: Comparison, result: Result) -> bytes:
    if chosen is not evaluations.JSON:
        return chosen.encode(comparison)
    timing = {stage: round(seconds, 4) for stage, seconds in asdict(result.timing).items() if seconds is not None}
    return json.dumps({**evaluations.describe(comparison), "timing": timing}, allow_nan=False).encode()
