"""Spans by OpenTelemetry, sent to a collector by OTLP over HTTP. Imported only where `service.tracing` is asked for it.

Everything that OpenTelemetry lets an operator set is set by its own variables: OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER,
OTEL_BSP_SCHEDULE_DELAY, OTEL_EXPORTER_OTLP_HEADERS and so on.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
    use_span,
)
from opentelemetry.trace import Tracer as SpanMaker
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.telemetry import METHODS, PROBES
from service.tracing import Stage, TraceContext, current_span

_DEFAULT_SERVICE_NAME = "dap"
_FLUSH_S = 5.0
_SILENCE_S = 60.0
# They speak whenever the collector is down: at each batch, and at each span that is dropped.
_NOISY_LOGGERS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")


class OtlpTracer:
    """A tracer (`service.tracing.Tracer`) whose spans a thread of its own sends. Nothing ever waits for that thread."""

    def __init__(self) -> None:
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._spans = self._provider.get_tracer("service")
        for name in _NOISY_LOGGERS:
            logging.getLogger(name).addFilter(_Seldom())

    def requests(self, app: ASGIApp) -> ASGIApp:
        return _TracedRequests(app, self._spans)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        if not get_current_span().is_recording():
            yield _NO_STAGE
            return
        stage = _TracedStage(self._spans, name)
        try:
            yield stage
        except BaseException as error:
            stage.fail(error)
            raise
        finally:
            stage.end()

    def close(self) -> None:
        # A collector that is down would hold this up for half a minute; a daemon thread is left behind instead.
        sending = threading.Thread(target=self._provider.shutdown, name="flush", daemon=True)
        sending.start()
        sending.join(_FLUSH_S)


class _TracedStage:
    """A span that may hand over to the next one."""

    def __init__(self, spans: SpanMaker, name: str) -> None:
        self._spans = spans
        self._began = time.time_ns()
        self._span = spans.start_span(name, start_time=self._began)

    def became(self, name: str, after_s: float) -> None:
        self._began += round(after_s * 1e9)
        self._span.end(self._began)
        self._span = self._spans.start_span(name, start_time=self._began)

    def fail(self, error: BaseException) -> None:
        self._span.set_status(StatusCode.ERROR)
        self._span.set_attribute("error.type", type(error).__qualname__)

    def end(self) -> None:
        self._span.end()


class _NoStage:
    """A stage of what is not recorded: a probe, the rehearsal, a trace that is not sampled."""

    def became(self, name: str, after_s: float) -> None:
        pass


_NO_STAGE = _NoStage()


class _TracedRequests:
    """A span of kind server for each request but probes, with the attributes of OpenTelemetry's HTTP conventions."""

    def __init__(self, app: ASGIApp, spans: SpanMaker) -> None:
        self._app = app
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        caller = current_span.get()
        parent = set_span_in_context(NonRecordingSpan(_span_context(caller))) if caller else None
        span = self._spans.start_span(_name(scope), parent, SpanKind.SERVER, _attributes_of(scope))
        ours = _trace_context(span)

        async def described_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["traceresponse"] = ours.header()
                _describe_answer(span, scope, message["status"])
            await send(message)

        token = current_span.set(ours)
        try:
            with use_span(span, record_exception=False, set_status_on_exception=False):
                await self._app(scope, receive, described_send)
        finally:
            current_span.reset(token)
            span.end()


def _attributes_of(scope: Scope) -> dict[str, str | int]:
    """What is known when a request begins. The query is left out, as in the access log: it may hold what is secret."""
    attributes: dict[str, str | int] = {
        "http.request.method": scope["method"] if scope["method"] in METHODS else "_OTHER",
        "url.path": scope["path"],
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope["http_version"],
        "dap.request_id": scope["state"]["request_id"],
    }
    for name, address in (("server", scope.get("server")), ("client", scope.get("client"))):
        if address is not None:
            attributes[f"{name}.address"] = address[0]
            if address[1] is not None:
                attributes[f"{name}.port"] = address[1]
    agent = Headers(scope=scope).get("user-agent")
    return attributes | ({"user_agent.original": agent} if agent else {})


def _describe_answer(span: Span, scope: Scope, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        span.update_name(f"{_name(scope)} {route}")
        span.set_attribute("http.route", route)
    problem = scope["state"].get("problem")
    if problem is not None:
        span.set_attribute("dap.problem", problem)
    if status >= 500:
        span.set_status(StatusCode.ERROR)
        span.set_attribute("error.type", problem or str(status))


def _name(scope: Scope) -> str:
    """Of a span while its route is not known. A method that a client made up is not in it."""
    return scope["method"] if scope["method"] in METHODS else "HTTP"


def _span_context(span: TraceContext) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if span.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(span.trace_id, 16), int(span.span_id, 16), is_remote=True, trace_flags=flags)


def _trace_context(span: Span) -> TraceContext:
    context = span.get_span_context()
    return TraceContext(f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags.sampled)


def _resource() -> Resource:
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return resource.merge(Resource({SERVICE_NAME: _DEFAULT_SERVICE_NAME}))
    return resource


class _Seldom(logging.Filter):
    """Lets a line through once a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.created < self._next:
            return False
        self._next = record.created + _SILENCE_S
        return True
