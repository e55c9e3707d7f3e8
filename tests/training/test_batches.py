import numpy as np
import pytest
import torch

from training.batches import Batch, Share, joined
from training.losses import Truth
from training.shards import Samples


def test_a_batch_tells_sky_from_unknown() -> None:
    depth = np.array([[[2.5, np.inf, 0.0]]], np.float16)
    batch = Batch.of(Samples(np.zeros((1, 1, 3, 3), np.uint8), depth))
    assert batch.truth.depth.tolist() == [[[2.5, torch.inf, 0.0]]]
    assert batch.truth.known.tolist() == [[[True, True, False]]]


@pytest.mark.parametrize(("batch", "processes"), [(8, 1), (8, 2), (7, 3), (2, 4)])
def test_the_shares_of_a_batch_are_the_batch_and_as_equal_as_can_be(batch: int, processes: int) -> None:
    shares = [Share(index, processes).rows(batch) for index in range(processes)]
    assert [row for rows in shares for row in rows] == list(range(batch))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_parts_of_a_batch_are_the_batch_with_all_that_is_known_of_it() -> None:
    depth = torch.arange(5.0)[:, None, None].expand(5, 2, 4)
    truth = Truth(depth, depth > 1, torch.tensor([True, False, True, False, True]))
    parts = list(Batch(torch.zeros(5, 2, 4, 3, dtype=torch.uint8), truth).parts(2))
    assert [len(part) for part in parts] == [2, 3]
    again = joined([part.truth for part in parts])
    assert torch.equal(again.depth, truth.depth)
    assert torch.equal(again.known, truth.known)
    assert again.range_known is not None
    assert again.range_known.tolist() == [True, False, True, False, True]
    assert joined([Truth(depth, depth > 1)]).range_known is None
