import subprocess
import sys
from pathlib import Path

import pytest

from dap.errors import InvalidParameter
from service.tracing import UNTRACED, TraceContext, open_tracer, parse_traceparent

TRACE = "0af7651916cd43dd8448eb211c80319c"  # the ids of the standard's own examples
SPAN = "b7ad6b7169203331"
ROOT = Path(__file__).parent.parent.parent


class TestTraceparent:
    @pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("ff", True)])
    def test_it_names_the_callers_span_and_whether_it_is_recorded(self, flags: str, sampled: bool) -> None:
        assert parse_traceparent([f"00-{TRACE}-{SPAN}-{flags}"]) == TraceContext(TRACE, SPAN, sampled)

    @pytest.mark.parametrize("more", ["", "-", "-more", "-more-and-more"])
    def test_a_later_version_may_say_more(self, more: str) -> None:
        assert parse_traceparent([f"cc-{TRACE}-{SPAN}-01{more}"]) == TraceContext(TRACE, SPAN, sampled=True)

    @pytest.mark.parametrize(
        "value",
        [
            "",
            f"00-{TRACE}-{SPAN}",
            f"00-{TRACE}-{SPAN}-1",
            f"00-{TRACE}-{SPAN}-01-more",
            f"00-{TRACE}-{SPAN}-01-",
            f"00-{TRACE}-{SPAN}-0x",
            f"00-{TRACE.upper()}-{SPAN}-01",
            f"00-{TRACE}-{SPAN.upper()}-01",
            f"00-{'0' * 32}-{SPAN}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"00-{TRACE[:-1]}-{SPAN}-01",
            f"00-{TRACE}0-{SPAN}-01",
            f"00_{TRACE}_{SPAN}_01",
            f" 00-{TRACE}-{SPAN}-01",
            f"00-{TRACE}-{SPAN}-01\n",
            f"ff-{TRACE}-{SPAN}-01",
            f"0-{TRACE}-{SPAN}-01",
            f"cc-{TRACE}-{SPAN}-01.more",
            f"00-{TRACE[:-1]}٣-{SPAN}-01",
        ],
    )
    def test_what_the_standard_does_not_know_is_as_if_it_were_not_there(self, value: str) -> None:
        assert parse_traceparent([value]) is None

    def test_there_is_one_of_it(self) -> None:
        value = f"00-{TRACE}-{SPAN}-01"
        assert parse_traceparent([]) is None
        assert parse_traceparent([value, value]) is None

    def test_it_is_written_as_it_is_read(self) -> None:
        span = TraceContext(TRACE, SPAN, sampled=True)
        assert span.header() == f"00-{TRACE}-{SPAN}-01"
        assert parse_traceparent([span.header()]) == span


class TestOpenTracer:
    @pytest.mark.parametrize(
        "environment",
        [
            {},
            {"OTEL_SERVICE_NAME": "x"},
            {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_SDK_DISABLED": "true"},
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_TRACES_EXPORTER": "none"},
        ],
    )
    def test_without_an_exporter_there_are_no_spans(self, environment: dict[str, str]) -> None:
        assert open_tracer(environment) is UNTRACED

    @pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
    def test_an_exporter_that_is_not_installed_is_missed_at_the_start(self, name: str, monkeypatch) -> None:
        monkeypatch.delitem(sys.modules, "service.otlp", raising=False)
        for module in [module for module in sys.modules if module.startswith("opentelemetry.exporter")]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, "opentelemetry.exporter", None)
        with pytest.raises(InvalidParameter, match=rf"{name} is set.*depth-any-panorama\[otel\]"):
            open_tracer({name: "http://localhost:4318"})

    def test_another_protocol_is_refused_at_the_start(self) -> None:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        with pytest.raises(InvalidParameter, match="http/protobuf"):
            open_tracer(environment)

    def test_a_service_that_is_not_traced_imports_neither_sdk_nor_exporter(self) -> None:
        code = (
            "import sys; from service.app import create_app; import service.server; create_app();"
            "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
        )
        run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
        assert run.stdout == "[]\n"

    def test_a_stage_that_is_not_traced_lets_errors_pass(self) -> None:
        with pytest.raises(ZeroDivisionError), UNTRACED.stage("decode"):
            raise ZeroDivisionError
