import numpy as np
import pytest

from dap.errors import InvalidParameter
from training.datasets.base import Sample
from training.datasets.rendered import RENDERED_AT_ONCE, Rendered, RenderedPictures
from training.synthetic import RENDERER_VERSION
from training.synthetic.render import render_batch
from training.synthetic.sampling import Domain, Kind


def test_a_sample_is_the_scene_of_its_seed_with_codes_for_sky_and_unknown() -> None:
    dataset = Rendered(2, "outdoor", first_seed=4)
    entries = dataset.entries("all")
    assert [entry.metadata["seed"] for entry in entries] == [4, 5]
    sample = dataset.read(entries[1], 32)
    truth = render_batch([5], 32, 64, "outdoor")
    np.testing.assert_array_equal(sample.rgb, truth.rgb[0].numpy())
    assert sample.depth is not None
    sky, known = truth.sky[0].numpy(), truth.known[0].numpy()
    assert sky.any()
    assert np.isposinf(sample.depth[sky & known]).all()
    assert (sample.depth[~known] == 0).all()
    np.testing.assert_array_equal(sample.depth[known & ~sky], truth.depth[0].numpy()[known & ~sky])
    assert sample.metadata["place"] == "outdoor"


def test_many_are_rendered_in_a_few_calls_and_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Rendered(RENDERED_AT_ONCE + 2)
    batches = []

    def counted(seeds: list[int], height: int, width: int, kind: Kind, domain: Domain) -> object:
        batches.append(len(seeds))
        return render_batch(seeds, height, width, kind, domain=domain)

    monkeypatch.setattr("training.synthetic.render.render_batch", counted)
    samples = list(dataset.read_many(dataset.entries("all"), 8))
    assert batches == [RENDERED_AT_ONCE, 2]
    assert [s.metadata["seed"] for s in samples if isinstance(s, Sample)] == list(range(RENDERED_AT_ONCE + 2))


def test_an_id_names_the_renderer_that_drew_it() -> None:
    assert Rendered(1, "indoor", 7).entries("all")[0].id == f"v{RENDERER_VERSION}-indoor/0000000007"


def test_each_of_mixed_scenes_says_where_it_is() -> None:
    places = [entry.metadata["place"] for entry in Rendered(40).entries("all")]
    assert {"indoor", "outdoor"} == set(places)
    mixed, outdoors = (render_batch(range(40), 8, 16, kind).rgb for kind in ("mixed", "outdoor"))
    as_outdoors = (mixed == outdoors).flatten(1).all(1).tolist()
    assert [place == "outdoor" for place in places] == as_outdoors


def test_the_real_like_domain_has_other_pictures_and_ids() -> None:
    standard, other = Rendered(1, "indoor", 3), Rendered(1, "indoor", 3, "real-like")
    entries = [dataset.entries("all")[0] for dataset in (standard, other)]
    assert entries[1].id == f"v{RENDERER_VERSION}-real-like-indoor/0000000003"
    assert not np.array_equal(standard.read(entries[0], 16).rgb, other.read(entries[1], 16).rgb)


def test_pictures_are_the_scenes_without_their_truth() -> None:
    entry = RenderedPictures(1, "outdoor", 5, "real-like").entries("all")[0]
    picture = RenderedPictures(1, "outdoor", 5, "real-like").read(entry, 16)
    whole = Rendered(1, "outdoor", 5, "real-like").read(entry, 16)
    assert picture.depth is None
    assert whole.depth is not None
    assert picture.id == whole.id
    np.testing.assert_array_equal(picture.rgb, whole.rgb)


@pytest.mark.parametrize(("count", "first_seed"), [(0, 0), (1, -1)])
def test_no_scenes_and_no_seeds_below_zero(count: int, first_seed: int) -> None:
    with pytest.raises(InvalidParameter, match="count from 1 and a seed from 0"):
        Rendered(count, "mixed", first_seed)
