"""`dap data`: look at data sets, pack them into shards, verify shards."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

from dap.errors import DatasetError, InvalidParameter
from dap.options import json_option, option
from dap.progress import log_to_stderr, progress
from training.curation.commands import curate, select
from training.datasets.base import Dataset
from training.datasets.check import SplitReport, check, contact_sheet
from training.datasets.packing import IMAGE_CODECS, ImageCodec, PackOptions, pack
from training.datasets.registry import DATASETS, open_dataset
from training.datasets.rendered import Rendered, RenderedPictures
from training.datasets.shards import ShardReader
from training.datasets.videos import DEFAULT_EVERY_S, Videos
from training.synthetic.sampling import DOMAINS, KINDS, Domain, Kind

_RENDERED: dict[str, type[Rendered]] = {kind.name: kind for kind in (Rendered, RenderedPictures)}
_SHOWN_PROBLEMS = 20
_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


def _source_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say where a data set is."""
    for decorate in reversed(
        [
            option("--root", type=_FOLDER, help="Folder that holds the data set."),
            option("--split", help="Of the data set; not needed where it has one only."),
            option(
                "--list",
                "list_file",
                type=click.Path(path_type=Path, exists=True, dir_okay=False),
                envvar="DAP_DATA_LIST",
                help="File of lines `rgb depth`, relative to the root, that says what the split is.",
            ),
            option(
                "--every",
                type=float,
                help=f"Of videos: seconds from a frame to the next; by default {DEFAULT_EVERY_S:g}.",
            ),
        ]
    ):
        command = decorate(command)
    return command


@click.group()
def data() -> None:
    """Look at data sets and pack them into the shards that training and labelling read."""
    log_to_stderr()


data.add_command(curate)
data.add_command(select)


@data.command("list")
@json_option
def list_command(*, as_json: bool) -> None:
    """The data sets there are readers for, their splits, and what is expected below their root."""
    kinds: list[type[Dataset]] = [*DATASETS.values(), *_RENDERED.values()]
    if as_json:
        click.echo(json.dumps([_described(kind) for kind in kinds], indent=2))
        return
    for kind in kinds:
        splits = ", ".join(
            f"{split} ({kind.published[split]})" if split in kind.published else split for split in kind.splits
        )
        click.echo(f"{kind.name}: {kind.summary}\n    splits: {splits}\n    below the root: {'; '.join(kind.layout)}")


