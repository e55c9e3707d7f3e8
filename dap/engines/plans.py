"""Where TensorRT's plans and timings are kept from one start to the next, and which of them are trusted.

A plan is a program: whoever can write one that is loaded runs code as the service. So plans come from one folder alone,
which belongs to this user and nobody else may write to; each file lies beside a record of ours that says what it was
built for and what its SHA-256 is; and no name that a user gives ever becomes a path. The folder may be emptied at any
time: what is missing is built anew.
"""

import fcntl
import hashlib
import json
import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from dap.engines.cuda import GpuIdentity
from dap.errors import EngineUnavailable

_log = logging.getLogger(__name__)

BatchRanges = tuple[tuple[int, int], ...]
"""(least, most) panoramas of each range of batch sizes, ascending, without gaps."""

# To be raised when plans are built in another way, so that those built before count as stale.
_RECIPE = "1"


def batch_ranges(largest: int) -> BatchRanges:
    """The ranges of batch sizes that get an optimisation profile each: 1, 2 to 4, 5 to 16, ... up to `largest`.

    One panorama is what a quiet service runs, and has kernels of its own. The others are built for their largest batch,
    which is what a busy service runs: a few ranges for all sizes, since each costs time to build.
    """
    ranges = [(1, 1)]
    while ranges[-1][1] < largest:
        most = ranges[-1][1]
        ranges.append((most + 1, min(4 * most, largest)))
    return tuple(ranges)


@dataclass(frozen=True)
class PlanKey:
    """All that a plan depends on.

    Attributes:
        model_name: for people.
        model_sha256: of the ONNX file.
        batch_ranges: its optimisation profiles.
        gpu: that it was built on.
        tensorrt: version, `11.4.0.106`.
        in_range: whether it gives range masks, or depth alone.
    """

    model_name: str
    model_sha256: str
    batch_ranges: BatchRanges
    gpu: GpuIdentity
    tensorrt: str
    in_range: bool = True

    def plan(self) -> "Slot":
        """Where its plan is kept."""
        what = {"model": self.model_sha256, "batches": json.dumps(self.batch_ranges)}
        if self.in_range:
            return _slot(self.model_name, ".plan", what, self.gpu, self.tensorrt)
        return _slot(f"depth-{self.model_name}", ".plan", what | {"outputs": "depth"}, self.gpu, self.tensorrt)

    def timings(self) -> "Slot":
        """Where the timings of layers on its GPU are kept.

        They are of no model: a layer of the same shape takes as long in the next one, and a model that was only trained
        further is built in a fraction of the time.
        """
        return _slot("timings", ".cache", {}, self.gpu, self.tensorrt)

    def onnxruntime(self, version: str) -> "Slot":
        """The folder for what this version of ONNX Runtime's TensorRT provider keeps by itself."""
        what = {"model": self.model_sha256, "batches": json.dumps(self.batch_ranges), "onnxruntime": version}
        return _slot(self.model_name, ".onnxruntime", what, self.gpu, self.tensorrt)


@dataclass(frozen=True)
class Slot:
    """A place for a file or a folder. What it is for changes with an update of a library; its place does not.

    Attributes:
        name: of the file in the folder.
        built_for: text under text; what was built for something else is stale.
    """

    name: str
    built_for: dict[str, str]


def _slot(name: str, suffix: str, what: dict[str, str], gpu: GpuIdentity, tensorrt: str) -> Slot:
    built_for = {**what, **gpu.entries(), "tensorrt": tensorrt, "recipe": _RECIPE}
    updated = ("driver", "tensorrt", "onnxruntime", "recipe")
    lasting = {key: value for key, value in built_for.items() if key not in updated}
    digest = hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()[:16]
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-")
    return Slot(f"{readable}-{digest}{suffix}", built_for)


