"""Mixed batches: exact shares, every sample once a pass, the same from any step on and for any number of processes."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from dap.errors import DatasetError, TrainingError
from training.batches import Share
from training.config import AugmentationConfig, PerturbationConfig, Phase, StreamConfig, TrainingConfig
from training.datasets.base import SKY
from training.datasets.packing import PackOptions, pack
from training.datasets.rendered import Rendered, RenderedPictures
from training.datasets.shards import (
    DEPTH,
    METADATA,
    Manifest,
    ShardReader,
    encode_depth,
    encode_metadata,
    write_shard,
)
from training.mixture import CYCLE, Mixture, PerturbedPart, RenderedPart, ShardPart, Turns, samples_before

HEIGHT = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven labelled panoramas in four shards, and five without a label in three."""
    path = tmp_path_factory.mktemp("shards")
    options = PackOptions(height=HEIGHT, image="png", shard_size=2)
    pack(Rendered(7, "outdoor"), "all", path / "labelled", options)
    pack(RenderedPictures(5, "indoor", 100, "real-like"), "all", path / "pictures", options)
    return path


@pytest.fixture(scope="module")
def labelled(folder: Path) -> ShardReader:
    return ShardReader(folder / "labelled")


@pytest.fixture(scope="module")
def pictures(folder: Path) -> ShardReader:
    return ShardReader(folder / "pictures")


def write_labels(path: Path, pictures: ShardReader, metres: Callable[[str], float]) -> ShardReader:
    """Labels as `training.labels` has them: one depth all over, sky in the first row."""
    path.mkdir()
    records = []
    for index, shard in enumerate(pictures.manifest.shards):
        members = []
        for sample in pictures.samples(index):
            depth = np.full((HEIGHT, 2 * HEIGHT), metres(sample.id), np.float32)
            depth[0] = SKY
            label = replace(sample, depth=depth)
            members.append((sample.id, {DEPTH: encode_depth(depth), METADATA: encode_metadata(label)}))
        records.append(write_shard(path / shard.name, members))
    source = {"labelled": True, "source": pictures.manifest.fingerprint}
    Manifest(source, {}, tuple(records), complete=True).write(path)
    return ShardReader(path)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory, pictures: ShardReader) -> ShardReader:
    """Each label is as far as the last digit of its seed says, and one metre."""
    return write_labels(tmp_path_factory.mktemp("labels") / "a", pictures, lambda identity: 1.0 + int(identity[-1]))


def config(steps: int = 6, batch: int = 4) -> TrainingConfig:
    return TrainingConfig(phases=(Phase(HEIGHT, steps, batch),), seed=3)


def test_parts_have_their_exact_share_of_every_cycle() -> None:
    turns = Turns([2, 1, 1], seed=0)
    for cycle in range(3):
        counts = Counter(part for part, _ in turns.of(range(cycle * CYCLE, (cycle + 1) * CYCLE)))
        assert counts == {0: 500, 1: 250, 2: 250}


def test_shares_that_no_thousandths_hold_are_rounded_to_a_sum_that_fits() -> None:
    assert sorted(Turns([1, 1, 1], seed=0).quotas) == [333, 333, 334]


def test_the_turns_of_a_part_are_counted_without_gaps() -> None:
    turns = Turns([0.7, 0.3], seed=1).of(range(2500))
    for part in range(2):
        positions = [position for which, position in turns if which == part]
        assert positions == list(range(len(positions)))


def test_turns_can_be_asked_for_anywhere() -> None:
    turns = Turns([0.7, 0.3], seed=1)
    assert turns.of(range(1700, 2300)) == turns.of(range(2500))[1700:2300]


@pytest.mark.parametrize("weights", [[], [1, 0], [1, -1], [1, 1e-6]])
def test_weights_without_a_turn_are_refused(weights: list[float]) -> None:
    with pytest.raises(TrainingError, match=r"weights above zero|share of 0\.001 at least"):
        Turns(weights, seed=0)


def test_samples_are_counted_through_the_phases() -> None:
    phases = (Phase(16, steps=3, batch=4), Phase(32, steps=2, batch=2), Phase(16, steps=5, batch=1))
    counted = [samples_before(TrainingConfig(phases=phases), step) for step in range(7)]
    assert counted == [0, 4, 8, 12, 14, 16, 17]


def test_each_pass_shows_every_sample_once_in_another_order(labelled: ShardReader) -> None:
    part = ShardPart(labelled, seed=0, window=2)
    passes = [part.places(range(7 * number, 7 * number + 7)) for number in range(3)]
    every = sorted((shard, number) for shard, size in enumerate((2, 2, 2, 1)) for number in range(size))
    assert [sorted(places) for places in passes] == [every] * 3
    assert len({tuple(places) for places in passes}) == 3


