import json
import logging
import sys
from itertools import pairwise

from service.telemetry import JsonFormatter, Telemetry, Timing


def test_server_timing_names_the_stages_that_are_over_in_milliseconds() -> None:
    assert Timing(decode=0.0123, queue=0.0, inference=0.25).server_timing() == (
        "decode;dur=12.3, queue;dur=0.0, inference;dur=250.0"
    )


def test_a_stage_that_was_not_passed_is_not_counted() -> None:
    telemetry = Telemetry()
    telemetry.stages_passed(Timing(decode=0.01))
    assert telemetry.registry.get_sample_value("dap_decode_duration_seconds_count") == 1
    assert telemetry.registry.get_sample_value("dap_encode_duration_seconds_count") == 0


def test_a_batch_is_counted_by_its_size_and_by_its_time() -> None:
    telemetry = Telemetry()
    telemetry.batch_ran(3, 0.5)
    value = telemetry.registry.get_sample_value
    assert value("dap_batch_size_bucket", {"le": "2.0"}) == 0
    assert value("dap_batch_size_bucket", {"le": "4.0"}) == 1
    assert value("dap_engine_busy_seconds_total") == 0.5


def test_inference_is_told_apart_from_a_millisecond_to_a_minute_in_steps_of_1_5() -> None:
    telemetry = Telemetry()
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
