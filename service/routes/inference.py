"""/v2: the Open Inference Protocol (V2), for clients of KServe and Triton. See `service.inference_protocol`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Depends, Header, Path, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from dap.depth import DepthMap
from dap.errors import DapError, NotReady, UnknownModel, UnsupportedMediaType
from dap.resolutions import PATTERN, Size
from service.inference_protocol import (
    BINARY_DATA_HEADER,
    EXTENSIONS,
    Floats,
    InferenceRequest,
    Pixels,
    Signature,
    encode_response,
    parse_request,
)
from service.openapi import PANORAMA_ERRORS
from service.requests import CurrentServing, Posted
from service.responses import AnswerResponse
from service.serving import Served, State
from service.settings import Settings

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

_SERVER_NAME = "depth-any-panoramas"
Tensors = tuple[bytes, int | None]  # a body, and the length of its JSON if raw tensors follow it

_VERSION = "1"  # a name has one version here: other weights have another name


_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}},
    },
}
_RAW = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "required": True,
    "description": "An inference request: JSON, or JSON and raw tensors after it. One input: `panorama`, UINT8 pixels "
    "at a resolution of the model; or `image`, BYTES of JPEG, PNG or WebP files (in JSON in base64), seen at the "
    "resolution that the parameter `resolution` names. Outputs: `depth` and `in_range`, both unless named.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "id": {"type": "string"},
                    "parameters": {
                        "type": "object",
                        "properties": {"resolution": {"type": "string", "pattern": f"^{PATTERN}$"}},
                    },
                    "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": _TENSOR},
                    "outputs": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {
                                "name": {"enum": ["depth", "in_range"]},
                                "parameters": {"type": "object"},
                            },
                        },
                    },
                },
            }
        },
        "application/octet-stream": _RAW,
    },
}
_ANSWER = {
    "description": "An inference response: JSON, or JSON and raw tensors after it where an output is asked for with "
    "`binary_data`.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["model_name", "model_version", "outputs"],
                "properties": {
                    "model_name": {"type": "string"},
                    "model_version": {"type": "string"},
                    "id": {"type": "string"},
                    "outputs": {"type": "array", "items": _TENSOR},
                },
            }
        },
        "application/octet-stream": _RAW,
    },
}


class InferenceError(BaseModel):
    """An error, as the protocol has it."""

    error: str = Field(description="What was expected and what came.")


class ServerMetadata(BaseModel):
    """This server."""

    name: str
    version: str = Field(description="Of the API.")
    extensions: list[str]


class Live(BaseModel):
    """What a probe that is content says."""

    live: Literal[True] = True


class Ready(BaseModel):
    """What a probe that is content says."""

    ready: Literal[True] = True


class ModelReady(BaseModel):
    """What is said of a model that is ready."""

    name: str
    ready: Literal[True] = True


class TensorMetadata(BaseModel):
    """A tensor; -1 is the number of panoramas."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A model, and the tensors that it takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata] = Field(description="A request has one of them.")
    outputs: list[TensorMetadata]


def _errors(*errors: type[DapError]) -> dict[int | str, dict[str, Any]]:
    titles: dict[int, list[str]] = {}
    for error in errors:
        titles.setdefault(int(error.status), []).append(error.title)
    return {status: {"model": InferenceError, "description": ". ".join(lines)} for status, lines in titles.items()}


@router.get("", summary="This server")
async def server_metadata(request: Request) -> ServerMetadata:
    """Name, version and extensions."""
    return ServerMetadata(name=_SERVER_NAME, version=request.app.version, extensions=list(EXTENSIONS))


@router.get("/health/live", summary="Whether this process can go on", responses=_errors(NotReady))
async def live(serving: CurrentServing) -> Live:
    """As /healthz."""
    if serving.state is State.FAILED:
        raise NotReady(serving.state.value)
    return Live()


@router.get("/health/ready", summary="Whether panoramas should be sent here", responses=_errors(NotReady))
async def ready(serving: CurrentServing) -> Ready:
    """As /readyz."""
    if serving.state is not State.READY:
        raise NotReady(serving.state.value)
    return Ready()


