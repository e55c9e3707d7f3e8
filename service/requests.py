"""What a request brings: an image, a time it may take, and a client that may leave."""

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from dap.errors import DeadlineExceeded, EmptyInput, InvalidParameter, MalformedRequest, UnsupportedMediaType
from service.pipeline import Answer, Body, Job, Pipeline
from service.serving import Serving
from service.settings import Settings

T = TypeVar("T")

# What a body that is no image/* may be declared as and still be judged by its content: nothing is said, or nothing
# meant. The last is what curl's --data-binary says unasked.
_UNDECLARED = ("", "application/octet-stream", "application/x-www-form-urlencoded")


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
        self._pipeline.require_ready()
        try:
            async with asyncio.timeout(self._timeout_s):
                data = await read_image(self._request)
                return await _while_connected(self._request, self._pipeline.answer(data, job))
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
    content_type, options = parse_options_header(request.headers.get("content-type"))
    media_type = content_type.decode("latin-1")
    if media_type == "multipart/form-data":
        chunks = await _read_form(request, options.get(b"boundary", b""))
    elif media_type.startswith("image/") or media_type in _UNDECLARED:
        chunks = [chunk async for chunk in request.stream()]
    else:
        raise UnsupportedMediaType(f"an image/* body or a multipart/form-data field `image` is taken; got {media_type}")
    # Off the event loop: 64 MiB take tens of milliseconds to copy.
    data = await asyncio.to_thread(b"".join, chunks)
    if not data:
        raise EmptyInput("an image was expected; the body is empty")
    return data


async def _read_form(request: Request, boundary: bytes) -> list[bytes]:
    form = _ImageForm()
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in request.stream():
            parser.write(chunk)
    except FormParserError as error:
        raise MalformedRequest(f"the multipart form cannot be read: {error}") from None
    if not form.is_complete:
        raise MalformedRequest("the multipart form ends before its closing boundary")
    if form.images == 0:
        raise EmptyInput("the multipart form has no field `image`")
    return form.chunks


class _ImageForm:
    """A multipart form with one field `image`, gathered as it arrives."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.images = 0
        self.is_complete = False
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
        if name != "image":
            raise InvalidParameter(f"a multipart form has one field, `image`; got a field {name!r:.100}")
        self.images += 1
        if self.images > 1:
            raise MalformedRequest("a multipart form has one field `image`; got two")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self.chunks.append(data[start:end])

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
