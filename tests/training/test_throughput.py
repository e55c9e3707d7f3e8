from collections.abc import Iterator

import pytest

from training.throughput import Forecast, Throughput


def measured(workers: int, seconds: list[float], panoramas: int = 10) -> Throughput:
    """Shards of so many panoramas, finished at these seconds."""
    times: Iterator[float] = iter([0.0, *seconds])
    throughput = Throughput(workers, clock=lambda: next(times))
    for _ in seconds:
        throughput.add(panoramas)
    return throughput


def test_of_few_shards_all_count() -> None:
    throughput = measured(1, [5, 10])
    assert throughput.panoramas == 20
    assert throughput.per_second == pytest.approx(2)


def test_of_many_the_first_of_each_worker_does_not_which_waited_for_the_model() -> None:
    assert measured(2, [60, 60, 61, 61, 62, 62]).per_second == pytest.approx(40 / 2)


def test_two_million_at_a_measured_rate() -> None:
    """20 a second: 100,000 s, which is 27.8 h, of two GPUs at 2.5 an hour each."""
    forecast = measured(2, [60, 60, 61, 61, 62, 62]).forecast(2_000_000, price=2.5)
    assert forecast == Forecast(
        2_000_000, pytest.approx(27.78, abs=0.01), pytest.approx(55.56, abs=0.01), pytest.approx(138.9, abs=0.1)
    )


def test_without_a_price_there_is_no_cost_and_without_work_no_forecast() -> None:
    forecast = measured(1, [1]).forecast(100)
    assert forecast is not None
    assert forecast.cost is None
    assert measured(1, []).forecast(100) is None
