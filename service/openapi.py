"""What openapi.json says beyond what FastAPI can see: image bodies, binary answers, problems, limits.

`python -m service.openapi > docs/openapi.json` writes the copy that is kept with the code.
"""

import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from dap.errors import (
    BrokenImage,
    DapError,
    DeadlineExceeded,
    EmptyInput,
    EngineError,
    FloorNotFound,
    InputTooLarge,
    InvalidParameter,
    MalformedRequest,
    NotAcceptable,
    NotAPanorama,
    NotReady,
    OutOfMemory,
    Overloaded,
    ResolutionNotOffered,
    TooManyPixels,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    UploadTooSlow,
)
from dap.formats.base import Format
from dap.formats.bundle import MULTIPART, ZIP
from dap.headers import MEDIA_TYPES
from dap.resolutions import Size, resolution_text
from service import problems
from service.keys import is_open, needs_admin
from service.settings import Settings

Responses = dict[int | str, dict[str, Any]]
Schema = dict[str, Any]

# What POSTing a panorama may end in.
PANORAMA_ERRORS: tuple[type[DapError], ...] = (
    EmptyInput,
    MalformedRequest,
    NotAcceptable,
    UploadTooSlow,
    InputTooLarge,
    TooManyPixels,
    UnsupportedMediaType,
    InvalidParameter,
    ResolutionNotOffered,
    BrokenImage,
    NotAPanorama,
    FloorNotFound,
    Overloaded,
    DapError,
    EngineError,
    NotReady,
    OutOfMemory,
    DeadlineExceeded,
)
_PANORAMA = f"An equirectangular panorama, 2:1 or placed on the sphere by GPano data: {', '.join(MEDIA_TYPES)}"
# Several formats in one answer: media types, each with a description.
BUNDLES = {
    ZIP: "several formats, a file each",
    MULTIPART: "several formats, a part each, where the header Accept prefers that",
}
_ANSWER_HEADERS = {
    "X-Model": "Name of the model.",
    "X-Resolution": "WxH at which the model saw the panorama.",
    "X-Range": "The range asked for in metres, or `none`.",
    "X-Range-Mask": "What the range mask comes from: `head`, the model's own channel for this range; `depth`, the "
    "depth itself where the model has no such channel; `none`, no mask was asked for.",
    "Server-Timing": "Milliseconds in each stage: decode, queue, inference, encode.",
    "X-Request-Id": "As the request said, or a new one. The service's log has it too.",
}
_SCALE_FACTOR = {
    "X-Scale-Factor": "Metres of the answer for each metre of the model, where `camera_height` set the scale.",
}
_RETRY_AFTER = {"Retry-After": "Seconds until it is worth coming back."}


def panorama_body() -> dict[str, Any]:
    """The body of a request that is a panorama."""
    image = {"schema": {"type": "string", "format": "binary"}}
    return {
        "requestBody": {
            "required": True,
            "description": f"{_PANORAMA}.",
            "content": {
                **dict.fromkeys(MEDIA_TYPES.values(), image),
                "application/octet-stream": image,
                "multipart/form-data": _form("image"),
            },
        }
    }


def pair_body() -> dict[str, Any]:
    """The body of a request that is a panorama and its true depth."""
    return {
        "requestBody": {
            "required": True,
            "description": f"`image`: {_PANORAMA}. `truth`: its depth in metres along the ray, 2:1, at any size: "
            "16-bit grey PNG that says its `Scale` or comes with truth_scale, .npy of floats, or OpenEXR. 0, negative "
            "numbers, what is not finite, and 65535 in a PNG are no truth.",
            "content": {"multipart/form-data": _form("image", "truth")},
        }
    }