class PlanFolder:
    """The folder and its rules. Processes may share it."""

    def __init__(self, folder: Path) -> None:
        """Make the folder where it is missing.

        Raises:
            EngineUnavailable: it cannot be made, or others than this user can write to it.
        """
        self.path = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise EngineUnavailable(
                f"Plans cannot be kept in {folder} ({error.strerror}): expected a folder of this user's own. DAP_HOME "
                "names another place for it."
            ) from error
        try:
            _require_ours(os.fstat(descriptor), folder)
        finally:
            os.close(descriptor)

    @contextmanager
    def locked(self, slot: Slot) -> Iterator[None]:
        """Alone with a slot, of all processes: the others wait, and find what was built meanwhile.

        Raises:
            EngineUnavailable: the folder cannot be written to.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self.path / f"{slot.name}.lock", flags, 0o600)
        except OSError as error:
            raise EngineUnavailable(
                f"Nothing can be written to {self.path} ({error.strerror}): expected a folder for plans. DAP_HOME "
                "names another place for it."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def read(self, slot: Slot) -> bytes | None:
        """What is kept in the slot; None, and a log line that says why, where it has to be built.

        The bytes returned are those that were checked: nothing is opened by name a second time.

        Raises:
            EngineUnavailable: there is a file, and it is not one that only this user can have written.
        """
        expected = self._recorded(slot)
        if expected is None:
            return None
        content = self._trusted(slot.name)
        if content is None or hashlib.sha256(content).hexdigest() != expected:
            _log.warning("tensorrt engine: %s is not what its record says, and is not used", slot.name)
            return None
        return content

    def write(self, slot: Slot, content: bytes) -> None:
        """Keep `content` in the slot, instead of what was there.

        Raises:
            EngineUnavailable: there is no room, or the folder cannot be written to.
        """
        record = _Record(slot.built_for, hashlib.sha256(content).hexdigest())
        try:
            self._replace(slot.name, content)
            # Last: without it, or with that of an older plan, what is there is not used.
            self._replace(f"{slot.name}.json", record.to_json())
        except OSError as error:
            raise EngineUnavailable(f"{slot.name} cannot be kept in {self.path}: {error.strerror}.") from error

    @contextmanager
    def opened(self, slot: Slot) -> Iterator[Path]:
        """Alone with a folder, for a library that reads and writes plans by itself, of all processes.

        There is in it what was there when it was last left without an exception, or nothing. The library opens by name
        what was checked here: nobody but this user can have changed it meanwhile.

        Raises:
            EngineUnavailable: what is there is not what only this user can have written, or nothing can be written.
        """
        with self.locked(slot):
            folder = PlanFolder(self.path / slot.name)
            try:
                expected = self._keep_recorded(slot, folder)
            except OSError as error:
                raise EngineUnavailable(f"{folder.path} cannot be used: {error.strerror}.") from error
            yield folder.path
            try:
                for path in folder.path.iterdir():
                    path.chmod(0o600)  # whatever the umask is
                if (left := folder._digest()) != expected:
                    self._replace(f"{slot.name}.json", _Record(slot.built_for, left).to_json())
            except OSError as error:
                raise EngineUnavailable(f"{slot.name} cannot be kept in {self.path}: {error.strerror}.") from error

    def discard(self, slot: Slot) -> None:
        """Forget what is kept in the slot."""
        for name in (slot.name, f"{slot.name}.json"):
            (self.path / name).unlink(missing_ok=True)

    def _recorded(self, slot: Slot) -> str | None:
        """The SHA-256 of what is kept in the slot; None, and a log line that says why, where it has to be built."""
        record = _read_record(self._trusted(f"{slot.name}.json"))
        if record is None:
            _log.info("tensorrt engine: there is no %s yet", slot.name)
            return None
        changes = [
            f"{key} {record.built_for.get(key)} (now {value})"
            for key, value in slot.built_for.items()
            if record.built_for.get(key) != value
        ]
        if changes:
            _log.info("tensorrt engine: %s is stale, it was built for %s", slot.name, ", ".join(changes))
            return None
        return record.sha256

    def _keep_recorded(self, slot: Slot, folder: "PlanFolder") -> str | None:
        """Empty the slot's folder, unless all in it is as recorded; its digest then."""
        expected, found = self._recorded(slot), folder._digest()
        if expected == found:
            return expected
        if expected is not None:
            _log.warning("tensorrt engine: %s is not what its record says, and is not used", slot.name)
        for path in folder.path.iterdir():
            path.unlink()
        return None

    def _digest(self) -> str:
        """One SHA-256 of all files in this folder, by name."""
        total = hashlib.sha256()
        for name in sorted(path.name for path in self.path.iterdir()):
            content = self._trusted(name)
            if content is not None:
                total.update(f"{hashlib.sha256(content).hexdigest()} {name}\n".encode())
        return total.hexdigest()

    def _trusted(self, name: str) -> bytes | None:
        """The content of a file of this folder that is this user's own; None if there is none."""
        path = self.path / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EngineUnavailable(f"{path} is not trusted ({error.strerror}): expected a plain file.") from error
        with os.fdopen(descriptor, "rb") as file:
            _require_ours(os.fstat(descriptor), path)
            return file.read()

    def _replace(self, name: str, content: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=self.path, prefix=".new-", delete=False) as draft:
            try:
                draft.write(content)
                draft.flush()
                os.fsync(draft.fileno())
                Path(draft.name).replace(self.path / name)
            except BaseException:
                Path(draft.name).unlink(missing_ok=True)
                raise


def _require_ours(found: os.stat_result, path: Path) -> None:
    """Refuse what others than this user can have written.

    Its parents need not be asked: what somebody could put in its place would not belong to this user.
    """
    is_right = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    if not is_right or found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EngineUnavailable(
            f"{path} is not trusted, since a plan is a program: expected a plain file or folder that belongs to user "
            f"{os.geteuid()} and that nobody else may write to; it belongs to {found.st_uid}, mode "
            f"{stat.filemode(found.st_mode)}. Remove it, or say `chmod go-w` if it is yours."
        )


@dataclass(frozen=True)
class _Record:
    """What lies beside a file of ours."""

    built_for: dict[str, str]
    sha256: str

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()


def _read_record(content: bytes | None) -> _Record | None:
    """None where there is none, or one that is none of ours."""
    try:
        entries = json.loads(content or b"null")
    except ValueError:
        return None
    match entries:
        case {"built_for": dict(built_for), "sha256": str(sha256)}:
            return _Record(built_for, sha256)
    return None
