"""Image files that the tests make: a smooth picture in any format, with any metadata."""

import struct
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dap import headers

GPANO = "http://ns.google.com/photos/1.0/panorama/"


def picture(height: int = 32, width: int = 64) -> npt.NDArray[np.uint8]:
    """uint8 (H, W, 3): red grows to the right, green downwards, blue is a half."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return pixels


def saved(image: Image.Image | npt.NDArray[np.uint8], image_format: str, **options: Any) -> bytes:
    stream = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, image_format, **options)
    return stream.getvalue()


def exif(orientation: int, order: str = "<") -> bytes:
    """An EXIF block with a maker note that points nowhere and an orientation."""
    magic = b"II*\x00" if order == "<" else b"MM\x00*"
    maker_note = struct.pack(f"{order}HHII", 0x927C, 7, 0xFFFFFFF0, 0xFFFFFFF0)
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\x00\x00" + magic + struct.pack(f"{order}IH", 8, 2) + maker_note + entry + bytes(4)


def xmp(**fields: object) -> bytes:
    """An XMP packet with GPano attributes."""
    attributes = " ".join(f'GPano:{name}="{value}"' for name, value in fields.items())
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:GPano="{GPANO}" {attributes}/></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>'
    ).encode()


def gpano(full: tuple[int, int], crop: tuple[int, int], at: tuple[int, int]) -> dict[str, int]:
    """GPano fields of a crop (h, w) at (top, left) of a full sphere (h, w)."""
    return {
        "FullPanoHeightPixels": full[0],
        "FullPanoWidthPixels": full[1],
        "CroppedAreaImageHeightPixels": crop[0],
        "CroppedAreaImageWidthPixels": crop[1],
        "CroppedAreaTopPixels": at[0],
        "CroppedAreaLeftPixels": at[1],
    }


def with_png_chunks(png: bytes, *chunks: tuple[bytes, bytes], before: bytes = b"IEND") -> bytes:
    """The PNG with further chunks before the first chunk of that type."""
    at = png.index(before) - 4
    return png[:at] + b"".join(headers.png_chunk(kind, payload) for kind, payload in chunks) + png[at:]
