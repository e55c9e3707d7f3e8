"""Bodies and connections that mean no good: each is told what is wrong, costs little, and leaves nothing behind.

Settings are so tight that whatever a request left behind (a place, bytes, pixels) would refuse the next ones.
"""

import io
import json
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from tests.dap.images import saved
from tests.service import odd_images
from tests.service.conftest import until
from tests.service.odd_images import KINDS, exr, noise

REFUSED = {400, 406, 413, 415, 422}
GAUGES = ("dap_requests_in_progress", "dap_queue_panoramas", "dap_queue_pixels")
# Paths, stacks, addresses, and who is at work with which version.
LEAKS = re.compile(
    rb"Traceback|\.py\b|site-packages|/(usr|home|root|tmp|var|opt|work)/|(?<![0-9])0x[0-9a-f]{6}|<_io|"
    rb"(?i:pillow|numpy|uvicorn|starlette|fastapi|pydantic|libjpeg|python_buffer|python/)"
)
GOOD = saved(np.full((32, 64, 3), (80, 20, 40), np.uint8), "PNG")
BOUNDARY = "frontier"
POST = b"POST /depth HTTP/1.1\r\nHost: s\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: s\r\n"
LAST = b"Connection: close\r\n\r\n"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture
async def client(serving) -> AsyncIterator[httpx.AsyncClient]:
    tight = {
        "max_requests": 1,
        "max_body_bytes": 2**20,
        "max_bytes_in_progress": 2**20,
        "max_queued_pixels": 2 * 64 * 32,
        "max_image_pixels": 2**16,
        "max_output_pixels": 2**16,
        "max_answer_bytes_in_progress": 2**14,
    }
    async with serving(**tight) as client:
        yield client
        answer = await client.post("/depth?format=npy", content=GOOD)
        assert (np.load(io.BytesIO(answer.content)) == 40).all()
        registry = client.app.state.telemetry.registry
        assert {name: registry.get_sample_value(name) for name in GAUGES} == dict.fromkeys(GAUGES, 0)


def check(answer: httpx.Response, what: str) -> None:
    """It is an answer, or a problem that is the client's and tells nothing about the service."""
    assert answer.status_code in {200, *REFUSED}, (what, answer.status_code, answer.text)
    if answer.status_code != 200:
        is_v2 = answer.url.path.startswith("/v2")
        assert answer.headers["content-type"] == ("application/json" if is_v2 else "application/problem+json"), what
        assert answer.json()["error"] if is_v2 else answer.json()["detail"], what
        assert not LEAKS.search(answer.content), (what, answer.text)


async def post_depth(client: httpx.AsyncClient, files: Iterable[tuple[str, bytes]]) -> list[int]:
    statuses = []
    for name, data in files:
        answer = await client.post("/depth?format=npy&size=model", content=data)
        check(answer, name)
        statuses.append(answer.status_code)
    return statuses


class TestImages:
    @pytest.mark.parametrize("kind", KINDS)
    async def test_cut_off_at_any_kilobyte(self, client, kind: str) -> None:
        cut = odd_images.truncated(saved(noise(), kind))
        assert set(await post_depth(client, ((kind, data) for data in cut))) <= {400, 415, 422}

    @pytest.mark.parametrize("kind", KINDS)
    async def test_with_bytes_changed(self, client, kind: str) -> None:
        statuses = await post_depth(client, ((kind, data) for data in odd_images.flipped(saved(noise(), kind), 80)))
        assert 422 in statuses

    async def test_with_bytes_changed_and_checksums_that_are_right(self, client) -> None:
        statuses = await post_depth(client, (("PNG", data) for data in odd_images.flipped_png(100)))
        assert {200, 422} <= set(statuses)

    async def test_of_any_mode_size_and_container(self, client) -> None:
        assert {200, 422} <= set(await post_depth(client, odd_images.odd_pictures().items()))

    async def test_whose_headers_or_metadata_lie(self, client) -> None:
        assert {413, 422} <= set(await post_depth(client, odd_images.lies().items()))

    async def test_that_are_none(self, client) -> None:
        assert set(await post_depth(client, odd_images.foreign().items())) <= {415, 422}

    async def test_that_are_bombs_are_refused_by_their_headers(self, client) -> None:
        large = {name: data for name, data in odd_images.bombs(2048, 1024).items() if "0xff" not in name}
        small = large.pop("a PNG whose pixels unpack to a gigabyte")
        assert set(await post_depth(client, large.items())) <= {413, 422}
        assert await post_depth(client, [("gigabyte", small)]) in ([200], [422])