def test_a_window_is_finished_before_the_next_begins(labelled: ShardReader) -> None:
    part = ShardPart(labelled, seed=0, window=1)
    for number in range(5):
        shards = [shard for shard, _ in part.places(range(7 * number, 7 * number + 7))]
        assert sum(one != other for one, other in pairwise(shards)) == 3


def test_what_is_read_is_what_was_packed(labelled: ShardReader) -> None:
    part = ShardPart(labelled, seed=0, window=2)
    samples = [list(labelled.samples(index)) for index in range(4)]
    for first in range(0, 14, 3):
        read = part.read(HEIGHT, range(first, first + 3), range(first, first + 3))
        for rgb, depth, (shard, number) in zip(read.rgb, read.depth, part.places(range(first, first + 3)), strict=True):
            np.testing.assert_array_equal(rgb, samples[shard][number].rgb)
            np.testing.assert_array_equal(depth, samples[shard][number].depth)
    part.close()


def test_shards_that_are_kept_back_are_never_read(labelled: ShardReader) -> None:
    part = ShardPart(labelled, seed=0, among=[0, 3])
    assert len(part) == 3
    assert {shard for shard, _ in part.places(range(9))} == {0, 3}


def test_a_pseudo_label_stands_in_for_depth(pictures: ShardReader, labels: ShardReader) -> None:
    part = ShardPart(pictures, seed=0, labels=labels)
    ids = [[sample.id for sample in pictures.samples(index)] for index in range(3)]
    read = part.read(HEIGHT, range(5), range(5))
    for depth, (shard, number) in zip(read.depth, part.places(range(5)), strict=True):
        assert np.isposinf(depth[0]).all()
        assert depth[1:] == pytest.approx(1.0 + int(ids[shard][number][-1]), rel=1e-4)
    part.close()


def test_only_chosen_labels_are_read(pictures: ShardReader, labels: ShardReader) -> None:
    ids = [sample.id for sample in pictures]
    names = [shard.name for shard in labels.manifest.shards]
    chosen = {names[0]: frozenset([ids[1]]), names[1]: frozenset[str](), names[2]: frozenset([ids[4]])}
    part = ShardPart(pictures, seed=0, labels=labels, chosen=chosen)
    read = part.read(HEIGHT, range(2), range(2))
    assert sorted(read.depth[:, -1, 0].tolist()) == pytest.approx([2.0, 5.0], rel=1e-4)
    part.close()


def test_a_chosen_label_that_is_not_there_is_an_error(pictures: ShardReader, labels: ShardReader) -> None:
    chosen = {shard.name: frozenset(["nobody"]) for shard in labels.manifest.shards}
    with pytest.raises(DatasetError, match="should have 1 of the samples; 0 were found"):
        ShardPart(pictures, seed=0, labels=labels, chosen=chosen).read(HEIGHT, range(1), range(1))


def test_pictures_need_labels_of_their_own(pictures: ShardReader, labelled: ShardReader, labels: ShardReader) -> None:
    with pytest.raises(DatasetError, match="they need labels"):
        ShardPart(pictures, seed=0)
    with pytest.raises(DatasetError, match="labels of other shards"):
        ShardPart(labelled, seed=0, labels=labels)


def test_a_band_of_longitudes_comes_with_its_labels_from_the_next_panorama(
    pictures: ShardReader, labels: ShardReader
) -> None:
    config = PerturbationConfig(AugmentationConfig(strength=0), mixed=1.0)
    plain, mixed = ShardPart(pictures, 0, labels), PerturbedPart(ShardPart(pictures, 0, labels), config, 0)
    before, after = plain.read(HEIGHT, range(21), range(21)), mixed.read(HEIGHT, range(20), range(20))
    widths, starts = set(), set()
    for i in range(20):
        own, other = before.depth[i, -1, 0], before.depth[i + 1, -1, 0]
        if own == other:  # one pass ends with the panorama that the next begins with
            continue
        lent = after.depth[i, -1] == other
        begins = np.flatnonzero(lent & ~np.roll(lent, 1))
        assert len(begins) == 1, "one band, also across the border"
        assert 0.2 * 2 * HEIGHT - 1 <= lent.sum() <= 0.5 * 2 * HEIGHT + 1
        expected = np.where(lent[None, :, None], before.rgb[i + 1], before.rgb[i])
        np.testing.assert_array_equal(after.rgb[i], expected)
        np.testing.assert_array_equal(after.depth[i], np.where(lent, before.depth[i + 1], before.depth[i]))
        widths.add(int(lent.sum()))
        starts.add(int(begins[0]))
    assert len(widths) > 3
    assert len(starts) > 3
    plain.close()
    mixed.close()


