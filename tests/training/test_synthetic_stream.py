from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training.batches import Share
from training.config import Phase, TrainingConfig
from training.synthetic_stream import SampleStream


def test_a_stream_entered_in_the_middle_gives_the_batches_of_an_unbroken_one(
    tiny: TrainingConfig, scenes: Path
) -> None:
    with SampleStream(tiny, scenes) as unbroken:
        batches = [unbroken.batch(step) for step in range(tiny.steps)]
    with SampleStream(tiny, scenes) as entered:
        for step in (3, 4, 7):
            batch = entered.batch(step)
            assert torch.equal(batch.rgb, batches[step].rgb)
            assert torch.equal(batch.truth.depth, batches[step].truth.depth)
            assert torch.equal(batch.truth.known, batches[step].truth.known)
    assert [batch.rgb.shape[1] for batch in batches] == [16] * 4 + [32] * 4


def test_a_stream_in_memory_gives_the_batches_of_one_from_disk_and_writes_nothing(
    tiny: TrainingConfig, scenes: Path, tmp_path: Path
) -> None:
    config = replace(tiny, stream=replace(tiny.stream, scenes_in="memory"))
    with SampleStream(tiny, scenes) as stream:
        from_disk = [stream.batch(step) for step in range(tiny.steps)]
    for first in (0, 3):
        with SampleStream(config, tmp_path / "cache") as stream:
            for step in range(first, tiny.steps):
                batch = stream.batch(step)
                assert torch.equal(batch.rgb, from_disk[step].rgb)
                assert torch.equal(batch.truth.depth, from_disk[step].truth.depth)
                assert torch.equal(batch.truth.known, from_disk[step].truth.known)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_used_shards_are_deleted_only_when_the_cache_is_full(
    tiny: TrainingConfig, tmp_path: Path, cache_gb: float
) -> None:
    config = replace(
        tiny, phases=(Phase(height=16, steps=8, batch=2),), stream=replace(tiny.stream, passes=1, cache_gb=cache_gb)
    )
    with SampleStream(config, tmp_path) as stream:
        for step in range(config.steps):
            stream.batch(step)
    kept = sorted(int(path.stem) for path in tmp_path.rglob("*.npz"))
    assert kept == (list(range(8)) if cache_gb else [6, 7])


def test_processes_that_share_a_batch_read_it_between_them(tiny: TrainingConfig, scenes: Path) -> None:
    with SampleStream(tiny, scenes) as stream:
        whole = [stream.batch(step).rgb for step in range(tiny.steps)]
    for index in range(2):
        with SampleStream(tiny, scenes, Share(index, 2)) as stream:
            for step, rgb in enumerate(whole):
                assert torch.equal(stream.batch(step).rgb, rgb[index : index + 1])
