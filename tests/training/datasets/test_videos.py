import sys
from pathlib import Path

import av
import numpy as np
import pytest

from dap.errors import DatasetError, InvalidParameter
from training.datasets.videos import Videos

FRAMES_A_SECOND = 10


def write_video(path: Path, seconds: float, size: tuple[int, int] = (64, 128)) -> None:
    """Each frame is grey, as bright as 20 times its second, rounded down."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FRAMES_A_SECOND)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for number in range(round(seconds * FRAMES_A_SECOND)):
            pixels = np.full((*size, 3), 20 * (number // FRAMES_A_SECOND), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def test_frames_are_as_far_apart_as_asked_for_and_found_by_their_time(tmp_path: Path) -> None:
    write_video(tmp_path / "walk" / "one.mp4", seconds=6)
    dataset = Videos(tmp_path, every_s=2.0)
    entries = dataset.entries("all")
    assert [entry.id for entry in entries] == [f"walk/one/{time:08d}ms" for time in (1000, 3000, 5000)]
    for entry, second in zip(entries, (1, 3, 5), strict=True):
        sample = dataset.read(entry)
        assert sample.depth is None
        assert sample.rgb.shape == (64, 128, 3)
        assert np.abs(sample.rgb.astype(int) - 20 * second).max() <= 6, entry.id
        assert sample.metadata["time_s"] == second


def test_a_video_shorter_than_a_step_gives_its_middle(tmp_path: Path) -> None:
    write_video(tmp_path / "short.mp4", seconds=1)
    (entry,) = Videos(tmp_path, every_s=10.0).entries("all")
    assert entry.metadata["time_s"] == 0.5


def test_frames_are_resized_to_the_height(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", seconds=1)
    dataset = Videos(tmp_path)
    assert dataset.read(dataset.entries("all")[0], 16).rgb.shape == (16, 32, 3)


def test_a_video_that_is_not_twice_as_wide_as_high_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", seconds=1, size=(64, 96))
    dataset = Videos(tmp_path)
    with pytest.raises(DatasetError, match=r"a\.mp4: .*twice as wide as high; this one is 96x64"):
        dataset.read(dataset.entries("all")[0])


def test_a_file_that_is_no_video_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    with pytest.raises(DatasetError, match=r"a\.mp4: it cannot be read as a video"):
        Videos(tmp_path).entries("all")


def test_without_pyav_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DatasetError, match=r"depth-any-panorama\[video\]"):
        Videos(tmp_path).entries("all")


def test_no_time_between_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="above zero; got 0"):
        Videos(tmp_path, every_s=0)
