"""Servers to measure: ours, LitServe and BentoML, each a process of its own on a free port, stopped at the end."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import load
from benchmarks.load import BrokenAnswer, Request
from benchmarks.processes import tree
from dap.engines import Engine, EngineName, Precision, create_engine
from dap.models import find_model
from demo.process import running_service

FORMATS = {"png": "image/png", "npy": "application/x-npy"}

_ROOT = Path(__file__).parent.parent
_READY_WITHIN_S = 90.0
_WARM_WITHIN_S = 900.0  # on a GPU graphs are recorded first, or plans built
_BOUNDARY = "the-end-of-a-part"


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        name: for the tables.
        configuration: how it runs, in a few words.
        url: http://HOST:PORT.
        pid: of the process that was started; the work may be done by its children.
        ready_s: seconds from its start to its first answer, or to the moment that it calls itself ready.
        requests: for each of `FORMATS`, the request for depth in it.
    """

    name: str
    configuration: str
    url: str
    pid: int
    ready_s: float
    requests: Mapping[str, Request]


@dataclass(frozen=True)
class Runtime:
    """What runs the model, in our server and alone, as `dap.engines.create_engine` has it."""

    engine: EngineName = "auto"
    device: str = "auto"
    precision: Precision = "fp32"
    max_batch_size: int = 4

    def create(self, model: str) -> Engine:
        """The engine alone."""
        return create_engine(
            find_model(model),
            self.engine,
            device=self.device,
            precision=self.precision,
            max_batch_size=self.max_batch_size,
        )

    @property
    def options(self) -> tuple[str, ...]:
        """For `dap serve`; none for its defaults."""
        if self == DEFAULTS:
            return ()
        return tuple(word for name, value in vars(self).items() for word in (f"--{name.replace('_', '-')}", str(value)))


DEFAULTS = Runtime()


@contextmanager
def ours(image: bytes, model: str, *options: str) -> Iterator[Server]:
    """`dap serve`, with its defaults but for `options`."""
    with running_service("--model", model, *options, ready_within_s=_WARM_WITHIN_S) as service:
        requests = {
            name: load.post(f"{service.url}/depth", image, {"Content-Type": "image/jpeg", "Accept": media_type})
            for name, media_type in FORMATS.items()
        }
        configuration = " ".join(options) or "defaults"
        yield Server("dap serve", configuration, service.url, service.pid, service.ready_s, requests)


@contextmanager
def litserve(image: bytes, model: str, python: Path, workers: int = 2, batch: int = 1) -> Iterator[Server]:
    """LitServe from the environment of `python`: for each core a process with one thread, if not said otherwise."""
    url = f"http://127.0.0.1:{_free_port()}"
    command = [str(python), "-m", "benchmarks.peers.litserve_app", "--port", url.rpartition(":")[2]]
    command += ["--workers", str(workers), "--batch", str(batch)]
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    requests = {name: load.post(f"{url}/predict", _form(image, name), headers) for name in FORMATS}
    configuration = f"{workers} workers, batches of {batch}"
    with _process(command, {"BENCH_MODEL": model}, requests["png"]) as (pid, ready_s):
        yield Server("LitServe", configuration, url, pid, ready_s, requests)


@contextmanager
def bentoml(image: bytes, model: str, python: Path, workers: int = 2) -> Iterator[Server]:
    """BentoML from the environment of `python`: for each core a process with one thread, if not said otherwise."""
    url = f"http://127.0.0.1:{_free_port()}"
    app = "benchmarks.peers.bentoml_app:Depth"
    command = [str(python.with_name("bentoml")), "serve", app, "--host", "127.0.0.1", "--port", url.rpartition(":")[2]]
    requests = {name: load.post(f"{url}/{name}", image, {"Content-Type": "image/jpeg"}) for name in FORMATS}
    environment = {"BENCH_MODEL": model, "BENCH_WORKERS": str(workers), "BENTOML_DO_NOT_TRACK": "true"}
    with _process(command, environment, requests["png"]) as (pid, ready_s):
        yield Server("BentoML", f"{workers} workers", url, pid, ready_s, requests)


def _form(image: bytes, answer_format: str) -> bytes:
    parts = (
        (b'name="format"', answer_format.encode()),
        (b'name="image"; filename="panorama.jpg"\r\nContent-Type: image/jpeg', image),
    )
    lines = [
        b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (_BOUNDARY.encode(), head, body)
        for head, body in parts
    ]
    return b"".join(lines) + f"--{_BOUNDARY}--\r\n".encode()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def _process(command: list[str], environment: Mapping[str, str], request: Request) -> Iterator[tuple[int, float]]:
    with TemporaryDirectory() as folder, (Path(folder) / "log").open("w+b") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            if not _is_answered(process, request, started + _READY_WITHIN_S):
                log.seek(0)
                raise RuntimeError(f"{command[0]} does not answer; its log:\n{log.read().decode(errors='replace')}")
            yield process.pid, time.perf_counter() - started
        finally:
            _stop(process)


def _is_answered(process: subprocess.Popen[bytes], request: Request, deadline: float) -> bool:
    while time.perf_counter() < deadline and process.poll() is None:
        try:
            if load.run(load.ask(request)).status == 200:
                return True
        except (BrokenAnswer, OSError):
            pass
        time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and end what it leaves behind."""
    family = tree(process.pid)
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for member in family:
        try:
            os.kill(member, signal.SIGKILL)
        except ProcessLookupError:
            continue
