"""What openapi.json says beyond what FastAPI can see: image bodies, binary answers, problems."""

from collections.abc import Collection, Iterable
from typing import Any

from dap.errors import (
    BrokenImage,
    DapError,
    DeadlineExceeded,
    EmptyInput,
    EngineError,
    InputTooLarge,
    InvalidParameter,
    MalformedRequest,
    NotAcceptable,
    NotAPanorama,
    NotReady,
    OutOfMemory,
    Overloaded,
    TooManyPixels,
    UnsupportedMediaType,
)
from dap.formats.base import Format
from dap.headers import MEDIA_TYPES
from service import problems

Responses = dict[int | str, dict[str, Any]]

# What POSTing a panorama may end in.
_PANORAMA_ERRORS = (
    EmptyInput,
    MalformedRequest,
    NotAcceptable,
    InputTooLarge,
    TooManyPixels,
    UnsupportedMediaType,
    InvalidParameter,
    BrokenImage,
    NotAPanorama,
    Overloaded,
    EngineError,
    NotReady,
    OutOfMemory,
    DeadlineExceeded,
)
_HEADERS = {
    "X-Model": "Name of the model.",
    "X-Range": "The range asked for in metres, or `none`.",
    "X-Range-Mask": "What the range mask comes from: `head`, the model's own channel for this range; `depth`, the "
    "depth itself where the model has no such channel; `none`, no mask was asked for.",
    "X-Depth-Unit": "Unit of the numbers, where the answer is numbers.",
    "X-Depth-Scale": "Metres are the number divided by this.",
    "X-Depth-Invalid": "The number that is no depth.",
    "Server-Timing": "Milliseconds in each stage: decode, queue, inference, encode.",
    "X-Request-Id": "As the request said, or a new one. The service's log has it too.",
}


def panorama_body() -> dict[str, Any]:
    """The body of a request that is a panorama."""
    image = {"schema": {"type": "string", "format": "binary"}}
    form = {
        "schema": {
            "type": "object",
            "properties": {"image": {"type": "string", "format": "binary"}},
            "required": ["image"],
            "additionalProperties": False,
        }
    }
    kinds = ", ".join(MEDIA_TYPES)
    return {
        "requestBody": {
            "required": True,
            "description": f"An equirectangular panorama, 2:1 or placed on the sphere by GPano data: {kinds}.",
            "content": {
                **dict.fromkeys(MEDIA_TYPES.values(), image),
                "application/octet-stream": image,
                "multipart/form-data": form,
            },
        }
    }


def panorama_answer(formats: Collection[Format[Any]]) -> Responses:
    """The answer to a panorama in each format, and the problems it may meet."""
    answer = {
        "description": "; ".join(f"{entry.media_type}: {entry.description}" for entry in formats),
        "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()},
        "content": {entry.media_type: _content(entry) for entry in formats},
    }
    return {200: answer, **problem_answers(_PANORAMA_ERRORS)}


def problem_answers(errors: Iterable[type[DapError]]) -> Responses:
    """The answers that are problems, by status."""
    by_status: dict[int, list[str]] = {}
    for error in errors:
        by_status.setdefault(int(error.status), []).append(f"{error.title}: `{problems.type_of(error)}`.")
    return {status: problem_answer(" ".join(lines)) for status, lines in by_status.items()}


def problem_answer(description: str) -> dict[str, Any]:
    """An answer that is a problem."""
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "content": content}


def _content(entry: Format[Any]) -> dict[str, Any]:
    is_json = entry.media_type == "application/json"
    return {"schema": {"type": "object"} if is_json else {"type": "string", "format": "binary"}}
