"""`dap serve`: the application under uvicorn, in one process, with signals of our own.

uvicorn closes its socket the moment SIGTERM comes, so nobody ever sees /readyz say no. Here the first signal turns
readiness off, requests are still taken for a grace period, what was accepted is finished, and the process exits with 0.
A second signal ends it at once. A failed engine ends it too, with 1, so that an orchestrator starts it anew.
"""

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
from collections.abc import Iterator

import uvicorn

from service.app import create_app
from service.connections import Connection
from service.serving import Serving, State
from service.settings import Settings
from service.telemetry import JsonFormatter

_FAILED_DRAIN_S = 2

_log = logging.getLogger("dap.service")


class Server(uvicorn.Server):
    """A uvicorn that goes down gracefully, and by itself when the engine has failed."""

    def __init__(self, config: uvicorn.Config, serving: Serving, grace_s: float) -> None:
        super().__init__(config)
        self._serving = serving
        self._grace_s = grace_s
        self._signalled = False
        self.exit_status = 0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Listen to SIGTERM and SIGINT while the server runs."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def on_tick(self, counter: int) -> bool:
        """Asked ten times a second: whether to go down."""
        if self._serving.state is State.FAILED:
            self.exit_status = 1
            # Whoever waited for the engine has an error already; uploads to a dead service are not worth waiting for.
            self.config.timeout_graceful_shutdown = _FAILED_DRAIN_S
        return await super().on_tick(counter) or self.exit_status != 0

    def _on_signal(self, number: signal.Signals) -> None:
        if self._signalled:
            os._exit(128 + number)  # An engine that hangs would keep any gentler end waiting.
        self._signalled = True
        # Nobody waits for a load balancer at a terminal.
        grace_s = self._grace_s if number is signal.SIGTERM else 0.0
        _log.info("going down", extra={"fields": {"signal": number.name, "grace_s": grace_s}})
        self._serving.drain()
        asyncio.get_running_loop().call_later(grace_s, self._exit)

    def _exit(self) -> None:
        self.should_exit = True


def run(settings: Settings) -> int:
    """Serve until a signal comes or the engine fails; return the exit status of the process.

    Raises:
        OSError: an address cannot be listened on.
        InvalidParameter: as `create_app` says.
    """
    listeners = [listen(settings.host, settings.port)]
    where = f"listening on {url(listeners[0])}"
    if settings.probe_port is not None:
        listeners.append(listen(settings.host, settings.probe_port))
        where += f", for probes and metrics on {url(listeners[1])}"
        settings = settings.model_copy(update={"probe_port": listeners[1].getsockname()[1]})
    configure_logging(settings.log_level)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        lifespan="on",
        http=Connection,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout_s),
    )
    serving: Serving = app.state.serving
    print(f"{where}, loading {settings.model}", flush=True)  # noqa: T201
    server = Server(config, serving, settings.shutdown_grace_s)
    server.run(sockets=listeners)
    if serving.is_stuck:
        logging.shutdown()
        os._exit(server.exit_status or 1)  # The interpreter would wait for the thread of the engine that hangs.
    return server.exit_status


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 gets a free one.

    Raises:
        OSError: the address cannot be listened on; `strerror` says which and why.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}") from error


def url(listener: socket.socket) -> str:
    """Where a browser on this machine finds what listens here."""
    host, port = listener.getsockname()[:2]
    if listener.family == socket.AF_INET6:
        host = f"[{host}]"
    return f"http://{host}:{port}"


def configure_logging(level: str) -> None:
    """Every log line as JSON on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
