"""Work on all shards of a folder with Ray Data: on one machine, or on a cluster by the same call.

Each shard goes through three stages: read (CPU tasks), model (actors, each on a GPU of its own where there are any),
write (CPU tasks). Ray Data runs them side by side, starts a worker that died anew and repeats what it was at, and holds
back readers when the models cannot follow.

What passes through is one row a shard, never a part of one, so whoever writes has all of it: a shard is written whole
or not at all, the batches of a model never mix shards, and the result does not depend on how many workers there are,
which of them died, or how often the work was stopped. The price is memory: a few shards for each worker, decoded.

On a cluster the driver runs on one of its nodes, and all folders and files have the same paths on every machine.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dap.engines.cores import available_cores
from dap.errors import DapError, EngineUnavailable, InvalidParameter, TrainingError
from training.datasets.shards import write_atomically

if TYPE_CHECKING:
    from types import ModuleType

Row = dict[str, Any]
"""Of a shard: numbers, text and arrays by name. The first axis of an array is the sample."""

# A model that dies while it starts (memory taken by another process, say) is started anew; one that never starts is
# not tried for ever.
_START_DEATHS = 3


class Model(Protocol):
    """The middle stage: built once in each worker, then called with shard after shard."""

    def __call__(self, row: Row) -> Row: ...


class Work(Protocol):
    """What is done with each shard. It travels to the workers, so it holds paths and settings and no more."""

    def read(self, row: Row) -> Row:
        """What the model is to see of a shard; `row` is as `run` was given it."""
        ...

    def model(self, device: str, threads: int) -> Model:
        """Build the model in a worker: on `cpu` with so many threads, or on `cuda`, where it sees its own GPU only."""
        ...

    def write(self, row: Row) -> Row:
        """Write what the model made of a shard, atomically; what is given back comes out of `run`."""
        ...


@dataclass(frozen=True)
class Workers:
    """Who works.

    Attributes:
        count: models side by side; None for one a GPU, or one in all where there is none.
        device: `cpu`, `cuda`, or `auto` for GPUs where there are any.
        address: of a Ray cluster that this machine is a node of, `auto` or `host:port`; None for this machine alone.
    """

    count: int | None = None
    device: str = "auto"
    address: str | None = None


@dataclass(frozen=True)
class Team:
    """`Workers` with what the machines really have.

    Attributes:
        count: models side by side.
        device: `cpu` or `cuda`.
        threads: of each model on the CPU.
        ray: whether Ray runs it; otherwise this process does, shard after shard.
    """

    count: int
    device: str
    threads: int
    ray: bool = True


def in_this_process(device: str, threads: int) -> Team:
    """Nobody but this process, without Ray: for a few shards."""
    return Team(1, device, threads, ray=False)


@contextmanager
def started(workers: Workers) -> Iterator[Team]:
    """Ray, with this process as its driver, until the context ends; one that runs in this process already is used.

    Raises:
        InvalidParameter: the address is that of a Ray client server.
        TrainingError: Ray is not installed, or does not answer at the address.
        EngineUnavailable: a GPU is asked for, and there is none.
    """
    if workers.address is not None and workers.address.startswith("ray://"):
        # Tried with Ray 2.60: Ray Data's executor needs a driver that is part of the cluster.
        raise InvalidParameter(
            "Ray Data does not run through a Ray client: run this on a node of the cluster with --address auto, "
            f"by hand or with `ray job submit`; got {workers.address}"
        )
    ray = _ray()
    if ray.is_initialized():
        yield _team(ray, workers)
        return
    with _stdout_to_stderr():
        _connect(ray, workers)
        try:
            yield _team(ray, workers)
        finally:
            ray.shutdown()


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Whoever reads a command's JSON is not to find lines of Ray's C++ in it."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def run(work: Work, rows: Sequence[Row], team: Team) -> Iterator[Row]:
    """What `work.write` gave back for each shard, as they are finished.

    Args:
        work: what is done.
        rows: one for each shard, as `work.read` takes it; numbers and text only.
        team: from `started` or `in_this_process`.

    Raises:
        DapError: what a stage raised; the other shards that are finished stay so.
        TrainingError: a stage raised anything else, or workers die as they start.
    """
    if rows:
        yield from (_run_on_ray if team.ray else _run_here)(work, rows, team)


def _run_here(work: Work, rows: Sequence[Row], team: Team) -> Iterator[Row]:
    model = work.model(team.device, team.threads)
    yield from (work.write(model(work.read(dict(row)))) for row in rows)


def _run_on_ray(work: Work, rows: Sequence[Row], team: Team) -> Iterator[Row]:
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    context.raise_original_map_exception = True
    context.max_consecutive_actor_init_deaths = _START_DEATHS
    on_gpu = team.device == "cuda"
    # The second call reads its row from the object store, or writes its result there, while the first computes.
    pool = ActorPoolStrategy(size=team.count, max_concurrent_calls_per_actor=2)
    shards = (
        ray.data.from_items(list(rows), override_num_blocks=len(rows))
        .map(work.read)
        .map(
            _Stage,
            fn_constructor_args=(work, team.device, team.threads),
            compute=pool,
            num_gpus=1 if on_gpu else None,
            num_cpus=None if on_gpu else team.threads,
        )
        .map(work.write)
    )
    try:
        yield from shards.iter_rows()
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, DapError):
            raise error.cause from error
        raise TrainingError(f"a worker failed: {error.cause!r}") from error
    except ray.exceptions.RayError as error:
        raise TrainingError(f"the workers cannot go on: {error}") from error


def finished(record: Path, key: Mapping[str, Any]) -> Row | None:
    """What a shard's record says was done, if it was done from what `key` says; None otherwise."""
    try:
        values = json.loads(record.read_bytes())
        result: Row | None = values["result"] if values["key"] == key else None
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return result


def finish(record: Path, key: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Write a shard's record, after all else of it is written."""
    write_atomically(record, json.dumps({"key": key, "result": result}, sort_keys=True).encode())


class _Stage:
    """The actor."""

    def __init__(self, work: Work, device: str, threads: int) -> None:
        self._model = work.model(device, threads)

    def __call__(self, row: Row) -> Row:
        return self._model(row)


def _ray() -> "ModuleType":
    # Both before the first import: Ray reads them there. Nothing of ours is to be reported to anybody.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_DATA_USAGE_DISABLED"] = "1"
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"this needs {error.name}, which is not installed: pip install 'depth-any-panorama[label]'"
        ) from None
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # That its progress bars are off it says at this level; ours is on.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    module: ModuleType = ray
    return module


def _connect(ray: "ModuleType", workers: Workers) -> None:
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if workers.address is None:
        settings["include_dashboard"] = False
        if workers.device == "cpu":
            settings["num_gpus"] = 0
        # Models may take all cores; without one more, no task beside them would ever begin.
        settings["num_cpus"] = available_cores() + (workers.count or 1)
    try:
        ray.init(address=workers.address or "local", **settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise TrainingError(f"Ray cannot be used at {workers.address or 'this machine'}: {error}") from error


def _team(ray: "ModuleType", workers: Workers) -> Team:
    gpus = int(ray.cluster_resources().get("GPU", 0))
    device = workers.device if workers.device != "auto" else "cuda" if gpus else "cpu"
    if device == "cuda":
        count = workers.count or gpus
        if not 0 < count <= gpus:
            raise EngineUnavailable(f"{max(count, 1)} workers on GPUs were asked for; Ray finds {gpus}")
        return Team(count, device, 1)
    count = workers.count or 1
    return Team(count, device, max(1, available_cores() // count))