def panorama_answer(
    formats: Collection[Format[Any]],
    bundles: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Responses:
    """The answer to a panorama in each format, and the problems it may meet.

    Args:
        formats: that one answer may have.
        bundles: media types of several formats in one answer, each with a description.
        headers: that an answer may have, beside those that all have, each with a description.
    """
    described = {**{entry.media_type: entry.description for entry in formats}, **(bundles or {})}
    answer = {
        "description": "; ".join(f"{media_type}: {text}" for media_type, text in described.items()),
        "headers": {
            **_headers(_ANSWER_HEADERS, required=True),
            **_headers({**_SCALE_FACTOR, **(headers or {})}, required=False),
        },
        "content": {media_type: _content(media_type) for media_type in described},
    }
    return {200: answer, **problem_answers(PANORAMA_ERRORS)}


def problem_answers(errors: Iterable[type[DapError]]) -> Responses:
    """The answers that are problems, by status."""
    by_status: dict[int, list[type[DapError]]] = {}
    for error in errors:
        by_status.setdefault(int(error.status), []).append(error)
    return {status: _problems(kinds) for status, kinds in by_status.items()}


def problem_answer(description: str) -> dict[str, Any]:
    """An answer that is a problem without a type of its own."""
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "content": content}


def complete(schema: Schema, settings: Settings, sizes: Collection[Size]) -> Schema:
    """FastAPI's schema with the problems that the routes refer to, and with parameters as exact as they are checked.

    Args:
        schema: FastAPI's own, which is changed.
        settings: of the service.
        sizes: (H, W) that the model is offered at; empty where none is known.
    """
    schema["components"]["schemas"]["Problem"] = problems.Problem.model_json_schema()
    schema["components"]["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "Needed where the operator has set keys."}
    }
    for own in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(own, None)
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            # FastAPI says this of every path with a parameter, even where each string will do.
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
            if not is_open(path):
                operation["security"] = [{"key": []}] if needs_admin(path) else [{}, {"key": []}]
                operation["responses"]["401"] = _unauthenticated(path)
    for parameter in _parameters(schema):
        parameter["schema"] = _without_null(parameter["schema"])
        if parameter["name"] == "max_points":
            parameter["schema"]["maximum"] = settings.max_cloud_points
        if parameter["name"] == "resolution" and sizes:
            parameter["schema"]["enum"] = [resolution_text(size) for size in sizes]
    return schema


def dump(schema: Schema) -> str:
    """The schema as the text of openapi.json."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _unauthenticated(path: str) -> dict[str, Any]:
    answer = _problems([Unauthenticated])
    if path.startswith("/v2"):  # whose protocol has a form of its own for errors
        answer["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/InferenceError"}}}
    return answer


def _problems(kinds: Collection[type[DapError]]) -> dict[str, Any]:
    answer = problem_answer(" ".join(f"{kind.title}: `{problems.type_of(kind)}`." for kind in kinds))
    answer["content"][problems.MEDIA_TYPE]["examples"] = {kind.slug: {"value": _example(kind)} for kind in kinds}
    if any(issubclass(kind, Unavailable) and kind is not DeadlineExceeded for kind in kinds):
        answer["headers"] = _headers(_RETRY_AFTER, required=False)
    return answer


def _example(kind: type[DapError]) -> dict[str, Any]:
    return problems.Problem(
        type=problems.type_of(kind),
        title=kind.title,
        status=kind.status,
        detail="What was expected and what came.",
        request_id="0123456789abcdef0123456789abcdef",
    ).model_dump()


def _form(*files: str) -> dict[str, Any]:
    """A multipart form of these files and nothing else."""
    return {
        "schema": {
            "type": "object",
            "properties": {name: {"type": "string", "format": "binary"} for name in files},
            "required": list(files),
            "additionalProperties": False,
        }
    }


def _headers(described: Mapping[str, str], *, required: bool) -> dict[str, Any]:
    return {
        name: {"description": text, "required": required, "schema": {"type": "string"}}
        for name, text in described.items()
    }


def _content(media_type: str) -> dict[str, Any]:
    is_json = media_type == "application/json"
    return {"schema": {"type": "object"} if is_json else {"type": "string", "format": "binary"}}


def _parameters(schema: Schema) -> Iterator[dict[str, Any]]:
    for methods in schema["paths"].values():
        for operation in methods.values():
            yield from operation.get("parameters", [])


def _without_null(schema: Schema) -> Schema:
    """The schema of a parameter that may be left out: in a URL nothing is null."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        return {**kinds[0], **{key: value for key, value in schema.items() if key != "anyOf"}}
    return schema


def main() -> None:
    """Print openapi.json of the service with its default settings."""
    from service.app import create_app  # it imports the routes, which import this module

    sys.stdout.write(dump(create_app(Settings.model_construct()).openapi()))


if __name__ == "__main__":
    main()
