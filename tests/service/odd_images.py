"""Files that nobody should send as a panorama, or as a true depth. All are made here, the same each time."""

import io
import math
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import OpenEXR
from PIL import Image

from dap import headers
from dap.headers import PNG_MAGIC, png_chunk
from tests.dap.images import exif, gpano, saved, with_png_chunks, xmp

KINDS = ("JPEG", "PNG", "WEBP")
XMP_IN_PNG = b"XML:com.adobe.xmp" + bytes(5)


def noise(height: int = 64, width: int = 128) -> Image.Image:
    """A picture that no format makes small."""
    return Image.fromarray(np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8))


def truncated(data: bytes) -> Iterator[bytes]:
    """Cut off at every kilobyte."""
    return (data[:end] for end in range(0, len(data), 1024))


def flipped(data: bytes, count: int, seed: int = 1) -> Iterator[bytes]:
    """With one to eight bytes changed, every other time in the first 200."""
    rng = random.Random(seed)
    for number in range(count):
        changed = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            changed[rng.randrange(min(len(data), 200) if number % 2 else len(data))] = rng.choice([0, 1, 127, 128, 255])
        yield bytes(changed)


def resealed(png: bytes, change: Callable[[bytes, bytes], bytes]) -> bytes:
    """The PNG with the payload of each chunk changed, and checksums that are right."""
    chunks = ((kind, change(kind, bytes(payload))) for kind, payload in headers.png_chunks(png))
    return PNG_MAGIC + b"".join(png_chunk(kind, payload) for kind, payload in chunks)


def flipped_png(count: int, seed: int = 2) -> Iterator[bytes]:
    """PNG files with bytes changed within chunks whose checksums are right."""
    rng = random.Random(seed)
    palette = saved(noise().quantize(), "PNG", transparency=3)

    def change(_kind: bytes, payload: bytes) -> bytes:
        if not payload or rng.random() < 0.5:
            return payload
        at = rng.randrange(len(payload))
        return payload[:at] + bytes([rng.randrange(256)]) + payload[at + rng.choice([0, 1, 1, 3]) :]

    for _ in range(count):
        yield resealed(rng.choice([palette, saved(noise(), "PNG")]), change)


