"""Errors as `application/problem+json` (RFC 9457).

An error of ours has a type of its own, `/problems/<slug>`, which this service also answers; what is no error of ours
(no such path, no such method) is `about:blank`, where the status says it all. No problem holds a path of the server,
a stack or a version. Under /v2 a problem has the form of the Open Inference Protocol, `{"error": detail}`.
"""

import json
import logging
import math
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from dap.errors import DapError, InvalidParameter, Unauthenticated, Unavailable

MEDIA_TYPE = "application/problem+json"
CLIENT_CLOSED_REQUEST = 499  # nobody reads the answer; the access log does

_log = logging.getLogger("dap.service")


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = Field(description="What kind of problem it is: `/problems/<slug>`, or `about:blank`.")
    title: str = Field(description="The kind of problem, in words.")
    status: int = Field(description="The status of the answer.")
    detail: str = Field(description="What was expected and what came.")
    request_id: str = Field(description="As in the header X-Request-Id; the service's log has it too.")


def problem_response(scope: Scope, error: DapError) -> Response:
    """The answer to a request that ended in this error. The access log and the refusals are told its slug."""
    _state(scope)["problem"] = error.slug
    headers = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="dap"'
    elif isinstance(error, Unavailable) and error.status != HTTPStatus.GATEWAY_TIMEOUT:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s or 0)))
    return _respond(scope, type_of(type(error)), error.title, error.status, str(error), headers)


def not_found_response(scope: Scope) -> Response:
    """The answer to a request for what is not here."""
    return _without_type(scope, HTTPStatus.NOT_FOUND)


def unexpected_response(scope: Scope) -> Response:
    """The answer to a request that ended in an error nobody foresaw. It says nothing of that error."""
    _state(scope)["problem"] = DapError.slug
    detail = "the service failed to answer; its log says why under this request id"
    return _respond(scope, type_of(DapError), DapError.title, DapError.status, detail)


def type_of(error: type[DapError]) -> str:
    """The problem's type, a URI relative to the service."""
    return f"/problems/{error.slug}"


async def _on_dap_error(request: Request, error: DapError) -> Response:
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, Unavailable):
        _log.error("request failed", exc_info=error, extra={"fields": {"request_id": _request_id(request.scope)}})
    return problem_response(request.scope, error)


async def _on_validation_error(request: Request, error: RequestValidationError) -> Response:
    return problem_response(request.scope, InvalidParameter("; ".join(map(_parameter_error, error.errors()))))


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    return _without_type(request.scope, HTTPStatus(error.status_code), error.headers)


async def _on_client_disconnect(_request: Request, _error: ClientDisconnect) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


# Every error that may leave a route, answered with a problem.
HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    DapError: _on_dap_error,
    RequestValidationError: _on_validation_error,
    HTTPException: _on_http_exception,
    ClientDisconnect: _on_client_disconnect,
}


def _without_type(scope: Scope, status: HTTPStatus, headers: Mapping[str, str] | None = None) -> Response:
    detail = f"{scope['method']} {scope['path']}: {status.phrase}"
    return _respond(scope, "about:blank", status.phrase, status, detail, headers)


def _respond(
    scope: Scope, kind: str, title: str, status: int, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    if scope["path"] == "/v2" or scope["path"].startswith("/v2/"):
        return JSONResponse({"error": detail}, status, headers)
    # Not by way of `Problem`: of these there are most when there is least time.
    problem = {"type": kind, "title": title, "status": status, "detail": detail, "request_id": _request_id(scope)}
    return Response(json.dumps(problem), status, headers, MEDIA_TYPE)


def _parameter_error(error: dict[str, Any]) -> str:
    place, *names = error["loc"]
    message = error["msg"][:1].lower() + error["msg"][1:]
    if error["type"] == "extra_forbidden":
        return f"there is no {place} parameter {'.'.join(map(str, names))!r}"
    return f"{place} parameter {'.'.join(map(str, names))!r}: {message}; got {error['input']!r:.100}"


def _state(scope: Scope) -> dict[str, Any]:
    state: dict[str, Any] = scope.setdefault("state", {})
    return state


def _request_id(scope: Scope) -> str:
    return str(_state(scope).get("request_id", ""))
