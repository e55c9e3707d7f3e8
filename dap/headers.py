"""What an image file says of itself before a pixel is decoded: JPEG, PNG and WebP.

The containers are read here and not by the decoder, because the bytes are not trusted: the size is known before
anything is allocated, and the decoder gets the file without its metadata (`ImageHeader.image`), so that no lying
thumbnail, compressed text or odd EXIF block is ever parsed. Sources: ITU T.81 annex B (JPEG), ISO/IEC 15948 (PNG),
RFC 9649 (WebP), CIPA DC-008 (EXIF), Adobe's XMP specification, part 3.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dap.errors import BrokenImage, UnsupportedMediaType

ImageFormat = Literal["JPEG", "PNG", "WebP"]
MEDIA_TYPES: dict[ImageFormat, str] = {"JPEG": "image/jpeg", "PNG": "image/png", "WebP": "image/webp"}

# An honest file has a few hundred; reading millions of empty ones would cost seconds.
MAX_SEGMENTS = 65_536
# A scan may take a few bytes and cost a pass over the whole picture. Ten are usual in a progressive JPEG; any other has
# each of its components, four at most, in one scan.
MAX_PROGRESSIVE_SCANS = 100
MAX_SEQUENTIAL_SCANS = 4

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_XMP_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\x00"
_XMP_IN_PNG = b"XML:com.adobe.xmp\x00\x00\x00"
# Neither a stuffed byte nor a restart marker: both belong to the entropy-coded data.
# The last 0xff alone, though any number may fill up before it: a pattern with a repeat takes quadratic time for a file
# that is all 0xff.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
# Searched at a time: a search holds the interpreter lock, and takes a second for 64 MiB of 0xff.
_SEARCHED_BYTES = 1024 * 1024
_JPEG_STANDALONE = frozenset({0x01, 0xD8})
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_JPEG_METADATA = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})

_KNOWN_BUT_NOT_TAKEN = (
    (re.compile(rb"GIF8"), "a GIF"),
    (re.compile(rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+"), "a TIFF"),
    (re.compile(rb"BM"), "a BMP"),
    (re.compile(rb"....ftyp(avif|avis)", re.DOTALL), "an AVIF"),
    (re.compile(rb"....ftyp(heic|heix|mif1|msf1)", re.DOTALL), "a HEIC"),
    (re.compile(rb"....ftyp", re.DOTALL), "a video"),
    (re.compile(rb"\x76\x2f\x31\x01"), "an OpenEXR file"),
    (re.compile(rb"#\?(RADIANCE|RGBE)"), "a Radiance HDR file"),
    (re.compile(rb"%PDF"), "a PDF"),
    (re.compile(rb"\s*[<{]"), "text"),
)


@dataclass(frozen=True)
class ImageHeader:
    """An image file, not yet decoded.

    Attributes:
        format: `JPEG`, `PNG` or `WebP`.
        stored_size: (h, w) in pixels as the file stores them.
        orientation: EXIF orientation, 1 to 8; 1 where the file has none or none that can be read.
        xmp: the XMP packet, None where there is none.
        image: the file without its metadata: what the decoder gets.
    """

    format: ImageFormat
    stored_size: tuple[int, int]
    orientation: int
    xmp: bytes | None
    image: bytes

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) in pixels with the orientation applied."""
        height, width = self.stored_size
        return (width, height) if self.orientation >= 5 else (height, width)


