"""All that `dap bench` measures of a checkpoint on one device, each part a process of its own, into one folder.

Parts run one after the other. One that fails, or takes too long, leaves the others what they have measured: its numbers
are missing, and the summary says what it said last.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.racer import IN_TORCH
from dap.engines.base import parse_device

SUMMARY = "summary.md"

_ROOT = Path(__file__).parent.parent
_SAID = 400
_CLIENTS = 3  # times as many as the largest batch: two batches run, and a third waits


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        checkpoint: of the network; an absolute path.
        device: `cpu`, `cuda` or `cuda:N`.
        batches: panoramas at a time; the service runs up to the largest.
        contenders: as `benchmarks.contenders.choose` has them, first the one that the others are compared with.
        rounds: turns of each contender.
        seconds: of a turn.
        price_per_hour: of the machine, euros; None if it is not to be counted.
    """

    checkpoint: Path
    device: str
    batches: Sequence[int]
    contenders: Sequence[str]
    rounds: int
    seconds: float
    price_per_hour: float | None = None


@dataclass(frozen=True)
class Part:
    """One process.

    Attributes:
        name: of its files: NAME.json, its tables NAME.md, its log NAME.log.
        title: for people.
        words: what follows `dap bench`.
    """

    name: str
    title: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a part: seconds that it took, and why it failed; empty if it did not."""

    part: Part
    seconds: float
    failure: str


def parts(plan: Plan, folder: Path) -> list[Part]:
    """The parts in their order: what takes longest to start, and may fail first, comes last among the engines.

    Each number of panoramas is a part of its own, so that one that does not fit costs no other. Exports are made once,
    and so are one part.

    Args:
        plan: what is measured.
        folder: for what they write; an absolute path.
    """
    precision = "fp32" if parse_device(plan.device)[0] == "cpu" else "bf16"
    largest = max(plan.batches)
    in_torch = [name for name in plan.contenders if name.partition(":")[0] in IN_TORCH]
    exported = [name for name in plan.contenders if name not in in_torch]
    common = ("--model", str(plan.checkpoint), "--device", plan.device)
    turns = ("--rounds", str(plan.rounds))
    race = ("engine", *common, *turns, "--seconds", str(plan.seconds), *_price(plan))
    served = ("--engine", "torch", "--precision", precision, "--max-batch-size", str(largest))
    found = [
        Part(
            f"engine-{batch}",
            f"Engines, batches of {batch}",
            (*race, "--batch", str(batch), *_each("--contender", in_torch)),
        )
        for batch in plan.batches
    ]
    found += [
        Part(
            f"roofline-{batch}",
            f"Roofline, batches of {batch}",
            ("roofline", *common, *turns, "--precision", precision, "--batch", str(batch)),
        )
        for batch in sorted({1, largest})
    ]
    load = ("--clients", str(_CLIENTS * largest), "--seconds", str(4 * plan.seconds))
    picture = ("--picture", str(folder / "request.svg"))
    found += [
        Part("service", "Over HTTP, beside the engine alone", ("service", *common, *turns, *served, *load)),
        Part("cost", "Where the time of a request goes", ("cost", *common, *served, *picture)),
    ]
    if exported:
        found.append(
            Part(
                "engine-exported",
                "Engines of exported files",
                (*race, *_each("--batch", plan.batches), *_each("--contender", [plan.contenders[0], *exported])),
            )
        )
    return found


def _price(plan: Plan) -> tuple[str, ...]:
    return () if plan.price_per_hour is None else ("--price-per-hour", str(plan.price_per_hour))


def _each(option: str, values: Sequence[object]) -> tuple[str, ...]:
    return tuple(word for value in values for word in (option, str(value)))


def run(
    planned: Sequence[Part],
    limit_s: float,
    left_out: Mapping[str, str],
    folder: Path,
    advance: Callable[[int], None],
) -> list[Outcome]:
    """Run them, and write the summary anew after each.

    Args:
        planned: in their order.
        limit_s: seconds of each part at most.
        left_out: contenders that cannot run here, and why.
        folder: for what they write; an absolute path.
        advance: told of each part.

    Returns:
        Those that failed.
    """
    outcomes: list[Outcome] = []
    with _ended_by_sigterm():
        for part in planned:
            outcomes.append(_run(part, limit_s, folder))
            (folder / SUMMARY).write_text(summary(outcomes, left_out, folder), encoding="utf-8")
            advance(1)
    return [outcome for outcome in outcomes if outcome.failure]


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Raise SystemExit at SIGTERM, so that the part that runs, which is in a group of its own, ends too."""
    before = signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(part: Part, limit_s: float, folder: Path) -> Outcome:
    numbers = folder / f"{part.name}.json"
    numbers.unlink(missing_ok=True)  # of an earlier run
    command = [sys.executable, "-m", "benchmarks.commands", *part.words, "--output", str(numbers)]
    started = time.perf_counter()
    log_path = folder / f"{part.name}.log"
    with (folder / f"{part.name}.md").open("wb") as tables, log_path.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=tables, stderr=log, start_new_session=True
        )
        try:
            status: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
    seconds = time.perf_counter() - started
    if status == 0:
        return Outcome(part, seconds, "")
    said = log_path.read_text(errors="replace").strip().rpartition("\n")[2][-_SAID:]
    ended = f"it was not done after {limit_s:.0f} s" if status is None else f"it ended with {status}"
    return Outcome(part, seconds, f"{ended}: {said}" if said else ended)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """The part and all that it started, which are a group of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def summary(outcomes: Sequence[Outcome], left_out: Mapping[str, str], folder: Path) -> str:
    """All tables under their titles, then who was left out and what failed.

    Args:
        outcomes: of the parts so far.
        left_out: contenders that cannot run here, and why.
        folder: with what the parts wrote.
    """
    blocks = []
    for outcome in outcomes:
        tables = (folder / f"{outcome.part.name}.md").read_text(encoding="utf-8").strip()
        failure = f"**Failed**, {outcome.failure}" if outcome.failure else ""
        words = [Path(word).name if "/" in word else word for word in outcome.part.words]
        told = f"`dap bench {' '.join(words)}`, {outcome.seconds:.0f} s"
        blocks.append("\n\n".join(filter(None, (f"## {outcome.part.title}", told, failure, tables))))
    if left_out:
        reasons = "\n".join(f"- {name} {reason}" for name, reason in left_out.items())
        blocks.append(f"## Left out\n\n{reasons}")
    return "\n\n".join(blocks) + "\n"
