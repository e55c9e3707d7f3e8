"""Shards: tars of samples that follow WebDataset's naming, a manifest that says what they must be, and their reader.

A sample of a shard is up to three members with one key, the sample's id:

    KEY.jpg, KEY.png or KEY.webp    the panorama
    KEY.depth.png                   its depth, 16-bit grey PNG in the codes of `depth_codes`; not there without a label
    KEY.json                        metadata, see `Sample.metadata`, with `id` and, where there is depth, `depth`: the
                                    numbers that turn codes into metres

The folder of a pack:

    NAME-SPLIT-000000.tar           so that any tool reads NAME-SPLIT-{000000..000041}.tar
    NAME-SPLIT-000000.json          the shard's record: hash, size, samples; written after its tar
    manifest.json                   the pack's configuration and all records

Every file appears whole or not at all, so a process that dies leaves nothing that looks like something else. Two shards
of the same samples are the same bytes: members have no times and no owners.
"""

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dap import headers
from dap.checksums import sha256_of
from dap.errors import DatasetError, InputError
from dap.formats import png, png16
from training.datasets import depth_codes
from training.datasets.base import Sample, decode_rgb

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
PICTURES = ("jpg", "png", "webp")
DEPTH, METADATA = "depth.png", "json"

_BLOCK = 1 << 20


@dataclass(frozen=True)
class LeftOut:
    """A panorama that could not be packed.

    Attributes:
        id: of its entry.
        reason: what was wrong with it.
    """

    id: str
    reason: str


