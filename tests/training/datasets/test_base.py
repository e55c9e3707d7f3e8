from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dap.errors import DatasetError, InvalidParameter
from tests.training.datasets.files import SIZE, depth_of, write_npy, write_rgb
from training.datasets.base import Dataset, Entry, Sample, entry_id


class Pairs(Dataset):
    """`<name>.png` with `<name>.npy`, metres."""

    name = "pairs"
    summary = "for the tests"
    layout = ("*.png", "*.npy")

    def _find(self, split: str) -> Iterator[Entry]:
        for rgb, depth in self.pairs(self.root, "{}.png", self.root, "{}.npy"):
            yield self.entry(rgb, depth)

    def read_depth(self, path: Path) -> np.ndarray:
        return np.load(path, allow_pickle=False)


@pytest.fixture
def dataset(tmp_path: Path) -> Pairs:
    """Two panoramas, 32x64, whose depth says the row and column it came from: 1 + row + column / 100."""
    rows, columns = np.mgrid[:32, :64]
    for name in ("b", "a"):
        write_rgb(tmp_path / f"{name}.png", (32, 64))
        write_npy(tmp_path / f"{name}.npy", (1 + rows + columns / 100).astype(np.float32))
    return Pairs(tmp_path)


def test_entries_are_in_the_order_of_their_ids(dataset: Pairs) -> None:
    assert [entry.id for entry in dataset.entries("all")] == ["a", "b"]


def test_listing_opens_no_file(dataset: Pairs) -> None:
    for path in dataset.root.iterdir():
        path.write_bytes(b"not what it seems")
    assert len(dataset.entries("all")) == 2


def test_one_that_is_broken_among_many_keeps_none_of_the_others_back(dataset: Pairs) -> None:
    (dataset.root / "a.png").write_bytes(b"broken")
    broken, whole = dataset.read_many(dataset.entries("all"), height=16)
    assert isinstance(broken, DatasetError)
    assert "a.png" in str(broken)
    assert isinstance(whole, Sample)
    assert (whole.id, whole.rgb.shape) == ("b", (16, 32, 3))


def test_depth_is_resized_by_nearest_neighbour(dataset: Pairs) -> None:
    sample = dataset.read(dataset.entries("all")[0], height=16)
    assert sample.rgb.shape == (16, 32, 3)
    assert sample.depth is not None
    assert sample.depth.shape == (16, 32)
    stored = np.load(dataset.root / "a.npy")
    assert set(sample.depth.ravel()) <= set(stored.ravel()), "no depth that was not there"
    assert sample.depth[3, 5] == stored[7, 11]


def test_what_is_not_above_zero_is_unknown_and_infinity_stays(dataset: Pairs) -> None:
    values = {(0, 1): -3.0, (0, 2): np.nan, (0, 3): np.inf, (0, 4): -np.inf}
    write_npy(dataset.root / "a.npy", depth_of(values, 2, np.float64, (32, 64)))
    depth = dataset.read(dataset.entries("all")[0]).depth
    assert depth is not None
    assert depth.dtype == np.float32
    assert depth[0, :5].tolist() == [2, 0, 0, np.inf, 0]


def test_a_depth_of_another_size_is_refused(dataset: Pairs) -> None:
    write_npy(dataset.root / "a.npy", np.ones(SIZE, np.float32))
    with pytest.raises(DatasetError, match=r"a\.npy: expected \(32, 64\) as its panorama is; it is \(16, 32\)"):
        dataset.read(dataset.entries("all")[0])


@pytest.mark.parametrize("ending", [".png", ".npy"])
def test_a_file_that_is_cut_off_or_gone_is_refused_with_its_path(dataset: Pairs, ending: str) -> None:
    entry = dataset.entries("all")[0]
    path = dataset.root / f"a{ending}"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DatasetError, match=rf"a\{ending}: "):
        dataset.read(entry)
    path.unlink()
    assert entry.missing() == [path]
    with pytest.raises(DatasetError, match=rf"a\{ending}: "):
        dataset.read(entry)


def test_a_file_without_its_other_half_is_an_entry_that_misses_it(dataset: Pairs) -> None:
    (dataset.root / "a.png").unlink()
    (dataset.root / "b.npy").unlink()
    missing = [path.name for entry in dataset.entries("all") for path in entry.missing()]
    assert missing == ["a.png", "b.npy"]


def test_a_wrong_layout_says_what_was_expected_where_and_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "readme.txt").touch()
    with pytest.raises(DatasetError) as caught:
        Pairs(tmp_path).entries("all")
    message = str(caught.value)
    assert message == f"pairs: for all, *.png and *.npy was expected below {tmp_path}; there is images/, readme.txt"


def test_an_empty_root_and_no_root_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there is nothing"):
        Pairs(tmp_path).entries("all")
    with pytest.raises(DatasetError, match="is no folder"):
        Pairs(tmp_path / "nowhere").entries("all")


def test_a_split_that_is_none_is_refused(dataset: Pairs) -> None:
    with pytest.raises(InvalidParameter, match="pairs has the splits all; got train"):
        dataset.entries("train")


@pytest.mark.parametrize("text", ["b.png b.npy\na.png a.npy", "/b.png /b.npy\n\n/a.png /a.npy\n"])
def test_a_list_takes_the_place_of_the_folders(dataset: Pairs, text: str) -> None:
    path = dataset.root / "list.txt"
    path.write_text(text)
    assert Pairs(dataset.root, path).entries("all") == dataset.entries("all")


def test_a_list_may_name_what_is_not_there(dataset: Pairs) -> None:
    path = dataset.root / "list.txt"
    path.write_text("c.png c.npy\n")
    (entry,) = Pairs(dataset.root, path).entries("all")
    assert [missing.name for missing in entry.missing()] == ["c.png", "c.npy"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a.png a.npy\na.png\n", "line 2: expected `rgb depth`"),
        ("", "lists no panorama"),
        ("a.png a.npy\n" * 2, "both be a"),
    ],
)
def test_a_list_that_is_none_is_refused(dataset: Pairs, text: str, complaint: str) -> None:
    path = dataset.root / "list.txt"
    path.write_text(text)
    with pytest.raises(DatasetError, match=complaint):
        Pairs(dataset.root, path).entries("all")


def test_ids_differ_where_paths_do_and_hold_nothing_that_ends_a_key() -> None:
    names = ["a.b", "a_b", "a b", "a%2Eb", "ä", "a~b", "a-b"]
    ids = [entry_id("room 1", name) for name in names]
    assert len(set(ids)) == len(names)
    assert not any(set(one) & set(". ~") for one in ids)
    assert all(one.isascii() for one in ids)