def png_of(
    width: int, height: int, depth: int, colour: int, rows: bytes | None = None, interlaced: bool = False
) -> bytes:
    """A black PNG that says this of itself; its pixels are there unless given."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    if rows is None:
        packer = zlib.compressobj(9)
        row = bytes(1 + math.ceil(width * channels * depth / 8))
        rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, depth, colour, 0, 0, interlaced)
    palette = png_chunk(b"PLTE", bytes(3 * 2)) if colour == 3 else b""
    return PNG_MAGIC + png_chunk(b"IHDR", header) + palette + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


def jpeg_of(width: int, height: int, **options: object) -> bytes:
    """A JPEG of 64x32 that says it is larger."""
    data = saved(Image.new("RGB", (64, 32), (80, 20, 40)), "JPEG", **options)
    frame = next(start for code, start, _end in headers.jpeg_segments(data, 2) if code in (0xC0, 0xC2))
    return data[: frame + 1] + struct.pack(">HH", height, width) + data[frame + 5 :]


def jpeg_of_scans(width: int, height: int, scans: int, progressive: bool = False) -> bytes:
    """A JPEG with that many scans of a byte each; a decoder passes over the whole picture for each."""
    data = jpeg_of(width, height, progressive=progressive)
    if not progressive:
        # A decoder that finds all components in the first scan looks for no other.
        data = data[: data.index(b"\xff\xda")] + data[-2:]
    components = b"\x01\x01\x00" + (b"\x01\x3f\x00" if progressive else b"\x00\x3f\x00")
    return data[:-2] + (b"\xff\xda\x00\x08" + components + b"\x00") * scans + data[-2:]


def animated_webp(width: int, height: int) -> bytes:
    """An animation that says that its canvas is so large, with one frame of 64x32."""
    frame = saved(Image.new("RGB", (64, 32)), "WEBP", lossless=True)[12:]
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    anmf = bytes(6) + (63).to_bytes(3, "little") + (31).to_bytes(3, "little") + bytes(4) + frame
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\x00\x00\x00" + size
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6) + b"ANMF" + struct.pack("<I", len(anmf)) + anmf
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bombs(width: int, height: int) -> dict[str, bytes]:
    """Small files that unpack to a picture of that size, or cost a decoder many passes over one."""
    return {
        "a JPEG that says it is large": jpeg_of(width, height),
        "a progressive JPEG that says so": jpeg_of(width, height, progressive=True),
        "a JPEG of 20000 scans": jpeg_of_scans(width, height, 20_000),
        "a progressive JPEG of 5000 scans": jpeg_of_scans(width, height, 5000, progressive=True),
        "a progressive JPEG of 90 scans": jpeg_of_scans(width, height, 80, progressive=True),
        "a JPEG of a megabyte of 0xff": b"\xff\xd8" + b"\xff" * 2**20 + b"\x00",
        "black RGB": png_of(width, height, 8, 2),
        "black RGBA of 16 bits": png_of(width, height, 16, 6),
        "black grey of 16 bits": png_of(width, height, 16, 0),
        "black grey and alpha of 16 bits": png_of(width, height, 16, 4),
        "black of one bit": png_of(width, height, 1, 0),
        "black, interlaced": png_of(width, height, 8, 2, interlaced=True),
        "a PNG whose pixels unpack to a gigabyte": png_of(64, 32, 8, 2, zlib.compress(bytes(2**26), 9) * 16),
        "an animated WebP that says it is large": animated_webp(width, height),
    }


def odd_pictures() -> dict[str, bytes]:
    """Pictures of every mode, size and container that a decoder may meet, and of some that it may not."""
    picture = noise(32, 64)
    modes = {f"PNG {mode}": saved(picture.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA")}
    modes |= {f"JPEG {mode}": saved(picture.convert(mode), "JPEG") for mode in ("L", "CMYK", "YCbCr")}
    modes["PNG I;16"] = saved(Image.fromarray(np.arange(2048, dtype=np.uint16).reshape(32, 64) * 31), "PNG")
    modes["PNG palette, transparent"] = saved(picture.quantize(), "PNG", transparency=bytes(range(256)))
    modes["progressive JPEG"] = saved(picture, "JPEG", progressive=True)
    frames = [picture, picture.rotate(180), picture.rotate(90)]
    moving = {
        kind: saved(frames[0], kind, save_all=True, append_images=frames[1:]) for kind in ("PNG", "WEBP", "GIF", "TIFF")
    }
    sizes = {
        f"{kind} {width}x{height}": saved(Image.new("RGB", (width, height)), kind)
        for kind in KINDS
        for width, height in ((1, 1), (2, 1), (32, 16), (30, 15), (33, 16), (64, 64), (16383, 1), (1, 16383))
    }
    metadata = {
        f"{kind} orientation {number}": saved(picture, kind, exif=exif(number))
        for kind in KINDS
        for number in (0, 5, 8, 9, 65535)
    }
    return {**modes, **{f"animated {kind}": data for kind, data in moving.items()}, **sizes, **metadata}


def lies() -> dict[str, bytes]:
    """Headers and metadata that are not true."""
    jpeg, png, webp = (saved(noise(32, 64), kind) for kind in KINDS)
    honest = gpano((32, 64), (32, 64), (0, 0))
    fields = [
        honest | {"FullPanoWidthPixels": 10**9 - 1, "FullPanoHeightPixels": (10**9 - 1) // 2},
        honest | {"CroppedAreaLeftPixels": -1},
        honest | {"CroppedAreaImageWidthPixels": 0},
        honest | {"FullPanoWidthPixels": "9" * 5000},
        honest | {"FullPanoWidthPixels": "NaN"},
        honest | {"ProjectionType": "cubic"},
        gpano((3200, 6400), (1, 2), (0, 0)),
        gpano((320, 640), (1, 1), (319, 639)),
    ]
    laughs = (
        b'<!DOCTYPE x [<!ENTITY a "ha">'
        + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9))
        + b']><x xmlns:GPano="http://ns.google.com/photos/1.0/panorama/">&j;</x>'
    )
    deep = b'<a xmlns:GPano="http://ns.google.com/photos/1.0/panorama/">' + b"<a>" * 50_000
    packets = [*(xmp(**each) for each in fields), laughs, deep, b"\xff\xfe" + xmp(**honest)]
    found = {f"PNG xmp {i}": with_png_chunks(png, (b"iTXt", XMP_IN_PNG + packet)) for i, packet in enumerate(packets)}
    found |= {f"WebP xmp {i}": saved(noise(32, 64), "WEBP", xmp=packet) for i, packet in enumerate(packets)}
    unpacks = zlib.compress(bytes(2**24), 9)
    found |= {
        f"PNG {kind.decode()} bomb": with_png_chunks(png, (kind, b"name\x00\x00" + unpacks), before=b"IDAT")
        for kind in (b"zTXt", b"iCCP", b"iTXt")
    }
    for width, height in ((0, 0), (2**31 - 1, 2**30), (2**32 - 1, 2**31), (65535, 32767), (65, 32), (63, 32)):
        found[f"PNG says {width}x{height}"] = png_of(width, height, 8, 2, zlib.compress(bytes(33 * 193)))
        found[f"JPEG says {width}x{height}"] = jpeg_of(width & 0xFFFF, height & 0xFFFF)
        found[f"WebP says {width}x{height}"] = animated_webp(max(1, width & 0xFFFFFF), max(1, height & 0xFFFFFF))
    for length in (0, 1, 2**31, 2**32 - 1):
        found[f"PNG chunk of {length}"] = png[:33] + struct.pack(">I", length) + png[37:]
        found[f"WebP of {length}"] = webp[:4] + struct.pack("<I", length) + webp[8:]
        found[f"WebP chunk of {length}"] = webp[:16] + struct.pack("<I", length) + webp[20:]
        found[f"JPEG segment of {length & 0xFFFF}"] = jpeg[:4] + struct.pack(">H", length & 0xFFFF) + jpeg[6:]
    return found


def foreign() -> dict[str, bytes]:
    """What is no picture, or none of the three kinds."""
    picture = noise(32, 64)
    return {
        **{kind: saved(picture, kind) for kind in ("GIF", "TIFF", "BMP", "PPM", "ICO", "TGA", "JPEG2000", "PDF")},
        "EXR": exr(np.ones((32, 64), np.float32)),
        "HEIC": b"\x00\x00\x00\x18ftypheic" + bytes(100),
        "HTML": b"<!doctype html><title>pano.jpg</title>",
        "SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="64" height="32"/>',
        "spaces": b" " * 100_000,
        "zeros": bytes(100_000),
        **{
            f"magic {magic!r}": magic
            for magic in (b"\xff\xd8", b"\xff\xd8\xff", PNG_MAGIC, b"RIFF\x00\x00\x00\x00WEBP")
        },
        "a JPEG in a PNG": PNG_MAGIC + saved(picture, "JPEG"),
    }


def exr(metres: np.ndarray, **said: object) -> bytes:
    """OpenEXR of one channel Z."""
    file = io.BytesIO()
    header = {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION, **said}
    OpenEXR.File(header, {"Z": metres}, num_threads=0).write(file)
    return file.getvalue()


def npy(header: str, numbers: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """A .npy file with that header."""
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(header))
    return b"\x93NUMPY" + version + length + header.encode() + numbers


def odd_truths() -> dict[str, bytes]:
    """True depths that are not, or hardly."""
    shaped = "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }\n"
    metres = np.linspace(1, 50, 512, dtype=np.float32).reshape(16, 32)
    honest_exr = exr(metres)
    window = honest_exr.index(b"dataWindow\x00box2i\x00") + len(b"dataWindow\x00box2i\x00") + 4
    windows = [
        (0, 0, 2**31 - 1, 2**31 - 1),
        (-(2**31), -(2**31), 2**31 - 1, 2**31 - 1),
        (5, 5, 0, 0),
        (0, 0, 31, 2**20),
    ]
    found = {
        f"EXR window {where}": honest_exr[:window] + struct.pack("<4i", *where) + honest_exr[window + 16 :]
        for where in windows
    }
    found |= {f"EXR cut {i}": data for i, data in enumerate(truncated(honest_exr))}
    found |= {f"EXR flipped {i}": data for i, data in enumerate(flipped(honest_exr, 60))}
    for name, value in {"nan": np.nan, "inf": np.inf, "minus": -1, "zero": 0, "tiny": 1e-42, "huge": 3e38}.items():
        one_value = np.full((16, 32), value, np.float32)
        found[f"EXR {name}"] = exr(one_value)
        found[f"npy {name}"] = npy(shaped % ("<f4", "16, 32"), one_value.tobytes())
    found |= {
        "EXR of very many attributes": honest_exr[:8]
        + b"".join(b"a%d\0int\0\x04\0\0\0abcd" % number for number in range(50_000))
        + honest_exr[8:],
        "npy of doubles that no float holds": npy(shaped % ("<f8", "16, 32"), np.full(512, 1e300).tobytes()),
        "npy that says it is huge": npy(shaped % ("<f4", "999999999, 999999999")),
        "npy 0x0": npy(shaped % ("<f4", "0, 0")),
        "npy of objects": npy(shaped % ("|O", "16, 32"), b"cos\nsystem\n(S'true'\ntR."),
        "npy of three axes": npy(shaped % ("<f4", "1, 16, 32"), bytes(2048)),
        "npy of a deep header": npy("(" * 30_000),
        "npy 2.0": npy(shaped % ("<f4", "16, 32"), metres.tobytes(), b"\x02\x00"),
        "npy with a short header": b"\x93NUMPY\x01\x00\xff\xff{",
        "PNG of 8 bits": saved(Image.new("L", (32, 16), 9), "PNG"),
        "PNG without a scale": saved(Image.fromarray(np.full((16, 32), 512, np.uint16)), "PNG"),
        "PNG all holes": png_of(32, 16, 16, 0),
        "PNG scale 0": with_png_chunks(png_of(32, 16, 16, 0), (b"tEXt", b"Scale\x000")),
        "PNG scale nan": with_png_chunks(png_of(32, 16, 16, 0), (b"tEXt", b"Scale\x00nan")),
    }
    return found
