"""What a request brings: an image, a time it may take, and a client that may leave."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from dap.errors import DeadlineExceeded, EmptyInput, InvalidParameter, MalformedRequest, UnsupportedMediaType
from dap.resolutions import Size
from service.pipeline import Answer, Body, Job, Pipeline, Reader
from service.serving import Serving
from service.settings import Settings

T = TypeVar("T")

# What a body that is no image/* may be declared as and still be judged by its content: nothing is said, or nothing
# meant. The last is what curl's --data-binary says unasked.
_UNDECLARED = ("", "application/octet-stream", "application/x-www-form-urlencoded")
_COPIED_AT_ONCE_BYTES = 1024 * 1024


class PostedPanorama:
    """A panorama on its way in.

    Args:
        request: its body is not read yet.
        timeout_s: how long the client waits, None for as long as the service allows.
    """

    def __init__(self, request: Request, timeout_s: float | None) -> None:
        self._request = request
        self._pipeline: Pipeline = request.app.state.pipeline
        settings: Settings = request.app.state.settings
        self.settings = settings
        self._timeout_s = min(timeout_s or settings.request_timeout_s, settings.request_timeout_s)

    async def answer(self, job: Job[Body]) -> Answer[Body]:
        """Read the image and have the job done on it, within the time allowed and while the client is there.

        Raises:
            DapError: as `read_image` and `Pipeline.answer` say; DeadlineExceeded.
            ClientDisconnect: nobody waits for the answer any more.
        """
        async with self._in_time(job.resolution):
            data = await read_image(self._request)
            return await _while_connected(self._request, self._pipeline.answer(data, job))

    async def infer(self, reader: Callable[[bytes], Reader[Body]]) -> Answer[Body]:
        """The same for a body of whatever kind, which may hold several panoramas.

        Args:
            reader: what `Pipeline.infer` is to read the body with, given that body.

        Raises:
            DapError: as `Pipeline.infer` says; DeadlineExceeded.
            ClientDisconnect: nobody waits for the answer any more.
        """
        async with self._in_time(None):
            body = await _joined([chunk async for chunk in self._request.stream()])
            return await _while_connected(self._request, self._pipeline.infer(reader(body)))

    async def answer_with_truth(
        self, job: Callable[[Pipeline, bytes], Coroutine[Any, Any, Job[Body]]], resolution: Size | None
    ) -> Answer[Body]:
        """The same for a form with the fields `image` and `truth`.

        Args:
            job: of the pipeline and the bytes of the truth. What it raises, it raises before the panorama is decoded.
            resolution: of the job.

        Raises:
            DapError: as `read_pair`, `job` and `Pipeline.answer` say; DeadlineExceeded.
            ClientDisconnect: nobody waits for the answer any more.
        """
        async with self._in_time(resolution):
            image, truth = await read_pair(self._request)
            return await _while_connected(self._request, self._compared(image, truth, job))

    async def _compared(
        self, image: bytes, truth: bytes, job: Callable[[Pipeline, bytes], Coroutine[Any, Any, Job[Body]]]
    ) -> Answer[Body]:
        return await self._pipeline.answer(image, await job(self._pipeline, truth))

    @asynccontextmanager
    async def _in_time(self, resolution: Size | None) -> AsyncIterator[None]:
        self._pipeline.require_ready(resolution)
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except TimeoutError:
            raise DeadlineExceeded(f"not done within {self._timeout_s:g} seconds") from None


async def _serving(request: Request) -> Serving:
    serving: Serving = request.app.state.serving
    return serving


async def _posted_panorama(
    request: Request,
    x_request_timeout: Annotated[
        float | None,
        Header(gt=0, description="Seconds that the client waits; beyond them 504. The service has a limit of its own."),
    ] = None,
) -> PostedPanorama:
    return PostedPanorama(request, x_request_timeout)


CurrentServing = Annotated[Serving, Depends(_serving)]
Posted = Annotated[PostedPanorama, Depends(_posted_panorama)]


async def read_image(request: Request) -> bytes:
    """The bytes of the image: the raw body, or the field `image` of a multipart form. They never touch the disk.

    Raises:
        EmptyInput: no bytes.
        MalformedRequest: the multipart form cannot be read, or has more than one image.
        InvalidParameter: the multipart form has another field.
        UnsupportedMediaType: the content type is neither an image's nor a form's.
    """
    media_type, boundary = _content_type(request)
    if media_type == "multipart/form-data":
        return (await _read_form(request, boundary, ("image",)))[0]
    if not media_type.startswith("image/") and media_type not in _UNDECLARED:
        raise UnsupportedMediaType(f"an image/* body or a multipart/form-data field `image` is taken; got {media_type}")
    data = await _joined([chunk async for chunk in request.stream()])
    if not data:
        raise EmptyInput("an image was expected; the body is empty")
    return data


async def read_pair(request: Request) -> tuple[bytes, bytes]:
    """The bytes of the fields `image` and `truth` of a multipart form. They never touch the disk.

    Raises:
        EmptyInput: one of the two is missing or empty.
        MalformedRequest: the multipart form cannot be read, or has one of the two twice.
        InvalidParameter: the multipart form has another field.
        UnsupportedMediaType: the content type is not a form's.
    """
    media_type, boundary = _content_type(request)
    if media_type != "multipart/form-data":
        raise UnsupportedMediaType(
            f"a multipart/form-data body with the fields `image` and `truth` is taken; got {media_type or 'no type'}"
        )
    image, truth = await _read_form(request, boundary, ("image", "truth"))
    return image, truth


def _content_type(request: Request) -> tuple[str, bytes]:
    """Media type, in lower case, and boundary."""
    content_type, options = parse_options_header(request.headers.get("content-type"))
    return content_type.decode("latin-1"), options.get(b"boundary", b"")


async def _read_form(request: Request, boundary: bytes, names: Sequence[str]) -> list[bytes]:
    """The bytes of each of the fields."""
    form = _Form(names)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in request.stream():
            parser.write(chunk)
    except FormParserError as error:
        raise MalformedRequest(f"the multipart form cannot be read: {error}") from None
    if not form.is_complete:
        raise MalformedRequest("the multipart form ends before its closing boundary")
    fields = [await _joined(form.chunks.get(name, [])) for name in names]
    for name, field in zip(names, fields, strict=True):
        if not field:
            raise EmptyInput(f"the multipart form has {'an empty' if name in form.chunks else 'no'} field `{name}`")
    return fields


async def _joined(chunks: list[bytes]) -> bytes:
    # Most are copied in less time than another thread takes to wake; 64 MiB take tens of milliseconds.
    if sum(map(len, chunks)) <= _COPIED_AT_ONCE_BYTES:
        return b"".join(chunks)
    return await asyncio.to_thread(b"".join, chunks)


class _Form:
    """A multipart form of so many files, gathered as it arrives."""

    def __init__(self, names: Sequence[str]) -> None:
        self.chunks: dict[str, list[bytes]] = {}
        self.is_complete = False
        self._names = names
        self._current: list[bytes] = []
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._add_data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._disposition = b""

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _open(self) -> None:
        name = parse_options_header(self._disposition)[1].get(b"name", b"").decode("utf-8", "replace")
        if name not in self._names:
            expected = " and ".join(f"`{known}`" for known in self._names)
            raise InvalidParameter(f"a multipart form has {expected} and no other field; got a field {name!r:.100}")
        if name in self.chunks:
            raise MalformedRequest(f"a multipart form has one field `{name}`; got two")
        self._current = self.chunks[name] = []

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._current.append(data[start:end])

    def _end(self) -> None:
        self.is_complete = True


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled if the client leaves before."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait((working, leaving))


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
