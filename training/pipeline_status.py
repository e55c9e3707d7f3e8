"""How every stage of a run stands: for `dap train status`, while another process works on it or none does."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from training.pipeline_config import PipelineConfig
from training.pipeline_state import StageRecord, is_busy
from training.stages import STAGES, Run, Stage, last_event
from training.trainer import latest_checkpoint, read_progress

Standing = Literal["waiting", "running", "stopped", "done", "outdated"]

_COUNTED = ("samples", "labels", "selected")
_LABELER_OF = {"labels-1": "stage-1-labeler", "labels-2": "stage-2-labeler"}


@dataclass(frozen=True)
class StageStatus:
    """How a stage stands.

    Attributes:
        stage: its name.
        state: `stopped` where it was begun and no process is at it; `outdated` where it was done with other inputs than
            it would be now.
        done: steps or shards; None where they are not counted.
        of: how many there are.
        started: when it was last begun, in UTC, ISO 8601.
        seconds: that it took, or has run.
        result: what it found.
    """

    stage: str
    state: Standing
    done: int | None
    of: int | None
    started: str | None
    seconds: float | None
    result: dict[str, Any]


def statuses(run: Run) -> list[StageStatus]:
    """Every stage of a run, in order.

    Raises:
        TrainingError: the folder's state cannot be read.
    """
    busy = is_busy(run.place.folder)
    return [_status(run, stage, busy) for stage in STAGES.values()]


def _status(run: Run, stage: Stage, busy: bool) -> StageStatus:
    record = run.state.of(stage.name)
    state = _standing(run, stage, record, busy)
    done, of = _progress(run, stage)
    started = None if record.started is None else datetime.fromtimestamp(record.started, UTC)
    running = state == "running" and record.started is not None
    seconds = round(time.time() - (record.started or 0), 3) if running else record.seconds
    when = None if started is None else started.isoformat(timespec="seconds")
    return StageStatus(stage.name, state, done, of, when, seconds, dict(record.result))


def _standing(run: Run, stage: Stage, record: StageRecord, busy: bool) -> Standing:
    if record.state == "running":
        return "running" if busy else "stopped"
    if record.state == "done":
        return "done" if run.up_to_date(stage) else "outdated"
    return "waiting"


def _progress(run: Run, stage: Stage) -> tuple[int | None, int | None]:
    """How far what the stage's folder holds is."""
    folder = run.folder(stage.name)
    if stage.trains:
        checkpoint = latest_checkpoint(folder)
        return (read_progress(checkpoint).step if checkpoint else 0), _steps(run.config, stage.name)
    if stage.name == "discriminator":
        return last_event(folder / "log.jsonl").get("step", 0), run.config.discriminator.steps
    if stage.name in _LABELER_OF:
        # A record is written when its shard is whole.
        return len(list(folder.glob("*/*/*-[0-9]*.json"))), _shards(run)
    return None, None


def _steps(config: PipelineConfig, stage: str) -> int:
    trainings = {"stage-1-labeler": config.stage_1, "stage-2-labeler": config.stage_2, "stage-3-dap": config.stage_3}
    return trainings[stage].steps


def _shards(run: Run) -> int | None:
    """Of all unlabelled data, once it is there."""
    if not all((run.place.data / data.name / "manifest.json").exists() for data in run.config.unlabelled):
        return None
    return sum(len(run.reader(data).manifest.shards) for data in run.config.unlabelled)


def table(run: Path, found: Sequence[StageStatus]) -> str:
    """For people: a line a stage."""
    lines = [f"{run.name}", f"  {'stage':16} {'state':9} {'progress':>17} {'started (UTC)':>20} {'time':>9}  result"]
    for one in found:
        progress = "" if one.done is None or one.of is None else f"{one.done:,} of {one.of:,}"
        started = "" if one.started is None else one.started[:19].replace("T", " ")
        seconds = "" if one.seconds is None else _duration(one.seconds)
        lines.append(
            f"  {one.stage:16} {one.state:9} {progress:>17} {started:>20} {seconds:>9}  {_told(one.result)}".rstrip()
        )
    return "\n".join(lines)


def as_json(run: Path, found: Sequence[StageStatus]) -> dict[str, Any]:
    """For scripts."""
    return {"run": run.name, "stages": [asdict(one) for one in found]}


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _told(result: dict[str, Any]) -> str:
    """The numbers that matter most."""
    if "scores" in result:
        scores = result["scores"].items()
        return "; ".join(f"{name}: AbsRel {one['absrel']:.3f}, delta1 {one['delta1']:.3f}" for name, one in scores)
    if "true" in result:
        return f"on truth {result['true']:.3f}, on predictions {result['predicted']:.3f}"
    counts = {name: next((one[kind] for kind in _COUNTED if kind in one), None) for name, one in result.items()}
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count is not None)
