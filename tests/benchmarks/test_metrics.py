"""Batches and the device, as the service's metrics name them."""

from benchmarks.metrics import Batches, parse_batches, parse_device_label

TEXT = """# TYPE dap_batch_size histogram
dap_batch_size_bucket{le="1.0"} 2.0
dap_batch_size_bucket{le="+Inf"} 11.0
dap_batch_size_count 11.0
dap_batch_size_sum 38.0
dap_batch_size_created 1.7953656024442065e+09
# TYPE dap_model_info gauge
dap_model_info{device="cuda:0",engine="torch",model="vit-l"} 1.0
"""


def test_batches_are_read_from_the_metrics() -> None:
    assert parse_batches(TEXT) == Batches(11, 38)


def test_of_two_moments_the_difference_is_what_ran_between() -> None:
    assert (Batches(11, 38) - Batches(1, 8)).mean == 3
    assert (Batches() + Batches()).mean == 0


def test_the_device_is_the_one_that_the_model_runs_on() -> None:
    assert parse_device_label(TEXT) == "cuda:0"
