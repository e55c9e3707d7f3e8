"""`dap data pack`: a split of a data set as shards.

A shard is a function of the configuration and its number: a fixed count of consecutive entries, in the order of their
ids. So it does not matter how often packing was stopped, nor how many processes did it: what is there and has its
record stays, the rest is written, and the bytes are the same. The manifest is written first, without shards, to hold
later runs to the same configuration, and again at the end.
"""

import fcntl
import hashlib
import json
import logging
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from dap import headers
from dap.errors import DatasetError, InvalidParameter
from dap.formats import png
from dap.progress import progress
from training.datasets import depth_codes
from training.datasets.base import Dataset, Entry, Sample
from training.datasets.shards import (
    DEPTH,
    MANIFEST,
    METADATA,
    LeftOut,
    Manifest,
    ShardRecord,
    encode_depth,
    encode_metadata,
    write_atomically,
    write_shard,
)
from training.worker_process import follow_parent

ImageCodec = Literal["jpeg", "png", "stored"]
IMAGE_CODECS: tuple[ImageCodec, ...] = get_args(ImageCodec)
# Without chroma subsampling, and fine enough that a network finds no blocks. The same for every data set: what differs
# between true and estimated labels must never be the codec.
JPEG_QUALITY = 95
_ENDINGS = {"JPEG": "jpg", "PNG": "png", "WebP": "webp"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackOptions:
    """How samples become shards.

    Attributes:
        height: of the panoramas, resized; None leaves each as large as it is.
        image: `jpeg` (quality 95, full chroma), `png` (no loss), or `stored`, the file's own bytes.
        shard_size: samples a shard. Too few: many small files; too many: little to go on with after a stop, and
            little to part among workers.
        skip_broken: leave out what cannot be read, and say so in the manifest, instead of stopping.
    """

    height: int | None = None
    image: ImageCodec = "jpeg"
    shard_size: int = 256
    skip_broken: bool = False

    def __post_init__(self) -> None:
        if self.image not in IMAGE_CODECS:
            raise InvalidParameter(f"--image is one of {', '.join(IMAGE_CODECS)}; got {self.image}")
        if self.shard_size < 1 or (self.height is not None and self.height < 16):
            raise InvalidParameter(f"expected a shard size from 1 and a height from 16 on; got {self}")
        if self.image == "stored" and self.height is not None:
            raise InvalidParameter("--image stored keeps the file's own bytes: leave --height away")


DEFAULT_OPTIONS = PackOptions()


@dataclass(frozen=True)
class _Shard:
    """A shard to be: all that writing it needs."""

    dataset: Dataset
    entries: tuple[Entry, ...]
    options: PackOptions
    path: Path

    @property
    def record_path(self) -> Path:
        return self.path.with_suffix(".json")

    def written(self) -> ShardRecord | None:
        """Its record, where it is there as the record says; the hash is not computed again."""
        try:
            record = ShardRecord.of(json.loads(self.record_path.read_bytes()))
            whole = self.path.stat().st_size == record.size
        except (OSError, ValueError, TypeError, LookupError):
            return None
        # Without leave to skip, what was left out must be read now, or stop us.
        return record if whole and (self.options.skip_broken or not record.left_out) else None

    def write(self) -> ShardRecord:
        left_out: list[LeftOut] = []
        record = replace(write_shard(self.path, self._samples(left_out)), left_out=tuple(left_out))
        write_atomically(self.record_path, json.dumps(asdict(record)).encode())
        return record

    def _samples(self, left_out: list[LeftOut]) -> Iterator[tuple[str, dict[str, bytes]]]:
        samples = self.dataset.read_many(self.entries, self.options.height)
        for entry, sample in zip(self.entries, samples, strict=True):
            if isinstance(sample, Sample):
                yield entry.id, self._members(entry, sample)
            elif self.options.skip_broken:
                _log.warning("left out: %s", sample)
                left_out.append(LeftOut(entry.id, str(sample)))
            else:
                raise sample

    def _members(self, entry: Entry, sample: Sample) -> dict[str, bytes]:
        ending, picture = self._picture(entry, sample)
        members = {ending: picture, METADATA: encode_metadata(sample)}
        return members if sample.depth is None else {**members, DEPTH: encode_depth(sample.depth)}

    def _picture(self, entry: Entry, sample: Sample) -> tuple[str, bytes]:
        if self.options.image == "stored":
            data = entry.rgb.read_bytes()
            return _ENDINGS[headers.read(data).format], data
        if self.options.image == "png":
            return "png", png.encode(sample.rgb)
        stream = BytesIO()
        Image.fromarray(sample.rgb).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return "jpg", stream.getvalue()


def pack(
    dataset: Dataset, split: str, folder: Path, options: PackOptions = DEFAULT_OPTIONS, workers: int = 1
) -> Manifest:
    """Write the shards of a split that are not there yet, and the manifest.

    It can be killed at any moment and run again, with as many workers as one likes: the shards are the same.

    Args:
        dataset: what to pack.
        split: of it.
        folder: of the shards; made if it is not there.
        options: how.
        workers: processes that read and write; 1 works in this one.

    Raises:
        InvalidParameter: no such split; a data set whose files are no panoramas cannot be packed as stored.
        DatasetError: the folder holds a pack of another configuration, or another process works in it; a panorama
            cannot be read.
    """
    if options.image == "stored" and not dataset.stored_as_is:
        raise InvalidParameter(f"{dataset.name} has no files of panoramas to keep: give --image jpeg or png")
    entries = dataset.entries(split)
    stem, size = f"{dataset.name}-{split}", options.shard_size
    shards = [
        _Shard(dataset, tuple(entries[first : first + size]), options, folder / f"{stem}-{first // size:06d}.tar")
        for first in range(0, len(entries), size)
    ]
    source = {"root": str(dataset.root), "list": str(dataset.list_file or "")}
    manifest = Manifest(_config(dataset, split, entries, options), source)
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder), progress(f"packing {stem}", len(shards)) as advance:
        hold_to(manifest, folder)
        records = {shard.path: record for shard in shards if (record := shard.written()) is not None}
        advance(len(records))
        for path, record in _write_all([shard for shard in shards if shard.path not in records], workers):
            records[path] = record
            advance(1)
        done = replace(manifest, shards=tuple(records[shard.path] for shard in shards), complete=True)
        done.write(folder)
    return done


