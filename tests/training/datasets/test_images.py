from pathlib import Path

import numpy as np
import pytest

from dap.errors import DatasetError
from tests.dap.images import gpano, picture, saved, xmp
from tests.training.datasets.files import write_rgb
from training.datasets.images import Images


def test_all_pictures_below_the_root_are_panoramas_without_depth(tmp_path: Path) -> None:
    write_rgb(tmp_path / "a.JPG")
    pixels = write_rgb(tmp_path / "sub" / "b.png")
    write_rgb(tmp_path / "sub" / "c.webp")
    (tmp_path / "notes.txt").write_text("no picture")
    dataset = Images(tmp_path)
    entries = dataset.entries("all")
    assert [entry.id for entry in entries] == ["a", "sub/b", "sub/c"]
    sample = dataset.read(entries[1])
    assert sample.depth is None
    np.testing.assert_array_equal(sample.rgb, pixels)


def test_a_height_makes_smaller_and_never_larger(tmp_path: Path) -> None:
    write_rgb(tmp_path / "a.png", (32, 64))
    dataset = Images(tmp_path)
    (entry,) = dataset.entries("all")
    sample = dataset.read(entry, 16)
    assert sample.rgb.shape == (16, 32, 3)
    assert sample.metadata["source_size"] == [32, 64]
    means = picture(32, 64).reshape(16, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(sample.rgb - means).max() <= 1, "area means"
    with pytest.raises(DatasetError, match="at least 64 rows; it has 32"):
        dataset.read(entry, 64)


def test_a_part_of_the_sphere_is_refused(tmp_path: Path) -> None:
    part = xmp(**gpano((64, 128), (32, 128), (16, 0)))
    (tmp_path / "a.jpg").write_bytes(saved(picture(32, 128), "JPEG", xmp=part))
    dataset = Images(tmp_path)
    with pytest.raises(DatasetError, match=r"a\.jpg: expected a panorama of the whole sphere"):
        dataset.read(dataset.entries("all")[0])


@pytest.mark.parametrize(
    ("content", "complaint"), [(b"", "empty"), (b"\xff\xd8\xff\xe0 cut", "JPEG"), (b"<html>", "text")]
)
def test_a_file_that_is_no_picture_is_refused_with_its_path(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    dataset = Images(tmp_path)
    with pytest.raises(DatasetError, match=rf"a\.jpg: .*{complaint}"):
        dataset.read(dataset.entries("all")[0])


@pytest.mark.parametrize("width", [62, 63, 65, 66])
def test_two_columns_too_few_or_too_many_are_made_good(tmp_path: Path, width: int) -> None:
    write_rgb(tmp_path / "a.png", (32, width))
    dataset = Images(tmp_path)
    sample = dataset.read(dataset.entries("all")[0])
    assert sample.rgb.shape == (32, 64, 3)
    assert sample.metadata["source_size"] == [32, width]
