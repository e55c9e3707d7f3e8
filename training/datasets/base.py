"""What a data set is to everyone else: a list of entries, each read into a sample when it is needed.

Depth is the distance along the ray in metres, with two values of their own, the same in samples, shards and training:

- `UNKNOWN` (0): nobody knows. No loss and no metric looks there.
- `SKY` (+inf): out of every range, for sky or for what is farther than the data set says how far. It belongs to the
  range mask and to no depth loss.
"""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, final
from urllib.parse import quote
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from dap import headers, panorama
from dap.errors import DatasetError, InputError, InvalidParameter, NotAPanorama
from dap.formats import exr, png16
from dap.upsampling import nearest

Place = Literal["indoor", "outdoor", "mixed", "not sorted"]

UNKNOWN = np.float32(0)
SKY = np.float32(np.inf)

_READ_FAILURES = (OSError, ValueError, LookupError, EOFError, BadZipFile, InputError)
_SHOWN = 6


@dataclass(frozen=True)
class Entry:
    """A panorama that a data set has, by its paths; nothing is opened.

    Attributes:
        id: of the panorama in its data set, parts joined by `/`; letters, digits, `_`, `-` and `%XX`, so that it is a
            WebDataset key as it stands (which ends at the first dot).
        rgb: the picture's file.
        depth: the file of its true depth; None in a data set without.
        metadata: what the paths say, for JSON: building, room, time, ...
    """

    id: str
    rgb: Path
    depth: Path | None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def missing(self) -> list[Path]:
        """Which of its files are not there."""
        return [path for path in (self.rgb, self.depth) if path is not None and not path.is_file()]


@dataclass(frozen=True)
class Sample:
    """A panorama with what is known of it.

    Attributes:
        id: as `Entry` has it.
        rgb: uint8 (H, W, 3), equirectangular, W = 2 H.
        depth: float32 (H, W), metres along the ray, `SKY` (+inf) out of every range, `UNKNOWN` (0) where not known;
            None without a label.
        metadata: for JSON; has at least `dataset`, `place` and `source_size` ([h, w] before it was resized).
    """

    id: str
    rgb: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32] | None
    metadata: Mapping[str, Any]