@data.command("check")
@click.argument("name", type=click.Choice([*DATASETS]))
@_source_options
@option("--read", type=click.IntRange(1), help="Panoramas to decode of each split, evenly spread; by default all.")
@option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File for a contact sheet, .jpg or .png."
)
@json_option
def check_command(
    *,
    name: str,
    root: Path | None,
    split: str | None,
    list_file: Path | None,
    every: float | None,
    read: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """What there is of a data set on this disk, and what is wrong with it; status 1 if anything is.

    Without a split, all that the folders tell apart are looked at.
    """
    dataset = _opened(name, root, list_file, every)
    splits = [split] if split else [one for one in dataset.splits if list_file or one not in dataset.listed_splits]
    if list_file is not None and len(splits) > 1:
        raise InvalidParameter(f"a list is of one split: give --split, one of {', '.join(splits)}")
    found, absent = [], {}
    for one in splits:
        try:
            found.append(check(dataset, one, read))
        except DatasetError as error:
            absent[one] = error
    if not found:
        raise absent[splits[0]]
    tiles = [tile for _, of_split in found for tile in of_split]
    if output is not None and tiles:
        contact_sheet(tiles).save(output)
    reports = [report for report, _ in found]
    if as_json:
        said = {"splits": [asdict(report) for report in reports], "absent": [*absent]}
        click.echo(json.dumps({"dataset": name, "root": str(root), **said}, indent=2))
    else:
        lines = [*(_told(dataset, report) for report in reports), *(f"{name} {one}: none here" for one in absent)]
        click.echo("\n".join(lines))
    if any(report.problems for report in reports):
        raise SystemExit(1)


@data.command("pack")
@click.argument("name", type=click.Choice([*DATASETS, *_RENDERED]))
@_source_options
@option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the shards."
)
@option("--height", type=click.IntRange(16), help="Of the panoramas; by default as stored, 512 for rendered.")
@option(
    "--image", type=click.Choice(IMAGE_CODECS), default="jpeg", help="jpeg: quality 95; stored: the file's own bytes."
)
@option("--shard-size", type=click.IntRange(1), default=256, help="Samples a shard.")
@option("--skip-broken", is_flag=True, help="Leave out what cannot be read, and list it in the manifest.")
@option("--workers", type=click.IntRange(1), default=1, help="Processes; shards do not depend on how many.")
@option("--count", type=click.IntRange(1), help="Of rendered: how many scenes.")
@option("--kind", type=click.Choice(KINDS), help="Of rendered: what scenes; by default mixed.")
@option("--domain", type=click.Choice(DOMAINS), help="Of rendered: how things look; by default standard.")
@option("--seed", type=click.IntRange(0), help="Of rendered: seed of the first scene, the others follow; by default 0.")
@json_option
def pack_command(
    *,
    name: str,
    root: Path | None,
    split: str | None,
    list_file: Path | None,
    every: float | None,
    output: Path,
    height: int | None,
    image: ImageCodec,
    shard_size: int,
    skip_broken: bool,
    workers: int,
    count: int | None,
    kind: Kind | None,
    domain: Domain | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Write a split as WebDataset shards with a manifest of hashes.

    It can be stopped at any moment and run again: what is written stays, and the shards are the same.
    """
    dataset: Dataset
    if name in _RENDERED:
        if count is None or any((root, list_file, every)):
            raise InvalidParameter("rendered scenes need --count, and have no --root, --list or --every")
        dataset = _RENDERED[name](count, kind or "mixed", seed or 0, domain or "standard")
    elif any(value is not None for value in (count, kind, domain, seed)):
        raise InvalidParameter(f"--count, --kind, --domain and --seed are of rendered scenes, not of {name}")
    else:
        dataset = _opened(name, root, list_file, every)
    options = PackOptions(height, image, shard_size, skip_broken)
    manifest = pack(dataset, _one_split(dataset, split), output, options, workers)
    left_out = sum(len(shard.left_out) for shard in manifest.shards)
    if as_json:
        summary = {"shards": len(manifest.shards), "samples": manifest.samples, "left_out": left_out}
        click.echo(json.dumps({**summary, "bytes": sum(shard.size for shard in manifest.shards), "out": str(output)}))
    else:
        without = f", {left_out} left out" if left_out else ""
        click.echo(f"{output}: {manifest.samples} samples in {len(manifest.shards)} shards{without}")


@data.command("verify")
@click.argument("folder", type=_FOLDER)
def verify_command(*, folder: Path) -> None:
    """Compare every shard of FOLDER with its hash in the manifest."""
    reader = ShardReader(folder)
    with progress(f"verifying {folder}", len(reader.manifest.shards)) as advance:
        for index in range(len(reader.manifest.shards)):
            reader.verify(index)
            advance(1)
    click.echo(f"{folder}: {len(reader)} samples in {len(reader.manifest.shards)} shards, as the manifest says")


def _opened(name: str, root: Path | None, list_file: Path | None, every: float | None) -> Dataset:
    if root is None:
        raise InvalidParameter(f"--root, the folder that holds {name}, is needed")
    if every is not None and name != Videos.name:
        raise InvalidParameter(f"--every is of {Videos.name}, not of {name}")
    return open_dataset(name, root, list_file, DEFAULT_EVERY_S if every is None else every)


def _one_split(dataset: Dataset, split: str | None) -> str:
    if split is None and len(dataset.splits) > 1:
        raise InvalidParameter(f"--split is needed: {dataset.name} has {', '.join(dataset.splits)}")
    return split or dataset.splits[0]


def _described(kind: type[Dataset]) -> dict[str, object]:
    return {
        "name": kind.name,
        "summary": kind.summary,
        "splits": {split: kind.published.get(split) for split in kind.splits},
        "need_a_list": sorted(kind.listed_splits),
        "labelled": kind.labelled,
        "layout": kind.layout,
    }


def _told(dataset: Dataset, report: SplitReport) -> str:
    """A report for people."""
    of = f" of {report.published} published" if report.published else ""
    sizes = ", ".join(f"{count} of {size}" for size, count in report.sizes.items()) or "none"
    lines = [f"{dataset.name} {report.split}: {report.panoramas} panoramas{of}", f"  read: {sizes}"]
    if report.unknown_share is not None and report.sky_share is not None:
        lines.append(f"  of the sphere: {report.unknown_share:.1%} unknown, {report.sky_share:.1%} sky or out of range")
    if report.depth_percentiles:
        depths = ", ".join(f"{percent}% {metres:.2f}" for percent, metres in report.depth_percentiles.items())
        lines.append(f"  depth in metres: {depths}")
    lines.append(f"  problems: {len(report.problems) or 'none'}")
    lines += [f"    {problem.what}" for problem in report.problems[:_SHOWN_PROBLEMS]]
    if len(report.problems) > _SHOWN_PROBLEMS:
        lines.append(f"    and {len(report.problems) - _SHOWN_PROBLEMS} more; --json has them all")
    return "\n".join(lines)
