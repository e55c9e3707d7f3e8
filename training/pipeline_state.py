"""Where a run of the pipeline stands: `state.json`, one record a stage, written whole after each change."""

import fcntl
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dap.errors import TrainingError
from training.datasets.shards import write_atomically

STATE_FILE = "state.json"
LOCK_FILE = ".lock"

State = Literal["waiting", "running", "done"]


@dataclass(frozen=True)
class StageRecord:
    """What is known of a stage.

    Attributes:
        state: `running` also where its process was stopped; see `is_busy`.
        inputs: hashes of all that it depends on, by name: its settings, data, weights, what earlier stages made.
        started: when it was last begun, Unix seconds.
        seconds: that it took from then on.
        output: hash of what it made.
        result: what it found, JSON values.
    """

    state: State = "waiting"
    inputs: Mapping[str, str] = field(default_factory=dict)
    started: float | None = None
    seconds: float | None = None
    output: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)


class RunState:
    """The records of a run, on disk."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read yet; a run without a file has only waiting stages."""
        self._path = folder / STATE_FILE

    def read(self) -> dict[str, StageRecord]:
        """The stages that were begun.

        Raises:
            TrainingError: the file is none of these.
        """
        if not self._path.exists():
            return {}
        try:
            stages = json.loads(self._path.read_text())["stages"]
            return {name: StageRecord(**record) for name, record in stages.items()}
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise TrainingError(f"{self._path} is no state of a pipeline: {error!r}") from error

    def of(self, name: str) -> StageRecord:
        """One of them."""
        return self.read().get(name, StageRecord())

    def write(self, name: str, record: StageRecord) -> None:
        """Put down how a stage stands."""
        stages = {**self.read(), name: record}
        text = json.dumps({"stages": {each: asdict(one) for each, one in stages.items()}}, indent=2)
        write_atomically(self._path, text.encode())

    def begin(self, name: str, inputs: Mapping[str, str]) -> None:
        """A stage is begun, or gone on with."""
        self.write(name, StageRecord("running", inputs, time.time()))

    def finish(self, name: str, output: str, result: Mapping[str, Any]) -> None:
        """A stage that was begun is done."""
        record = self.of(name)
        seconds = round(time.time() - (record.started or time.time()), 3)
        self.write(name, replace(record, state="done", seconds=seconds, output=output, result=result))


def is_busy(folder: Path) -> bool:
    """Whether a process works in the folder of a run, as `training.datasets.packing.alone_in` has it."""
    path = folder / LOCK_FILE
    if not path.exists():
        return False
    with path.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
