"""What the service says of itself: Prometheus metrics, the Server-Timing header, JSON log lines."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from dap.resolutions import Size, resolution_text
from service.tracing import UNTRACED, Tracer, current_span

_SECONDS = tuple(round(0.001 * 1.5**step, 6) for step in range(28))  # a millisecond to about a minute
_POWERS_OF_TWO = tuple(2**exponent for exponent in range(9))
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
# Asked every few seconds, and no news: not in the access log, and not traced.
PROBES = frozenset({"/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})


@dataclass(frozen=True)
class Timing:
    """Seconds that one request spent in each stage; None before the stage is over."""

    decode: float | None = None
    queue: float | None = None
    inference: float | None = None
    encode: float | None = None

    @property
    def seconds(self) -> float:
        stages = (self.decode, self.queue, self.inference, self.encode)
        return sum(seconds for seconds in stages if seconds is not None)

    def server_timing(self) -> str:
        """Value of the header Server-Timing (W3C), durations in milliseconds."""
        return ", ".join(
            f"{stage};dur={value * 1000:.1f}" for stage, value in asdict(self).items() if value is not None
        )


class Telemetry:
    """The metrics of one application, in a registry of their own, and what traces its requests."""

    def __init__(self, tracer: Tracer = UNTRACED) -> None:
        self.tracer = tracer
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = self._counter("dap_requests", "Requests answered.", "method", "route", "status")
        self._request_seconds = self._histogram(
            "dap_request_duration_seconds", "From the request's headers to the answer's last byte.", "route"
        )
        self.in_progress = self._gauge("dap_requests_in_progress", "Requests not yet answered.")
        self._refusals = self._counter("dap_refusals", "Requests refused, by the slug of the problem.", "reason")
        self._stage_seconds = {
            stage: self._histogram(f"dap_{stage}_duration_seconds", help_text)
            for stage, help_text in (
                ("decode", "From bytes to a panorama at the model's input size."),
                ("queue", "A panorama's wait for its batch."),
                ("encode", "From the engine's answer to the bytes of a format."),
            )
        }
        self._inference_seconds = self._histogram(
            "dap_inference_duration_seconds", "The engine's run of a panorama's batch.", "resolution"
        )
        self._batch_size = self._histogram("dap_batch_size", "Panoramas of a batch.", buckets=_POWERS_OF_TWO)
        self._engine_busy = self._counter("dap_engine_busy_seconds", "Seconds that the engine ran.")
        self._queued_panoramas = self._gauge("dap_queue_panoramas", "Panoramas that wait for the engine.")
        self._queued_pixels = self._gauge("dap_queue_pixels", "Pixels of the panoramas that wait for the engine.")
        self._model = self._gauge("dap_model_info", "1 for the model that is served.", "model", "engine", "device")
        self._ready = self._gauge("dap_ready", "1 while /readyz says yes.")

    def request_answered(self, method: str, route: str, status: int, seconds: float, refusal: str | None) -> None:
        """Count one request. `refusal` is the slug of the problem it was refused with."""
        self._requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)
        if refusal is not None:
            self._refusals.labels(refusal).inc()

    def batch_ran(self, size: int, seconds: float) -> None:
        self._batch_size.observe(size)
        self._engine_busy.inc(seconds)

    def stages_passed(self, timing: Timing, resolution: Size) -> None:
        """Count the stages of a panorama that the model saw at `resolution`, (H, W)."""
        stages = self._stage_seconds | {"inference": self._inference_seconds.labels(resolution_text(resolution))}
        for stage, seconds in asdict(timing).items():
            if seconds is not None:
                stages[stage].observe(seconds)

    def watch_queue(self, panoramas: Callable[[], int], pixels: Callable[[], int]) -> None:
        """Ask these whenever the metrics are read."""
        self._queued_panoramas.set_function(panoramas)
        self._queued_pixels.set_function(pixels)

    def watch_readiness(self, is_ready: Callable[[], bool]) -> None:
        self._ready.set_function(is_ready)

    def serves(self, model: str, engine: str, device: str) -> None:
        """Name the model that is served from now on."""
        self._model.clear()
        self._model.labels(model, engine, device).set(1)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(name, help_text, labels, registry=self.registry)

    def _histogram(self, name: str, help_text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(name, help_text, labels, buckets=buckets, registry=self.registry)


class JsonFormatter(logging.Formatter):
    """One JSON object a line. A record's `fields` (`extra={"fields": {...}}`) stand beside its message.

    Within a request that is part of a trace, `trace_id` and `span_id` do too.
    """

    def format(self, record: logging.LogRecord) -> str:
        span = current_span.get()
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
            **({"trace_id": span.trace_id, "span_id": span.span_id} if span else {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
