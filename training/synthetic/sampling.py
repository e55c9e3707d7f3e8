"""From a seed to a scene."""

import random
from dataclasses import replace
from typing import Literal, get_args

from training.synthetic.builder import SceneBuilder
from training.synthetic.camera_faults import faults_in_the_wild, two_lens_faults
from training.synthetic.indoor import sample_indoor
from training.synthetic.outdoor import sample_outdoor
from training.synthetic.real_like import RealLikeBuilder, sample_real_like
from training.synthetic.scene import Faults, Scene

Kind = Literal["indoor", "outdoor", "mixed"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Domain = Literal["standard", "clean", "real-like", "in-the-wild"]
"""How scenes look. `standard`: as they are photographed, by scanners and consumer cameras. `clean`: the same scenes
through a camera without a fault, as synthetic data sets are. `real-like`: see `training.synthetic.real_like`.
`in-the-wild`: its scenes, through cameras from good to poor, as panoramas that are collected from anywhere are."""
DOMAINS: tuple[Domain, ...] = get_args(Domain)
OUTDOOR_SHARE = 0.22  # of "mixed"


def sample_scene(seed: int, kind: Kind = "mixed", domain: Domain = "standard") -> Scene:
    """The scene of a seed: the same for the same seed, kind and domain on every machine."""
    rng = random.Random(seed)  # noqa: S311 - chance, not secrets
    outdoors = _outdoors(rng, kind)
    if domain in ("real-like", "in-the-wild"):
        faults = faults_in_the_wild if domain == "in-the-wild" else two_lens_faults
        return sample_real_like(RealLikeBuilder(rng), seed, outdoors, faults)
    scene = (sample_outdoor if outdoors else sample_indoor)(SceneBuilder(rng), seed)
    return replace(scene, faults=Faults()) if domain == "clean" else scene


def is_outdoors(seed: int, kind: Kind = "mixed") -> bool:
    """Whether the scene of a seed is outdoors, without drawing it."""
    return _outdoors(random.Random(seed), kind)  # noqa: S311 - chance, not secrets


def _outdoors(rng: random.Random, kind: Kind) -> bool:
    drawn = rng.random() < OUTDOOR_SHARE
    return kind == "outdoor" or (kind == "mixed" and drawn)
