"""What image files say before they are decoded, honest ones and others."""

import struct
import time

import numpy as np
import pytest

from dap import headers
from dap.errors import BrokenImage, UnsupportedMediaType
from tests.dap.images import exif, picture, saved, with_png_chunks, xmp

GPANO = xmp(UsePanoramaViewer="True")


@pytest.mark.parametrize(
    ("data", "image_format"),
    [
        (saved(picture(), "JPEG"), "JPEG"),
        (saved(picture(), "JPEG", progressive=True), "JPEG"),
        (saved(picture(), "PNG"), "PNG"),
        (saved(picture(), "WEBP"), "WebP"),
        (saved(picture(), "WEBP", lossless=True), "WebP"),
        (saved(picture(), "WEBP", exif=exif(1)), "WebP"),
    ],
    ids=["jpeg", "progressive jpeg", "png", "webp", "lossless webp", "extended webp"],
)
def test_format_and_size_are_told_from_the_header(data: bytes, image_format: str) -> None:
    header = headers.read(data)
    assert (header.format, header.stored_size, header.orientation, header.xmp) == (image_format, (32, 64), 1, None)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_orientation_and_xmp_are_found_in_every_format(image_format: str, order: str) -> None:
    block = exif(6, order)
    if image_format == "PNG":
        chunk = b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + GPANO
        data = with_png_chunks(saved(picture(), "PNG"), (b"eXIf", block[6:]), (b"iTXt", chunk))
    else:
        data = saved(picture(), image_format, exif=block, xmp=GPANO)
    header = headers.read(data)
    assert (header.orientation, header.xmp) == (6, GPANO)
    assert (header.stored_size, header.size) == ((32, 64), (64, 32))


def test_the_decoder_gets_the_file_without_its_metadata() -> None:
    jpeg = headers.read(saved(picture(), "JPEG", exif=exif(3), xmp=GPANO, icc_profile=b"profile" * 9, comment=b"hello"))
    png = with_png_chunks(saved(picture(), "PNG"), (b"iCCP", b"p\x00\x00x"), (b"acTL", bytes(8)), before=b"IDAT")
    for image in (jpeg.image, headers.read(png).image):
        for trace in (b"Exif", b"adobe", b"profile", b"hello", b"iCCP", b"acTL"):
            assert trace not in image


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II",
        b"II*\x00\xff\xff\xff\xff",
        exif(0)[6:],
        exif(9)[6:],
        exif(65535)[6:],
        b"MM\x00*\x00\x00\x00\x08\xff\xff",
    ],
)
def test_an_exif_block_that_cannot_be_read_says_nothing(block: bytes) -> None:
    data = with_png_chunks(saved(picture(), "PNG"), (b"eXIf", block), before=b"IDAT")
    assert headers.read(data).orientation == 1


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (saved(picture(), "GIF"), "a GIF"),
        (saved(picture(), "TIFF"), "a TIFF"),
        (saved(picture(), "BMP"), "a BMP"),
        (b"\x00\x00\x00\x1cftypavif", "an AVIF"),
        (b"\x00\x00\x00\x1cftypheic", "a HEIC"),
        (b"\x00\x00\x00\x1cftypisom", "a video"),
        (b"\n<!doctype html><title>a.jpg</title>", "text"),
        (b"RIFF\x00\x00\x00\x00WAVE", "something else"),
        (b"\xff", "something else"),
    ],
)
def test_another_format_is_refused_by_its_name(data: bytes, what: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=f"JPEG, PNG or WebP; by its first bytes this is {what}$"):
        headers.read(data)


