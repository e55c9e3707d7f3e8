"""A CUDA device that torch plays on the CPU: streams, events and graphs, as far as `dap.engines.torch_cuda` uses them.

Work is done where it is launched, so its numbers are right in any case. What a device could do in another order is
found as torch's own sanitizer finds it (`torch.cuda._sanitizer`), by clocks: whoever reads or writes memory must come
after whoever wrote it, and whoever writes after whoever read it, because they are of one stream or thread, because of
an event or a lock between them, or because a thread waited.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import LifoQueue
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map

from dap.engines import torch_cuda

# A recording may not wait for the device, as these do, nor copy from memory that is not page-locked.
NEVER_RECORDED = ("aten._local_scalar_dense", "aten.lift_fresh", "aten.nonzero", "aten.is_nonzero", "aten.equal")

Clock = dict[int, int]


def merge(clock: Clock, other: Clock) -> None:
    for actor, time in other.items():
        clock[actor] = max(time, clock.get(actor, 0))


@dataclass
class Actor:
    """A stream, or a thread of the host."""

    name: str
    clock: Clock = field(default_factory=dict)

    def tick(self) -> Clock:
        self.clock[id(self)] = self.clock.get(id(self), 0) + 1
        return dict(self.clock)


@dataclass
class Memory:
    """Who wrote a storage last, and who has read it since: each an actor and its clock at the time."""

    storage: torch.UntypedStorage
    written: tuple[Actor, Clock] | None = None
    read: list[tuple[Actor, Clock]] = field(default_factory=list)


class PlayedCuda:
    """Takes the place of what `torch.cuda` has for streams and graphs.

    Attributes:
        races: what two actors did in no order, in words.
        launched: operations that were launched one by one, and not by a graph.
        replayed: how many graphs were.
        tf32: of each operation of the work whether TF32 was allowed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.races: list[str] = []
        self.launched = 0
        self.replayed = 0
        self.tf32: set[bool] = set()
        self._own = threading.local()
        self._memories: dict[int, Memory] = {}
        self._pool: list[Graph] = []
        self._streams = 0
        play = {
            "Stream": self.new_stream, "Event": lambda blocking: Event(self), "stream": self.stream,
            "device": self.device, "graph": self.recording, "CUDAGraph": lambda: Graph(self),
            "graph_pool_handle": lambda: "pool", "synchronize": lambda: None, "empty_cache": lambda: None,
            "is_available": lambda: True, "device_count": lambda: 1,
        }  # fmt: skip
        for name, double in play.items():
            monkeypatch.setattr(torch.cuda, name, double)
        cuda = self

        class Queue(LifoQueue[Any]):
            """Hands on what its giver knows, as every lock does."""

            def put(self, item: Any) -> None:  # type: ignore[override]
                super().put((item, cuda.thread.tick()))

            def get(self) -> Any:  # type: ignore[override]
                item, clock = super().get()
                merge(cuda.thread.clock, clock)
                return item

        monkeypatch.setattr(torch_cuda, "LifoQueue", Queue)
        move = torch.nn.Module.to
        monkeypatch.setattr(
            torch.nn.Module, "to", lambda module, *args, **options: move(module, *map(on_the_cpu, args), **options)
        )

    @property
    def thread(self) -> Actor:
        if not hasattr(self._own, "actor"):
            self._own.actor = Actor(f"thread {threading.get_ident()}")
        actor: Actor = self._own.actor
        return actor

    @property
    def current(self) -> "Stream | None":
        stack: list[Stream] = getattr(self._own, "streams", [])
        return stack[-1] if stack else None

    def new_stream(self) -> "Stream":
        self._streams += 1
        return Stream(f"stream {self._streams}")

    @contextmanager
    def stream(self, stream: "Stream") -> Iterator[None]:
        if not hasattr(self._own, "streams"):
            self._own.streams = []
        self._own.streams.append(stream)
        try:
            yield
        finally:
            self._own.streams.pop()

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        with OnTheCpu(), Watch(self):
            yield

    @contextmanager
    def recording(self, graph: "Graph", pool: str, stream: "Stream", capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"  # by default whatever another thread does would break it
        assert pool == "pool"
        self._own.recorded = graph.tape
        try:
            with self.stream(stream):
                yield
        finally:
            del self._own.recorded
        self._pool.append(graph)

    def spoil(self, kept: "Graph") -> None:
        """What shares its memory with a graph that runs is overwritten."""
        for graph in self._pool:
            for launch in graph.tape if graph is not kept else ():
                for output in launch.outputs:
                    output.fill_(torch.nan if output.is_floating_point() else 0)

    def run(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Do what is launched, and note it."""
        result = function(*args, **kwargs)
        launch = Launch(function, args, kwargs, tensors_of(result))
        if launch.is_view or str(function).startswith("aten.empty"):
            return result
        if hasattr(self._own, "recorded"):
            assert not str(function).startswith(NEVER_RECORDED), f"{function} cannot be recorded"
            self._own.recorded.append(launch)
        else:
            self.launched += self.current is not None
            self.note(launch)
        return result

    def note(self, launch: "Launch") -> None:
        if "conv" in str(launch.function) and self.current is not None:
            self.tf32.add(torch.backends.cudnn.allow_tf32)
        read, written = launch.accesses
        self.access(str(launch.function), read, written)

    def access(self, what: str, read: list[Tensor], written: list[Tensor]) -> None:
        actor: Actor = self.thread
        if self.current is not None:
            merge(self.current.clock, self.thread.tick())
            actor = self.current
        now = actor.tick()
        for tensor in read:
            memory = self._memory(tensor)
            self._require_order(what, now, [memory.written] if memory.written else [])
            memory.read.append((actor, now))
        for tensor in written:
            memory = self._memory(tensor)
            self._require_order(what, now, [*memory.read, *([memory.written] if memory.written else [])])
            memory.written, memory.read = (actor, now), []

    def _memory(self, tensor: Tensor) -> Memory:
        return self._memories.setdefault(place(tensor), Memory(tensor.untyped_storage()))

    def _require_order(self, what: str, now: Clock, earlier: list[tuple[Actor, Clock]]) -> None:
        for actor, then in earlier:
            if now.get(id(actor), 0) < then[id(actor)]:
                self.races.append(f"{what} does not wait for what {actor.name} does to its memory")


class Stream(Actor):
    def wait_event(self, event: "Event") -> None:
        merge(self.clock, event.clock)


class Event:
    def __init__(self, cuda: PlayedCuda) -> None:
        self._cuda = cuda
        self.clock: Clock = {}

    def record(self) -> None:
        assert self._cuda.current is not None
        self.clock = dict(self._cuda.current.clock)

    def synchronize(self) -> None:
        merge(self._cuda.thread.clock, self.clock)


class Graph:
    """Does again what was recorded, with what is then in the memory that it was recorded with."""

    def __init__(self, cuda: PlayedCuda) -> None:
        self._cuda = cuda
        self.tape: list[Launch] = []

    def replay(self) -> None:
        assert self._cuda.current is not None
        self._cuda.replayed += 1
        with _disable_current_modes():
            self._cuda.spoil(self)
            for launch in self.tape:
                launch.again()
                self._cuda.note(launch)


@dataclass(frozen=True)
class Launch:
    """An operation, what it was given, and where its outputs are."""

    function: Any
    args: Any
    kwargs: Any
    outputs: list[Tensor]

    @property
    def accesses(self) -> tuple[list[Tensor], list[Tensor]]:
        """What it reads and what it writes."""
        arguments = self.function._schema.arguments
        given = dict(zip((argument.name for argument in arguments), self.args, strict=False)) | self.kwargs
        read, written = [], list(self.outputs)
        for argument in arguments:
            changed = argument.alias_info is not None and argument.alias_info.is_write
            (written if changed else read).extend(tensors_of(given.get(argument.name)))
        return read, written

    @property
    def is_view(self) -> bool:
        """Its outputs are the memory that it was given, which it does not change."""
        there = {place(tensor) for tensor in tensors_of((self.args, self.kwargs))}
        changes = any(output.alias_info and output.alias_info.is_write for output in self.function._schema.returns)
        return not changes and all(place(output) in there for output in self.outputs)

    def again(self) -> None:
        for output, value in zip(self.outputs, tensors_of(self.function(*self.args, **self.kwargs)), strict=True):
            if place(output) != place(value):
                output.copy_(value)


class Watch(TorchDispatchMode):
    """Shows the device every operation of its thread."""

    def __init__(self, cuda: PlayedCuda) -> None:
        super().__init__()
        self._cuda = cuda

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._cuda.run(function, args, kwargs or {})


class OnTheCpu(TorchFunctionMode):
    """What is asked for on the device, or page-locked, is given on the CPU."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = {name: value for name, value in (kwargs or {}).items() if name != "pin_memory"}
        return function(*tree_map(on_the_cpu, args), **tree_map(on_the_cpu, options))


def on_the_cpu(value: Any) -> Any:
    return torch.device("cpu") if isinstance(value, torch.device) else value


def tensors_of(values: Any) -> list[Tensor]:
    return [value for value in tree_flatten(values)[0] if isinstance(value, Tensor)]


def place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
