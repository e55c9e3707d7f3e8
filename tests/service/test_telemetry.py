import json
import logging
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry import JsonFormatter, Telemetry, Timing
from service.tracing import TraceContext, current_span

ROOT = Path(__file__).parent.parent.parent


def test_server_timing_names_the_stages_that_are_over_in_milliseconds() -> None:
    assert Timing(decode=0.0123, queue=0.0, inference=0.25).server_timing() == (
        "decode;dur=12.3, queue;dur=0.0, inference;dur=250.0"
    )


def test_a_stage_that_was_not_passed_is_not_counted() -> None:
    telemetry = Telemetry()
    telemetry.stages_passed(Timing(decode=0.01), (256, 512))
    assert telemetry.registry.get_sample_value("dap_decode_duration_seconds_count") == 1
    assert telemetry.registry.get_sample_value("dap_encode_duration_seconds_count") == 0


def test_a_batch_is_counted_by_its_size_and_by_its_time() -> None:
    telemetry = Telemetry()
    telemetry.batch_ran(3, 0.5)
    value = telemetry.registry.get_sample_value
    assert value("dap_batch_size_bucket", {"le": "2.0"}) == 0
    assert value("dap_batch_size_bucket", {"le": "4.0"}) == 1
    assert value("dap_engine_busy_seconds_total") == 0.5


def test_inference_is_timed_for_each_resolution() -> None:
    telemetry = Telemetry()
    for resolution, seconds in (((256, 512), 0.1), ((256, 512), 0.2), ((512, 1024), 0.8)):
        telemetry.stages_passed(Timing(inference=seconds), resolution)
    value = telemetry.registry.get_sample_value
    assert value("dap_inference_duration_seconds_count", {"resolution": "512x256"}) == 2
    assert value("dap_inference_duration_seconds_sum", {"resolution": "1024x512"}) == 0.8


def test_inference_is_told_apart_from_a_millisecond_to_a_minute_in_steps_of_1_5() -> None:
    telemetry = Telemetry()
    telemetry.stages_passed(Timing(inference=0.1), (256, 512))
    buckets = sorted(
        float(sample.labels["le"])
        for family in telemetry.registry.collect()
        for sample in family.samples
        if sample.name == "dap_inference_duration_seconds_bucket" and sample.labels["le"] != "+Inf"
    )
    assert buckets[0] == 0.001
    assert buckets[-1] > 50
    assert all(1.49 < b / a < 1.51 for a, b in pairwise(buckets))


def test_the_model_that_is_served_replaces_the_one_before() -> None:
    telemetry = Telemetry()
    telemetry.serves("old", "onnx", "cpu")
    telemetry.serves("new", "onnx", "cpu")
    value = telemetry.registry.get_sample_value
    assert value("dap_model_info", {"model": "new", "engine": "onnx", "device": "cpu"}) == 1
    assert value("dap_model_info", {"model": "old", "engine": "onnx", "device": "cpu"}) is None


def used() -> Telemetry:
    """Telemetry in which every metric has a sample."""
    telemetry = Telemetry()
    telemetry.request_answered("POST", "/depth", 429, 0.1, "overloaded")
    telemetry.stages_passed(Timing(decode=0.1, queue=0.1, inference=0.1, encode=0.1), (256, 512))
    telemetry.batch_ran(2, 0.1)
    telemetry.serves("dap-s", "onnx", "cpu")
    return telemetry


def names_of(telemetry: Telemetry) -> set[str]:
    """As one asks Prometheus for them."""
    return {family.name + ("_total" if family.type == "counter" else "") for family in telemetry.registry.collect()}


class TestConventions:
    """Of prometheus.io/docs/practices/naming."""

    def test_names_say_the_unit_and_are_ours(self) -> None:
        for family in text_string_to_metric_families(generate_latest(used().registry).decode()):
            assert re.fullmatch(r"(dap|process)_[a-z_]+", family.name)
            assert family.documentation
            if family.type == "histogram" and family.name != "dap_batch_size":
                assert family.name.endswith("_seconds")

    def test_labels_are_few_and_known(self) -> None:
        labels = {
            label
            for family in text_string_to_metric_families(generate_latest(used().registry).decode())
            for sample in family.samples
            for label in sample.labels
        }
        assert labels == {"method", "route", "status", "reason", "le", "model", "engine", "device", "resolution"}

    @pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
    def test_promtool_has_nothing_to_say(self) -> None:
        run = subprocess.run(
            ["promtool", "check", "metrics"], input=generate_latest(used().registry), capture_output=True
        )
        assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


class TestOperations:
    """docs/operations.md and deploy/alerts.yml, held to what the service says."""

    def test_the_table_has_every_metric_and_no_other(self) -> None:
        text = (ROOT / "docs" / "operations.md").read_text()
        rows = re.findall(r"^\| `((?:dap|process)_\w+)` \| (\w+) \| (.+?) \|", text, re.MULTILINE)
        assert {name for name, _, _ in rows} == names_of(used())
        types = {family.name: family.type for family in used().registry.collect()}
        for name, kind, _ in rows:
            assert kind == types[name.removesuffix("_total")]

    def test_alerts_ask_for_metrics_that_there_are(self) -> None:
        (group,) = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())["groups"]
        asked = {name for rule in group["rules"] for name in re.findall(r"\b(?:dap|process)_\w+", rule["expr"])}
        assert len(asked) >= 6
        assert {name.removesuffix("_bucket") for name in asked} <= names_of(used())

    @pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
    def test_prometheus_takes_its_configuration(self) -> None:
        run = subprocess.run(["promtool", "check", "config", "deploy/prometheus.yml"], cwd=ROOT, capture_output=True)
        assert run.returncode == 0, run.stderr


class TestJsonFormatter:
    def record(self, message: str, *args: object, **attributes: object) -> logging.LogRecord:
        record = logging.LogRecord("dap.access", logging.INFO, "x.py", 1, message, args, None)
        record.__dict__.update(attributes)
        return record

    def test_a_record_is_one_line_of_json_with_its_fields(self) -> None:
        line = JsonFormatter().format(self.record("took %d", 3, fields={"path": "/a\nb", "status": 200}))
        assert "\n" not in line
        said = json.loads(line)
        assert (said["message"], said["level"], said["logger"]) == ("took 3", "info", "dap.access")
        assert (said["path"], said["status"]) == ("/a\nb", 200)
        assert said["time"].endswith("+00:00")

    def test_an_exception_is_in_the_line_too(self) -> None:
        try:
            raise ValueError("bad")
        except ValueError:
            line = JsonFormatter().format(self.record("failed", exc_info=sys.exc_info()))
        assert "ValueError: bad" in json.loads(line)["exception"]

    def test_a_line_within_a_trace_names_its_span(self) -> None:
        token = current_span.set(TraceContext("a" * 32, "b" * 16, sampled=True))
        try:
            line = json.loads(JsonFormatter().format(self.record("request")))
        finally:
            current_span.reset(token)
        assert (line["trace_id"], line["span_id"]) == ("a" * 32, "b" * 16)
        assert "trace_id" not in json.loads(JsonFormatter().format(self.record("request")))
