"""GPano: where on the sphere a partial panorama lies, as its XMP packet says.

Source: Google's Photo Sphere XMP metadata (namespace http://ns.google.com/photos/1.0/panorama/). A picture is the crop
CroppedArea* of a full sphere of FullPano* pixels. Both count pixels of the original: the file may have been scaled
since. Pose and initial view are not applied.
"""

import re
from dataclasses import dataclass
from xml.etree.ElementTree import ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from dap.errors import NotAPanorama

NAMESPACE = "http://ns.google.com/photos/1.0/panorama/"
# Pixels that rounding and scaling may cost: 2:1, and the proportions of a crop, hold within two of them.
TOLERANCE_PX = 2
MAX_XMP_BYTES = 1024 * 1024

_PIXELS = re.compile(r"\s*([+-]?\d{1,9})(?:\.0*)?\s*")
_FIELDS = (
    "FullPanoWidthPixels",
    "FullPanoHeightPixels",
    "CroppedAreaImageWidthPixels",
    "CroppedAreaImageHeightPixels",
    "CroppedAreaLeftPixels",
    "CroppedAreaTopPixels",
)


@dataclass(frozen=True)
class Crop:
    """Part of the sphere that a picture shows.

    Attributes:
        sphere_size: (H, W) of the full sphere at the picture's own scale, in pixels.
        left: left edge, as a share of the sphere's width, 0 to 1; so are the others.
        top: upper edge, as a share of the height.
        right: right edge.
        bottom: lower edge.
    """

    sphere_size: tuple[int, int]
    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0

    @property
    def is_full(self) -> bool:
        return (self.left, self.top, self.right, self.bottom) == (0, 0, 1, 1)


def is_two_to_one(size: tuple[int, int]) -> bool:
    """Whether (h, w) is 2:1 within two pixels of width."""
    height, width = size
    return abs(width - 2 * height) <= TOLERANCE_PX


def locate(xmp: bytes | None, size: tuple[int, int]) -> Crop:
    """Where on the sphere a picture of (h, w) pixels lies: by its GPano data, or all of it if it is 2:1 and has none.

    Raises:
        NotAPanorama: neither 2:1 nor placed by GPano data, or the GPano data contradict themselves or the picture.
    """
    fields = _read(xmp)
    projection = fields.get("ProjectionType", "equirectangular").strip()
    if projection != "equirectangular":
        raise NotAPanorama(f"a panorama is equirectangular; the GPano data of this one say {projection[:40]!r}")
    missing = [name for name in _FIELDS if name not in fields]
    if not missing:
        return _crop([_pixels(name, fields[name]) for name in _FIELDS], size)
    if is_two_to_one(size):
        return Crop(size)
    why = f"its GPano data lack {', '.join(missing)}" if fields else "it has no GPano data that place it on the sphere"
    height, width = size
    raise NotAPanorama(
        f"a full panorama is twice as wide as high (within {TOLERANCE_PX} pixels); "
        f"this picture has {width}x{height} pixels and {why}"
    )


def _read(xmp: bytes | None) -> dict[str, str]:
    """GPano properties, written as attributes or as elements; none where the packet is not XML."""
    if xmp is None or NAMESPACE.encode() not in xmp or len(xmp) > MAX_XMP_BYTES:
        return {}
    try:
        root = defusedxml.ElementTree.fromstring(xmp.strip(b"\x00 \t\r\n"))
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        return {}
    prefix = f"{{{NAMESPACE}}}"
    fields: dict[str, str] = {}
    for element in root.iter():
        properties = [*element.attrib.items(), (element.tag, element.text or "")]
        fields.update((key.removeprefix(prefix), value) for key, value in properties if key.startswith(prefix))
    return fields


def _pixels(name: str, value: str) -> int:
    number = _PIXELS.fullmatch(value)
    if number is None:
        raise NotAPanorama(f"GPano:{name} is a number of pixels; got {value[:40]!r}")
    return int(number[1])


def _crop(numbers: list[int], size: tuple[int, int]) -> Crop:
    full_width, full_height, width, height, left, top = numbers
    if full_width <= 0 or not is_two_to_one((full_height, full_width)):
        raise NotAPanorama(f"a full panorama is 2:1; the GPano data say {full_width}x{full_height} pixels")
    inside = 0 <= left < left + width <= full_width and 0 <= top < top + height <= full_height
    if not inside:
        raise NotAPanorama(
            f"the GPano crop of {width}x{height} pixels at ({left}, {top}) is not inside the full panorama of "
            f"{full_width}x{full_height}"
        )
    image_height, image_width = size
    scale = image_width / width
    if abs(image_height - height * scale) > TOLERANCE_PX * max(1, scale):
        raise NotAPanorama(
            f"the GPano crop has {width}x{height} pixels, the picture {image_width}x{image_height}: other proportions"
        )
    return Crop(
        sphere_size=(round(full_height * scale), round(full_width * scale)),
        left=left / full_width,
        top=top / full_height,
        right=(left + width) / full_width,
        bottom=(top + height) / full_height,
    )