def read(data: bytes) -> ImageHeader:
    """The header of an image file; costs no more than reading its bytes once.

    Raises:
        UnsupportedMediaType: neither JPEG, PNG nor WebP.
        BrokenImage: one of them by its first bytes, but truncated or corrupt.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _read_jpeg(data)
    if data.startswith(PNG_MAGIC):
        return _read_png(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _read_webp(data)
    what = next((name for pattern, name in _KNOWN_BUT_NOT_TAKEN if pattern.match(data)), "something else")
    raise UnsupportedMediaType(f"a panorama is taken as JPEG, PNG or WebP; by its first bytes this is {what}")


def _read_jpeg(data: bytes) -> ImageHeader:
    size: tuple[int, int] | None = None
    progressive = False
    exif = xmp = None
    kept = [data[:2]]
    for code, start, end in jpeg_segments(data, 2):
        payload = data[start:end]
        if code == 0xDA:
            if size is None:
                raise BrokenImage("the JPEG has a scan before its frame header")
            _refuse_scan_bomb(data, end, MAX_PROGRESSIVE_SCANS if progressive else MAX_SEQUENTIAL_SCANS)
            kept.append(data[start - 4 :])
            return ImageHeader("JPEG", size, _orientation(exif), xmp, b"".join(kept))
        if code in _JPEG_FRAMES:
            if size is not None:
                raise BrokenImage("the JPEG has more than one frame header")
            size = _jpeg_frame_size(payload)
            progressive = code in _JPEG_PROGRESSIVE
        elif code == 0xE1 and payload.startswith(b"Exif\x00\x00"):
            exif = exif or payload[6:]
        elif code == 0xE1 and payload.startswith(_XMP_IN_JPEG):
            xmp = xmp or payload[len(_XMP_IN_JPEG) :]
        if code not in _JPEG_METADATA:
            kept.append(data[start - 4 : end])
    raise BrokenImage("the JPEG ends before its pixels")


def jpeg_segments(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """Code, start and end of the payload of each marker segment from `position`; entropy-coded data is skipped.

    Raises:
        BrokenImage: a segment reaches past the end of the file, or there are too many.
    """
    for _ in range(MAX_SEGMENTS):
        marker = _jpeg_marker(data, position)
        if marker is None or marker[1] == b"\xd9":
            return
        position = marker.end()
        code = marker[1][0]
        if code in _JPEG_STANDALONE:
            continue
        end = position + int.from_bytes(data[position : position + 2])
        if end < position + 2 or end > len(data):
            raise BrokenImage("the JPEG is truncated or corrupt: a segment reaches past the end of the file")
        yield code, position + 2, end
        position = end
    raise BrokenImage(f"the JPEG is corrupt: more than {MAX_SEGMENTS} segments")


def jpeg_scan_end(data: bytes, position: int) -> int:
    """Where the entropy-coded data that begin at `position` end: at a marker, or 0xff before it, or with the file."""
    marker = _jpeg_marker(data, position)
    return position + len(data[position : marker.start()].rstrip(b"\xff")) if marker else len(data)


def _jpeg_marker(data: bytes, position: int) -> re.Match[bytes] | None:
    for start in range(position, len(data), _SEARCHED_BYTES):
        marker = _JPEG_MARKER.search(data, start, start + _SEARCHED_BYTES + 1)
        if marker is not None:
            return marker
    return None


def _jpeg_frame_size(payload: bytes) -> tuple[int, int]:
    if len(payload) < 6:
        raise BrokenImage("the JPEG is corrupt: its frame header is too short")
    precision, height, width, _components = struct.unpack_from(">BHHB", payload)
    if precision != 8:
        raise UnsupportedMediaType(f"a JPEG is taken with 8 bits a sample; this one has {precision}")
    return _checked_size("JPEG", height, width)


def _refuse_scan_bomb(data: bytes, position: int, most: int) -> None:
    # Each scan begins with these two bytes, which seldom occur elsewhere: only where they are many is it worth a walk.
    if data.count(b"\xff\xda") <= most:
        return
    scans = 1
    for code, _start, _end in jpeg_segments(data, position):
        scans += code == 0xDA
        if scans > most:
            raise BrokenImage(f"a JPEG of its kind has at most {most} scans; this one has more")


def jpeg_with_longer_scan(data: bytes) -> bytes:
    """The JPEG with some bytes more at the end of its first scan: no matter to a decoder that has all its pixels."""
    for code, _start, end in jpeg_segments(data, 2):
        if code == 0xDA:
            at = jpeg_scan_end(data, end)
            return data[:at] + bytes(range(1, 65)) + data[at:]
    raise BrokenImage("the JPEG ends before its pixels")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Type and payload of each chunk of a PNG file up to IEND, checksums verified.

    Raises:
        BrokenImage: truncated or corrupt; also after some chunks were given.
    """
    view = memoryview(data)
    position = len(PNG_MAGIC)
    for _ in range(MAX_SEGMENTS):
        end = position + 8 + int.from_bytes(data[position : position + 4])
        kind, payload, checksum = data[position + 4 : position + 8], view[position + 8 : end], data[end : end + 4]
        if len(checksum) < 4:
            raise BrokenImage("the PNG is truncated: it ends before its IEND chunk")
        if zlib.crc32(payload, zlib.crc32(kind)) != int.from_bytes(checksum):
            raise BrokenImage("the PNG is corrupt: a chunk does not agree with its checksum")
        yield kind, payload
        if kind == b"IEND":
            return
        position = end + 4
    raise BrokenImage(f"the PNG is corrupt: more than {MAX_SEGMENTS} chunks")


