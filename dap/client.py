"""Ask a running service for depth, as if the model were here.

>>> from dap.client import Client
>>> with Client("http://localhost:8000") as client:
...     depth_map = client.depth("pano.jpg", range=20)
>>> depth_map.depth[depth_map.valid].mean()  # metres

`AsyncClient` is the same with `await`. What the service refuses is raised as the error that it is there (`dap.errors`),
with its detail and request id. A service that is overloaded, not ready or out of reach is asked again: every question
here may be asked twice, since it changes nothing. All tries together end at one deadline, which the service is told.
"""

import asyncio
import email.utils
import json
import random
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack, overload

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image

from dap.cloud import PointCloud, Sampling
from dap.depth import DepthMap, Seam, Upsample
from dap.errors import (
    DapError,
    DeadlineExceeded,
    InputError,
    InvalidParameter,
    NotAPanorama,
    Unavailable,
    UnexpectedAnswer,
    kinds,
)
from dap.formats import npy, png16
from dap.resolutions import parse_resolution
from dap.sphere import FRAMES, Frame
from dap.views import Layout, Measure

Panorama = str | Path | bytes | npt.NDArray[np.uint8]

# Seconds between two tries: the first pause where the service names none, each further one twice as long, and the
# longest of all, whatever it names.
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
# A host that takes no connection within these seconds is out of reach.
CONNECT_TIMEOUT_S = 5.0

_TRY_AGAIN = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_GATEWAYS = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT, *_TRY_AGAIN})
_FRAMES: dict[str, Frame] = {frame: frame for frame in FRAMES}
# What numpy raises on bytes that are no archive of arrays.
_NO_ARCHIVE = (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile)


class DepthParameters(TypedDict, total=False):
    """What may be asked of any panorama; what is not said is as the service has it by itself.

    Attributes:
        range: metres within which depth is valid, 10, 20, 50 or 100; None for no range mask.
        size: pixels of the depth map: `input`, `model`, or (h, w) with w = 2 h.
        seam: `blend` for no step between the left and the right border.
        upsample: how the network's depth becomes larger.
        nadir_mask: degrees around straight down that are not valid.
        camera_height: metres of the camera above the floor, which then fixes the scale; None where not known.
        resolution: (h, w) at which the model sees the panorama, one of `ServiceModel.sizes`; None for the first of
            them.
    """

    range: float | None
    size: tuple[int, int] | Literal["input", "model"]
    seam: Seam
    upsample: Upsample
    nadir_mask: float
    camera_height: float | None
    resolution: tuple[int, int] | None


class CloudParameters(DepthParameters, total=False):
    """What may be asked of a point cloud; see `dap.cloud.point_cloud`."""

    frame: Frame
    max_points: int
    sampling: Sampling
    normals: bool
    max_edge: float | None


class NormalParameters(DepthParameters, total=False):
    """What may be asked of normals: `frame`, their axes."""

    frame: Frame


class ViewParameters(DepthParameters, total=False):
    """What may be asked of views; see `dap.views.views`.

    Attributes:
        layout: where the cameras look.
        count: views of `horizon`.
        fov: horizontal field of view in degrees.
        view_size: pixels of each view, (h, w).
        depth: `z` or `ray`.
        frame: axes of the world.
    """

    layout: Layout
    count: int
    fov: float
    view_size: tuple[int, int]
    depth: Measure
    frame: Frame


@dataclass(frozen=True)
class ServiceModel:
    """A model that a service knows.

    Attributes:
        name: of the model.
        description: one line for people.
        licence: of the weights.
        source: where the weights come from.
        input_size: (h, w) in pixels that the network sees unless asked otherwise.
        sizes: (h, w) of all that `resolution` may ask for, `input_size` first.
        thresholds: metres, ascending: the ranges that the model has a channel for.
        state: `serving` for the one that answers; otherwise whether its file is there.
    """

    name: str
    description: str
    licence: str
    source: str
    input_size: tuple[int, int]
    sizes: tuple[tuple[int, int], ...]
    thresholds: tuple[float, ...]
    state: str


