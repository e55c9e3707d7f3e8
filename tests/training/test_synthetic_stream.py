from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training.batches import Share
from training.config import Phase, StreamConfig, TrainingConfig
from training.synthetic_stream import SampleStream, draw, shards_needed

STREAM = StreamConfig(shard_size=4, window=6, passes=3)
SCENES_A_WINDOW = 24


def scenes_drawn(first: int, count: int, batch: int = 8) -> list[tuple[int, int]]:
    """Shard and place of each sample from one position of the stream to another."""
    draws = (draw(STREAM, 0, 128, position, batch) for position in range(first, first + count, batch))
    return [(int(shard), int(place)) for drawn in draws for shard, place in drawn.places]


def test_samples_do_not_depend_on_the_batches_they_come_in() -> None:
    assert scenes_drawn(0, 96, batch=8) == scenes_drawn(0, 96, batch=32) == scenes_drawn(0, 96, batch=3)


def test_the_stream_can_be_entered_anywhere() -> None:
    assert scenes_drawn(40, 56) == scenes_drawn(0, 96)[40:]


def test_every_scene_is_seen_as_often_as_the_passes_say() -> None:
    counts = Counter(scenes_drawn(0, 10 * SCENES_A_WINDOW))
    full = [counts[shard, place] for shard in range(4, 20) for place in range(4)]
    assert full == [3] * len(full)


def test_a_round_shows_each_scene_of_its_window_once() -> None:
    scenes = scenes_drawn(2 * SCENES_A_WINDOW, SCENES_A_WINDOW)
    assert sorted(scenes) == [(shard, place) for shard in range(4, 10) for place in range(4)]


def test_a_draw_names_all_the_shards_it_reads() -> None:
    for position in range(0, 200, 7):
        drawn = draw(STREAM, 0, 128, position, 7)
        assert set(drawn.places[:, 0].tolist()) <= set(drawn.shards)


def test_seed_and_size_change_the_order() -> None:
    orders = [draw(STREAM, seed, height, 0, 24).places.tolist() for seed, height in ((0, 128), (1, 128), (0, 256))]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def test_the_shards_a_run_needs_are_those_its_steps_draw() -> None:
    phases = (Phase(16, steps=5, batch=8), Phase(32, steps=3, batch=4), Phase(16, steps=5, batch=8))
    config = TrainingConfig(phases=phases, stream=STREAM)
    drawn = {height: {0} for height in (16, 32)}
    for step in range(config.steps):
        position, phase = config.phase_at(step)
        shards = draw(STREAM, config.seed, phase.height, position, phase.batch).shards
        drawn[phase.height] |= set(shards)
    assert shards_needed(config) == {height: range(max(shards) + 1) for height, shards in drawn.items()}


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
