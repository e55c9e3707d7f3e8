"""Whose trace a request belongs to (W3C Trace Context), and spans of what it went through (OpenTelemetry).

Log lines name the caller's trace in any case. Spans are made and sent where an exporter is configured as OpenTelemetry
has it, by `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`; elsewhere neither its SDK nor an
exporter is imported, and a stage costs an empty `with`.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, Self

from starlette.types import ASGIApp

from dap.errors import InvalidParameter

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)


@dataclass(frozen=True)
class TraceContext:
    """A span, by name.

    Attributes:
        trace_id: 32 hexadecimal digits, not all 0.
        span_id: 16 hexadecimal digits, not all 0.
        sampled: whether it is recorded.
    """

    trace_id: str
    span_id: str
    sampled: bool

    def header(self) -> str:
        """As the headers `traceparent` and `traceresponse` say it."""
        return f"00-{self.trace_id}-{self.span_id}-{self.sampled:02x}"


# The span that the request in hand is a part of: the caller's, or one of our own within it.
current_span: ContextVar[TraceContext | None] = ContextVar("current_span", default=None)


def parse_traceparent(values: Sequence[str]) -> TraceContext | None:
    """The caller's span from the headers `traceparent`; None unless there is one, and it is what the standard says.

    Source: W3C Trace Context, 3.2 (version 00) and 4.3 (later versions, which may say more behind the flags).
    """
    match = _TRACEPARENT.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more is not None) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(trace_id, span_id, sampled=bool(int(flags, 16) & 1))


class Stage(Protocol):
    """What a request goes through, while the `with` block of `Tracer.stage` runs."""

    def became(self, name: str, after_s: float) -> None:
        """Say that the stage was over so many seconds after its start, and has been another one since."""


class Tracer(Protocol):
    """Makes spans of requests and their stages, and sends them somewhere."""

    def requests(self, app: ASGIApp) -> ASGIApp:
        """The application within a span for each request."""

    def stage(self, name: str) -> AbstractContextManager[Stage]:
        """A span within that of the request in hand; within none, no span."""

    def close(self) -> None:
        """Send what is not sent yet, for a few seconds. To be called from a thread that may wait."""


class _Untraced:
    """A tracer that makes no spans, and each of its stages."""

    def requests(self, app: ASGIApp) -> ASGIApp:
        return app

    def stage(self, _name: str) -> Self:
        return self

    def close(self) -> None:
        pass

    def became(self, _name: str, _after_s: float) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


UNTRACED: Tracer = _Untraced()


def open_tracer(environment: Mapping[str, str]) -> Tracer:
    """The tracer that the environment asks for.

    Raises:
        InvalidParameter: it asks for an exporter that is not installed, or that speaks another protocol.
    """
    endpoint = next((name for name in _ENDPOINTS if environment.get(name)), None)
    is_off = (
        environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none"
    )
    if endpoint is None or is_off:
        return UNTRACED
    for name in _PROTOCOLS:
        if environment.get(name, _PROTOCOL) != _PROTOCOL:
            raise InvalidParameter(f"traces are sent by {_PROTOCOL}; {name} is {environment[name]}")
    try:
        from service.otlp import OtlpTracer
    except ModuleNotFoundError as error:
        raise InvalidParameter(
            f"{endpoint} is set, but {error.name} is not installed: install depth-any-panorama[otel], or unset it"
        ) from None
    return OtlpTracer()