def test_a_jpeg_of_12_bits_is_refused() -> None:
    data = bytearray(saved(picture(), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(UnsupportedMediaType, match="8 bits a sample; this one has 12"):
        headers.read(bytes(data))


def test_a_png_is_checked_against_its_checksums() -> None:
    data = bytearray(saved(picture(), "PNG"))
    data[data.index(b"IDAT") + 20] ^= 1
    with pytest.raises(BrokenImage, match="checksum"):
        headers.read(bytes(data))


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_png_and_webp_are_seen_to_be_truncated_by_their_header_alone(image_format: str) -> None:
    data = saved(picture(), image_format)
    for length in range(16, len(data), 7):
        with pytest.raises(BrokenImage, match="truncated"):
            headers.read(data[:length])


@pytest.mark.parametrize("size", [(0, 64), (32, 0)])
def test_a_picture_without_pixels_is_broken(size: tuple[int, int]) -> None:
    height, width = size
    jpeg = saved(picture(), "JPEG").replace(struct.pack(">HH", 32, 64), struct.pack(">HH", height, width), 1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png = headers.PNG_MAGIC + headers.png_chunk(b"IHDR", header) + headers.png_chunk(b"IEND", b"")
    for data in (jpeg, png):
        with pytest.raises(BrokenImage, match=f"{width}x{height} pixels"):
            headers.read(data)


def test_two_headers_in_one_file_are_refused() -> None:
    jpeg, png = saved(picture(), "JPEG"), saved(picture(), "PNG")
    frame = jpeg[jpeg.index(b"\xff\xc0") :][:19]
    ihdr = png[8:33]
    for data in (jpeg.replace(frame, frame + frame), png.replace(ihdr, ihdr + ihdr)):
        with pytest.raises(BrokenImage, match="header"):
            headers.read(data)


def test_a_progressive_jpeg_of_very_many_scans_is_refused() -> None:
    data = saved(picture(), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    honest = data[:-2] + scan * 80 + data[-2:]
    assert headers.read(honest).size == (32, 64)
    with pytest.raises(BrokenImage, match="at most 100 scans"):
        headers.read(data[:-2] + scan * 100 + data[-2:])


def test_a_sequential_jpeg_of_more_scans_than_components_is_refused() -> None:
    data = saved(picture(), "JPEG")
    scan = b"\xff\xda" + bytes.fromhex("0008 01 01 00 00 3f 00") + b"\x00"
    assert headers.read(data[:-2] + scan * 3 + data[-2:]).stored_size == (32, 64)
    with pytest.raises(BrokenImage, match="at most 4 scans"):
        headers.read(data[:-2] + scan * 4 + data[-2:])


def test_a_jpeg_that_is_all_0xff_costs_no_more_than_reading_it() -> None:
    started = time.thread_time()
    with pytest.raises(BrokenImage):
        headers.read(b"\xff\xd8" + b"\xff" * 2**21)
    assert time.thread_time() - started < 2  # hours, if it were quadratic


@pytest.mark.parametrize("fill", [1, 2**20 - 3, 2**20 - 2, 2**20 - 1])
def test_a_marker_of_a_jpeg_is_found_however_much_fills_up_before_it(fill: int) -> None:
    data = saved(picture(), "JPEG")
    assert headers.read(data[:2] + b"\xff" * fill + data[2:]).image == headers.read(data).image


def test_bytes_after_the_end_of_a_jpeg_are_not_taken_for_scans() -> None:
    data = saved(picture(), "JPEG", progressive=True)
    assert headers.read(data + b"\xff\xda" * 1000).size == (32, 64)


def test_millions_of_empty_segments_are_refused_at_once() -> None:
    with pytest.raises(BrokenImage, match="more than 65536 segments"):
        headers.read(b"\xff\xd8" + b"\xff\xfe\x00\x02" * 100_000)
    with pytest.raises(BrokenImage, match="more than 65536 chunks"):
        headers.read(with_png_chunks(saved(picture(), "PNG"), *[(b"tEXt", b"")] * 70_000))


def test_random_bytes_after_the_magic_are_broken_and_nothing_else() -> None:
    random = np.random.default_rng(3)
    for magic in (b"\xff\xd8\xff", headers.PNG_MAGIC, b"RIFF\x40\x00\x00\x00WEBPVP8 "):
        for _ in range(100):
            with pytest.raises((BrokenImage, UnsupportedMediaType)):
                headers.read(magic + random.bytes(random.integers(0, 64)))