def test_a_perturbed_picture_is_another_each_time_and_its_labels_stay(
    pictures: ShardReader, labels: ShardReader
) -> None:
    plain, worse = (
        ShardPart(pictures, 0, labels),
        PerturbedPart(ShardPart(pictures, 0, labels), PerturbationConfig(mixed=0.0), 0),
    )
    before, after = plain.read(HEIGHT, range(5), range(5)), worse.read(HEIGHT, range(5), range(5))
    np.testing.assert_array_equal(after.depth, before.depth)
    changes = after.rgb.astype(int) - before.rgb
    assert all(np.abs(change).mean() > 5 for change in changes)
    assert len({change.tobytes() for change in changes}) == 5
    assert worse.range_known is plain.range_known is False
    plain.close()
    worse.close()


def test_a_share_of_the_panoramas_is_perturbed_and_the_others_stay(pictures: ShardReader, labels: ShardReader) -> None:
    plain, some = (
        ShardPart(pictures, 0, labels),
        PerturbedPart(ShardPart(pictures, 0, labels), PerturbationConfig(mixed=0.0), 0, share=0.3),
    )
    count = 60
    before, after = plain.read(HEIGHT, range(count), range(count)), some.read(HEIGHT, range(count), range(count))
    changed = (after.rgb != before.rgb).any((1, 2, 3))
    assert changed.mean() == pytest.approx(0.3, abs=3 * (0.3 * 0.7 / count) ** 0.5)
    again = some.read(HEIGHT, range(40, count), range(45, 50))
    np.testing.assert_array_equal(again.rgb, after.rgb[45:50])
    plain.close()
    some.close()


def mixture(
    labelled: ShardReader,
    pictures: ShardReader,
    labels: ShardReader,
    scenes: Path,
    share: Share,
) -> Mixture:
    run = config()
    stream = StreamConfig(shard_size=2, window=2, passes=1, workers=0, ahead=0)
    return Mixture(
        run,
        {
            "fresh": (1.0, RenderedPart(stream, 0, scenes, share)),
            "labelled": (2.0, ShardPart(labelled, 0)),
            "pseudo": (1.0, PerturbedPart(ShardPart(pictures, 0, labels), PerturbationConfig(), 0)),
        },
        share,
    )


def test_a_batch_says_whose_range_is_certain(
    labelled: ShardReader, pictures: ShardReader, labels: ShardReader, scenes: Path
) -> None:
    with mixture(labelled, pictures, labels, scenes, Share()) as mixed:
        batches = [mixed.batch(step) for step in range(6)]
        parts = [part for part, _ in Turns([1, 2, 1], config().seed).of(range(24))]
    certain = torch.cat([batch.truth.range_known for batch in batches if batch.truth.range_known is not None])
    assert certain.tolist() == [part != 2 for part in parts]
    assert set(parts) == {0, 1, 2}
    assert all(torch.equal(batch.truth.known, batch.truth.depth > 0) for batch in batches)


def test_a_mixture_entered_in_the_middle_or_shared_gives_the_same_samples(
    labelled: ShardReader, pictures: ShardReader, labels: ShardReader, scenes: Path
) -> None:
    parts = labelled, pictures, labels, scenes
    with mixture(*parts, Share()) as unbroken:
        whole = [unbroken.batch(step) for step in range(6)]
    with mixture(*parts, Share()) as entered:
        assert torch.equal(entered.batch(4).rgb, whole[4].rgb)
    for index in range(2):
        with mixture(*parts, Share(index, 2)) as shared:
            for step, batch in enumerate(whole):
                mine = shared.batch(step)
                assert torch.equal(mine.rgb, batch.rgb[2 * index : 2 * index + 2])
                assert torch.equal(mine.truth.depth, batch.truth.depth[2 * index : 2 * index + 2])


def test_scenes_of_a_mixture_may_be_rendered_in_memory(scenes: Path, tmp_path: Path) -> None:
    stream = StreamConfig(shard_size=2, window=2, passes=1, workers=0, ahead=0)
    kept = RenderedPart(stream, 0, scenes)
    held = RenderedPart(replace(stream, scenes_in="memory"), 0, tmp_path / "cache")
    for positions in (range(3), range(3, 4), range(4, 9)):
        one, other = (part.read(HEIGHT, positions, positions) for part in (kept, held))
        np.testing.assert_array_equal(one.rgb, other.rgb)
        np.testing.assert_array_equal(one.depth, other.depth)
    assert not (tmp_path / "cache").exists()


def test_a_mixture_says_what_it_is_made_of(
    labelled: ShardReader, pictures: ShardReader, labels: ShardReader, scenes: Path
) -> None:
    with mixture(labelled, pictures, labels, scenes, Share()) as mixed:
        parts = mixed.manifest()["parts"]
    assert isinstance(parts, dict)
    assert [parts[name]["share"] for name in ("fresh", "labelled", "pseudo")] == [0.25, 0.5, 0.25]
    assert parts["pseudo"]["labels"] == labels.manifest.fingerprint
    assert parts["pseudo"]["perturbation"]["mixed"] == 0.5
    assert parts["labelled"]["shards"] == labelled.manifest.fingerprint