class Dataset(ABC):
    """A data set on disk. A subclass says where its files are and what its numbers mean.

    Attributes:
        name: in the registry.
        summary: one line for people.
        layout: what is expected below the root, one line a pattern.
        splits: names, in order.
        listed_splits: those of them that only a list file can tell apart.
        published: panoramas of a split, where its authors say so.
        size: (H, W) as published; None where it varies.
        place: where it was taken, for the curation.
        labelled: whether it has depth.
        stored_as_is: whether the file of the picture is the panorama, so that it may be packed without decoding.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    layout: ClassVar[tuple[str, ...]]
    splits: ClassVar[tuple[str, ...]] = ("all",)
    listed_splits: ClassVar[frozenset[str]] = frozenset()
    published: ClassVar[Mapping[str, int]] = {}
    size: ClassVar[tuple[int, int] | None] = None
    place: ClassVar[Place] = "indoor"
    labelled: ClassVar[bool] = True
    stored_as_is: ClassVar[bool] = True

    def __init__(self, root: Path, list_file: Path | None = None) -> None:
        """Nothing is read yet.

        Args:
            root: folder that holds what `layout` says.
            list_file: lines `rgb depth` relative to the root, one space between them; takes the place of searching the
                folders. A leading slash and a last line without an end are as good as any.
        """
        self.root = root
        self.list_file = list_file

    @final
    def entries(self, split: str) -> list[Entry]:
        """All panoramas of a split, ascending by id. Folders are listed, no file is opened but the list.

        A file that is missing is no error here: `Entry.missing` tells.

        Raises:
            InvalidParameter: no such split, or one that only a list file can tell.
            DatasetError: no root, nothing where the layout says, or two panoramas with one id.
        """
        if split not in self.splits:
            raise InvalidParameter(f"{self.name} has the splits {', '.join(self.splits)}; got {split}")
        if split in self.listed_splits and self.list_file is None:
            raise InvalidParameter(f"only a list file (--list) tells which panoramas of {self.name} are in {split}")
        found = sorted(
            self._listed(self.list_file) if self.list_file else self._find(split), key=lambda entry: entry.id
        )
        if not found:
            raise DatasetError(self._nothing_found(split))
        for one, other in pairwise(found):
            if one.id == other.id:
                raise DatasetError(f"{one.rgb} and {other.rgb} would both be {one.id}: rename one")
        return found

    def read(self, entry: Entry, height: int | None = None) -> Sample:
        """Decode a panorama.

        Args:
            entry: one of `entries`.
            height: of the sample: the picture by area means round the circle, as the service resizes, depth by nearest
                neighbour; None for the stored size.

        Raises:
            DatasetError: a file is missing or broken, is no panorama of the whole sphere, the two have different sizes,
                or are smaller than asked for. The message begins with the path.
        """
        with _failures_name(entry.rgb):
            rgb, source_size = self.read_rgb(entry, height)
        depth = None
        if entry.depth is not None:
            with _failures_name(entry.depth):
                depth = self.read_depth(entry.depth)
            if depth.shape != source_size:
                raise DatasetError(f"{entry.depth}: expected {source_size} as its panorama is; it is {depth.shape}")
            depth = nearest(np.where(depth > 0, depth, UNKNOWN).astype(np.float32, copy=False), rgb.shape[:2])
        known = {"dataset": self.name, "place": self.place, "source_size": list(source_size)}
        return Sample(entry.id, rgb, depth, {**known, **entry.metadata})

    def read_many(self, entries: Sequence[Entry], height: int | None = None) -> Iterator[Sample | DatasetError]:
        """Decode panoramas, in their order, where it is quicker so than one by one.

        Args:
            entries: some of `entries`.
            height: of the samples, as `read` has it.

        Yields:
            For each entry what `read` would return, or raise: one that is broken keeps none of the others back.
        """
        for entry in entries:
            try:
                yield self.read(entry, height)
            except DatasetError as error:
                yield error

    @abstractmethod
    def _find(self, split: str) -> Iterator[Entry]:
        """The entries of a split by searching the folders, in any order."""

    def read_depth(self, path: Path) -> npt.NDArray[np.float32]:
        """Metres (H, W) at the stored size; what is not above zero, NaN included, counts as unknown.

        Every labelled data set has its own.
        """
        raise NotImplementedError(f"{self.name} has no depth to read, and {path} was to be")

    def read_rgb(self, entry: Entry, height: int | None) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
        """The picture, uint8 (h, 2 h, 3), and the (H, W) that is stored."""
        return decode_rgb(entry.rgb.read_bytes(), height)

    def entry(self, rgb: Path, depth: Path | None, **metadata: object) -> Entry:
        """An entry whose id is the picture's path below the root without its ending."""
        return Entry(entry_id(*rgb.relative_to(self.root).with_suffix("").parts), rgb, depth, metadata)

    def pairs(self, rgb_folder: Path, rgb: str, depth_folder: Path, depth: str) -> Iterator[tuple[Path, Path]]:
        """Pictures and depths that belong together by name, those included of which only one is there.

        Args:
            rgb_folder: where the pictures are; one that is not there has none.
            rgb: name of a picture, `{}` for each part that varies.
            depth_folder: where the depths are.
            depth: name of a depth with the same parts.
        """
        parts = _parts_of_names(rgb_folder, rgb) | _parts_of_names(depth_folder, depth)
        for key in sorted(parts):
            yield rgb_folder / rgb.format(*key), depth_folder / depth.format(*key)

    def _listed(self, path: Path) -> Iterator[Entry]:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path} cannot be read as a list of panoramas: {error}") from error
        for number, line in enumerate(lines, 1):
            names = [name.lstrip("/") for name in line.split()]
            if len(names) != 1 + self.labelled and names:
                expected = "`rgb depth`" if self.labelled else "`rgb`"
                raise DatasetError(f"{path}, line {number}: expected {expected}; got {line!r}")
            if names:
                yield self.entry(self.root / names[0], self.root / names[1] if self.labelled else None)

    def _nothing_found(self, split: str) -> str:
        if self.list_file is not None:
            return f"{self.list_file} lists no panorama"
        if not self.root.is_dir():
            return f"{self.name}: {self.root} is no folder"
        names = sorted(path.name + "/" * path.is_dir() for path in self.root.iterdir())
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        found = f"{', '.join(names[:_SHOWN])}{more}" if names else "nothing"
        expected = " and ".join(self.layout)
        return f"{self.name}: for {split}, {expected} was expected below {self.root}; there is {found}"


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, by name; none where there is no such folder."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def folders_below(root: Path) -> Iterator[Path]:
    """The root and all folders below it."""
    for folder, _, _ in os.walk(root):
        yield Path(folder)