class Client:
    """Asks the service at `url`. Threads may share one.

    Args:
        url: of the service, with its scheme: `http://localhost:8000`.
        api_key: sent as a bearer token, where the service asks for one.
        timeout: seconds for one answer, all tries and pauses included.
        retries: how often a question is asked again at most.
        transport: how requests are sent, where the network needs TLS or a proxy of its own; see httpx.

    Raises:
        InvalidParameter: no such URL, or a number that is out of range.
    """

    _sleep = staticmethod(time.sleep)

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._patience = _Patience(timeout, retries)
        self._http = httpx.Client(base_url=_checked(url), headers=_authorization(api_key), transport=transport)

    def depth(self, panorama: Panorama, *, exact: bool = False, **parameters: Unpack[DepthParameters]) -> DepthMap:
        """Metric depth of one panorama.

        Args:
            panorama: path or bytes of an image file, which is sent as it is; or uint8 (H, 2 H, 3) RGB pixels.
            exact: float32 as the service has it, at several times the bytes; otherwise in steps of 1/512 m, up to
                128 m.
            **parameters: see `DepthParameters`.

        Raises:
            DapError: what the service says; DeadlineExceeded; Unavailable if it is out of reach; UnexpectedAnswer if
                what answers is no such service.
            OSError: the file cannot be read.
        """
        return _depth_map(self._ask(_depth_question(_picture(panorama), exact, parameters)), exact)

    @overload
    def point_cloud(
        self, panorama: Panorama, *, format: None = None, **parameters: Unpack[CloudParameters]
    ) -> PointCloud: ...

    @overload
    def point_cloud(self, panorama: Panorama, *, format: str, **parameters: Unpack[CloudParameters]) -> bytes: ...

    def point_cloud(
        self, panorama: Panorama, *, format: str | None = None, **parameters: Unpack[CloudParameters]
    ) -> PointCloud | bytes:
        """Coloured points of one panorama; the bytes of a file, if a format is named (`ply`, `laz`, `glb`, ...).

        Raises:
            DapError, OSError: as `depth` says.
        """
        answer = self._ask(_question("/pointcloud", _picture(panorama), format or "npz", parameters))
        return answer.body if format else _point_cloud(answer)

    def normals(self, panorama: Panorama, *, format: str = "npy", **parameters: Unpack[NormalParameters]) -> bytes:
        """Surface normals of one panorama, as the bytes of a file.

        Raises:
            DapError, OSError: as `depth` says.
        """
        return self._ask(_question("/normals", _picture(panorama), format, parameters)).body

    def views(self, panorama: Panorama, *, format: str = "zip", **parameters: Unpack[ViewParameters]) -> bytes:
        """Perspective depth views of one panorama with their cameras, as the bytes of a file.

        Raises:
            DapError, OSError: as `depth` says.
        """
        return self._ask(_question("/views", _picture(panorama), format, parameters)).body

    def models(self) -> list[ServiceModel]:
        """The model that answers, first, and then all that the service knows.

        Raises:
            DapError: as `depth` says.
        """
        return _models(self._ask(_Question("GET", "/models")))

    def ready(self) -> bool:
        """Whether the service takes panoramas now; it is asked once.

        Raises:
            UnexpectedAnswer: what answers is no such service.
        """
        try:
            self._ask(_READY)
        except Unavailable:
            return False
        return True

    def close(self) -> None:
        """Give the connections back. The client is not used after."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, question: "_Question") -> "_Answer":
        deadline = time.monotonic() + self._patience.timeout
        tries = 0
        while True:
            outcome = self._try(question, deadline)
            if isinstance(outcome, _Answer):
                return outcome
            tries += 1
            self._sleep(self._patience.pause(outcome, question, tries, deadline - time.monotonic()))

    def _try(self, question: "_Question", deadline: float) -> "_Answer | _Failure":
        try:
            with self._http.stream(**question.request(deadline - time.monotonic())) as response:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    # A timeout of httpx is for each chunk, and would be met by a service that sends one a minute.
                    if time.monotonic() > deadline:
                        raise self._patience.exceeded()
        except httpx.RequestError as error:
            return self._patience.failure(error)
        return _judge(_Answer(response.status_code, response.headers, bytes(body)))


class AsyncClient:
    """The same as `Client`, to be awaited. Tasks of one event loop may share one.

    Args:
        url: see `Client`, as for all others.
        api_key: see there.
        timeout: see there.
        retries: see there.
        transport: how requests are sent; see httpx.

    Raises:
        InvalidParameter: as `Client` says.
    """

    _sleep = staticmethod(asyncio.sleep)

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._patience = _Patience(timeout, retries)
        self._http = httpx.AsyncClient(base_url=_checked(url), headers=_authorization(api_key), transport=transport)

    async def depth(
        self, panorama: Panorama, *, exact: bool = False, **parameters: Unpack[DepthParameters]
    ) -> DepthMap:
        """As `Client.depth`."""
        picture = await asyncio.to_thread(_picture, panorama)
        answer = await self._ask(_depth_question(picture, exact, parameters))
        return await asyncio.to_thread(_depth_map, answer, exact)

    @overload
    async def point_cloud(
        self, panorama: Panorama, *, format: None = None, **parameters: Unpack[CloudParameters]
    ) -> PointCloud: ...

    @overload
    async def point_cloud(self, panorama: Panorama, *, format: str, **parameters: Unpack[CloudParameters]) -> bytes: ...

    async def point_cloud(
        self, panorama: Panorama, *, format: str | None = None, **parameters: Unpack[CloudParameters]
    ) -> PointCloud | bytes:
        """As `Client.point_cloud`."""
        picture = await asyncio.to_thread(_picture, panorama)
        answer = await self._ask(_question("/pointcloud", picture, format or "npz", parameters))
        return answer.body if format else await asyncio.to_thread(_point_cloud, answer)

    async def normals(
        self, panorama: Panorama, *, format: str = "npy", **parameters: Unpack[NormalParameters]
    ) -> bytes:
        """As `Client.normals`."""
        picture = await asyncio.to_thread(_picture, panorama)
        return (await self._ask(_question("/normals", picture, format, parameters))).body

    async def views(self, panorama: Panorama, *, format: str = "zip", **parameters: Unpack[ViewParameters]) -> bytes:
        """As `Client.views`."""
        picture = await asyncio.to_thread(_picture, panorama)
        return (await self._ask(_question("/views", picture, format, parameters))).body

    async def models(self) -> list[ServiceModel]:
        """As `Client.models`."""
        return _models(await self._ask(_Question("GET", "/models")))

    async def ready(self) -> bool:
        """As `Client.ready`."""
        try:
            await self._ask(_READY)
        except Unavailable:
            return False
        return True

    async def close(self) -> None:
        """As `Client.close`."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, question: "_Question") -> "_Answer":
        deadline = time.monotonic() + self._patience.timeout
        tries = 0
        while True:
            outcome = await self._try(question, deadline - time.monotonic())
            if isinstance(outcome, _Answer):
                return outcome
            tries += 1
            await self._sleep(self._patience.pause(outcome, question, tries, deadline - time.monotonic()))

    async def _try(self, question: "_Question", left_s: float) -> "_Answer | _Failure":
        try:
            async with asyncio.timeout(left_s):
                response = await self._http.request(**question.request(left_s))
        except httpx.RequestError as error:
            return self._patience.failure(error)
        except TimeoutError:
            raise self._patience.exceeded() from None
        return _judge(_Answer(response.status_code, response.headers, response.content))


