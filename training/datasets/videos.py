"""Panoramic videos without depth, as frames: one every few seconds of every video file below a folder.

DAP took 1.7 million frames of 250,000 videos; at what distance is not published. Neighbouring frames show the same, so
the distance is counted in seconds. Listing opens each video for its length and decodes nothing; a frame is found by its
time, from the key frame before it.

Needs PyAV (BSD-3-Clause), which the extra `video` brings; its wheels hold FFmpeg with libx264 and libx265, under
licences of their own.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dap.errors import BrokenImage, DatasetError, InvalidParameter, NotAPanorama
from training.datasets.base import Dataset, Entry, Place, entry_id, folders_below, resize_rgb

ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".m4v")
DEFAULT_EVERY_S = 2.0


class Videos(Dataset):
    """See the module."""

    name = "videos"
    summary = "frames of panoramic videos, without depth"
    layout = ("*.mp4, *.mov, *.mkv, *.webm or *.m4v (in any folder)",)
    place: ClassVar[Place] = "not sorted"
    labelled = False
    stored_as_is = False

    def __init__(self, root: Path, list_file: Path | None = None, every_s: float = DEFAULT_EVERY_S) -> None:
        """Nothing is read yet.

        Args:
            root: folder of videos.
            list_file: not taken.
            every_s: seconds of a video from a frame to the next.

        Raises:
            InvalidParameter: a list; no time above zero.
        """
        if list_file is not None:
            raise InvalidParameter("videos are found, not listed: leave --list away")
        if not every_s > 0:
            raise InvalidParameter(f"the seconds between frames are above zero; got {every_s:g}")
        super().__init__(root)
        self._every_s = every_s

    def _find(self, split: str) -> Iterator[Entry]:  # noqa: ARG002 - there is one
        for folder in folders_below(self.root):
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() in ENDINGS:
                    yield from self._frames(path)

    def _frames(self, path: Path) -> Iterator[Entry]:
        parts = path.relative_to(self.root).with_suffix("").parts
        duration = _duration_s(path)
        step = min(self._every_s, duration)
        for number in range(max(1, math.floor(duration / self._every_s))):
            # Half a step in: the first and the last frames are titles and fades.
            time = (number + 0.5) * step
            identity = f"{entry_id(*parts)}/{round(time * 1000):08d}ms"
            yield Entry(identity, path, None, {"video": path.name, "time_s": round(time, 3)})

    def read_rgb(self, entry: Entry, height: int | None) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
        pixels = _frame_at(entry.rgb, entry.metadata["time_s"])
        size = pixels.shape[0], pixels.shape[1]
        if abs(size[1] - 2 * size[0]) > 2:
            raise NotAPanorama(f"a video of panoramas is twice as wide as high; this one is {size[1]}x{size[0]}")
        return resize_rgb(pixels, height), size


def _av() -> ModuleType:
    try:
        import av
    except ModuleNotFoundError as error:
        raise DatasetError("reading videos needs PyAV: install `av`, or depth-any-panorama[video]") from error
    module: ModuleType = av
    return module


def _duration_s(path: Path) -> float:
    av = _av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DatasetError(f"{path}: a video was expected; it has no pictures")
            stream = container.streams.video[0]
            if stream.duration is not None and stream.time_base is not None:
                return float(stream.duration * stream.time_base)
            length: int = container.duration or 0
            return length / int(av.time_base)
    except av.FFmpegError as error:
        raise DatasetError(f"{path}: it cannot be read as a video: {error}") from error


def _frame_at(path: Path, time_s: float) -> npt.NDArray[np.uint8]:
    """The first frame that is not before a time, or the last one; uint8 (H, W, 3)."""
    av = _av()
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            start = float((stream.start_time or 0) * stream.time_base)
            container.seek(round((start + time_s) / stream.time_base), stream=stream)
            frame = None
            for frame in container.decode(stream):
                if frame.time is not None and frame.time - start >= time_s:
                    break
            if frame is None:
                raise BrokenImage(f"there is no picture {time_s:g} s into the video")
            pixels: npt.NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
            return pixels
    except av.FFmpegError as error:
        raise BrokenImage(f"the video is broken {time_s:g} s in: {error}") from error
