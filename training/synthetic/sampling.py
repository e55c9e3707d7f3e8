"""From a seed to a scene."""

import random
from typing import Literal, get_args

from training.synthetic.builder import SceneBuilder
from training.synthetic.indoor import sample_indoor
from training.synthetic.outdoor import sample_outdoor
from training.synthetic.scene import Scene

Kind = Literal["indoor", "outdoor", "mixed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OUTDOOR_SHARE = 0.22  # of "mixed"


def sample_scene(seed: int, kind: Kind = "mixed") -> Scene:
    """The scene of a seed: the same for the same seed and kind on every machine."""
    builder = SceneBuilder(random.Random(seed))  # noqa: S311 - chance, not secrets
    outdoors = builder.rng.random() < OUTDOOR_SHARE
    if kind == "outdoor" or (kind == "mixed" and outdoors):
        return sample_outdoor(builder, seed)
    return sample_indoor(builder, seed)
