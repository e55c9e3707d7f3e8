"""Rendered scenes of `training.synthetic` as a data set: its entries are seeds, and nothing is read from disk.

They stand in for AirSim360 and Structured3D where these are not at hand. A seed is a scene: the same anywhere.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from dap.errors import InvalidParameter
from training.datasets.base import SKY, UNKNOWN, Dataset, Entry, Place, Sample
from training.synthetic import RENDERER_VERSION
from training.synthetic.sampling import DOMAINS, KINDS, Domain, Kind, is_outdoors

DEFAULT_HEIGHT = 512


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
        # torch takes a second to load, which listing and checking files need not wait for.
        from training.synthetic.render import render_batch

        size = height or DEFAULT_HEIGHT
        drawn = render_batch([entry.metadata["seed"]], size, 2 * size, self._kind, domain=self._domain)
        depth = np.where(drawn.sky[0].numpy(), SKY, drawn.depth[0].numpy())
        metadata = {"dataset": self.name, "source_size": [size, 2 * size], **entry.metadata}
        truth = np.where(drawn.known[0].numpy(), depth, UNKNOWN) if self.labelled else None
        return Sample(entry.id, drawn.rgb[0].numpy(), truth, metadata)


class RenderedPictures(Rendered):
    """The same scenes without their truth: what stands in for panoramas that nobody measured."""

    name = "rendered-pictures"
    summary = "scenes of the project's own renderer without their depth, no files"
    labelled = False