@dataclass(frozen=True)
class _Question:
    """A request, whenever it is sent."""

    method: str
    path: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    may_be_asked_again: bool = True

    def request(self, left_s: float) -> dict[str, Any]:
        """What httpx is to send while so many seconds are left."""
        left_s = max(left_s, 1e-3)
        kind = {} if self.body is None else {"Content-Type": "application/octet-stream"}
        return {
            "method": self.method,
            "url": self.path,
            "params": dict(self.parameters),
            "content": self.body,
            "headers": {"X-Request-Timeout": f"{left_s:.3f}", **kind},
            "timeout": httpx.Timeout(left_s, connect=min(left_s, CONNECT_TIMEOUT_S)),
        }


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class _Failure:
    """What came instead of an answer, where it may pass.

    Attributes:
        error: what is raised if it does not.
        after_s: when to come back, where the service says so.
    """

    error: DapError
    after_s: float | None = None


@dataclass(frozen=True)
class _Patience:
    """How long is waited, and how often a question is asked."""

    timeout: float
    retries: int

    def __post_init__(self) -> None:
        if not 0 < self.timeout < float("inf"):
            raise InvalidParameter(f"timeout is seconds above 0; got {self.timeout:g}")
        if self.retries < 0:
            raise InvalidParameter(f"retries is 0 or more; got {self.retries}")

    def pause(self, failure: _Failure, question: _Question, tries: int, left_s: float) -> float:
        """Seconds until the question is asked again.

        As long as the service says, or twice as long each time; up to a quarter more, so that clients that were refused
        together do not come back together.

        Raises:
            DapError: the failure's, where it has been asked often enough, or no time would be left.
        """
        after = FIRST_PAUSE_S * 2.0 ** (tries - 1) if failure.after_s is None else failure.after_s
        pause = min(after, LONGEST_PAUSE_S) * random.uniform(1, 1.25)  # noqa: S311 - spread, not secrecy
        if tries > self.retries or not question.may_be_asked_again or pause >= left_s:
            raise failure.error
        return pause

    def failure(self, error: httpx.RequestError) -> _Failure:
        """What it means that no answer came.

        Raises:
            DeadlineExceeded: the time is over.
        """
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            raise self.exceeded() from error
        return _Failure(Unavailable(f"no answer from {error.request.url.host}: {error or type(error).__name__}"))

    def exceeded(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"no answer within {self.timeout:g} seconds")


_READY = _Question("GET", "/readyz", may_be_asked_again=False)


def _question(path: str, picture: bytes, format: str, parameters: Mapping[str, Any]) -> _Question:
    """One panorama, and what is asked of it."""
    texts = {name: _text(value) for name, value in parameters.items() if value is not None or name == "range"}
    return _Question("POST", path, {"format": format, **texts}, picture)


