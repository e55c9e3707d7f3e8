"""Several files in one answer, opened by zipfile and by email."""

import email
import zipfile
from email.policy import HTTP
from io import BytesIO

import pytest

from dap.formats.bundle import Part, multipart_of, zip_of

PARTS = [
    Part("depth.png", "image/png", b"\x89PNG\r\n\x1a\n" + bytes(500)),
    Part("depth.json", "application/json", b'{"unit": "metre"}' * 30),
    Part("depth.npy", "application/x-npy", b""),
]


def read(body: bytes, media_type: str) -> list[tuple[str | None, str, bytes]]:
    message = email.message_from_bytes(f"Content-Type: {media_type}\r\n\r\n".encode() + body, policy=HTTP)
    assert not message.defects
    return [
        (part.get_filename(), part.get_content_type(), part.get_payload(decode=True)) for part in message.iter_parts()
    ]


def test_a_zip_holds_every_file_whole() -> None:
    with zipfile.ZipFile(BytesIO(zip_of(PARTS))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {part.name: part.body for part in PARTS}


def test_a_zip_deflates_text_and_stores_what_is_compressed_already() -> None:
    with zipfile.ZipFile(BytesIO(zip_of(PARTS))) as archive:
        methods = {entry.filename: entry.compress_type for entry in archive.infolist()}
    assert methods == {
        "depth.png": zipfile.ZIP_STORED, "depth.json": zipfile.ZIP_DEFLATED, "depth.npy": zipfile.ZIP_STORED,
    }  # fmt: skip


def test_files_from_a_zip_can_be_read_by_their_owner() -> None:
    with zipfile.ZipFile(BytesIO(zip_of(PARTS))) as archive:
        assert {entry.external_attr >> 16 & 0o777 for entry in archive.infolist()} == {0o600}


def test_the_same_parts_are_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    first = zip_of(PARTS), multipart_of(PARTS)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    assert (zip_of(PARTS), multipart_of(PARTS)) == first


def test_a_multipart_body_holds_every_file_whole() -> None:
    assert read(*multipart_of(PARTS)) == [(part.name, part.media_type, part.body) for part in PARTS]


@pytest.mark.parametrize("body", [b"--dap-0", b"\r\n--dap-0\r\n", b"dap-0 dap-1\r\n--dap-2--\r\n", b"\r\n", b"--"])
def test_a_part_that_has_a_boundary_in_it_is_whole_too(body: bytes) -> None:
    parts = [Part("odd.bin", "application/octet-stream", body), PARTS[0]]
    assert read(*multipart_of(parts)) == [(part.name, part.media_type, part.body) for part in parts]
