"""Which rendered scenes a step sees: an endless order that follows from the configuration and the seed alone.

Scenes are numbered by shard and place in it, and drawn in rounds. A round is a random order of all scenes in a window
of shards; the next round's window lies `window / passes` shards further, so that every scene is seen in `passes`
rounds, well mixed with older and newer ones, and then never again.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from training.config import StreamConfig, TrainingConfig

Place = tuple[int, int]
"""Number of a shard, and of a sample in it."""


@dataclass(frozen=True)
class Draw:
    """Where a step's samples lie.

    Attributes:
        shards: the window of shards from which they come.
        places: int64 (B, 2), shard and position in it.
    """

    shards: range
    places: npt.NDArray[np.int64]


def draw(config: StreamConfig, seed: int, height: int, position: int, batch: int) -> Draw:
    """The samples `position` to `position + batch` of the stream of one size of panorama."""
    size = config.window * config.shard_size
    shift = config.window // config.passes
    numbers = np.arange(position, position + batch)
    rounds = numbers // size
    orders = {r: _order(seed, height, r, size) for r in range(int(rounds[0]), int(rounds[-1]) + 1)}
    within = np.array([orders[int(r)][n % size] for r, n in zip(rounds, numbers, strict=True)])
    places = np.stack([rounds * shift + within // config.shard_size, within % config.shard_size], axis=1)
    return Draw(range(int(rounds[0]) * shift, int(rounds[-1]) * shift + config.window), places)


def draw_to_end_of_round(config: StreamConfig, seed: int, height: int, positions: range) -> Draw:
    """The samples from the first of these positions to the end of the round of the last."""
    size = config.window * config.shard_size
    end = -(-positions.stop // size) * size
    return draw(config, seed, height, positions.start, end - positions.start)


@lru_cache(maxsize=4)
def _order(seed: int, height: int, round_number: int, size: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, height, round_number]).permutation(size)


def shards_needed(config: TrainingConfig) -> dict[int, range]:
    """For each height of the run, the shards that it will read."""
    needed: dict[int, range] = {}
    samples: dict[int, int] = {}
    for phase in config.phases:
        samples[phase.height] = samples.get(phase.height, 0) + phase.samples
        last = draw(config.stream, config.seed, phase.height, samples[phase.height] - 1, 1)
        needed[phase.height] = range(last.shards.stop)
    return needed