def _depth_question(picture: bytes, exact: bool, parameters: Mapping[str, Any]) -> _Question:
    return _question("/depth", picture, "npy" if exact else "png", parameters)


def _text(value: object) -> str:
    """The value of a parameter as a URL has it."""
    if isinstance(value, tuple):
        height, width = value
        return f"{width}x{height}"
    if isinstance(value, float):
        return f"{value:.9g}"
    return "none" if value is None else str(value).lower()


def _picture(panorama: Panorama) -> bytes:
    """The image file that is sent."""
    if isinstance(panorama, bytes):
        return panorama
    if isinstance(panorama, str | Path):
        return Path(panorama).read_bytes()
    if panorama.dtype != np.uint8 or panorama.ndim != 3 or panorama.shape[1:] != (2 * panorama.shape[0], 3):
        raise NotAPanorama(f"expected uint8 pixels of shape (H, 2 H, 3); got {panorama.dtype} {panorama.shape}")
    stream = BytesIO()
    Image.fromarray(panorama).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def _judge(answer: _Answer) -> _Answer | _Failure:
    """The answer, if it is one; a failure, if it may pass.

    Raises:
        DapError: what the service says, if asking again would not help.
    """
    if answer.status == HTTPStatus.OK:
        return answer
    error = _problem(answer)
    if answer.status not in _TRY_AGAIN:
        raise error
    after_s = _retry_after(answer.headers.get("retry-after", ""))
    if isinstance(error, Unavailable):
        error.retry_after_s = after_s
    return _Failure(error, after_s)


def _problem(answer: _Answer) -> DapError:
    """The error that the service says, of the class that it has there."""
    said = _json(answer)
    slug = str(said.get("type", "")).removeprefix("/problems/")
    if slug in kinds():
        error: DapError = kinds()[slug](str(said.get("detail", "")))
    elif answer.status in _GATEWAYS:
        error = Unavailable(f"the service is not available: status {answer.status}")
    else:
        detail = str(said.get("detail", "")) or "and no problem of the service"
        error = UnexpectedAnswer(f"expected an answer of the service; got status {answer.status}: {detail}")
    error.request_id = answer.headers.get("x-request-id")
    return error


def _retry_after(value: str) -> float | None:
    """Seconds from a Retry-After header (RFC 9110, section 10.2.3), a number or a date."""
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _json(answer: _Answer) -> dict[str, Any]:
    """The object that the answer holds; an empty one where it holds none."""
    try:
        said = json.loads(answer.body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _depth_map(answer: _Answer, exact: bool) -> DepthMap:
    headers = answer.headers
    metres, mask = headers.get("x-range", "none"), headers.get("x-range-mask", "none")
    try:
        return replace(
            npy.decode(answer.body) if exact else png16.decode(answer.body),
            range=None if metres == "none" else float(metres),
            range_mask=png16.RANGE_MASKS.get(mask, "none"),
            model=headers.get("x-model", ""),
            scale_factor=float(headers.get("x-scale-factor", 1)),
            resolution=parse_resolution(headers["x-resolution"]) if "x-resolution" in headers else None,
        )
    except (InputError, ValueError) as error:
        raise UnexpectedAnswer(f"expected a depth map: {error}") from error


def _point_cloud(answer: _Answer) -> PointCloud:
    try:
        with np.load(BytesIO(answer.body), allow_pickle=False) as arrays:
            frame = _FRAMES[str(arrays["frame"])]
            return PointCloud(arrays["points"], arrays["colors"], frame, arrays.get("normals"), str(arrays["model"]))
    except _NO_ARCHIVE as error:
        raise UnexpectedAnswer(f"expected a point cloud: {error}") from error


def _models(answer: _Answer) -> list[ServiceModel]:
    try:
        return [
            ServiceModel(
                name=model["name"],
                description=model["description"],
                licence=model["licence"],
                source=model["source"],
                input_size=(model["input_height"], model["input_width"]),
                sizes=tuple(map(parse_resolution, model["resolutions"])),
                thresholds=tuple(model["thresholds"]),
                state=model["state"],
            )
            for model in _json(answer)["models"]
        ]
    except (KeyError, TypeError, InvalidParameter) as error:
        raise UnexpectedAnswer("expected a list of models") from error


def _checked(url: str) -> str:
    try:
        scheme, host = httpx.URL(url).scheme, httpx.URL(url).host
    except httpx.InvalidURL as error:
        raise InvalidParameter(f"url is that of the service; got {url[:200]!r}: {error}") from None
    if scheme not in ("http", "https") or not host:
        raise InvalidParameter(f"url begins with http:// or https://; got {url[:200]!r}")
    return url


def _authorization(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
