"""What the engines' turns come to."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.contenders import Contender, Subject
from benchmarks.engine import (
    Heat,
    Result,
    Row,
    Setting,
    as_markdown,
    ceilings_of,
    measure,
    row_of,
    times,
    turned,
    turns,
)
from benchmarks.race import Record
from benchmarks.racer import Entry, Ready, Turn
from tests.dap.graphs import SIZE, red_graph, save

HEAT = Heat(batch=2, in_range=True)


def record(folder: Path, name: str, *rounds: tuple[float, ...], depth: float = 2.0, loading_mb: float = 500) -> Record:
    file = folder / f"{name}.npy"
    np.save(file, np.full((2, 4, 8), depth, np.float32))
    ready = Ready(imported_mb=100, loading_mb=loading_mb)
    entry = Entry("onnx", "fp32", "cpu", 1, (4, 8), depth=str(file))
    return Record(entry, ready, turns=[Turn(seconds, cpu_s=2 * sum(seconds), running_mb=400) for seconds in rounds])


@pytest.fixture
def row(tmp_path: Path) -> Row:
    reference = record(tmp_path, "eager", (2.0, 2.0), (6.0,), (2.0,), depth=2 * np.e, loading_mb=900)
    return row_of(
        "onnx fp32",
        HEAT,
        record(tmp_path, "onnx", (1.0, 0.5, 1.0), (2.0,), (1.0,)),
        reference,
        flop=3 * 10**12,
        rates={"fp32": 12e12},
        price_per_hour=0.5,
    )


def test_times_are_compared_round_by_round(tmp_path: Path) -> None:
    """In the second round the machine was three times slower for both."""
    reference = record(tmp_path, "eager", (2.0,), (6.0,), (2.2,))
    assert times(record(tmp_path, "onnx", (1.0,), (3.0,), (1.0,)), reference) == 2.0


def test_a_rate_is_of_all_panoramas_of_a_batch(row: Row) -> None:
    assert (row.p50_ms, row.p90_ms, row.per_s) == (1000, 2000, 2)
    assert row.cpu_ms == pytest.approx(1000 * 2 * 5.5 / (2 * 5)), "two threads, five runs, two panoramas each"


def test_memory_is_told_with_the_libraries_and_beyond_them(row: Row) -> None:
    assert (row.peak_mb, row.peak_of_reference) == (500, 500 / 900)
    assert (row.grown_mb, row.grown_of_reference) == (400, 400 / 800)


def test_a_share_is_of_the_rate_of_a_product(row: Row) -> None:
    assert (row.tflops, row.of_product) == (6, 0.5)


def test_panoramas_of_an_hour_are_divided_by_its_price(row: Row) -> None:
    assert (row.per_hour, row.per_euro) == (7200, 14400)


def test_another_depth_shows(row: Row) -> None:
    """Twice e metres and two."""
    assert (row.log_depth_max, row.log_depth_mean) == (pytest.approx(1), pytest.approx(1))


def test_without_a_count_or_a_price_there_is_no_share_and_no_cost(tmp_path: Path) -> None:
    alone = record(tmp_path, "onnx", (1.0,))
    row = row_of("onnx int8", HEAT, alone, alone, flop=None, rates={}, price_per_hour=None)
    assert (row.tflops, row.of_product, row.per_euro, row.times) == (None, None, None, 1)


def test_a_batch_has_the_panorama_turned_in_several_ways() -> None:
    pixels = np.arange(8, dtype=np.uint8)[None, :, None].repeat(4, axis=0).repeat(3, axis=2)
    assert turned(pixels, 4)[:, 0, :, 0].tolist() == [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [6, 7, 0, 1, 2, 3, 4, 5],
        [4, 5, 6, 7, 0, 1, 2, 3],
        [2, 3, 4, 5, 6, 7, 0, 1],
    ]


def test_a_product_runs_in_each_precision_that_has_one_and_on_a_gpu_the_way_there() -> None:
    contenders = [Contender("", "onnx", precision, Path()) for precision in ("fp32", "int8", "bf16", "fp32")]
    assert ceilings_of(contenders, "cpu") == [("product", "fp32"), ("product", "bf16")]
    assert ceilings_of(contenders[:1], "cuda:1") == [("product", "fp32"), ("transfer", "fp32")]
    assert turns(contenders, [HEAT, HEAT], Setting("cpu", 1, 1.0, rounds=3)) == 2 * 3 * (4 + 2)


def test_the_tables_name_what_was_left_out(row: Row) -> None:
    result = Result("dap-s", (256, 512), {True: 13.7}, {"fp32": 0.2}, None, [row], {"onnx bf16": "ONNX Runtime cannot"})
    text = as_markdown(result)
    assert "dap-s, 512x256" in text
    assert "| onnx fp32 | masks | 2 | 7200 | 14400 |" in text
    assert text.endswith("Left out: onnx bf16: ONNX Runtime cannot")
    widths = {line.count("|") for line in text.split("\n\n")[2].splitlines()}
    assert len(widths) == 1, "every line of the table has as many cells"


def test_what_crosses_to_a_gpu_is_told_where_there_is_one(row: Row) -> None:
    assert "to the GPU and its depth back: 0.12 ms" in as_markdown(Result("", (1, 2), {}, {}, 0.123, [row], {}))
    assert "GPU" not in as_markdown(Result("", (1, 2), {}, {}, None, [row], {}))


def test_each_heat_has_a_row_for_each_contender_and_differences_are_from_the_first(tmp_path: Path) -> None:
    """Depths of 80/2 and 80/4 metres; a precision without a ceiling, so that no library of products is loaded."""
    half = save(red_graph(), tmp_path / "half.onnx")
    quarter = save(red_graph(divisor=4.0), tmp_path / "quarter.onnx")
    contenders = [Contender(path.stem, "onnx", "int8", path) for path in (half, quarter, tmp_path / "none.onnx")]
    heats = [Heat(1, True), Heat(2, False)]
    setting = Setting("cpu", 1, seconds=0.0, rounds=2)
    told: list[int] = []
    result = measure(
        Subject("red", SIZE, None, (half, quarter)),
        contenders,
        heats,
        np.full((*SIZE, 3), 80, np.uint8),
        setting,
        tmp_path,
        {},
        told.append,
    )
    assert len(told) == turns(contenders[:2], heats, setting) == 8
    assert [(row.name, row.batch, row.in_range) for row in result.rows] == [
        ("half", 1, True),
        ("quarter", 1, True),
        ("half", 2, False),
        ("quarter", 2, False),
    ]
    assert [row.log_depth_max for row in result.rows] == pytest.approx([0, np.log(2), 0, np.log(2)])
    assert "none.onnx" in result.left_out["none"]
    assert (result.gflop, result.product_tflops, result.transfer_ms) == ({}, {}, None)