@dataclass(frozen=True)
class ShardRecord:
    """What a shard must be.

    Attributes:
        name: of its file.
        sha256: of the whole file, hexadecimal.
        size: of the file in bytes.
        samples: how many it holds.
        left_out: panoramas that should be in it and could not be read.
    """

    name: str
    sha256: str
    size: int
    samples: int
    left_out: tuple[LeftOut, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "ShardRecord":
        """A record from the JSON of one; TypeError or KeyError where it is none."""
        left_out = tuple(LeftOut(**one) for one in values["left_out"])
        return cls(**{**values, "left_out": left_out})


@dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds.

    Attributes:
        config: what the bytes of the shards depend on: data set, split, ids, height, codec, ...
        source: where they came from, for people; takes no part in any comparison.
        shards: in order; empty until `complete`.
        complete: whether all of them are written.
        format: version of the layout of shards.
    """

    config: Mapping[str, Any]
    source: Mapping[str, Any]
    shards: tuple[ShardRecord, ...] = ()
    complete: bool = False
    format: int = field(default=FORMAT_VERSION)

    @property
    def samples(self) -> int:
        """How many there are in all shards."""
        return sum(shard.samples for shard in self.shards)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the shards hold: the same wherever the folder lies; for the records of a training."""
        names = [[shard.name, shard.sha256] for shard in self.shards]
        return hashlib.sha256(json.dumps([self.format, names]).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Write `manifest.json` of a folder, whole or not at all."""
        write_atomically(folder / MANIFEST, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of a folder.

        Raises:
            DatasetError: there is none, it is not one, or of another version.
        """
        path = folder / MANIFEST
        try:
            values = json.loads(path.read_bytes())
            if values["format"] != FORMAT_VERSION:
                raise DatasetError(f"{path}: shards of format {FORMAT_VERSION} are read; these are {values['format']}")
            return cls(**{**values, "shards": tuple(map(ShardRecord.of, values["shards"]))})
        except FileNotFoundError:
            raise DatasetError(f"{folder} holds no {MANIFEST}: it is no folder of shards") from None
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise DatasetError(f"{path} is no manifest of shards: {error!r}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    unfinished = _unfinished(path)
    with unfinished.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _put_in_place(unfinished, path)


def write_shard(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> ShardRecord:
    """Write a tar of samples, whole or not at all.

    Args:
        path: of the tar; its folder is there.
        samples: key and members by their endings (`jpg`, `depth.png`, `json`, ...), in order; taken one by one.

    Raises:
        DatasetError: a key that WebDataset would read as another, or that comes twice.
    """
    unfinished = _unfinished(path)
    keys: set[str] = set()
    with unfinished.open("wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for key, members in samples:
                if not re.fullmatch(r"[\w%/-]+", key, re.ASCII) or key in keys:
                    raise DatasetError(
                        f"a key of a sample is letters, digits, _, -, % and /, and comes once; got {key!r}"
                    )
                keys.add(key)
                for ending in sorted(members):
                    member = tarfile.TarInfo(f"{key}.{ending}")
                    member.size = len(members[ending])
                    tar.addfile(member, io.BytesIO(members[ending]))
        file.flush()
        os.fsync(file.fileno())
    record = ShardRecord(path.name, sha256_of(unfinished), unfinished.stat().st_size, len(keys))
    _put_in_place(unfinished, path)
    return record


def encode_depth(depth: npt.NDArray[np.float32]) -> bytes:
    """The member `depth.png` of metres, float32 (H, W); see `depth_codes`."""
    return png.encode(depth_codes.encode(depth))


def encode_metadata(sample: Sample) -> bytes:
    """The member `json` of a sample."""
    codes = {} if sample.depth is None else {"depth": depth_codes.DESCRIPTION}
    return json.dumps({"id": sample.id, **sample.metadata, **codes}, sort_keys=True, ensure_ascii=False).encode()


@dataclass(frozen=True)
class Member:
    """A sample as its shard holds it, not decoded.

    Attributes:
        id: its key.
        files: bytes by ending: one of `PICTURES`, `depth.png`, `json`.
    """

    id: str
    files: Mapping[str, bytes]

    @property
    def picture(self) -> bytes:
        """The file of the panorama.

        Raises:
            LookupError: there is none, as in a shard of labels.
        """
        for ending in PICTURES:
            if ending in self.files:
                return self.files[ending]
        raise LookupError(f"{self.id} has no picture")

    def metadata(self) -> dict[str, Any]:
        """What its JSON says."""
        said: dict[str, Any] = json.loads(self.files[METADATA])
        return said

    def decode(self) -> Sample:
        """The sample.

        Raises:
            InputError: a picture that cannot be decoded.
            LookupError, ValueError: a member is missing, or its JSON is none.
        """
        rgb, _ = decode_rgb(self.picture, height=None)
        depth = None
        if DEPTH in self.files:
            depth = depth_codes.decode(png16.read_numbers(headers.read(self.files[DEPTH])))
            if depth.shape != rgb.shape[:2]:
                raise ValueError(f"the depth is {depth.shape}, its panorama {rgb.shape[:2]}")
        return Sample(self.id, rgb, depth, self.metadata())


class ShardReader:
    """The samples of a folder of shards, always in the same order: shards by number, samples as they were listed."""

    def __init__(self, folder: Path) -> None:
        """Read the manifest.

        Raises:
            DatasetError: no manifest; or the packing did not end.
        """
        self.folder = folder
        self.manifest = Manifest.read(folder)
        if not self.manifest.complete:
            raise DatasetError(f"{folder}: packing did not end; run the same `dap data pack` again")

    def __len__(self) -> int:
        """Samples in all shards."""
        return self.manifest.samples

    def __iter__(self) -> Iterator[Sample]:
        """All samples, decoded."""
        for index in range(len(self.manifest.shards)):
            yield from self.samples(index)

    @cached_property
    def labelled(self) -> bool:
        """Whether its samples have depth, as the manifest says."""
        return bool(self.manifest.config.get("labelled"))

    def verify(self, index: int) -> None:
        """Compare a shard with its record in the manifest: one pass over its bytes.

        Raises:
            DatasetError: it is missing, or has other bytes.
        """
        record = self.manifest.shards[index]
        path = self.folder / record.name
        if not path.is_file():
            raise DatasetError(f"{path} is in the manifest and is not there")
        size = path.stat().st_size
        if size != record.size:
            raise DatasetError(f"{path}: the manifest says {record.size} bytes; it has {size}")
        found = sha256_of(path)
        if found != record.sha256:
            raise DatasetError(
                f"{path}: the manifest says SHA-256 {record.sha256}; it has {found}: delete it and pack again"
            )

    def samples(self, index: int, verify: bool = False) -> Iterator[Sample]:
        """The samples of one shard, decoded; `verify` first, if told to.

        Raises:
            DatasetError: the shard is not what the manifest says, or a sample of it cannot be decoded.
        """
        for member in self.members(index, verify):
            try:
                yield member.decode()
            except (InputError, ValueError, LookupError) as error:
                raise DatasetError(f"{self.folder / self.manifest.shards[index].name}: {member.id}: {error}") from error

    def members(self, index: int, verify: bool = False) -> Iterator[Member]:
        """The samples of one shard as they are stored: for who needs the JSON only, or copies.

        Raises:
            DatasetError: the shard is not what the manifest says.
        """
        if verify:
            self.verify(index)
        record = self.manifest.shards[index]
        path = self.folder / record.name
        count = 0
        try:
            for member in _members(path):
                count += 1
                yield member
        except (OSError, tarfile.TarError) as error:
            raise DatasetError(f"{path} cannot be read as a shard: {error}") from error
        if count != record.samples:
            raise DatasetError(f"{path}: the manifest says {record.samples} samples; it has {count}")


def _members(path: Path) -> Iterator[Member]:
    """Neighbouring members with one key are one sample, as WebDataset has it."""
    key = ""
    files: dict[str, bytes] = {}
    with tarfile.open(path, mode="r:") as tar:
        for info in tar:
            folder, _, name = info.name.rpartition("/")
            stem, _, ending = name.partition(".")
            found = f"{folder}/{stem}" if folder else stem
            if found != key:
                if files:
                    yield Member(key, files)
                key, files = found, {}
            content = tar.extractfile(info)
            if content is not None:
                files[ending] = content.read()
    if files:
        yield Member(key, files)


def _unfinished(path: Path) -> Path:
    # The process is in the name: two that write the same shard at once do not write into each other's file.
    return path.with_name(f".{path.name}.{os.getpid()}.unfinished")


def _put_in_place(unfinished: Path, path: Path) -> None:
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
