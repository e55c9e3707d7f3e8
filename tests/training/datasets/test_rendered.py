import numpy as np
import pytest

from dap.errors import InvalidParameter
from training.datasets.rendered import Rendered
from training.synthetic import RENDERER_VERSION
from training.synthetic.render import render_batch


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


def test_an_id_names_the_renderer_that_drew_it() -> None:
    assert Rendered(1, "indoor", 7).entries("all")[0].id == f"v{RENDERER_VERSION}-indoor/0000000007"


@pytest.mark.parametrize(("count", "first_seed"), [(0, 0), (1, -1)])
def test_no_scenes_and_no_seeds_below_zero(count: int, first_seed: int) -> None:
    with pytest.raises(InvalidParameter, match="count from 1 and a seed from 0"):
        Rendered(count, "mixed", first_seed)
