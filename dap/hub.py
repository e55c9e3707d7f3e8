"""Fetching one file from a model hub: streamed, resumed, checked, and in its place only when whole.

The protocol is that of the Hugging Face hub: `BASE/REPOSITORY/resolve/main/FILE`, where a HEAD request is answered with
`X-Linked-Etag` (for a large file the SHA-256 of its content) and `X-Linked-Size`, and a GET may be sent on to a store
that honours `Range` (RFC 9110, section 14).
"""

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

from dap.checksums import sha256_of
from dap.errors import DownloadFailed, ModelFileInvalid

HUB = "https://huggingface.co"
Progress = Callable[[int, int], None]
"""Called as the file grows, with the bytes that are here and the bytes of the whole."""

_TIMEOUT_S = 30.0
_ATTEMPTS = 4
_PAUSE_S = 1.0  # before the second attempt; doubles


@dataclass(frozen=True)
class HubFile:
    """A file on a hub.

    Attributes:
        repository: `owner/name`.
        name: the file's name there.
        size: bytes.
    """

    repository: str
    name: str
    size: int

    def url(self, hub: str | None = None) -> str:
        """Where it is: on `hub`, or on the one that the environment names (DAP_HUB, HF_ENDPOINT)."""
        base = hub or os.environ.get("DAP_HUB") or os.environ.get("HF_ENDPOINT") or HUB
        return f"{base.rstrip('/')}/{self.repository}/resolve/main/{self.name}"


def fetch(file: HubFile, destination: Path, *, hub: str | None = None, progress: Progress | None = None) -> str:
    """Download `file` to `destination` and return its SHA-256.

    What has arrived stays in `destination` + `.part`, and a later call goes on from there. The size must be the one
    known; the SHA-256 must be the one that the hub states, where it states one (nobody else published one for the DAP
    release). It is written beside the file as `sha256sum -c` reads it.

    Raises:
        DownloadFailed: no connection, no such file, no room on the disk, or another process is at it; what has arrived
            is kept.
        ModelFileInvalid: all arrived and the hash is wrong; nothing is kept.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f"{destination.name}.part")
    with partial.open("ab") as part, httpx.Client(timeout=_TIMEOUT_S, follow_redirects=True) as client:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DownloadFailed(f"Another process is downloading {file.name} to {destination.parent}.") from None
        if destination.is_file():  # another process has just finished it
            partial.unlink(missing_ok=True)
            return sha256_of(destination)
        part.seek(0, os.SEEK_END)
        stated = _stated_sha256(client, file, hub)
        _check_room(destination.parent, file.size - part.tell())
        _download(client, file, hub, part, progress)
        os.fsync(part.fileno())
        sha256 = sha256_of(partial)
        if stated and sha256 != stated:
            partial.unlink()
            raise ModelFileInvalid(
                f"The SHA-256 of {file.name} should be {stated}, as the hub states, and is {sha256}. "
                "It was removed: pull it again."
            )
        record = destination.with_name(f"{destination.name}.sha256")
        record.write_text(f"{sha256}  {destination.name}\n", encoding="ascii")
        partial.replace(destination)
    return sha256


def _stated_sha256(client: httpx.Client, file: HubFile, hub: str | None) -> str | None:
    """What the hub says of the file before any of it is fetched: the SHA-256 where it has one."""
    url = file.url(hub)
    try:
        response = client.head(url, follow_redirects=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DownloadFailed(f"Cannot reach {url}: {error}.") from error
    if response.status_code >= 400:
        raise DownloadFailed(f"{url} was answered with status {response.status_code}: expected the file.")
    size = response.headers.get("x-linked-size") or (
        response.headers.get("content-length") if response.is_success else None
    )
    if size is not None and size != str(file.size):
        raise DownloadFailed(f"{url} is {size} bytes: expected the release of {file.size} bytes.")
    etag = response.headers.get("x-linked-etag") or response.headers.get("etag") or ""
    tag = etag.removeprefix("W/").strip('"').lower()
    return tag if re.fullmatch("[0-9a-f]{64}", tag) else None


def _download(client: httpx.Client, file: HubFile, hub: str | None, part: BinaryIO, progress: Progress | None) -> None:
    """Append to `part` until it is whole; a connection that breaks off is taken up again where it stopped."""
    failures = 0
    while part.tell() < file.size:
        before = part.tell()
        try:
            _append(client, file, hub, part, progress)
            problem = "the connection closed early"
        except httpx.RequestError as error:
            problem = str(error) or type(error).__name__
        failures = 1 if part.tell() > before else failures + 1
        if part.tell() < file.size:
            if failures >= _ATTEMPTS:
                raise DownloadFailed(
                    f"{file.url(hub)} broke off after {part.tell()} of {file.size} bytes ({problem}). "
                    "What arrived is kept: the next pull goes on from there."
                )
            time.sleep(_PAUSE_S * 2 ** (failures - 1))
    if part.tell() > file.size:
        _empty(part)
        raise DownloadFailed(f"{file.url(hub)} gave more than the {file.size} bytes of the release.")


def _append(client: httpx.Client, file: HubFile, hub: str | None, part: BinaryIO, progress: Progress | None) -> None:
    have = part.tell()
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", file.url(hub), headers=headers) as response:
        if response.status_code not in (200, 206):
            raise DownloadFailed(f"{file.url(hub)} was answered with status {response.status_code}: expected the file.")
        resumed = response.status_code == 206 and response.headers.get("content-range", "").startswith(f"bytes {have}-")
        if have and not resumed:  # a server without ranges sends it all again
            _empty(part)
        # Not in larger chunks: of one that the connection breaks in, nothing would be kept.
        for chunk in response.iter_raw():
            part.write(chunk)
            if progress:
                progress(min(part.tell(), file.size), file.size)
            if part.tell() > file.size:
                return
        part.flush()


def _empty(part: BinaryIO) -> None:
    part.seek(0)
    part.truncate()


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadFailed(
            f"{folder} has {free / 1e9:.1f} GB free: expected {needed / 1e9:.1f} GB. DAP_HOME names another place."
        )
