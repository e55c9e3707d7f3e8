"""Two ports of one process: a service is for its clients, its probes and metrics are for those who run it."""

from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import not_found_response

_METRICS = "/metrics"
_PATHS = frozenset({"/healthz", "/readyz", _METRICS})


class ProbePort:
    """Answers probes and metrics, and nothing else, at a port of their own; and metrics at no other.

    Args:
        app: what answers.
        port: that of probes and metrics; None for no such port.
    """

    def __init__(self, app: ASGIApp, port: int | None) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._port is not None:
            is_here = scope["path"] in _PATHS if came_in_at(self._port, scope) else scope["path"] != _METRICS
            if not is_here:
                await not_found_response(scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def came_in_at(port: int | None, scope: Scope) -> bool:
    """Whether a request came in at this port."""
    server = scope.get("server")
    return port is not None and server is not None and server[1] == port
