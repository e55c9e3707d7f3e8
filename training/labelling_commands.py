"""`dap label`: pseudo-labels of panoramas, and their scores."""

import json
from pathlib import Path

import click

from dap.engines import EngineName, Precision
from dap.options import engine_option, json_option, option, precision_option
from dap.progress import log_to_stderr
from training.labelling import Labeler
from training.labelling import label as label_shards
from training.scoring import score_labels
from training.shard_pipeline import Workers, started
from training.worker_options import price_option, rate_json, rate_told, workers_options

_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command()
@option("--model", required=True, envvar="DAP_MODEL", help="A name that `dap models` lists, or a model's file.")
@option("--shards", type=_FOLDER, required=True, help="Folder of panoramas that `dap data pack` wrote.")
@option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder; the labels will be in one within it that is named for the model's hash.",
)
@option("--curation", type=_FOLDER, help="Folder that `dap data curate` wrote: only what it keeps is labelled.")
@option(
    "--discriminator",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Weights of one that scores the labels afterwards.",
)
@engine_option
@precision_option
@option("--batch", type=click.IntRange(1), default=8, help="Panoramas at a time; too many do not fit into a GPU.")
@workers_options
@price_option
@json_option
def label(
    *,
    model: str,
    shards: Path,
    output: Path,
    curation: Path | None,
    discriminator: Path | None,
    engine: EngineName,
    precision: Precision,
    batch: int,
    workers: int | None,
    device: str,
    address: str | None,
    price_per_hour: float | None,
    as_json: bool,
) -> None:
    """Label panoramas with a model, on one machine or on a Ray cluster.

    It can be stopped at any moment and run again: shards that are finished stay, and the labels are the same.
    """
    log_to_stderr()
    labeler = Labeler.of(model, engine, precision, batch)
    scores, scoring = None, None
    with started(Workers(workers, device, address)) as team:
        labels, throughput = label_shards(shards, output, labeler, team, curation)
        if discriminator is not None:
            scores, scoring = score_labels(labels, shards, discriminator, team)
    if as_json:
        summary = {"labels": str(labels.folder), "samples": len(labels), "scores": scores and str(scores)}
        summary |= {"scoring": scoring and rate_json(scoring, price_per_hour)}
        click.echo(json.dumps({**summary, **rate_json(throughput, price_per_hour)}))
        return
    click.echo(f"{labels.folder}: {len(labels):,} labels in {len(labels.manifest.shards):,} shards")
    click.echo(rate_told(throughput, team.device, price_per_hour))
    if scoring is not None:
        click.echo(f"{scores}: their scores")
        click.echo(rate_told(scoring, team.device, price_per_hour))
