"""The engines beside the plain network: time, memory, share of the machine, and whether they give the same metres.

All take turns in one run, each in a process of its own (`benchmarks.racer`), and with them a large matrix product, so
that the share of its rate that a network reaches is of the same minute.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.contenders import Contender, Subject
from benchmarks.load import percentile
from benchmarks.race import RacerFailed, Record, race
from benchmarks.racer import Entry, Kind
from dap.graph import GraphPrecision

CEILING_PRECISIONS: tuple[GraphPrecision, ...] = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Setting:
    """How they are run.

    Attributes:
        device: `cpu`, `cuda` or `cuda:N`.
        threads: that work on the CPU.
        seconds: of a turn, at least; one run takes what it takes.
        rounds: turns of each.
        price_per_hour: of the machine, euros; None if it is not to be counted.
    """

    device: str
    threads: int
    seconds: float
    rounds: int
    price_per_hour: float | None = None


@dataclass(frozen=True)
class Row:
    """One contender with one batch size, with range masks or without. Megabytes of 10^6 bytes.

    Attributes:
        name: of the contender.
        in_range: with range masks.
        batch: panoramas at a time.
        p50_ms: of a batch.
        p90_ms: likewise.
        per_s: panoramas a second, by the median.
        times: how many times as fast as the reference: the median of the rounds' ratios.
        cpu_ms: processor milliseconds of a panorama.
        peak_mb: in memory at most, libraries included; of `loading_mb` and `running_mb` the greater.
        peak_of_reference: that as a part of the reference's.
        grown_mb: the same beyond what its libraries take when they are loaded: weights, and what is computed.
        grown_of_reference: that as a part of the reference's.
        loading_mb: in memory at most, up to the end of the first run.
        running_mb: likewise since then.
        imported_mb: of the libraries alone.
        device_mb: of the GPU's memory, as its driver counts, what CUDA itself needs included; None on a CPU.
        allocated_mb: of torch's tensors there at most; None where torch does not know.
        tflops: 10^12 counted FLOP a second; None where there is no checkpoint to count.
        of_product: that as a part of the rate of a large matrix product in the same precision, in the same run.
        log_depth_max: greatest difference in the natural logarithm of depth from the reference, on one batch.
        log_depth_mean: likewise on average.
        per_hour: panoramas.
        per_euro: panoramas; None without a price.
    """

    name: str
    in_range: bool
    batch: int
    p50_ms: float
    p90_ms: float
    per_s: float
    times: float
    cpu_ms: float
    peak_mb: float
    peak_of_reference: float
    grown_mb: float
    grown_of_reference: float
    loading_mb: float
    running_mb: float
    imported_mb: float
    device_mb: float | None
    allocated_mb: float | None
    tflops: float | None
    of_product: float | None
    log_depth_max: float
    log_depth_mean: float
    per_hour: float
    per_euro: float | None


@dataclass(frozen=True)
class Result:
    """All that one run measured.

    Attributes:
        subject: name of the model.
        size: (H, W) in pixels.
        gflop: of one panorama by whether it has range masks; empty where there is no checkpoint to count.
        product_tflops: rate of a large matrix product, by precision: the median over the run.
        transfer_ms: in which the pixels of one panorama go to a GPU and its depth comes back, at best; None on a CPU.
        rows: in the order in which they ran.
        left_out: contenders that could not run, and why.
    """

    subject: str
    size: tuple[int, int]
    gflop: Mapping[bool, float]
    product_tflops: Mapping[str, float]
    transfer_ms: float | None
    rows: Sequence[Row]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class Heat:
    """One batch size, with range masks or without: what all contenders run in turns."""

    batch: int
    in_range: bool


def measure(
    subject: Subject,
    contenders: Sequence[Contender],
    heats: Sequence[Heat],
    pixels: npt.NDArray[np.uint8],
    setting: Setting,
    folder: Path,
    left_out: Mapping[str, str],
    advance: Callable[[int], None],
) -> Result:
    """Run them.

    Args:
        subject: what they run.
        contenders: the first of them is the reference.
        heats: one after the other.
        pixels: uint8 (H, W, 3), a panorama of the subject's size; a batch has it turned in several ways.
        setting: how.
        folder: for what passes between the processes.
        left_out: who could not even be entered, and why.
        advance: told of each turn; there are as many as `turns` says, or fewer if one cannot start.

    Raises:
        RacerFailed: the reference cannot run, or one ended that had started.
    """
    flop = {heat.in_range: _flop(subject, heat.in_range) for heat in heats}
    rows: list[Row] = []
    out = dict(left_out)
    products: dict[GraphPrecision, list[float]] = {}
    crossings: list[float] = []
    for number, heat in enumerate(heats):
        panoramas = folder / f"panoramas-{number}.npy"
        np.save(panoramas, turned(pixels, heat.batch))
        entries = {
            _entry(contender, subject, heat, setting, panoramas, folder / f"depth-{number}-{place}.npy"): contender.name
            for place, contender in enumerate(contenders)
        }
        ceilings = [
            Entry(kind, precision, setting.device, setting.threads, subject.size)
            for kind, precision in ceilings_of(contenders, setting.device)
        ]
        records, failed = race([*entries, *ceilings], setting.seconds, setting.rounds, advance)
        out |= {entries.get(entry, f"{entry.kind} {entry.precision}"): reason for entry, reason in failed.items()}
        reference = records.get(next(iter(entries)))
        if reference is None:
            raise RacerFailed(f"{contenders[0].name}, with which the others are compared: {out[contenders[0].name]}")
        rates = {entry.precision: record.rate for entry, record in records.items() if entry.kind == "product"}
        crossings += [second for entry in ceilings if entry.kind == "transfer" for second in records[entry].seconds]
        for precision, rate in rates.items():
            products.setdefault(precision, []).append(rate / 1e12)
        rows += [
            row_of(name, heat, records[entry], reference, flop[heat.in_range], rates, setting.price_per_hour)
            for entry, name in entries.items()
            if entry in records
        ]
    return Result(
        subject.name,
        subject.size,
        {in_range: counted / 1e9 for in_range, counted in flop.items() if counted is not None},
        {precision: statistics.median(found) for precision, found in products.items()},
        1000 * statistics.median(crossings) if crossings else None,
        rows,
        out,
    )


def turns(contenders: Sequence[Contender], heats: Sequence[Heat], setting: Setting) -> int:
    """How many of them `measure` takes."""
    return len(heats) * setting.rounds * (len(contenders) + len(ceilings_of(contenders, setting.device)))


def ceilings_of(contenders: Sequence[Contender], device: str) -> list[tuple[Kind, GraphPrecision]]:
    """What runs beside the contenders: a product in each of their precisions that has one, and the way to a GPU."""
    found = dict.fromkeys(contender.precision for contender in contenders)
    products: list[tuple[Kind, GraphPrecision]] = [("product", one) for one in found if one in CEILING_PRECISIONS]
    return products if device == "cpu" else [*products, ("transfer", "fp32")]


def turned(pixels: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.uint8]:
    """The same panorama `count` times, each time turned further: uint8 (count, H, W, 3)."""
    width = pixels.shape[1]
    return np.stack([np.roll(pixels, index * width // count, axis=1) for index in range(count)])


def _entry(contender: Contender, subject: Subject, heat: Heat, setting: Setting, panoramas: Path, depth: Path) -> Entry:
    return Entry(
        contender.kind,
        contender.precision,
        setting.device,
        setting.threads,
        subject.size,
        str(contender.path),
        heat.in_range,
        str(panoramas),
        str(depth),
    )


def _flop(subject: Subject, in_range: bool) -> int | None:
    """Of one panorama, as the network is written: what an engine saves of it, it has still done."""
    if subject.checkpoint is None:
        return None
    from dap.model.checkpoints import load_network
    from dap.model.flop import network_flop

    return network_flop(load_network(subject.checkpoint).config, subject.size, in_range=in_range)


def row_of(
    name: str,
    heat: Heat,
    record: Record,
    reference: Record,
    flop: int | None,
    rates: Mapping[GraphPrecision, float],
    price_per_hour: float | None,
) -> Row:
    """What one contender's turns come to, beside those of the reference in the same rounds.

    Args:
        name: of the contender.
        heat: that they ran.
        record: of the contender.
        reference: of whom it is compared with.
        flop: of one panorama.
        rates: FLOP a second of a large matrix product, by precision.
        price_per_hour: of the machine.
    """
    ascending = sorted(record.seconds)
    p50 = statistics.median(ascending)
    per_s = heat.batch / p50
    rate = None if flop is None else flop * per_s
    product = rates.get(record.entry.precision)
    difference = log_difference(np.load(record.entry.depth), np.load(reference.entry.depth))
    return Row(
        name=name,
        in_range=heat.in_range,
        batch=heat.batch,
        p50_ms=1000 * p50,
        p90_ms=1000 * percentile(ascending, 0.9),
        per_s=per_s,
        times=times(record, reference),
        cpu_ms=1000 * sum(turn.cpu_s for turn in record.turns) / (heat.batch * len(ascending)),
        peak_mb=record.peak_mb,
        peak_of_reference=record.peak_mb / reference.peak_mb,
        grown_mb=record.grown_mb,
        grown_of_reference=record.grown_mb / reference.grown_mb,
        loading_mb=record.ready.loading_mb,
        running_mb=record.running_mb,
        imported_mb=record.ready.imported_mb,
        device_mb=record.device_mb,
        allocated_mb=max(turn.allocated_mb for turn in record.turns) or None,
        tflops=None if rate is None else rate / 1e12,
        of_product=None if rate is None or product is None else rate / product,
        log_depth_max=float(difference.max()),
        log_depth_mean=float(difference.mean()),
        per_hour=3600 * per_s,
        per_euro=None if price_per_hour is None else 3600 * per_s / price_per_hour,
    )


def times(record: Record, reference: Record) -> float:
    """How many times as fast as the reference: round by round, since what slows one slows the other, and the median."""
    return statistics.median(
        statistics.median(theirs.seconds) / statistics.median(own.seconds)
        for own, theirs in zip(record.turns, reference.turns, strict=True)
    )


def log_difference(depth: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """How far the natural logarithms of two depths, metres, are apart."""
    difference: npt.NDArray[np.float64] = np.log(depth.astype(np.float64)) - np.log(reference.astype(np.float64))
    return np.abs(difference)


def as_markdown(result: Result) -> str:
    """Tables for docs/performance.md."""
    height, width = result.size
    on_device = any(row.device_mb is not None for row in result.rows)
    lines = [f"{result.subject}, {width}x{height}", "", _counted(result), ""]
    columns = ["runs", "range", "batch", "p50 ms", "p90 ms", "panoramas/s", "times", "CPU ms each"]
    columns += ["peak MB", "of it", "beyond libraries MB", "of it", *(["GPU MB"] if on_device else [])]
    columns += ["TFLOP/s", "of a product", "ln depth, max", "mean"]
    lines += _table(columns, [_cells(row, on_device) for row in result.rows])
    lines += ["", *_table(["runs", "range", "batch", "panoramas an hour", "a euro"], list(map(_costs, result.rows)))]
    return "\n".join([*lines, *(["", *_left_out(result)] if result.left_out else [])])


def _counted(result: Result) -> str:
    panorama = [f"{gflop:.1f} GFLOP with{'' if masks else 'out'} range masks" for masks, gflop in result.gflop.items()]
    product = [f"{rate:.3g} TFLOP/s in {precision}" for precision, rate in result.product_tflops.items()]
    said = f"One panorama: {', '.join(panorama) or 'not counted'}. A large product: {', '.join(product) or 'none'}."
    if result.transfer_ms is None:
        return said
    return f"{said} The pixels of one to the GPU and its depth back: {result.transfer_ms:.2f} ms."


def _cells(row: Row, on_device: bool) -> list[str]:
    return [
        row.name,
        _range(row),
        str(row.batch),
        f"{row.p50_ms:.1f}",
        f"{row.p90_ms:.1f}",
        f"{row.per_s:.3g}",
        f"{row.times:.2f}",
        f"{row.cpu_ms:.0f}",
        f"{row.peak_mb:.0f}",
        f"{row.peak_of_reference:.2f}",
        f"{row.grown_mb:.0f}",
        f"{row.grown_of_reference:.2f}",
        *([_or_dash(row.device_mb, ".0f")] if on_device else []),
        _or_dash(row.tflops, ".3g"),
        _or_dash(row.of_product, ".0%"),
        f"{row.log_depth_max:.1e}",
        f"{row.log_depth_mean:.1e}",
    ]


def _costs(row: Row) -> list[str]:
    return [row.name, _range(row), str(row.batch), f"{row.per_hour:.0f}", _or_dash(row.per_euro, ".0f")]


def _left_out(result: Result) -> list[str]:
    return [f"Left out: {name}: {reason}" for name, reason in result.left_out.items()]


def _range(row: Row) -> str:
    return "masks" if row.in_range else "none"


def _or_dash(number: float | None, form: str) -> str:
    return "" if number is None else format(number, form)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *(f"| {' | '.join(row)} |" for row in rows)]
