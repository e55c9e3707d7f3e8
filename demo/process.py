"""The service as a child process on a free port, for the demo, the benchmarks and the tests of the README."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx


@dataclass(frozen=True)
class ServiceProcess:
    """A service that is ready.

    Attributes:
        url: where it listens, `http://127.0.0.1:PORT`.
        pid: its process.
        ready_s: seconds from the start of the process to the first 200 of /readyz.
    """

    url: str
    pid: int
    ready_s: float


@contextmanager
def running_service(*options: str, ready_within_s: float = 60.0) -> Iterator[ServiceProcess]:
    """`dap serve` with these options, from the moment it is ready; stopped at the end.

    Raises:
        RuntimeError: it ended, or was not ready in time; the message ends with its log.
    """
    address = ["--host", "127.0.0.1", "--port", "0", "--shutdown-grace-s", "0"]
    command = [sys.executable, "-m", "dap", "serve", *address, *options]
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as sink:
            started = time.perf_counter()
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT)
        try:
            url = _wait_until_ready(process, log, started + ready_within_s)
            yield ServiceProcess(url, process.pid, time.perf_counter() - started)
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path, deadline: float) -> str:
    with httpx.Client(timeout=2.0) as client:
        while time.perf_counter() < deadline and process.poll() is None:
            address = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
            if address and _is_ready(client, address.group()):
                return address.group()
            time.sleep(0.01)
    state = "did not become ready in time" if process.poll() is None else f"ended with status {process.returncode}"
    raise RuntimeError(f"the service {state}; its log:\n{log.read_text()}")


def _is_ready(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False
