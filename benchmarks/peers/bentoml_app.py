"""The same answers from BentoML: POST /png and /npy, the image as the body."""

import os
from pathlib import Path
from typing import Annotated

import bentoml  # type: ignore[import-not-found]
from bentoml.validators import ContentType  # type: ignore[import-not-found]

from benchmarks.peers.work import Work

Image = Annotated[Path, ContentType("image/jpeg")]


@bentoml.service(workers=int(os.environ["BENCH_WORKERS"]), threads=1, traffic={"timeout": 60})
class Depth:
    """One panorama at a time in each of its processes."""

    def __init__(self) -> None:
        self._work = Work(threads=1)

    @bentoml.api  # type: ignore[untyped-decorator]
    def png(self, image: Image, /) -> Annotated[bytes, ContentType("image/png")]:
        return self._work.answer(image.read_bytes(), "png")

    @bentoml.api  # type: ignore[untyped-decorator]
    def npy(self, image: Image, /) -> Annotated[bytes, ContentType("application/x-npy")]:
        return self._work.answer(image.read_bytes(), "npy")
