"""`dap evaluate`: the table of the field, of any models on any data set, under a named protocol.

Panoramas and truth come from the readers of `training.datasets`, predictions from `dap.predictor`: what is measured is
what users get, and nothing here needs torch but models that do. The truth keeps the size it is stored in; the
prediction is brought to it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import click

from dap.engines.cores import available_cores
from dap.errors import DatasetError, InvalidParameter
from dap.evaluation import PROTOCOLS, Metrics, Protocol, evaluate, find_protocol, mean
from dap.models import DEFAULT_MODEL, find_model
from dap.options import json_option, option, range_option, resolution_option, runtime_options
from dap.predictor import Predictor
from dap.progress import log_to_stderr, progress
from dap.resolutions import resolution_text
from training.datasets.base import Dataset, Entry
from training.datasets.labelled_folder import LabelledFolder
from training.datasets.registry import DATASETS, open_dataset

LABELLED = tuple(name for name, kind in DATASETS.items() if kind.labelled)
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
# Decoding and comparing take longer than a GPU needs to predict; more than a few at a time take nothing but memory.
_AT_A_TIME = 4


@dataclass(frozen=True)
class Benchmark:
    """What models are held against.

    Attributes:
        dataset: with truth.
        split: of it.
        entries: the panoramas.
        protocol: what is compared.
        range: metres of the range mask; None for the depth as it is without one.
    """

    dataset: Dataset
    split: str
    entries: Sequence[Entry]
    protocol: Protocol
    range: float | None

    @classmethod
    def of(
        cls, dataset: Dataset, split: str | None, protocol: Protocol, range: float | None, limit: int | None = None
    ) -> Self:
        """A split, or some of it. Files are looked for, none is opened.

        Args:
            dataset: with truth.
            split: of it; None for `test`, or for all where only a list can tell the splits apart.
            protocol: what is compared; with the limit that it has for this data set, see `Protocol.on_dataset`.
            range: metres of the range mask; of no account to a protocol that knows none.
            limit: panoramas at most, evenly spread over the split; None for all.

        Raises:
            InvalidParameter: the data set has no depth, or no such split.
            DatasetError: there is nothing where the data set's layout says, or a file is missing.
        """
        if not dataset.labelled:
            raise InvalidParameter(f"{dataset.name} has no true depth to compare with; {', '.join(LABELLED)} have")
        split = split or _usual_split(dataset)
        entries = dataset.entries(split)
        missing = [path for entry in entries for path in entry.missing()]
        if missing:
            raise DatasetError(f"{dataset.name} {split}: missing files: {len(missing)}, the first is {missing[0]}")
        seen_through = None if protocol.masked is None else range
        return cls(dataset, split, _spread(entries, limit), protocol.on_dataset(dataset.name), seen_through)

    def compare(self, predictor: Predictor, entry: Entry) -> Metrics | None:
        """The numbers of one panorama; None where its truth has nothing that the protocol compares."""
        sample = self.dataset.read(entry)
        assert sample.depth is not None  # noqa: S101 - for the type checker: it is labelled
        try:
            self.protocol.compares(sample.depth)
        except InvalidParameter:
            return None
        height, width = sample.depth.shape
        return evaluate(predictor.predict(sample.rgb, self.range, (height, width)), sample.depth, self.protocol)


@dataclass(frozen=True)
class Result:
    """How a model did on a benchmark.

    Attributes:
        model: its name.
        mean: over the panoramas, as the protocol takes it.
        left_out: ids of panoramas whose truth has nothing that the protocol compares.
    """

    model: str
    mean: Metrics
    left_out: tuple[str, ...]

    @classmethod
    def of(cls, model: str, numbers: Mapping[str, Metrics | None]) -> Self:
        """The result of what `run` says of each panorama.

        Raises:
            InvalidParameter: there is nothing to compare in any.
        """
        compared = [metrics for metrics in numbers.values() if metrics is not None]
        if not compared:
            raise InvalidParameter(f"of {len(numbers)} panoramas none has truth that the protocol compares")
        return cls(model, mean(compared), tuple(name for name, metrics in numbers.items() if metrics is None))


def run(predictor: Predictor, benchmark: Benchmark) -> Iterator[tuple[str, Metrics | None]]:
    """Hold a model against a benchmark, a few panoramas at a time: each one's id and numbers, in order.

    Args:
        predictor: the model.
        benchmark: what it is held against.

    Raises:
        DatasetError: a panorama cannot be read.
        EngineError: the engine failed.
    """
    with ThreadPoolExecutor(min(_AT_A_TIME, available_cores())) as pool:
        numbers = pool.map(lambda entry: benchmark.compare(predictor, entry), benchmark.entries)
        yield from zip((entry.id for entry in benchmark.entries), numbers, strict=True)


@click.command("evaluate")
@click.argument("folder", required=False, type=_FOLDER)
@option(
    "--dataset",
    type=click.Choice(LABELLED),
    help=f"Data set to evaluate on, as `dap data list` describes it. A FOLDER of pairs is {LabelledFolder.name}.",
)
@option("--root", type=_FOLDER, help="Folder that holds the data set.")
@option("--split", help="Of the data set; by default test, or all where only a list can tell the splits apart.")
@option(
    "--list",
    "list_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    envvar="DAP_EVALUATE_LIST",
    help="File of lines `rgb depth`, relative to the root, that says what the split is.",
)
@option("--limit", type=click.IntRange(1), help="Panoramas at most, evenly spread over the split; by default all.")
@option(
    "--protocol",
    type=click.Choice([*PROTOCOLS]),
    default="dap",
    help="What is compared. A protocol that knows no range mask compares the depth without one.",
)
@option(
    "--max-truth",
    type=float,
    help="Metres up to which truth is compared, for a protocol without a limit of its own; best that of the data set.",
)
@range_option
@option(
    "--model",
    "models",
    multiple=True,
    default=(DEFAULT_MODEL,),
    envvar="DAP_MODEL",
    help="A name that `dap models` lists, or a model's file; give it once for each.",
)
@resolution_option
@runtime_options
@option(
    "--per-image",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File for the numbers of every panorama, a JSON object a line.",
)
@json_option
def evaluate_command(
    *,
    folder: Path | None,
    dataset: str | None,
    root: Path | None,
    split: str | None,
    list_file: Path | None,
    limit: int | None,
    protocol: str,
    max_truth: float | None,
    range: float | None,
    models: tuple[str, ...],
    resolution: tuple[int, int] | None,
    per_image: Path | None,
    as_json: bool,
    **runtime: Any,
) -> None:
    """Compare models with the truth, over a data set or a folder of panoramas with metric depth.

    FOLDER holds pairs: NAME.rgb.png, the panorama, and NAME.depth_m.npy, float32 metres along the ray, 0 where not
    known. A published data set is given by --dataset and --root instead.
    """
    log_to_stderr()
    source = _opened(folder, dataset, root, list_file)
    benchmark = Benchmark.of(source, split, find_protocol(protocol).capped(max_truth), range, limit)
    facts = {"dataset": source.name, "split": benchmark.split, "protocol": protocol, "range": benchmark.range}
    results = []
    with ExitStack() as stack:
        lines = stack.enter_context(per_image.open("w")) if per_image else None
        for model in models:
            numbers = {}
            with (
                Predictor(find_model(model, resolution), **runtime) as predictor,
                progress(f"{predictor.model.name} on {source.name}", len(benchmark.entries)) as advance,
            ):
                name = predictor.model.name + (f"@{resolution_text(resolution)}" if resolution else "")
                for panorama, metrics in run(predictor, benchmark):
                    numbers[panorama] = metrics
                    if lines and metrics:
                        said = {**facts, "model": name, "panorama": panorama, **asdict(metrics)}
                        print(json.dumps(said), file=lines, flush=True)
                    advance(1)
            results.append(Result.of(name, numbers))
    if as_json:
        click.echo(json.dumps({**facts, "results": [asdict(result) for result in results]}, indent=2))
    else:
        click.echo(table(benchmark, results))


def table(benchmark: Benchmark, results: Sequence[Result]) -> str:
    """The results for people: four rows a model, the protocol's own one marked."""
    metrics = [*results[0].mean.scores]
    width = max(5, *(len(result.model) for result in results))
    lines = [f"{benchmark.dataset.name} {benchmark.split}, protocol {benchmark.protocol.name} (its own numbers: *)"]
    lines.append(f"{'model':{width}}  panoramas  numbers           " + "".join(f"{name:>9}" for name in metrics))
    for result in results:
        mean = result.mean
        rows = {
            "pixels": mean.scores,
            "sphere": mean.weighted,
            "pixels, aligned": mean.aligned,
            "sphere, aligned": mean.aligned_weighted,
        }
        for numbers, scores in rows.items():
            own = "*" if scores is mean.own else " "
            values = "".join(f"{scores[name]:9.4f}" for name in metrics)
            lines.append(f"{result.model:{width}}  {mean.images:9}  {own} {numbers:16}{values}")
        lines.append(f"{'':{width}}  median scale {mean.scale:.3f}")
        if result.left_out:
            lines.append(f"{'':{width}}  without truth that the protocol compares: {len(result.left_out)}")
    return "\n".join(lines)


def _opened(folder: Path | None, name: str | None, root: Path | None, list_file: Path | None) -> Dataset:
    if (folder is None) == (root is None) or (name is None) != (root is None):
        raise InvalidParameter("a FOLDER of pairs, or a data set by --dataset and --root, was expected")
    return open_dataset(name or LabelledFolder.name, root or folder or Path(), list_file)


def _usual_split(dataset: Dataset) -> str:
    known = [split for split in dataset.splits if dataset.list_file or split not in dataset.listed_splits]
    return "test" if "test" in known else known[0]


def _spread(entries: Sequence[Entry], limit: int | None) -> list[Entry]:
    count = min(limit or len(entries), len(entries))
    return [entries[place * len(entries) // count] for place in range(count)]
