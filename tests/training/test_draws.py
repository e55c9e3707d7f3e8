from collections import Counter

from training.config import Phase, StreamConfig, TrainingConfig
from training.draws import draw, draw_to_end_of_round, shards_needed

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


def test_to_the_end_of_a_round_is_what_batches_up_to_there_would_draw() -> None:
    for first, last, end in ((3, 9, 24), (20, 24, 24), (22, 26, 48)):
        drawn = draw_to_end_of_round(STREAM, 0, 128, range(first, last))
        assert [tuple(place) for place in drawn.places.tolist()] == scenes_drawn(0, 48)[first:end]
