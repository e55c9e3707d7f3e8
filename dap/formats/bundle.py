"""Several files in one answer: a zip, or the parts of a multipart body.

The same parts give the same bytes: the time in a zip is its earliest, 1980, and the boundary is counted, not drawn.
Sources: PKWARE APPNOTE 6.3; RFC 2046, section 5.1; RFC 2183 (Content-Disposition).
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import count

ZIP, MULTIPART = "application/zip", "multipart/mixed"

_EARLIEST = (1980, 1, 1, 0, 0, 0)
# Pictures are compressed already, and deflate takes a sixth off floats for 30 times the time of storing them.
_DEFLATED = frozenset({"application/json"})


@dataclass(frozen=True)
class Part:
    """One file of several.

    Attributes:
        name: of the file, ASCII letters, digits, dots and hyphens.
        media_type: what it is.
        body: its bytes.
    """

    name: str
    media_type: str
    body: bytes


def zip_of(parts: Sequence[Part]) -> bytes:
    """The parts as application/zip: JSON deflated, all else stored."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for part in parts:
            method = zipfile.ZIP_DEFLATED if part.media_type in _DEFLATED else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(part.name, _EARLIEST), part.body, method)
    return stream.getvalue()


def multipart_of(parts: Sequence[Part]) -> tuple[bytes, str]:
    """The parts as (body, media type), multipart/mixed with a boundary that no part contains."""
    boundary = next(
        text
        for text in (f"dap-{number}" for number in count())
        if not any(text.encode() in part.body for part in parts)
    )
    pieces: list[bytes] = []
    for part in parts:
        head = (
            f"--{boundary}\r\nContent-Type: {part.media_type}\r\n"
            f'Content-Disposition: attachment; filename="{part.name}"\r\n\r\n'
        )
        pieces += [head.encode(), part.body, b"\r\n"]
    return b"".join([*pieces, f"--{boundary}--\r\n".encode()]), f"multipart/mixed; boundary={boundary}"


def bundle_of(parts: Sequence[Part], *, as_multipart: bool) -> tuple[bytes, str]:
    """One part as it is, several as a zip or as the parts of a multipart body: (body, media type)."""
    if len(parts) == 1:
        return parts[0].body, parts[0].media_type
    return multipart_of(parts) if as_multipart else (zip_of(parts), ZIP)
