"""The roofline of the network by part: FLOP, bytes and time, and what is the limit, products or memory.

The model of Williams, Waterman and Patterson (doi 10.1145/1498765.1498785): nothing is faster than its FLOP at the rate
of a large matrix product, nor than its bytes at the bandwidth of a large copy, both measured here in the same run.

Every operator of torch that the plain network calls is timed and counted: FLOP by `dap.model.flop`, bytes as those of
the tensors that it reads and writes. What comes from a cache and not from memory is counted all the same, so a part may
be faster than its bytes allow.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import ceiling
from benchmarks.ceiling import Ceilings
from dap.graph import GraphPrecision
from dap.model.checkpoints import load_network
from dap.model.dap import PixelNetwork
from dap.model.flop import operator_flop

_HEADS = {"depth_head": "depth head", "mask_head": "mask head", "added_mask_heads": "mask head"}
_SHOWN = 0.005
_REASSEMBLE = ("projects", "resize_layers", "to_features")


@dataclass
class Call:
    """One call of an operator.

    Attributes:
        part: of the network, see `part_of`.
        flop: counted.
        moved: bytes read and written.
        seconds: of each pass.
    """

    part: str
    flop: int
    moved: int
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """A part of the network, over all of its operators.

    Attributes:
        name: see `part_of`.
        flop: counted.
        moved: bytes read and written.
        seconds: that it took.
        product_seconds: that its FLOP take at least.
        copy_seconds: that its bytes take at least.
        least_seconds: that its operators take at least, each by the greater of the two.
    """

    name: str
    flop: int
    moved: int
    seconds: float
    product_seconds: float
    copy_seconds: float
    least_seconds: float

    @property
    def bound(self) -> str:
        """What is the limit: `products` or `memory`."""
        return "products" if self.product_seconds > self.copy_seconds else "memory"

    @property
    def attained(self) -> float:
        """The least time as a part of the time that it took; above 1 where caches save it the way to memory."""
        return self.least_seconds / self.seconds


@dataclass(frozen=True)
class Roofline:
    """Of one network on one machine.

    Attributes:
        ceilings: of the machine, in the same precision.
        parts: in the order in which they begin.
        whole_seconds: of the network when nobody looks at its operators.
    """

    ceilings: Ceilings
    parts: tuple[Part, ...]
    whole_seconds: float

    @property
    def total(self) -> Part:
        """All parts together."""
        return _sum("all", self.parts)


def _sum(name: str, parts: Sequence[Part]) -> Part:
    summed = [field.name for field in fields(Part) if field.name != "name"]
    return Part(name, **{field: sum(getattr(part, field) for part in parts) for field in summed})


def measure(
    checkpoint: Path,
    pixels: npt.NDArray[np.uint8],
    *,
    device: str,
    precision: GraphPrecision,
    rounds: int,
    advance: Callable[[int], None],
) -> Roofline:
    """Run the network, its operators and the ceilings in turns.

    Args:
        checkpoint: of the network.
        pixels: uint8 (B, H, W, 3).
        device: as torch names it.
        precision: `fp32`, or `bf16` or `fp16` by autocast.
        rounds: of which the medians are taken.
        advance: told of each round.
    """
    on = torch.device(device)
    whole = PixelNetwork(load_network(checkpoint)).eval().to(on)
    panoramas = torch.from_numpy(pixels).to(on)
    multiply, flop = ceiling.product(precision, device)
    move, moved = ceiling.copy(device)
    calls: list[Call] = []

    def run() -> None:
        with torch.no_grad(), torch.autocast(on.type, ceiling.TYPES[precision], enabled=precision != "fp32"):
            whole(panoramas)
        ceiling.wait_for(on)

    def look() -> None:
        with looking(whole, on, calls):
            run()

    taken = timed_in_turns((multiply, move, run, look), rounds, advance)
    for call in calls:
        del call.seconds[:-rounds]
    product_s, copy_s, whole_s, _ = map(statistics.median, taken)
    ceilings = Ceilings(flop / product_s, moved / copy_s)
    return Roofline(ceilings, parts_of(calls, ceilings), whole_s)


def timed_in_turns(
    works: Sequence[Callable[[], object]], rounds: int, advance: Callable[[int], None]
) -> list[list[float]]:
    """Seconds of each work in each round, one after the other; before, each runs once for what is lazy in it."""
    taken: list[list[float]] = [[] for _ in works]
    for work in works:
        work()
    for _ in range(rounds):
        for work, seconds in zip(works, taken, strict=True):
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)
        advance(1)
    return taken


def parts_of(calls: Iterable[Call], ceilings: Ceilings) -> tuple[Part, ...]:
    """The calls summed up by part."""
    by_part: dict[str, list[Call]] = {}
    for call in calls:
        by_part.setdefault(call.part, []).append(call)
    return tuple(
        Part(
            name,
            flop := sum(call.flop for call in group),
            moved := sum(call.moved for call in group),
            sum(statistics.median(call.seconds) for call in group),
            flop / ceilings.gemm,
            moved / ceilings.bandwidth,
            sum(max(call.flop / ceilings.gemm, call.moved / ceilings.bandwidth) for call in group),
        )
        for name, group in by_part.items()
    )


def part_of(module: str, operator: str) -> str:
    """The part of the network that an operator belongs to.

    Args:
        module: dotted name of the innermost module that runs, in a `PixelNetwork`.
        operator: torch's name of it.
    """
    _, root, *names = [*module.split("."), "", ""]
    if root == "encoder":
        return _encoder_part([name for name in names if name])
    if root not in _HEADS:
        return "pixels to input, logits to metres"
    if "upsample" in operator:
        return f"{_HEADS[root]}: resizes"
    inner = next((name for name in names if name and not name.isdigit()), "")
    if inner in _REASSEMBLE:
        return f"{_HEADS[root]}: reassemble"
    if inner.startswith("output_conv"):
        return f"{_HEADS[root]}: output convolutions"
    return f"{_HEADS[root]}: fusion"


def _encoder_part(names: Sequence[str]) -> str:
    if names[:1] == ["patch_embed"]:
        return "patch embedding"
    if names[:1] in (["stem"], ["stages"], ["stage4"], ["stage8"], ["stage16"]):
        return "encoder: convolutions"
    match names:
        case ["blocks", _, "attn"]:
            return "blocks: attention, rotary embedding"
        case ["blocks", _, "attn", *_]:
            return "blocks: products to and from attention"
        case ["blocks", _, "mlp", *_]:
            return "blocks: MLP"
    return "encoder: norms, scales, sums, taps"


@contextmanager
def looking(network: nn.Module, device: torch.device, calls: list[Call]) -> Iterator[None]:
    """Note every call of an operator while the network runs, in `calls`; of a later pass only the seconds are new."""
    running = [""]
    hooks = []
    for name, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(functools.partial(_enter, running, name)))
        hooks.append(module.register_forward_hook(functools.partial(_leave, running)))
    mode = _Looking(running, device)
    try:
        with mode:
            yield
    finally:
        for hook in hooks:
            hook.remove()
    found = [Call(call.part, call.flop, call.moved) for call in mode.calls]
    calls.extend(found[len(calls) :])
    for call, seconds in zip(calls, mode.seconds(), strict=True):
        call.seconds.append(seconds)


def _enter(running: list[str], name: str, _module: nn.Module, _inputs: object) -> None:
    running.append(name)


def _leave(running: list[str], _module: nn.Module, _inputs: object, _output: object) -> None:
    running.pop()


class _Looking(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Times and counts each operator that does something; a view does nothing."""

    def __init__(self, running: list[str], device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self._running = running
        self._clock = _GpuClock() if device.type == "cuda" else _Clock()

    def seconds(self) -> list[float]:
        """Of each of `calls`."""
        return self._clock.seconds()

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self._clock.start()
        result = func(*args, **kwargs)
        read, written = _tensors((args, kwargs)), _tensors(result)
        if {_storage(tensor) for tensor in written} <= {_storage(tensor) for tensor in read} and not _writes(func):
            self._clock.forget()
            return result
        self._clock.stop()
        moved = sum(map(_bytes, (*read, *written)))
        part = part_of(self._running[-1], func._schema.name)
        self.calls.append(Call(part, operator_flop(func, args, kwargs, result), moved))
        return result


class _Clock:
    """Seconds of each stretch between `start` and `stop`."""

    def __init__(self) -> None:
        self._started = 0.0
        self._seconds: list[float] = []

    def start(self) -> None:
        self._started = time.perf_counter()

    def stop(self) -> None:
        self._seconds.append(time.perf_counter() - self._started)

    def forget(self) -> None:
        """The stretch that was started does not count."""

    def seconds(self) -> list[float]:
        return self._seconds


class _GpuClock(_Clock):
    """The same of what the GPU does, not of who tells it to."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def start(self) -> None:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        self._events.append((begin, end))
        begin.record()

    def stop(self) -> None:
        self._events[-1][1].record()

    def forget(self) -> None:
        self._events.pop()

    def seconds(self) -> list[float]:
        torch.cuda.synchronize()
        return [begin.elapsed_time(end) / 1000 for begin, end in self._events]


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> int:
    return id(tensor.untyped_storage())


def _writes(operator: Any) -> bool:
    return bool(operator._schema.is_mutable)


def _bytes(tensor: Tensor) -> int:
    """Of its values; what was expanded stands in memory once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def as_markdown(roofline: Roofline) -> str:
    """A table for docs/performance.md."""
    gemm, bandwidth = roofline.ceilings.gemm, roofline.ceilings.bandwidth
    total = roofline.total
    columns = "part|GFLOP|GB moved|FLOP a byte|ms|of the time|at least ms|attained|the limit"
    lines = [
        f"A large product: {gemm / 1e12:.3g} TFLOP/s; a large copy: {bandwidth / 1e9:.3g} GB/s; "
        f"products are the limit above {roofline.ceilings.ridge:.0f} FLOP a byte. "
        f"The network when nobody looks: {1000 * roofline.whole_seconds:.0f} ms.",
        "",
        f"| {columns.replace('|', ' | ')} |",
        "|" + "---|" * (columns.count("|") + 1),
    ]
    shown = sorted(roofline.parts, key=lambda part: -part.seconds)
    small = [part for part in shown if part.seconds < _SHOWN * total.seconds]
    if len(small) > 1:
        shown = [*shown[: -len(small)], _sum(f"{len(small)} others", small)]
    lines += [
        f"| {part.name} | {part.flop / 1e9:.2f} | {part.moved / 1e9:.3f} | {part.flop / part.moved:.1f} "
        f"| {1000 * part.seconds:.1f} | {part.seconds / total.seconds:.0%} | {1000 * part.least_seconds:.1f} "
        f"| {part.attained:.0%} | {'' if part is total else part.bound} |"
        for part in (*shown, total)
    ]
    return "\n".join(lines)


def as_dict(roofline: Roofline) -> dict[str, Any]:
    """As JSON takes it."""
    parts = [{**asdict(part), "bound": part.bound, "attained": part.attained} for part in roofline.parts]
    return {"ceilings": asdict(roofline.ceilings), "whole_seconds": roofline.whole_seconds, "parts": parts}
