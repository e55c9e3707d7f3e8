"""What a machine is asked to do at most, at a size that takes no time."""

import pytest
import torch

from benchmarks import ceiling


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "_PRODUCT", {"cpu": 16})
    monkeypatch.setattr(ceiling, "_COPIED", {"cpu": 1024})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_product_of_squares_costs_two_for_each_term(precision: str) -> None:
    work, flop = ceiling.product(precision, "cpu")
    work()
    assert flop == 2 * 16**3


def test_a_copy_reads_and_writes() -> None:
    work, moved = ceiling.copy("cpu")
    work()
    assert moved == 2 * 1024


def test_three_bytes_of_a_pixel_cross_and_four_come_back() -> None:
    work, moved = ceiling.transfer("cpu", pixels=100)
    work()
    assert moved == (3 + 4) * 100


def test_threads_are_those_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        ceiling.use_threads(1)
        assert torch.get_num_threads() == 1
    finally:
        ceiling.use_threads(before)