async def _asked_model(
    request: Request,
    serving: CurrentServing,
    model: Annotated[str, Path(description="Name of the model that is served.")],
) -> Served:
    served = serving.current()
    _require(served, model, request.path_params.get("version", _VERSION))
    return served


AskedModel = Annotated[Served, Depends(_asked_model)]


@router.get("/models/{model}", summary="A model's tensors", responses=_errors(UnknownModel, NotReady))
@router.get("/models/{model}/versions/{version}", include_in_schema=False)
async def model_metadata(request: Request, served: AskedModel) -> ModelMetadata:
    """Names, datatypes and shapes."""
    signature = _signature(served, request.app.state.settings)
    return ModelMetadata(
        name=served.model.name,
        versions=[_VERSION],
        platform=f"dap_{served.engine.name}",
        inputs=[TensorMetadata(**tensor) for tensor in signature.inputs()],
        outputs=[TensorMetadata(**tensor) for tensor in signature.outputs()],
    )


@router.get("/models/{model}/ready", summary="Whether a model is ready", responses=_errors(UnknownModel, NotReady))
@router.get("/models/{model}/versions/{version}/ready", include_in_schema=False)
async def model_ready(serving: CurrentServing, served: AskedModel) -> ModelReady:
    """As /readyz, of one model."""
    await ready(serving)
    return ModelReady(name=served.model.name)


@router.post(
    "/models/{model}/infer",
    summary="Tensors of one or more panoramas",
    response_class=Response,
    responses={200: _ANSWER, **_errors(UnknownModel, *PANORAMA_ERRORS)},
    openapi_extra={"requestBody": _BODY},
)
@router.post("/models/{model}/versions/{version}/infer", include_in_schema=False, response_class=Response)
async def infer(
    served: AskedModel,
    posted: Posted,
    content_encoding: Annotated[str, Header(description="A compressed body is refused.")] = "identity",
    header_length: Annotated[
        str | None,
        Header(alias=BINARY_DATA_HEADER, description="Bytes of the JSON, where raw tensors follow it."),
    ] = None,
) -> Response:
    """Depth in metres and in-range probabilities, as the network gives them and without a range mask."""
    if content_encoding.lower() != "identity":
        raise UnsupportedMediaType(f"a compressed body is not taken; its Content-Encoding is {content_encoding!r:.100}")

    answer = await posted.infer(lambda body: partial(_read, body, header_length, served.model.name, posted.settings))
    body, json_length = answer.body
    described = {} if json_length is None else {BINARY_DATA_HEADER: str(json_length)}
    media_type = "application/json" if json_length is None else "application/octet-stream"
    return AnswerResponse(answer.with_body(body), media_type, **described)


def _read(
    body: bytes, header_length: str | None, model: str, settings: Settings, served: Served
) -> tuple[Sequence[bytes | Pixels], Size, Callable[[Sequence[DepthMap]], Tensors]]:
    _require(served, model, _VERSION)  # Another one may have been loaded while the body came in.
    request = parse_request(body, header_length, _signature(served, settings))
    return request.panoramas, request.size, partial(_write, request, model)


def _write(request: InferenceRequest, model: str, depth_maps: Sequence[DepthMap]) -> Tensors:
    """What is not valid is what the panorama does not show: it has no depth, and is in no range."""
    depth = [depth_map.filled("nan") for depth_map in depth_maps]
    in_range = [cast("Floats", depth_map.in_range) * depth_map.valid for depth_map in depth_maps]
    return encode_response(request, model, _VERSION, depth, in_range)


def _require(served: Served, model: str, version: str) -> None:
    if (served.model.name, _VERSION) != (model, version):
        raise UnknownModel(
            f"{served.model.name!r}, version {_VERSION}, is served here; got {model!r:.100}, version {version!r:.100}"
        )


def _signature(served: Served, settings: Settings) -> Signature:
    thresholds = len(served.engine.thresholds)
    return Signature(served.engine.sizes, thresholds, settings.max_batch_size, served.limits.queued_pixels)
