"""A service without weights: an engine whose depth is told from the red channel."""

import asyncio
import functools
import io
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from dap.engines.base import Inference, no_range
from dap.graph import GraphMetadata
from service.app import create_app
from service.serving import State
from service.settings import Settings


@dataclass
class RedEngine:
    """Depth in metres is the red channel / 2; a pixel is in range of each threshold that is farther.

    It takes panoramas of `input_size`, and of `other_sizes`.
    `asked_in_range` says of each batch whether range probabilities were asked for.
    `gate` holds the engine inside a run while it is cleared; `entered` tells that a run has begun.
    """

    name: str = "red"
    device: str = "cpu"
    input_size: tuple[int, int] = (32, 64)
    thresholds: tuple[float, ...] = (10.0, 20.0, 50.0, 100.0)
    lanes: int = 1
    other_sizes: tuple[tuple[int, int], ...] = ()
    before: Callable[[npt.NDArray[np.uint8]], None] = lambda panoramas: None
    batches: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    asked_in_range: list[bool] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    closed: bool = False

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        return (self.input_size, *self.other_sizes)

    @property
    def batch_sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches]

    def infer(self, panoramas: npt.NDArray[np.uint8], *, in_range: bool = True) -> Inference:
        self.batches.append(panoramas)
        self.asked_in_range.append(in_range)
        self.entered.release()
        assert self.gate.wait(timeout=10)
        self.before(panoramas)
        depth = panoramas[..., 0].astype(np.float32) / 2
        if not in_range:
            return Inference(depth, no_range(depth))
        nearer = [(depth < threshold).astype(np.float32) for threshold in self.thresholds]
        return Inference(depth, np.stack(nearer, axis=1))

    def warm_up(self, batch_sizes: Sequence[int], size: tuple[int, int] | None = None) -> None:
        for count in batch_sizes:
            self.infer(np.zeros((count, *(size or self.input_size), 3), np.uint8))

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("DAP_", "OTEL_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def engine() -> RedEngine:
    return RedEngine()


@asynccontextmanager
async def _serving(engine: RedEngine, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(**settings), lambda model, settings: engine)
    async with (
        asyncio.timeout(20),
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
    ):
        while app.state.serving.state is State.LOADING:
            await asyncio.sleep(0.001)
        engine.batches.clear()
        engine.entered = threading.Semaphore(0)
        client.app = app
        yield client


Serving = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def serving(engine: RedEngine) -> Serving:
    """A client of a service that is ready, with settings of its own: `async with serving(max_requests=1) as client`."""
    return functools.partial(_serving, engine)


@pytest.fixture
async def client(serving: Serving) -> AsyncIterator[httpx.AsyncClient]:
    async with serving() as ready:
        yield ready


@pytest.fixture
def until_queued() -> Callable[[httpx.AsyncClient, int], Awaitable[None]]:
    """Waits until so many panoramas wait for the engine: `await until_queued(client, 3)`."""

    async def wait(client: httpx.AsyncClient, panoramas: int) -> None:
        registry = client.app.state.telemetry.registry
        while registry.get_sample_value("dap_queue_panoramas") != panoramas:
            await asyncio.sleep(0.001)

    return wait


@pytest.fixture
def panorama() -> Callable[..., bytes]:
    """A panorama of one colour as an image file: `panorama(red=80, height=64)`."""

    def make(red: int = 80, height: int = 64, width: int | None = None, kind: str = "PNG") -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (width or 2 * height, height), (red, 20, 40)).save(file, kind)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def red_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The red engine as an exported file: what `dap serve --model` takes, so that a process needs no fake."""
    panorama = helper.make_tensor_value_info("panorama", TensorProto.UINT8, ["batch", 32, 64, 3])
    depth = helper.make_tensor_value_info("depth", TensorProto.FLOAT, ["batch", 32, 64])
    in_range = helper.make_tensor_value_info("in_range", TensorProto.FLOAT, ["batch", 4, 32, 64])
    constants = [
        numpy_helper.from_array(np.array(0), "first"),
        numpy_helper.from_array(np.array(0.5, np.float32), "half"),
        numpy_helper.from_array(np.array([1]), "thresholds_axis"),
        numpy_helper.from_array(np.array([10, 20, 50, 100], np.float32).reshape(1, 4, 1, 1), "thresholds"),
    ]
    nodes = [
        helper.make_node("Gather", ["panorama", "first"], ["red"], axis=3),
        helper.make_node("Cast", ["red"], ["red_as_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["red_as_float", "half"], ["depth"]),
        helper.make_node("Unsqueeze", ["depth", "thresholds_axis"], ["depth_of_each"]),
        helper.make_node("Less", ["depth_of_each", "thresholds"], ["is_nearer"]),
        helper.make_node("Cast", ["is_nearer"], ["in_range"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(nodes, "red", [panorama], [depth, in_range], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    metadata = GraphMetadata("red", (10.0, 20.0, 50.0, 100.0), (32, 64), "Apache-2.0", "0" * 64)
    helper.set_model_props(model, metadata.entries())
    path = tmp_path_factory.mktemp("models") / "red.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@contextmanager
def _process(model: Path, *flags: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", "from service.commands import serve; serve()", "--port", "0", "--threads", "1"]
    process = subprocess.Popen(
        [*command, "--model", str(model), *flags],
        cwd=Path(__file__).parent.parent.parent,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        address = re.search(r"http://\S+:\d+", line)
        assert address, (line, process.communicate())
        until(lambda: _is_ready(address.group()))
        yield process, address.group()
    finally:
        process.kill()
        process.communicate()


def _is_ready(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz").is_success
    return False


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="session")
def serve(red_model: Path) -> Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]:
    """The service as a process of its own, ready: `with serve("--threads", "1", OTEL_X="y") as (process, url)`."""
    return functools.partial(_process, red_model)
