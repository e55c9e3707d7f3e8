"""Panoramas without depth: every JPEG, PNG and WebP below a folder."""

from collections.abc import Iterator
from typing import ClassVar

from training.datasets.base import Dataset, Entry, Place, folders_below

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


class Images(Dataset):
    """See the module."""

    name = "images"
    summary = "panoramas without depth: JPEG, PNG, WebP"
    layout = ("*.jpg, *.jpeg, *.png or *.webp (in any folder)",)
    place: ClassVar[Place] = "not sorted"
    labelled = False

    def _find(self, split: str) -> Iterator[Entry]:  # noqa: ARG002 - there is one
        for folder in folders_below(self.root):
            for path in folder.iterdir():
                if path.suffix.lower() in ENDINGS:
                    yield self.entry(path, None)