def _config(dataset: Dataset, split: str, entries: list[Entry], options: PackOptions) -> dict[str, Any]:
    """What the bytes of the shards depend on."""
    return {
        "dataset": dataset.name,
        "split": split,
        "labelled": dataset.labelled,
        "entries": len(entries),
        "ids_sha256": hashlib.sha256("\n".join(entry.id for entry in entries).encode()).hexdigest(),
        "height": options.height,
        "image": options.image,
        "jpeg_quality": JPEG_QUALITY if options.image == "jpeg" else None,
        "shard_size": options.shard_size,
        "depth": depth_codes.DESCRIPTION if dataset.labelled else None,
    }


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """No other process works in the folder meanwhile; the lock goes with the process, however it ends.

    What unfinished files of dead processes there are is removed.

    Raises:
        DatasetError: another process is at it.
    """
    with (folder / ".lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DatasetError(f"another process works in {folder}") from error
        for unfinished in folder.glob(".*.unfinished"):
            unfinished.unlink()
        yield


def hold_to(manifest: Manifest, folder: Path) -> None:
    """Write down the configuration in a new folder.

    Raises:
        DatasetError: the folder is of another one.
    """
    if not (folder / MANIFEST).exists():
        manifest.write(folder)
        return
    there = Manifest.read(folder).config
    keys = [key for key in {**there, **manifest.config} if there.get(key) != manifest.config.get(key)]
    if keys:
        was = ", ".join(f"{key} {there.get(key)}" for key in keys)
        asked = ", ".join(f"{key} {manifest.config.get(key)}" for key in keys)
        raise DatasetError(f"{folder} holds shards with {was}; asked for {asked}: give another folder")


def _write_all(shards: list[_Shard], workers: int) -> Iterator[tuple[Path, ShardRecord]]:
    if workers <= 1 or len(shards) <= 1:
        for shard in shards:
            yield shard.path, shard.write()
        return
    with ProcessPoolExecutor(
        min(workers, len(shards)), multiprocessing.get_context("spawn"), initializer=_begin_worker
    ) as pool:
        futures = {pool.submit(shard.write): shard.path for shard in shards}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise DatasetError("a process that packs died; is there memory enough? Run again to go on") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Make a spawned process a quiet neighbour."""
    os.environ["OMP_NUM_THREADS"] = "1"
    follow_parent()