_DECODE_ALL = """
import sys, time
from dap.errors import InputError
from dap.panorama import Limits, decode
from tests.service.odd_images import bombs

def peak():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024

for name, data in bombs(2048, 1024).items():
    decode_before, started = peak(), time.process_time()
    try:
        decode(data, Limits(max_pixels=2048 * 1024), (32, 64))
    except InputError:
        pass
    print(f"{time.process_time() - started:.3f} {peak()} {name}")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_a_bomb_costs_no_more_than_its_pixels() -> None:
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", _DECODE_ALL], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    costs = [line.split(" ", 2) for line in done.stdout.splitlines()]
    assert len(costs) == len(odd_images.bombs(64, 32))
    for seconds, mebibytes, name in costs:
        assert float(seconds) < 2, name
        assert int(mebibytes) < 256, name  # of 2 Mpx at 32 bytes, beside some 100 of the interpreter


def form(*parts: bytes, end: bytes = b"--frontier--\r\n") -> bytes:
    return b"".join(b"--frontier\r\n" + part + b"\r\n" for part in parts) + end


def field(name: str, data: bytes, more: bytes = b"") -> bytes:
    return f'Content-Disposition: form-data; name="{name}"; filename="x"\r\n'.encode() + more + b"\r\n" + data


FORMS = {
    "two images": form(field("image", GOOD), field("image", GOOD)),
    "another name": form(field("\u00e9\0", GOOD)),
    "no name": form(b"Content-Disposition: form-data\r\n\r\n" + GOOD),
    "no disposition": form(b"\r\n" + GOOD),
    "nested": form(field("image", form(field("image", GOOD)), b"Content-Type: multipart/mixed; boundary=frontier\r\n")),
    "base64": form(field("image", b"iVBORw0KGgo=", b"Content-Transfer-Encoding: base64\r\n")),
    "a long header": form(field("image", GOOD, b"X: " + b"x" * 100_000 + b"\r\n")),
    "many headers": form(field("image", GOOD, b"X: x\r\n" * 10_000)),
    "a header without end": b"--frontier\r\nX: " + b"x" * 1_000_000,
    "a name without end": b"--frontier\r\n" + b"x" * 1_000_000,
    "bytes that are no header": form(b"\xff\xfe\x00: \xff\r\n\r\n" + GOOD),
    "many empty parts": b"--frontier\r\n\r\n\r\n" * 10_000,
    "no end": form(field("image", GOOD), end=b""),
    "half an end": form(field("image", GOOD), end=b"--frontier-"),
    "only newlines": b"\r\n" * 100_000,
    "nearly the boundary": form(field("image", b"\r\n--frontie" * 10_000)),
    "something after the end": form(field("image", GOOD)) + b"x" * 10_000,
    "bare newlines": form(field("image", GOOD)).replace(b"\r\n", b"\n"),
}
CONTENT_TYPES = [
    "multipart/form-data; boundary=",
    "multipart/form-data; boundary=other",
    "multipart/form-data; boundary=" + "x" * 5000,
    'multipart/form-data; boundary="frontier',
    "multipart/form-data; boundary*0*=utf-9''fron; boundary*99999999999=tier",
    "multipart/form-data; boundary=\u00ff",
    "multipart/mixed; boundary=frontier",
    "multipart/form-data" + "; a=b" * 5000,
    "image/" + "x" * 5000,
    ";;;",
    "\u00ff\u00fe",
]


class TestForms:
    async def test_of_any_kind(self, client) -> None:
        for name, body in FORMS.items():
            for path in ("/depth?size=model", "/evaluate"):
                check(await client.post(path, content=body, headers=FORM), name)

    async def test_of_any_content_type(self, client) -> None:
        for kind in CONTENT_TYPES:
            answer = await client.post(
                "/depth", content=FORMS["no end"], headers=[("content-type", kind.encode("latin-1"))]
            )
            check(answer, kind)
            assert answer.status_code in REFUSED, kind

    async def test_with_bytes_changed(self, client) -> None:
        body = form(field("image", GOOD))
        for changed in odd_images.flipped(body, 100):
            check(await client.post("/depth?size=model", content=changed, headers=FORM), repr(changed[:200]))


class TestTruth:
    async def test_of_any_kind(self, client) -> None:
        statuses = set()
        for name, truth in {**odd_images.odd_truths(), **odd_images.foreign()}.items():
            answer = await client.post("/evaluate", files={"image": GOOD, "truth": truth})
            check(answer, name)
            statuses.add(answer.status_code)
        assert {200, 413, 415, 422} <= statuses

    @pytest.mark.parametrize(
        "query", ["truth_scale=1e-300", "truth_scale=1e9", "max_truth=1e-300", "camera_height=1e-9"]
    )
    @pytest.mark.parametrize("protocol", ["dap", "panda"])
    async def test_at_any_scale(self, client, query: str, protocol: str) -> None:
        truth = exr(np.linspace(1, 50, 512, dtype=np.float32).reshape(16, 32))
        for kind in ("json", "jpeg"):
            answer = await client.post(
                f"/evaluate?{query}&protocol={protocol}&format={kind}", files={"image": GOOD, "truth": truth}
            )
            check(answer, query)


def tensor(**changed: object) -> dict[str, object]:
    return {"name": "image", "datatype": "BYTES", "shape": [1], "data": [""], **changed}


BODIES = [
    b"",
    b"[" * 100_000,
    b'{"a":' * 30_000,
    b'{"inputs":' + b"[[],[]," * 100_000,
    b"9" * 100_000,
    b"-" * 100_000,
    b'"\\ud800"',
    "{}".encode("utf-16"),
    b"\xff\xfe\x00",
    *(
        json.dumps({"inputs": [entry]}).encode()
        for entry in (
            tensor(),
            tensor(data=["!"]),
            tensor(data=["iVBORw0KGgo="]),
            tensor(shape=[10**30]),
            tensor(shape=[-1]),
            tensor(shape=[True]),
            tensor(shape=[float("nan")]),
            tensor(shape=[[1]]),
            tensor(name="panorama", datatype="UINT8", shape=[1, 32, 64, 3], data=[float("inf")] * 6144),
            tensor(name="panorama", datatype="UINT8", shape=[1, 32, 64, 3], data=[256] * 6144),
            tensor(name="panorama", datatype="UINT8", shape=[1, 32, 64, 3], data=[[[[1, 2]]]]),
            tensor(name="panorama", datatype="UINT8", shape=[2**31, 2**31, 2**31, 3], data=[]),
            tensor(name="\ud800", data=[]),
            tensor(parameters={"binary_data_size": 2**63}),
            tensor(parameters=[]),
        )
    ),
    b'{"id":"\\ud800","inputs":[{"name":"\\ud800"}]}',
]


class TestInference:
    PATH = "/v2/models/{}/infer"

    @pytest.fixture
    async def path(self, client) -> str:
        name = (await client.get("/models")).json()["models"][0]["name"]
        return self.PATH.format(name)

    async def test_of_any_body(self, client, path: str) -> None:
        for body in BODIES:
            for header in ({}, {"inference-header-content-length": str(len(body))}):
                answer = await client.post(path, content=body, headers=header)
                check(answer, repr(body[:100]))
                assert answer.status_code in REFUSED, body[:100]

    @pytest.mark.parametrize("claimed", [0, 3, 4, 5, 2**31, 2**32 - 1])
    async def test_of_lengths_that_lie(self, client, path: str, claimed: int) -> None:
        raw = struct.pack("<I", claimed) + b"abcd"
        for size in (len(raw), 0, -1, claimed):
            entry = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}
            text = json.dumps({"inputs": [entry]}).encode()
            for length in (str(len(text)), str(len(text) + 1), "0", "-1", "9" * 30, "0" * 5000, str(2**64)):
                answer = await client.post(
                    path, content=text + raw, headers={"inference-header-content-length": length}
                )
                check(answer, f"{claimed} {size} {length:.40}")
                assert answer.status_code in REFUSED

    async def test_with_bytes_changed(self, client, path: str) -> None:
        entry = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 4 + len(GOOD)}}
        text = json.dumps({"id": "a", "inputs": [entry], "outputs": [{"name": "depth"}]}).encode()
        body = text + struct.pack("<I", len(GOOD)) + GOOD
        headers = {"inference-header-content-length": str(len(text))}
        assert (await client.post(path, content=body, headers=headers)).status_code == 200
        for changed in odd_images.flipped(body, 200):
            check(await client.post(path, content=changed, headers=headers), repr(changed[:200]))


@pytest.fixture(scope="module")
def service(serve):
    with serve() as (process, url):
        yield process, url


def gauges(url: str) -> dict[str, float]:
    text = httpx.get(f"{url}/metrics").text
    return {name: float(re.search(rf"^{name} (\S+)", text, re.MULTILINE)[1]) for name in GAUGES}


class TestConnections:
    """Against a process of its own, byte by byte."""

    @staticmethod
    def say(url: str, *pieces: bytes, hang_up: bool = False) -> bytes:
        """What comes back until the service closes or is silent."""
        with closing(socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=1)) as connection:
            got = b""
            try:
                for piece in pieces:
                    connection.sendall(piece)
                if hang_up:
                    return got
                while data := connection.recv(65536):
                    got += data
            except (TimeoutError, ConnectionError):
                pass
            return got

    @pytest.fixture(autouse=True)
    def serves_on(self, service):
        yield
        process, url = service
        answer = httpx.post(f"{url}/depth?format=npy", content=GOOD, timeout=20)
        assert (np.load(io.BytesIO(answer.content)) == 40).all()
        # One request in progress is this very scrape.
        until(lambda: gauges(url) == dict(zip(GAUGES, (1, 0, 0), strict=True)))
        assert process.poll() is None

    @pytest.mark.parametrize(
        "request_bytes",
        [
            POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
            POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            POST + b"Content-Length: -1\r\n\r\n",
            POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n",
            POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
            POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\nabc\r\n",
            b"GET /\x00 HTTP/1.1\r\nHost: s\r\n\r\n",
            b"GET /\xff\xfe HTTP/1.1\r\nHost: s\r\n\r\n",
            GET + b"X: a\r\n folded\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"CONNECT example.org:443 HTTP/1.1\r\nHost: s\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET /" + b"x" * 2**17,
        ],
        ids=lambda data: repr(data[:60]),
    )
    def test_what_is_no_http_is_400_and_the_end(self, service, request_bytes: bytes) -> None:
        got = self.say(service[1], request_bytes)
        assert got.startswith(b"HTTP/1.1 400 ")
        assert got.count(b"HTTP/1.1 ") == 1
        assert not LEAKS.search(got)

    @pytest.mark.parametrize(
        ("request_bytes", "statuses"),
        [
            (b"GET /healthz HTTP/1.0\r\n\r\n", [200]),
            (b"GET /%00%ff%0d%0aX:y HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n", [404]),
            (b"GET /web/..%2f..%2fapp HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n", [404]),
            (b"GET /depth?" + b"x" * 60_000 + b" HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n", [405]),
            (b"OPTIONS * HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n", [404]),
            (
                POST + b"Content-Length: " + b"0" * 6000 + b"2\r\nConnection: close\r\n\r\nab",
                [415],
            ),
            (
                POST + b"Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab",
                [100, 415],
            ),
            (
                (GET + b"\r\n") * 40 + b"GET /nothing HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n",
                [200] * 40 + [404],
            ),
            (
                (POST + b"Content-Length: 2\r\n\r\nab") * 5 + GET + b"Connection: close\r\n\r\n",
                [415] * 5 + [200],
            ),
        ],
        ids=["1.0", "zero byte", "path", "long url", "star", "zeros", "expect", "pipelined", "pipelined posts"],
    )
    def test_odd_requests_have_their_answers(self, service, request_bytes: bytes, statuses: list[int]) -> None:
        got = self.say(service[1], request_bytes)
        assert [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d+) ", got)] == statuses
        assert not LEAKS.search(got)

    def test_half_bodies_leave_nothing(self, service) -> None:
        head = POST + b"Content-Length: %d\r\n\r\n" % len(GOOD)
        for end in range(0, len(GOOD), 16):
            self.say(service[1], head, GOOD[:end], hang_up=True)
        chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"
        self.say(service[1], chunked, hang_up=True)

    def test_two_hundred_silent_connections_keep_nobody_out(self, service) -> None:
        address = urlsplit(service[1]).hostname, urlsplit(service[1]).port
        starts = [b"", b"GET /depth HTTP/1.1\r\nX: ", POST]
        silent = [socket.create_connection(address) for _ in range(200)]
        try:
            for number, connection in enumerate(silent):
                connection.sendall(starts[number % 3])
            started = time.monotonic()
            assert httpx.post(f"{service[1]}/depth", content=GOOD, timeout=20).status_code == 200
            assert time.monotonic() - started < 5
        finally:
            for connection in silent:
                connection.close()