def entry_id(*parts: str) -> str:
    """An id of path parts: everything but letters, digits, `_` and `-` as `%XX`, so that ids differ where paths do."""
    return "/".join(re.sub(r"[.~]", lambda found: f"%{ord(found[0]):02X}", quote(part, safe="")) for part in parts)


def decode_rgb(data: bytes, height: int | None) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """A panorama from the bytes of its file: uint8 (h, 2 h, 3), and the size that is stored.

    What is stored may lack or exceed twice its height by two columns; the panorama does not.

    Raises:
        InputError: as `dap.panorama.decode` says.
        NotAPanorama: a part of the sphere.
        InvalidParameter: it has fewer rows than `height`.
    """
    header = panorama.read_header(data)
    stored = header.crop.sphere_size
    if not header.crop.is_full:
        raise NotAPanorama("expected a panorama of the whole sphere; by its GPano data this is a part")
    _check_height(height, stored[0])
    rows = height or stored[0]
    return panorama.decode(header, size=(rows, 2 * rows)).pixels, stored


def resize_rgb(pixels: npt.NDArray[np.uint8], height: int | None) -> npt.NDArray[np.uint8]:
    """The same as `decode_rgb` does for pixels that are decoded already."""
    _check_height(height, len(pixels))
    rows = height or len(pixels)
    return panorama.resize_pixels(pixels, (rows, 2 * rows))


def _check_height(asked: int | None, stored: int) -> None:
    if asked is not None and asked > stored:
        raise InvalidParameter(f"expected at least {asked} rows; it has {stored}, and nothing is made larger")


def read_png16(path: Path, steps_per_metre: float, unknown: int | None = None) -> npt.NDArray[np.float32]:
    """Metres (H, W) of a 16-bit grey PNG; the number `unknown` becomes `UNKNOWN`, as 0 does anyway.

    Raises:
        InputError: not such a file.
    """
    numbers = png16.read_numbers(headers.read(path.read_bytes()))
    metres: npt.NDArray[np.float32] = numbers.astype(np.float32) / np.float32(steps_per_metre)
    return metres if unknown is None else np.where(numbers == unknown, UNKNOWN, metres)


def read_exr(path: Path, far_m: float) -> npt.NDArray[np.float32]:
    """Metres (H, W) of an OpenEXR file; what is not finite or beyond `far_m` becomes `UNKNOWN`.

    Raises:
        InputError: not such a file.
    """
    metres = exr.decode(path.read_bytes()).filled("zero")
    return np.where(metres > far_m, UNKNOWN, metres)


@contextmanager
def _failures_name(path: Path) -> Iterator[None]:
    try:
        yield
    except _READ_FAILURES as error:
        raise DatasetError(f"{path}: {error}") from error


def _parts_of_names(folder: Path, template: str) -> set[tuple[str, ...]]:
    pattern = re.compile("(.+?)".join(re.escape(text) for text in template.split("{}")))
    if not folder.is_dir():
        return set()
    return {found.groups() for path in folder.iterdir() if (found := pattern.fullmatch(path.name))}