def png_chunk(kind: bytes, payload: bytes | memoryview) -> bytes:
    """One chunk of a PNG file, with its length and checksum."""
    checksum = zlib.crc32(payload, zlib.crc32(kind))
    return b"".join([len(payload).to_bytes(4), kind, payload, checksum.to_bytes(4)])


def _read_png(data: bytes) -> ImageHeader:
    size: tuple[int, int] | None = None
    exif = xmp = None
    kept = [PNG_MAGIC]
    for kind, payload in png_chunks(data):
        if kind == b"IHDR" and size is None and len(payload) == 13:
            height, width = int.from_bytes(payload[4:8]), int.from_bytes(payload[:4])
            size = _checked_size("PNG", height, width)
        elif size is None or kind == b"IHDR":
            raise BrokenImage("the PNG is corrupt: it does not begin with its one header")
        elif kind == b"eXIf":
            exif = bytes(payload)
        elif kind == b"iTXt" and payload[: len(_XMP_IN_PNG)] == _XMP_IN_PNG:
            xmp = bytes(payload[len(_XMP_IN_PNG) :]).split(b"\x00", 2)[-1]
        if kind in _PNG_PIXELS:
            kept.append(png_chunk(kind, payload))
    if size is None:
        raise BrokenImage("the PNG has no header")
    return ImageHeader("PNG", size, _orientation(exif), xmp, b"".join(kept))


def _read_webp(data: bytes) -> ImageHeader:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise BrokenImage(f"the WebP is truncated: it says {end} bytes and has {len(data)}")
    size = _webp_size(data)
    chunks: dict[bytes, bytes] = {}
    position = 12
    for _ in range(MAX_SEGMENTS):
        if position + 8 > end:
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind in {b"EXIF", b"XMP "}:
            chunks.setdefault(kind, data[position + 8 : position + 8 + length])
        position += 8 + length + length % 2
    exif = chunks.get(b"EXIF", b"").removeprefix(b"Exif\x00\x00")
    return ImageHeader("WebP", size, _orientation(exif), chunks.get(b"XMP "), data)


def _webp_size(data: bytes) -> tuple[int, int]:
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X" and len(body) == 10:
        return int.from_bytes(body[7:10], "little") + 1, int.from_bytes(body[4:7], "little") + 1
    if kind == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 " and len(body) == 10 and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", body, 6)
        return _checked_size("WebP", height & 0x3FFF, width & 0x3FFF)
    raise BrokenImage("the WebP is truncated or corrupt: its header cannot be read")


def _checked_size(image_format: ImageFormat, height: int, width: int) -> tuple[int, int]:
    if height == 0 or width == 0:
        raise BrokenImage(f"the {image_format} says that it has {width}x{height} pixels")
    return height, width


def _orientation(exif: bytes | None) -> int:
    """Orientation of a TIFF-structured EXIF block; a block that cannot be read says nothing, as with every viewer."""
    block = exif or b""
    order: Literal["little", "big"] = "little" if block.startswith(b"II") else "big"

    def number(position: int, length: int) -> int:
        return int.from_bytes(block[position : position + length], order)

    directory = number(4, 4)
    count = min(number(directory, 2), len(block) // 12)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        if number(entry, 2) == 0x0112:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1
