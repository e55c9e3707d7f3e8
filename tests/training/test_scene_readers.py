from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training import scene_readers
from training.batches import Share
from training.config import StreamConfig
from training.draws import draw
from training.scene_readers import CPU, ScenesInMemory, ScenesOnDisk, scene_reader
from training.shards import Samples, render_samples
from training.synthetic.sampling import Kind

STREAM = StreamConfig(shard_size=4, window=4, passes=2, workers=0, ahead=0)
HEIGHT, BATCH = 16, 3
SCENES_A_WINDOW = 16


@pytest.fixture
def renders(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The seeds of each call of the renderer from here on."""
    calls = []

    def counted(seeds: Sequence[int], height: int, kind: Kind, device: torch.device) -> Samples:
        calls.append(list(seeds))
        return render_samples(seeds, height, kind, device)

    monkeypatch.setattr(scene_readers, "render_samples", counted)
    return calls


def positions(step: int) -> range:
    return range(step * BATCH, (step + 1) * BATCH)


def in_memory() -> ScenesInMemory:
    return ScenesInMemory(STREAM, seed=3, device=CPU)


def equal(one: Samples, other: Samples) -> bool:
    assert one.depth.dtype == other.depth.dtype == np.float16
    assert one.rgb.dtype == other.rgb.dtype == np.uint8
    return np.array_equal(one.rgb, other.rgb) and np.array_equal(one.depth, other.depth)


@pytest.fixture(scope="module")
def from_disk(tmp_path_factory: pytest.TempPathFactory) -> list[Samples]:
    """The first twelve batches, over two rounds and a bit."""
    reader = ScenesOnDisk(STREAM, 3, tmp_path_factory.mktemp("cache"), Share())
    batches = [reader.read(HEIGHT, positions(step), positions(step)) for step in range(12)]
    reader.close()
    return batches


def test_memory_gives_the_samples_of_the_disk_bit_for_bit(from_disk: list[Samples]) -> None:
    reader = in_memory()
    assert all(equal(reader.read(HEIGHT, positions(step), positions(step)), from_disk[step]) for step in range(12))


@pytest.mark.parametrize("first", [4, 5, 11])
def test_memory_can_be_entered_anywhere(from_disk: list[Samples], first: int) -> None:
    reader = in_memory()
    for step in range(first, 12):
        assert equal(reader.read(HEIGHT, positions(step), positions(step)), from_disk[step])


def test_processes_render_their_own_share_in_memory_and_have_the_batch_between_them(
    from_disk: list[Samples], renders: list[list[int]]
) -> None:
    for process, mine in enumerate((slice(0, 1), slice(1, 3))):
        reader = in_memory()
        for step in range(5):
            samples = reader.read(HEIGHT, positions(step), positions(step)[mine])
            assert equal(samples, Samples(from_disk[step].rgb[mine], from_disk[step].depth[mine]))
        # The first round has 16 samples, whose sixth batch is one sample long.
        assert sum(map(len, renders)) == (6, 10)[process]
        renders.clear()


def test_a_scene_is_rendered_once_for_all_its_rounds_and_with_as_many_others_as_a_shard_has(
    renders: list[list[int]],
) -> None:
    reader = in_memory()
    rounds = 3
    for step in range(rounds * SCENES_A_WINDOW // BATCH):
        reader.read(HEIGHT, positions(step), positions(step))
    seeds = [seed for call in renders for seed in call]
    assert len(seeds) == len(set(seeds))
    first_window, new_in_a_round = SCENES_A_WINDOW, SCENES_A_WINDOW // 2
    assert len(seeds) == first_window + (rounds - 1) * new_in_a_round
    assert [len(call) for call in renders] == [STREAM.shard_size] * (len(seeds) // STREAM.shard_size)


def test_scenes_are_let_go_of_when_their_last_round_is_over(renders: list[list[int]]) -> None:
    reader = in_memory()
    reader.read(HEIGHT, positions(0), positions(0))
    (first,) = renders
    later = range(2 * SCENES_A_WINDOW, 2 * SCENES_A_WINDOW + BATCH)
    assert draw(STREAM, 3, HEIGHT, later.start, BATCH).shards.start == 4
    reader.read(HEIGHT, later, later)
    renders.clear()
    reader.read(HEIGHT, positions(0), positions(0))
    assert renders == [first]


def test_another_size_has_scenes_of_its_own(renders: list[list[int]]) -> None:
    reader = in_memory()
    for height in (16, 32, 16):
        assert reader.read(height, positions(0), positions(0)).rgb.shape == (BATCH, height, 2 * height, 3)
    assert len(renders) == 3
    assert renders[0] == renders[2]
    assert not set(renders[0]) & set(renders[1])


def test_a_reader_in_memory_leaves_no_file(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    reader = scene_reader(replace(STREAM, scenes_in="memory", workers=1), 3, cache, Share(), CPU)
    reader.read(HEIGHT, positions(0), positions(0))
    reader.close()
    assert not cache.exists()


@pytest.mark.parametrize(
    ("scenes_in", "device", "memory"),
    [
        ("auto", "cpu", False),
        ("auto", "cuda", True),
        ("disk", "cuda", False),
        ("memory", "cpu", True),
    ],
)
def test_scenes_wait_in_memory_where_a_gpu_trains_unless_told_otherwise(
    scenes_in: str, device: str, memory: bool
) -> None:
    assert replace(STREAM, scenes_in=scenes_in).in_memory(device) == memory


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_gives_the_samples_of_the_disk_within_rounding(tmp_path: Path, from_disk: list[Samples]) -> None:
    reader = scene_reader(STREAM, 3, tmp_path / "cache", Share(), torch.device("cuda"))
    assert reader.manifest()["rendered_on"] == "cuda"
    for step, expected in enumerate(from_disk):
        samples = reader.read(HEIGHT, positions(step), positions(step))
        assert np.isclose(samples.depth, expected.depth, rtol=2e-3).mean() > 0.99
        assert np.abs(samples.rgb.astype(int) - expected.rgb).mean() < 1
    reader.close()
    assert not (tmp_path / "cache").exists()
