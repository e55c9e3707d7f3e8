"""Traces as a collector receives them: the real exporter, over HTTP."""

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from service import otlp
from service.telemetry import JsonFormatter

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
STAGES = ["decode", "queue", "inference", "encode"]


class Collector(ThreadingHTTPServer):
    """Keeps what an exporter sends."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.requests: list[ExportTraceServiceRequest] = []
        self.paths: set[str] = set()

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resource(self) -> dict[str, Any]:
        return attributes_of(self.requests[0].resource_spans[0].resource)

    def one(self, kind: int) -> Span:
        (span,) = [span for span in self.spans if span.kind == kind]
        return span


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.paths.add(self.path)
        if self.path == "/v1/traces":
            self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def attributes_of(holder: Any) -> dict[str, Any]:
    return {entry.key: getattr(entry.value, entry.value.WhichOneof("value")) for entry in holder.attributes}


@pytest.fixture
def collector(monkeypatch) -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
        thread.join()


async def test_a_request_is_a_span_of_the_callers_trace_and_each_stage_one_within(serving, panorama, collector) -> None:
    before = time.time_ns()
    async with serving() as client:
        answer = await client.post(
            "/depth?range=20",
            content=panorama(),
            headers={**TRACEPARENT, "x-request-id": "frame-7", "user-agent": "robot/1"},
        )
    request = collector.one(Span.SPAN_KIND_SERVER)
    assert request.name == "POST /depth"
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, CALLER)
    assert answer.headers["traceresponse"] == f"00-{TRACE}-{request.span_id.hex()}-01"
    assert before <= request.start_time_unix_nano <= request.end_time_unix_nano <= time.time_ns()
    assert request.status.code == Status.STATUS_CODE_UNSET
    assert attributes_of(request) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/depth",
        "url.path": "/depth",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "server.address": "service",
        "client.address": "127.0.0.1",
        "client.port": 123,
        "user_agent.original": "robot/1",
        "dap.request_id": "frame-7",
    }
    stages = sorted(
        (span for span in collector.spans if span is not request), key=lambda span: span.start_time_unix_nano
    )
    assert [span.name for span in stages] == STAGES
    for span in stages:
        assert (span.trace_id, span.parent_span_id) == (request.trace_id, request.span_id)
        assert request.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= request.end_time_unix_nano


async def test_stages_take_the_time_that_they_took(serving, engine, panorama, collector) -> None:
    """One panorama holds the engine for a while; the next one waits for it in the queue."""
    async with serving() as client:
        engine.gate.clear()
        first = asyncio.create_task(client.post("/depth", content=panorama()))
        await asyncio.to_thread(engine.entered.acquire)
        second = asyncio.create_task(client.post("/depth", content=panorama(), headers=TRACEPARENT))
        await asyncio.sleep(0.2)
        engine.gate.set()
        answers = await asyncio.gather(first, second)
    stages = {span.name: span for span in collector.spans if span.trace_id.hex() == TRACE}
    seconds = {
        name: (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        for name, span in stages.items()
        if span.kind != Span.SPAN_KIND_SERVER
    }
    timing = dict(entry.split(";dur=") for entry in answers[1].headers["server-timing"].split(", "))
    assert set(seconds) == set(STAGES)
    for name in STAGES:
        assert seconds[name] == pytest.approx(float(timing[name]) / 1000, abs=0.02)
    assert seconds["queue"] > 0.1
    assert stages["queue"].end_time_unix_nano == stages["inference"].start_time_unix_nano


async def test_a_request_without_a_caller_begins_a_trace(serving, panorama, collector) -> None:
    async with serving() as client:
        answer = await client.post("/depth", content=panorama(), headers={"traceparent": "00-nonsense"})
    request = collector.one(Span.SPAN_KIND_SERVER)
    assert request.parent_span_id == b""
    assert answer.headers["traceresponse"] == f"00-{request.trace_id.hex()}-{request.span_id.hex()}-01"


async def test_a_trace_that_the_caller_does_not_record_is_not_sent(serving, panorama, collector) -> None:
    async with serving() as client:
        answer = await client.post("/depth", content=panorama(), headers={"traceparent": f"00-{TRACE}-{CALLER}-00"})
    assert answer.headers["traceresponse"].startswith(f"00-{TRACE}-")
    assert answer.headers["traceresponse"].endswith("-00")
    assert collector.spans == []


async def test_probes_and_the_rehearsal_are_not_traced(serving, collector) -> None:
    async with serving() as client:
        for path in ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"):
            await client.get(path)
    assert collector.spans == []


async def test_what_a_client_makes_up_names_no_span(serving, collector) -> None:
    async with serving() as client:
        await client.request("BREW", "/made/up", headers=TRACEPARENT)
    request = collector.one(Span.SPAN_KIND_SERVER)
    assert request.name == "HTTP"
    assert attributes_of(request)["http.request.method"] == "_OTHER"


async def test_a_refusal_is_no_error_of_the_service(serving, collector) -> None:
    async with serving() as client:
        await client.post("/depth", content=b"no", headers=TRACEPARENT)
    request = collector.one(Span.SPAN_KIND_SERVER)
    assert request.status.code == Status.STATUS_CODE_UNSET
    assert attributes_of(request)["dap.problem"] == "unsupported-media-type"
    (decode,) = [span for span in collector.spans if span.name == "decode"]
    assert decode.status.code == Status.STATUS_CODE_ERROR
    assert attributes_of(decode)["error.type"] == "UnsupportedMediaType"


async def test_a_request_that_runs_out_of_time_shows_where(serving, engine, panorama, collector) -> None:
    async with serving() as client:
        engine.gate.clear()
        answer = await client.post("/depth", content=panorama(), headers={**TRACEPARENT, "x-request-timeout": "0.05"})
        engine.gate.set()
    assert answer.status_code == 504
    request = collector.one(Span.SPAN_KIND_SERVER)
    assert request.status.code == Status.STATUS_CODE_ERROR
    assert attributes_of(request)["error.type"] == "deadline-exceeded"
    assert {span.name: span.status.code for span in collector.spans if span is not request} == {
        "decode": Status.STATUS_CODE_UNSET,
        "queue": Status.STATUS_CODE_ERROR,
    }


async def test_log_lines_of_a_request_name_its_span(serving, panorama, collector, caplog) -> None:
    caplog.set_level(logging.INFO, "dap.access")
    lines: list[dict[str, Any]] = []
    caplog.handler.addFilter(lambda record: lines.append(json.loads(JsonFormatter().format(record))) or True)
    async with serving() as client:
        await client.post("/depth", content=panorama(), headers=TRACEPARENT)
    (line,) = [line for line in lines if line["logger"] == "dap.access"]
    assert line["trace_id"] == TRACE
    assert line["span_id"] == collector.one(Span.SPAN_KIND_SERVER).span_id.hex()


def test_a_process_that_goes_down_sends_what_it_has_and_fastapi_nothing_beside(serve, panorama, collector) -> None:
    with serve("--shutdown-grace-s", "0", FASTAPI_OTEL_AUTO_CONFIGURE="true") as (process, url):
        httpx.post(f"{url}/depth", content=panorama(), headers=TRACEPARENT)
        process.terminate()
        assert process.wait(10) == 0
    assert collector.paths == {"/v1/traces"}
    assert sorted(span.name for span in collector.spans) == ["POST /depth", *sorted(STAGES)]


async def test_the_service_has_a_name_which_the_operator_may_change(serving, panorama, collector, monkeypatch) -> None:
    async with serving() as client:
        await client.get("/models")
    assert collector.resource()["service.name"] == "dap"
    collector.requests.clear()
    monkeypatch.setenv("OTEL_SERVICE_NAME", "depth-eu")
    async with serving() as client:
        await client.get("/models")
    assert collector.resource()["service.name"] == "depth-eu"


async def test_a_collector_that_is_down_costs_requests_nothing_and_the_log_a_line(
    serving, panorama, monkeypatch, caplog
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]  # nobody listens there any more when this block is over
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    monkeypatch.setattr(otlp, "_FLUSH_S", 0.1)
    async with serving() as client:
        started = time.perf_counter()
        answers = [await client.post("/depth", content=panorama()) for _ in range(20)]
        seconds = time.perf_counter() - started
    assert [answer.status_code for answer in answers] == [200] * 20
    assert seconds < 5
    lines = [record for record in caplog.records if record.name.startswith("opentelemetry")]
    assert len(lines) <= 2
