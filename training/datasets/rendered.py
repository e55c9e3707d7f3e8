"""Rendered scenes of `training.synthetic` as a data set: its entries are seeds, and nothing is read from disk.

They stand in for AirSim360 and Structured3D where these are not at hand. A seed is a scene: the same anywhere.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from dap.errors import DatasetError, InvalidParameter
from training.datasets.base import SKY, UNKNOWN, Dataset, Entry, Place, Sample
from training.synthetic import RENDERER_VERSION
from training.synthetic.sampling import DOMAINS, KINDS, Domain, Kind, is_outdoors

DEFAULT_HEIGHT = 512
RENDERED_AT_ONCE = 16
"""Scenes. Of 64 rows, three times as quick as one by one; of 128, 1.7 times; of 256 and more, no quicker."""


class Rendered(Dataset):
    """See the module."""

    name = "rendered"
    summary = "scenes of the project's own renderer, no files"
    layout = ("no files",)
    place: ClassVar[Place] = "mixed"
    stored_as_is = False

    def __init__(self, count: int, kind: Kind = "mixed", first_seed: int = 0, domain: Domain = "standard") -> None:
        """Nothing is rendered yet.

        Args:
            count: scenes.
            kind: of scene, one of `training.synthetic.sampling.KINDS`.
            first_seed: the others follow.
            domain: how things look and stand, one of `training.synthetic.sampling.DOMAINS`.

        Raises:
            InvalidParameter: no such kind or domain; no scene; a seed below zero.
        """
        if kind not in KINDS or domain not in DOMAINS:
            raise InvalidParameter(
                f"scenes are {', '.join(KINDS)} of the domains {', '.join(DOMAINS)}; got {kind} of {domain}"
            )
        if count < 1 or first_seed < 0:
            raise InvalidParameter(f"a count from 1 and a seed from 0 on were expected; got {count} and {first_seed}")
        super().__init__(Path())
        self._kind: Kind = kind
        self._domain: Domain = domain
        self._seeds = range(first_seed, first_seed + count)

    def _find(self, split: str) -> Iterator[Entry]:  # noqa: ARG002 - there is one
        scenes = self._kind if self._domain == "standard" else f"{self._domain}-{self._kind}"
        for seed in self._seeds:
            place: Place = "outdoor" if is_outdoors(seed, self._kind) else "indoor"
            known = {"seed": seed, "kind": self._kind, "domain": self._domain, "place": place}
            metadata = {**known, "renderer": RENDERER_VERSION}
            yield Entry(f"v{RENDERER_VERSION}-{scenes}/{seed:010d}", Path(f"seed-{seed}"), None, metadata)

    def read(self, entry: Entry, height: int | None = None) -> Sample:
        """Render a panorama.

        Args:
            entry: one of `entries`.
            height: of the panorama; None for 512.
        """
        return self._render([entry], height)[0]

    def read_many(self, entries: Sequence[Entry], height: int | None = None) -> Iterator[Sample | DatasetError]:
        """Render panoramas, some at a time: quicker, and the same."""
        for first in range(0, len(entries), RENDERED_AT_ONCE):
            yield from self._render(entries[first : first + RENDERED_AT_ONCE], height)

    def _render(self, entries: Sequence[Entry], height: int | None) -> list[Sample]:
        # torch takes a second to load, which listing and checking files need not wait for.
        from training.synthetic.render import render_batch

        size = height or DEFAULT_HEIGHT
        seeds = [entry.metadata["seed"] for entry in entries]
        drawn = render_batch(seeds, size, 2 * size, self._kind, domain=self._domain)
        depth = np.where(drawn.sky.numpy(), SKY, drawn.depth.numpy())
        truth = np.where(drawn.known.numpy(), depth, UNKNOWN)
        return [
            Sample(
                entry.id,
                drawn.rgb[index].numpy(),
                truth[index] if self.labelled else None,
                {"dataset": self.name, "source_size": [size, 2 * size], **entry.metadata},
            )
            for index, entry in enumerate(entries)
        ]


class RenderedPictures(Rendered):
    """The same scenes without their truth: what stands in for panoramas that nobody measured."""

    name = "rendered-pictures"
    summary = "scenes of the project's own renderer without their depth, no files"
    labelled = False
