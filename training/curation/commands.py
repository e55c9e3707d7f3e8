"""`dap data curate` and `dap data select`: which panoramas are labelled, and which labels are learnt from."""

import json
from pathlib import Path

import click

from dap.options import json_option, option
from training.curation.duplicates import MAX_DISTANCE
from training.curation.places import DEFAULT_ROWS, DEFAULT_WEIGHTS, PlaceOptions
from training.curation.survey import Rules
from training.curation.survey import curate as curate_shards
from training.datasets.shards import ShardReader
from training.selection import select as select_labels
from training.shard_pipeline import Workers, started
from training.worker_options import price_option, rate_json, rate_told, workers_options

_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_PAPER_COUNT = 300_000


@click.command()
@click.argument("shards", type=_FOLDER)
@option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the verdicts."
)
@option(
    "--max-lean",
    type=click.FloatRange(0, min_open=True),
    default=Rules.max_lean_deg,
    help="Degrees that a camera may lean.",
)
@option(
    "--duplicate-bits",
    type=click.IntRange(0, MAX_DISTANCE),
    default=Rules.duplicate_bits,
    help="Of 256, in which a near-duplicate may differ. Too few leave copies, too many take other places for one.",
)
@option(
    "--places/--no-places",
    default=True,
    help="Tell indoor from outdoor with Qwen2-VL, or leave what the data set says.",
)
@option("--weights", default=DEFAULT_WEIGHTS, help="Of Qwen2-VL: a folder, or a name in this machine's cache.")
@option("--rows", type=click.IntRange(28), default=DEFAULT_ROWS, help="Of the panorama that Qwen2-VL is shown.")
@option("--batch", type=click.IntRange(1), default=8, help="Panoramas that Qwen2-VL is shown at a time.")
@workers_options
@price_option
@json_option
def curate(
    *,
    shards: Path,
    output: Path,
    max_lean: float,
    duplicate_bits: int,
    places: bool,
    weights: str,
    rows: int,
    batch: int,
    workers: int | None,
    device: str,
    address: str | None,
    price_per_hour: float | None,
    as_json: bool,
) -> None:
    """Judge the panoramas in SHARDS: broken, leaning, near-duplicates; indoor or outdoor.

    It can be stopped at any moment and run again. Other rules are a matter of a moment: what was measured stays.
    """
    rules = Rules(max_lean, duplicate_bits)
    options = PlaceOptions(weights, rows, batch) if places else None
    # Without a model there is nothing for a GPU to do.
    with started(Workers(workers, device if places else "cpu", address)) as team:
        verdicts, throughput = curate_shards(shards, output, rules, options, team)
    if as_json:
        click.echo(json.dumps({"out": str(output), **verdicts.summary, **rate_json(throughput, price_per_hour)}))
        return
    summary = verdicts.summary
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in summary["left_out"].items()) or "none"
    kept = ", ".join(f"{count:,} {place}" for place, count in summary["places"].items())
    click.echo(f"{output}: {summary['kept']:,} of {summary['panoramas']:,} kept ({kept}); left out: {left_out}")
    click.echo(rate_told(throughput, team.device, price_per_hour))


@click.command()
@click.argument("labels", type=_FOLDER)
@option(
    "--scores",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="File of scores that `dap label --discriminator` wrote.",
)
@option("--indoor", type=click.IntRange(0), default=_PAPER_COUNT, help="How many; the paper took 300,000.")
@option("--outdoor", type=click.IntRange(0), default=_PAPER_COUNT, help="How many; the paper took 300,000.")
@option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File for the list, JSON lines.",
)
@json_option
def select(*, labels: Path, scores: Path, indoor: int, outdoor: int, output: Path, as_json: bool) -> None:
    """List the best indoor and the best outdoor of LABELS by their scores; where there are fewer, all of them."""
    selection = select_labels(ShardReader(labels), scores, indoor, outdoor)
    selection.write(output)
    if as_json:
        click.echo(json.dumps({"out": str(output), "asked": selection.asked, "chosen": selection.counts()}))
        return
    chosen = ", ".join(
        f"{count:,} of {selection.asked[place]:,} {place}" for place, count in selection.counts().items()
    )
    click.echo(f"{output}: {chosen}")
