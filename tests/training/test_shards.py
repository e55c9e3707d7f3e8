import itertools
import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dap.errors import TrainingError
from training import shards
from training.shards import RenderAhead, Samples, ShardFolder
from training.synthetic.render import render_batch
from training.synthetic.sampling import Kind


@pytest.fixture
def folder(tmp_path: Path) -> ShardFolder:
    return ShardFolder(tmp_path, "mixed", height=16, size=2)


def names(folder: ShardFolder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir())


def test_a_shard_holds_the_renders_of_its_seeds_with_codes_for_sky_and_unknown(tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path, "outdoor", height=16, size=3)
    folder.render(1)
    samples = folder.load(1)
    truth = render_batch(list(folder.seeds(1)), 16, 32, "outdoor")
    sky, known = truth.sky.numpy(), truth.known.numpy()
    assert sky.any()
    assert (samples.rgb == truth.rgb.numpy()).all()
    assert np.isposinf(samples.depth[sky & known]).all()
    assert (samples.depth[~known] == 0).all()
    surface = known & ~sky & (truth.depth.numpy() < 1000)
    half_precision = 2.0**-11
    assert samples.depth[surface] == pytest.approx(truth.depth.numpy()[surface], rel=half_precision)


def test_a_lost_shard_is_drawn_again_just_the_same(folder: ShardFolder) -> None:
    folder.render(0)
    before = folder.load(0)
    folder.shard(0).unlink()
    folder.render(0)
    assert (folder.load(0).rgb == before.rgb).all()
    assert (folder.load(0).depth == before.depth).all()


def test_no_two_sizes_and_no_validation_share_a_scene() -> None:
    folders = [ShardFolder(Path(), "mixed", height, 1000) for height in (16, 32, 128, 256, 512)]
    folders.append(ShardFolder(Path(), "mixed", 128, 1000, validation=True))
    first, last = 0, shards.SEEDS_PER_ROW // 1000 - 1
    ranges = sorted((folder.seeds(first).start, folder.seeds(last).stop) for folder in folders)
    assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(ranges))


def test_a_shard_beyond_the_seeds_of_its_size_is_refused(folder: ShardFolder) -> None:
    with pytest.raises(TrainingError, match="shard 500000 of 2"):
        folder.seeds(500_000)


def test_what_the_pixels_depend_on_is_in_the_name(folder: ShardFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [replace(folder, kind="indoor"), replace(folder, height=32), replace(folder, validation=True)]
    paths = {folder.path, *(other.path for other in others), replace(folder, size=3).path}
    monkeypatch.setattr(shards, "RENDERER_VERSION", shards.RENDERER_VERSION + 1)
    paths.add(folder.path)
    assert len(paths) == 6


def test_a_render_that_fails_leaves_nothing_behind(folder: ShardFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.render(0)

    def half_written(path: Path, **arrays: object) -> None:
        path.write_bytes(b"PK")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", half_written)
    with pytest.raises(OSError, match="no space left"):
        folder.render(1)
    assert names(folder) == ["000000.npz"]


def test_a_shard_that_is_there_is_not_rendered_again(folder: ShardFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.render(0)

    def never(seeds: Sequence[int], height: int, kind: Kind) -> Samples:
        raise AssertionError("rendered")

    monkeypatch.setattr(shards, "render_samples", never)
    folder.render(0)


def test_a_file_that_is_no_shard_is_refused_with_its_name(folder: ShardFolder) -> None:
    folder.render(0)
    folder.shard(1).write_bytes(folder.shard(0).read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"000001\.npz is not a shard"):
        folder.load(1)


def test_a_shard_of_another_size_is_refused(folder: ShardFolder) -> None:
    larger = replace(folder, height=32)
    larger.render(0)
    folder.path.mkdir(parents=True)
    larger.shard(0).rename(folder.shard(0))
    with pytest.raises(TrainingError, match=r"\(2, 16, 32\); it holds \(2, 32, 64\)"):
        folder.load(0)


def test_pruning_deletes_the_oldest_used_shards_and_no_others(folder: ShardFolder) -> None:
    for index in range(4):
        folder.render(index)
    size = folder.shard(0).stat().st_size
    folder.prune(before=3, limit_bytes=2.5 * size)
    assert names(folder) == ["000002.npz", "000003.npz"]
    folder.prune(before=3, limit_bytes=0)
    assert names(folder) == ["000003.npz"], "what is still needed stays, whatever the limit"


def test_another_process_renders_the_same_pixels(folder: ShardFolder, tmp_path: Path) -> None:
    here = replace(folder, cache=tmp_path / "here")
    here.render(0)
    with RenderAhead(folder, workers=1) as renderer:
        renderer.request(range(2))
        renderer.wait(0)
        renderer.wait(1)
    assert names(folder) == ["000000.npz", "000001.npz"]
    assert (folder.load(0).rgb == here.load(0).rgb).all()
    assert (folder.load(0).depth == here.load(0).depth).all()


def test_a_rendering_process_that_dies_ends_the_wait_with_an_error(folder: ShardFolder) -> None:
    with RenderAhead(folder, workers=1) as renderer:
        renderer.request(range(1))
        for process in multiprocessing.active_children():
            process.kill()
        with pytest.raises(TrainingError, match="a process that renders scenes died"):
            renderer.wait(0)
    assert not folder.shard(0).exists()


def test_without_workers_waiting_renders_and_asking_does_not(folder: ShardFolder) -> None:
    with RenderAhead(folder, workers=0) as renderer:
        renderer.request(range(3))
        assert not folder.path.exists()
        renderer.wait(1)
    assert names(folder) == ["000001.npz"]
