"""Bearer keys (RFC 6750): who may use the service, and who may change what it serves."""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from dap.errors import AccessDenied, DapError, InvalidParameter, Unauthenticated
from service.middleware import refuse
from service.ports import came_in_at
from service.settings import Settings

MIN_LENGTH = 16

# Pages for people, what problems mean, and probes: an orchestrator has no key. All else needs one where keys are set.
_OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
_OPEN_FOLDERS = ("/web/", "/problems/")


class Keys:
    """A set of keys, kept as digests. How long a look-up takes says nothing of them."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple({_digest(key) for key in keys})

    def __len__(self) -> int:
        return len(self._digests)

    def __contains__(self, key: str) -> bool:
        digest = _digest(key)
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0  # all of them, unlike any()


class Access:
    """What each key opens.

    Args:
        users: the keys of clients. Without any, everybody may use the service.
        admins: the keys of those who may load models. Without any, nobody may.
    """

    def __init__(self, users: Iterable[str] = (), admins: Iterable[str] = ()) -> None:
        self._users = Keys(users)
        self._admins = Keys(admins)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The keys of the settings and of their files.

        Raises:
            InvalidParameter: a file cannot be read, or a key cannot be one. The message holds no key.
        """
        users = [*_listed("api_keys", settings.api_keys), *_in_file("api_keys_file", settings.api_keys_file)]
        admins = [*_listed("admin_key", settings.admin_key), *_in_file("admin_key_file", settings.admin_key_file)]
        return cls(users, admins)

    def require_user(self, authorization: str) -> None:
        """Let pass who may use the service.

        Raises:
            Unauthenticated: no key that is known.
        """
        if self._users:
            self._level(authorization)

    def require_admin(self, authorization: str) -> None:
        """Let pass who may load models.

        Raises:
            Unauthenticated: no key that is known.
            AccessDenied: a client's key; or nobody may.
        """
        if not self._admins:
            raise AccessDenied("this is switched off: the service runs without an admin key (DAP_ADMIN_KEY)")
        if not self._level(authorization):
            raise AccessDenied("this needs the admin key; the key that came is a client's")

    def _level(self, authorization: str) -> bool:
        """Whether the key is an admin's, if it is known at all."""
        scheme, _, key = authorization.partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise Unauthenticated("a key is needed: send the header Authorization: Bearer KEY")
        is_admin, is_user = key in self._admins, key in self._users
        if not is_admin and not is_user:
            raise Unauthenticated("the key that came is not known here")
        return is_admin


def is_open(path: str) -> bool:
    """Whether no key is ever needed there."""
    return path in _OPEN_PATHS or path.startswith(_OPEN_FOLDERS)


def needs_admin(path: str) -> bool:
    """Whether only the admin key opens it."""
    return path.startswith("/models/")


class RequireKey:
    """Lets a request in only with the key that its path needs, before anything of its body is read.

    Args:
        app: what is protected.
        access: what each key opens.
        probe_port: requests to this port need no key.
    """

    def __init__(self, app: ASGIApp, access: Access, probe_port: int | None) -> None:
        self._app = app
        self._access = access
        self._probe_port = probe_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope)
            except DapError as error:
                await refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        path = scope["path"]
        authorization = Headers(scope=scope).get("authorization", "")
        if needs_admin(path):
            self._access.require_admin(authorization)
        elif not (is_open(path) or came_in_at(self._probe_port, scope)):
            self._access.require_user(authorization)


def _listed(name: str, keys: SecretStr | None) -> Sequence[str]:
    return _checked(name, keys.get_secret_value().split(",")) if keys is not None else ()


def _in_file(name: str, path: Path | None) -> Sequence[str]:
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidParameter(f"DAP_{name.upper()}: the file cannot be read: {reason}") from None
    return _checked(name, [line for line in lines if line.strip() and not line.lstrip().startswith("#")])


def _checked(name: str, keys: Sequence[str]) -> Sequence[str]:
    stripped = [key.strip() for key in keys]
    if not stripped:
        raise InvalidParameter(f"DAP_{name.upper()} holds no key: without keys the service would be open")
    for number, key in enumerate(stripped, 1):
        if len(key) < MIN_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
            raise InvalidParameter(
                f"DAP_{name.upper()}: a key is at least {MIN_LENGTH} ASCII characters without spaces; number {number} "
                f"is not"
            )
    return stripped


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
