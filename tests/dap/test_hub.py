"""Downloads against a hub on this machine: whole, resumed, cut off, wrong."""

import fcntl
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dap import hub
from dap.errors import DownloadFailed, ModelFileInvalid
from dap.hub import HubFile, fetch

CONTENT = np.random.default_rng(1).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = HubFile("owner/weights", "model.pth", len(CONTENT))


@dataclass
class Hub:
    """How the hub behaves, and what it was asked.

    Attributes:
        content: of the one file.
        etag: what it states of it.
        ranges: whether it honours `Range`.
        cuts: how many bytes each GET gives before the connection breaks; whole ones once these are used up.
        status: of the answer to HEAD, in place of the redirect.
        asked: method, path and range of every request.
    """

    content: bytes = CONTENT
    etag: str | None = f'"{SHA256}"'
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    status: int = 302
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    @property
    def fetched(self) -> list[str | None]:
        """The ranges asked of the store that the hub redirects to."""
        return [range_ for method, path, range_ in self.asked if (method, path) == ("GET", "/store")]


class Handler(BaseHTTPRequestHandler):
    """As the Hugging Face hub does it: `resolve` states hash and size and redirects to a store."""

    server: "HubServer"

    def do_HEAD(self) -> None:
        self._resolve()

    def do_GET(self) -> None:
        if self.path == "/store":
            self._give()
        else:
            self._resolve()

    def _resolve(self) -> None:
        hub = self._noted()
        if self.path != "/owner/weights/resolve/main/model.pth":
            self._head(404, {})
            return
        headers = {"X-Linked-Size": str(len(hub.content)), "Location": "/store"}
        self._head(hub.status, headers | ({"X-Linked-Etag": hub.etag} if hub.etag else {}))

    def _give(self) -> None:
        hub = self._noted()
        start = 0
        wanted = self.headers["Range"]
        if wanted and hub.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        size = len(hub.content)
        headers = {"Content-Length": str(size - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self._head(206 if start else 200, headers)
        self.wfile.write(hub.content[start:][: hub.cuts.pop(0) if hub.cuts else size])
        self.close_connection = True

    def _noted(self) -> Hub:
        self.server.hub.asked.append((self.command, self.path, self.headers["Range"]))
        return self.server.hub

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": "0"} | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *message: Any) -> None:
        pass


class HubServer(ThreadingHTTPServer):
    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub
        hub.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        pass  # a client that has seen enough hangs up


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(hub, "_PAUSE_S", 0.0)
    hub_state = Hub()
    with HubServer(hub_state) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield hub_state
        server.shutdown()
        thread.join()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "models" / "model.pth"


def left_over(here: Path) -> list[str]:
    return sorted(path.name for path in here.parent.iterdir())


def test_a_file_comes_whole_with_its_hash_beside_it(there: Hub, here: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert fetch(FILE, here, hub=there.url, progress=lambda done, total: seen.append((done, total))) == SHA256
    assert here.read_bytes() == CONTENT
    assert (here.parent / "model.pth.sha256").read_text() == f"{SHA256}  model.pth\n"
    assert left_over(here) == ["model.pth", "model.pth.sha256"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)


def test_a_connection_that_breaks_is_taken_up_where_it_broke(there: Hub, here: Path) -> None:
    there.cuts = [1_000_000, 500_000]
    fetch(FILE, here, hub=there.url)
    assert here.read_bytes() == CONTENT
    assert there.fetched == [None, "bytes=1000000-", "bytes=1500000-"]


def test_a_hub_that_gives_nothing_any_more_ends_it_and_the_next_pull_goes_on(there: Hub, here: Path) -> None:
    there.cuts = [2_000_000, 0, 0, 0, 0]
    with pytest.raises(DownloadFailed, match="broke off after 2000000 of 3000000 bytes"):
        fetch(FILE, here, hub=there.url)
    assert left_over(here) == ["model.pth.part"]
    there.cuts, there.asked = [], []
    fetch(FILE, here, hub=there.url)
    assert here.read_bytes() == CONTENT
    assert there.fetched == ["bytes=2000000-"]


def test_a_server_without_ranges_is_read_from_the_start(there: Hub, here: Path) -> None:
    there.ranges, there.cuts = False, [1_000_000]
    fetch(FILE, here, hub=there.url)
    assert here.read_bytes() == CONTENT


def test_a_part_that_is_all_there_is_only_checked(there: Hub, here: Path) -> None:
    here.parent.mkdir()
    here.with_name("model.pth.part").write_bytes(CONTENT)
    fetch(FILE, here, hub=there.url)
    assert here.read_bytes() == CONTENT
    assert there.fetched == []


def test_a_wrong_hash_leaves_nothing(there: Hub, here: Path) -> None:
    there.content = CONTENT[:-1] + b"!"
    with pytest.raises(ModelFileInvalid, match=f"should be {SHA256}, as the hub states"):
        fetch(FILE, here, hub=there.url)
    assert left_over(here) == []


def test_a_part_of_another_file_is_found_out(there: Hub, here: Path) -> None:
    here.parent.mkdir()
    here.with_name("model.pth.part").write_bytes(b"something else")
    with pytest.raises(ModelFileInvalid, match="SHA-256"):
        fetch(FILE, here, hub=there.url)
    assert left_over(here) == []


@pytest.mark.parametrize("etag", [None, '"d41d8cd98f00b204e9800998ecf8427e"', 'W/"3-5"'])
def test_without_a_stated_hash_the_size_must_do_and_the_hash_is_recorded(
    there: Hub, here: Path, etag: str | None
) -> None:
    there.etag = etag
    assert fetch(FILE, here, hub=there.url) == SHA256
    assert SHA256 in (here.parent / "model.pth.sha256").read_text()


def test_a_file_of_another_size_is_not_even_begun(there: Hub, here: Path) -> None:
    there.content = CONTENT + b"more"
    with pytest.raises(DownloadFailed, match="is 3000004 bytes: expected the release of 3000000"):
        fetch(FILE, here, hub=there.url)
    assert there.fetched == []


def test_a_store_that_gives_too_much_is_stopped(there: Hub, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there.content = CONTENT + b"more"
    monkeypatch.setattr(hub, "_stated_sha256", lambda *_: None)
    with pytest.raises(DownloadFailed, match="more than the 3000000 bytes"):
        fetch(FILE, here, hub=there.url)
    assert not here.exists()


@pytest.mark.parametrize("status", [401, 404, 503])
def test_a_refusal_names_the_address_and_the_status(there: Hub, here: Path, status: int) -> None:
    there.status = status
    with pytest.raises(DownloadFailed, match=rf"resolve/main/model.pth was answered with status {status}"):
        fetch(FILE, here, hub=there.url)


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "ftp://127.0.0.1", "http://[", "nothing"])
def test_a_hub_that_cannot_be_reached_is_named(here: Path, address: str) -> None:
    with pytest.raises(DownloadFailed, match="Cannot reach"):
        fetch(FILE, here, hub=address)


def test_two_at_once_do_not_write_into_the_same_part(there: Hub, here: Path) -> None:
    here.parent.mkdir()
    with here.with_name("model.pth.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DownloadFailed, match=r"Another process is downloading model\.pth"):
            fetch(FILE, here, hub=there.url)


def test_a_disk_without_room_is_told_before_it_is_full(there: Hub, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1_000_000}))
    with pytest.raises(DownloadFailed, match=r"0\.0 GB free"):
        fetch(FILE, here, hub=there.url)
    assert there.fetched == []


def test_the_environment_names_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAP_HUB", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert FILE.url() == "https://huggingface.co/owner/weights/resolve/main/model.pth"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert FILE.url() == "https://mirror.example/owner/weights/resolve/main/model.pth"
    monkeypatch.setenv("DAP_HUB", "http://hub.local")
    assert FILE.url() == "http://hub.local/owner/weights/resolve/main/model.pth"
    assert FILE.url("http://given").startswith("http://given/owner")
