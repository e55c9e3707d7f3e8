"""Many mixed requests, good and bad: does the service keep its memory, and does every request get its due?

Memory is looked at when nobody is waiting, every `LOOK_EVERY` requests: what requests in progress hold is not of
interest here, what they leave behind is.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from PIL import Image

from benchmarks import load, servers
from benchmarks.load import BrokenAnswer, Connection, Request
from benchmarks.processes import resident_mb
from benchmarks.servers import Server

LOOK_EVERY = 500
SETTLED_AFTER = 1000
MAX_GROWTH = 0.05
SEED = 2026

_LEAVES_WITHIN_S = 0.2
_REST_S = 1.5


@dataclass(frozen=True)
class Kind:
    """A kind of request.

    Attributes:
        name: for the table.
        weight: how often it comes, beside the others.
        request: what is sent.
        expected: statuses that are right.
        leaves: whether the client goes away before the answer.
    """

    name: str
    weight: int
    request: Request
    expected: frozenset[int]
    leaves: bool = False


@dataclass
class Soak:
    """What came of it.

    Attributes:
        resident_mb: megabytes (10^6 bytes) at rest, after so many requests.
        statuses: how often each kind was answered with each status; 0 where the connection ended without an answer.
        unexpected: answers that were wrong, as (kind, status).
        seconds: of all.
    """

    resident_mb: dict[int, float] = field(default_factory=dict)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    unexpected: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def growth(self) -> float:
        """The most memory after the first `SETTLED_AFTER` requests, against what it was then: 0.05 is 5% more."""
        return growth(self.resident_mb)

    @property
    def is_sound(self) -> bool:
        return self.growth <= MAX_GROWTH and not self.unexpected

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "seconds": self.seconds,
            "growth": self.growth,
            "resident_mb": self.resident_mb,
            "statuses": {f"{name}: {status}": count for (name, status), count in self.statuses.items()},
            "unexpected": {f"{name}: {status}": count for (name, status), count in self.unexpected.items()},
        }


def growth(resident_mb: dict[int, float]) -> float:
    settled = {count: memory for count, memory in resident_mb.items() if count >= SETTLED_AFTER}
    return max(settled.values()) / settled[min(settled)] - 1 if settled else float("nan")


def measure(model: str, image: bytes, requests: int, clients: int, advance: Callable[[int], None]) -> Soak:
    """Send so many requests with so many clients to a service of our own."""
    with servers.ours(image, model, "--log-level", "warning") as server:
        kinds = kinds_of(server, image)
        chance = random.Random(SEED)
        result = Soak()
        started = time.perf_counter()
        sent = 0
        while sent < requests:
            count = min(LOOK_EVERY, requests - sent)
            chosen = chance.choices(kinds, [kind.weight for kind in kinds], k=count)
            load.run(send(chosen, clients, chance, result))
            sent += count
            time.sleep(_REST_S)  # for what clients that left have begun
            result.resident_mb[sent] = resident_mb(server.pid)
            advance(count)
        result.seconds = time.perf_counter() - started
    return result


async def send(kinds: Sequence[Kind], clients: int, chance: random.Random, result: Soak) -> None:
    """All of them, each client the next when its last has come to an end."""
    waiting = iter(kinds)

    async def client() -> None:
        for kind in waiting:
            status = await _send(kind, chance.random() * _LEAVES_WITHIN_S)
            result.statuses[kind.name, status] += 1
            if status not in kind.expected:
                result.unexpected[kind.name, status] += 1

    await asyncio.gather(*(client() for _ in range(clients)))


async def _send(kind: Kind, leaves_after_s: float) -> int:
    connection = None
    try:
        connection = await Connection.open(kind.request)
        async with asyncio.timeout(leaves_after_s if kind.leaves else None):
            return (await connection.send(kind.request.data)).status
    except (BrokenAnswer, OSError, TimeoutError):
        return 0
    finally:
        if connection is not None:
            connection.close()


def kinds_of(server: Server, image: bytes) -> list[Kind]:
    """Every answer, some sizes and shapes of panoramas, and whatever else comes over the net."""
    large = _written(_resized(image, (2048, 1024)), "JPEG", progressive=True)
    good = frozenset({200})
    late = frozenset({200, 429, 504})
    gone = frozenset({0, 200})

    def kind(
        name: str,
        weight: int,
        path: str,
        body: bytes,
        expected: frozenset[int] = good,
        leaves: bool = False,
        **headers: str,
    ) -> Kind:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        request = load.post(f"{server.url}/{path}", body, {"Content-Type": "image/jpeg", **named})
        return Kind(name, weight, request, expected, leaves)

    depth_formats = ("png", "npy", "json", "jpeg", "exr", "exr-half", "tiff", "npz", "png,npy,json")
    return [
        *(kind(f"depth {name}", 8, f"depth?format={name}", image) for name in depth_formats),
        *(kind(f"depth of {size}", 6, f"depth?size={size}&format=npy", image) for size in ("model", "256x128")),
        kind("depth of 2048x1024", 3, "depth", large),
        *(kind(f"range {metres}", 4, f"depth?range={metres}", image) for metres in ("10", "20", "none")),
        kind("seam blended", 4, "depth?seam=blend", image),
        kind("upsampled guided", 3, "depth?upsample=guided", image),
        *(
            kind(f"cloud {name}", 3, f"pointcloud?format={name}&max_points=50000", image)
            for name in ("ply", "pcd", "las", "laz", "glb", "npz")
        ),
        kind("cloud with normals", 2, "pointcloud?normals=true&max_points=50000", image),
        kind("normals", 3, "normals", image),
        kind("views", 2, "views", image),
        kind("a PNG", 4, "depth", _written(_opened(image), "PNG")),
        kind("a grey JPEG", 4, "depth", _written(_opened(image).convert("L"), "JPEG")),
        kind("a CMYK JPEG", 3, "depth", _written(_opened(image).convert("CMYK"), "JPEG")),
        kind("a WebP", 3, "depth", _written(_opened(image), "WEBP")),
        kind("truncated", 5, "depth", image[: len(image) // 2], frozenset({422, 400, 415})),
        kind("HTML", 5, "depth", b"<html><body>not found</body></html>", frozenset({415})),
        kind("empty", 3, "depth", b"", frozenset({400, 422})),
        kind("a square", 3, "depth", _written(_resized(image, (512, 512)), "JPEG"), frozenset({422, 400})),
        kind("a wrong parameter", 3, "depth?range=7", image, frozenset({400, 422})),
        kind("a wrong path", 2, "deep", image, frozenset({404})),
        kind("in a hurry", 6, "depth", image, late, X_Request_Timeout="0.02"),
        kind("leaving early", 10, "depth?size=2048x1024&format=npy", image, gone, leaves=True),
        kind("leaving early, of a large one", 5, "pointcloud", large, gone, leaves=True),
    ]


def _opened(image: bytes) -> Image.Image:
    return Image.open(BytesIO(image)).convert("RGB")


def _resized(image: bytes, size: tuple[int, int]) -> Image.Image:
    return _opened(image).resize(size)


def _written(picture: Image.Image, file_format: str, **options: bool) -> bytes:
    stream = BytesIO()
    picture.save(stream, file_format, **options)
    return stream.getvalue()


def as_markdown(result: Soak) -> str:
    """Tables for docs/performance.md."""
    answered = sum(result.statuses.values())
    lines = [
        f"{answered} requests in {result.seconds:.0f} s; resident memory at most {100 * result.growth:+.1f}% after the "
        f"first {SETTLED_AFTER}.",
        "",
        "| requests | resident MB |",
        "|---|---|",
        *(f"| {count} | {memory:.0f} |" for count, memory in result.resident_mb.items()),
        "",
        "| kind | statuses |",
        "|---|---|",
    ]
    for name in sorted({name for name, _ in result.statuses}):
        found = sorted((status, count) for (kind, status), count in result.statuses.items() if kind == name)
        listed = ", ".join(f"{status or 'no answer'}: {count}" for status, count in found)
        lines.append(f"| {name} | {listed} |")
    lines += [f"UNEXPECTED: {name} was answered {status}, {n} times" for (name, status), n in result.unexpected.items()]
    return "\n".join(lines)
