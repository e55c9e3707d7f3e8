"""Untrusted bytes to panoramas: header, limits, decoding at reduced scale, orientation, colour, place on the sphere.

What is taken: JPEG, PNG and WebP; of an animation the first frame. The result is always RGB, 8 bits:

- grey and palette become RGB; 16 bits are scaled to 8; CMYK is converted without a profile;
- transparent pixels are laid over black;
- an ICC profile is not applied: pixels count as sRGB. What a wide gamut shifts is far less than the colour jitter that
  models are trained with.
"""

import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from dap import gpano, headers
from dap.errors import BrokenImage, EmptyInput, InputTooLarge, NotAPanorama, TooManyPixels
from dap.gpano import Crop
from dap.headers import ImageFormat, ImageHeader
from dap.progressive import for_an_eighth

MIN_HEIGHT = 16

# The plugins themselves and not `Image.open`: its guard against large pictures is one limit for the whole process, and
# it warns where ours refuses.
_DECODERS: dict[ImageFormat, Callable[[BytesIO], ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
}
# What Pillow's decoders raise on corrupt files.
_DECODER_FAILURES = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
    struct.error,
    Image.DecompressionBombError,
)
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Limits:
    """What is taken at most.

    Attributes:
        max_bytes: of the file.
        max_pixels: of the picture, and of the full sphere it is a part of; both told from the header.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 16384 * 8192


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Panorama:
    """A picture of the full sphere.

    Attributes:
        pixels: uint8 (H, W, 3), RGB, equirectangular; black where not covered.
        source_size: (h, w) of the full sphere at the scale of the picture that was sent, upright.
        covered: bool (H, W), what of the sphere the picture shows; None for all of it.
    """

    pixels: npt.NDArray[np.uint8]
    source_size: tuple[int, int]
    covered: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Header:
    """What a panorama's file says before it is decoded.

    Attributes:
        image: format, stored size and orientation of the file.
        crop: the part of the sphere that it shows.
    """

    image: ImageHeader
    crop: Crop


def read_header(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Format, size and place on the sphere of a panorama, checked against the limits. No pixel is decoded.

    Raises:
        EmptyInput: no bytes.
        InputTooLarge: more bytes than the limit.
        UnsupportedMediaType: neither JPEG, PNG nor WebP.
        BrokenImage: truncated or corrupt.
        TooManyPixels: the picture, or the full sphere it is a part of, has more than the limit.
        NotAPanorama: neither 2:1 (within two pixels of width) nor placed on the sphere by true GPano data; or less than
            16 pixels high.
    """
    if not data:
        raise EmptyInput("an image was expected; the body is empty")
    if len(data) > limits.max_bytes:
        raise InputTooLarge(f"a panorama has at most {limits.max_bytes} bytes; this one has {len(data)}")
    image = headers.read(data)
    _check_pixels(image.size, "the picture", limits)
    crop = gpano.locate(image.xmp, image.size)
    _check_pixels(crop.sphere_size, "the full sphere that the picture is a part of", limits)
    if crop.sphere_size[0] < MIN_HEIGHT:
        raise NotAPanorama(f"a panorama is at least {MIN_HEIGHT} pixels high; this one has {crop.sphere_size[0]}")
    return Header(image, crop)


def decode(data: bytes | Header, limits: Limits = DEFAULT_LIMITS, size: tuple[int, int] | None = None) -> Panorama:
    """A panorama from the bytes of an image file.

    Args:
        data: a whole JPEG, PNG or WebP file; or what `read_header` said of it: then not checked again.
        limits: what is refused by its header, before anything is decoded.
        size: (h, w) of the result; a large JPEG is then decoded at a reduced scale, which is much cheaper. None for the
            size of the picture.

    Raises:
        InputError: as `read_header` says; also BrokenImage where the pixels turn out truncated or corrupt.
    """
    header = data if isinstance(data, Header) else read_header(data, limits)
    crop = header.crop
    size = size or crop.sphere_size
    if crop.is_full:
        return Panorama(np.array(_resize(_decode_rgb(header.image, size), size)), crop.sphere_size)
    reduced = math.ceil(size[0] * (crop.bottom - crop.top)), math.ceil(size[1] * (crop.right - crop.left))
    return _place(_decode_rgb(header.image, reduced), crop, size)


def resize_pixels(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A panorama, uint8 (H, W, 3), with (h, w) pixels; longitude is a circle.

    By a whole factor as far as one divides the size (exact area means), the rest of the way bilinear over the area
    that a new pixel covers.
    """
    return np.array(_resize(Image.fromarray(pixels), size))


@contextmanager
def opened(header: ImageHeader) -> Iterator[ImageFile]:
    """The file in its decoder, not yet decoded. What the decoder raises on corrupt pixels becomes BrokenImage."""
    height, width = header.stored_size
    try:
        with _DECODERS[header.format](BytesIO(header.image)) as image:
            if image.size != (width, height):
                raise BrokenImage(
                    f"the {header.format} is corrupt: its header says {width}x{height}, its pixels do not"
                )
            yield image
    except _DECODER_FAILURES as error:
        raise BrokenImage(f"the {header.format} is truncated or corrupt: {error}") from error


def _check_pixels(size: tuple[int, int], what: str, limits: Limits) -> None:
    height, width = size
    if height * width > limits.max_pixels:
        raise TooManyPixels(f"at most {limits.max_pixels} pixels are taken; {what} has {width}x{height}")


def _decode_rgb(header: ImageHeader, at_least: tuple[int, int]) -> Image.Image:
    """The picture, upright, RGB; a JPEG reduced by 2, 4 or 8 where it stays no smaller than `at_least` (h, w)."""
    with _decoded(header, at_least if header.orientation < 5 else at_least[::-1]) as image:
        upright = _to_rgb(image)
    return upright.transpose(_UPRIGHT[header.orientation]) if header.orientation > 1 else upright


@contextmanager
def _decoded(header: ImageHeader, at_least: tuple[int, int]) -> Iterator[ImageFile]:
    header = _without_what_is_not_seen(header, at_least)
    with opened(header) as image:
        _reduce_jpeg(image, at_least)
        image.load()
        if header.format == "JPEG" and _ends_grey(image):
            _refuse_missing_pixels(header, image, at_least)
        yield image


def _reduce_jpeg(image: ImageFile, at_least: tuple[int, int]) -> None:
    """Have the decoder do what is cheap to do there.

    Only by a factor that divides the size: by another the last column would be a part of one, and the circle not close.
    """
    width, height = image.size
    factor = _reduction((height, width), at_least)
    if factor > 1:
        image.draft(None, (width // factor, height // factor))


def _reduction(size: tuple[int, int], at_least: tuple[int, int]) -> int:
    height, width = size
    for factor in (8, 4, 2):
        whole = height % factor == width % factor == 0
        if whole and height >= factor * at_least[0] and width >= factor * at_least[1]:
            return factor
    return 1


def _without_what_is_not_seen(header: ImageHeader, at_least: tuple[int, int]) -> ImageHeader:
    if header.format != "JPEG" or _reduction(header.stored_size, at_least) < 8:
        return header
    return replace(header, image=for_an_eighth(header.image))


def _ends_grey(image: ImageFile) -> bool:
    corner = np.asarray(image.crop((image.width - 1, image.height - 1, image.width, image.height)))
    return bool((np.abs(corner.astype(np.int16) - 128) <= 2).all())


def _refuse_missing_pixels(header: ImageHeader, image: ImageFile, at_least: tuple[int, int]) -> None:
    """Tell a picture that is grey in its last corner from one whose pixels were cut off.

    Where the data of a JPEG end early, libjpeg fills up with middle grey and only warns, and Pillow does not pass that
    on. If bytes at the end of the scan make a difference, then pixels were missing.
    """
    with opened(replace(header, image=headers.jpeg_with_longer_scan(header.image))) as other:
        _reduce_jpeg(other, at_least)
        other.load()
        if ImageChops.difference(image, other).getbbox() is not None:
            raise BrokenImage("the JPEG is truncated or corrupt: its data end before the picture does")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey to 255; 65535 is the white of a 16-bit PNG, and 257 = 65535 / 255.
        return Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")  # it would be copied
        black = Image.new("RGB", image.size)
        black.paste(rgba, mask=rgba)
        return black
    return image.convert("RGB")


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A whole sphere with (h, w) pixels."""
    height, width = size
    factors = range(min(image.width // width, image.height // height), 1, -1)
    factor = next((f for f in factors if image.width % f == image.height % f == 0), 1)
    if factor > 1:
        image = image.reduce(factor)
    if image.size == (width, height):
        return image
    return _resample(image, (0, 0, *image.size), size, circular=True)


def _resample(
    image: Image.Image, box: tuple[float, float, float, float], size: tuple[int, int], circular: bool
) -> Image.Image:
    """The pixels between left, top, right and bottom of `box` as (h, w) pixels."""
    height, width = size
    if circular:
        margin = min(image.width, math.ceil(image.width / width) + 1)
        image = _with_margins(image, margin)
        box = (box[0] + margin, box[1], box[2] + margin, box[3])
    return image.resize((width, height), Image.Resampling.BILINEAR, box)


def _with_margins(image: Image.Image, margin: int) -> Image.Image:
    """The picture with `margin` columns of its other side at each side."""
    width, height = image.size
    wide = Image.new(image.mode, (width + 2 * margin, height))
    for left in (margin - width, margin, margin + width):
        wide.paste(image, (left, 0))
    return wide


def _place(image: Image.Image, crop: Crop, size: tuple[int, int]) -> Panorama:
    """A part of the sphere on a black sphere of (h, w) pixels; a pixel is covered where all of its area is."""
    height, width = size
    # A crop edge that falls on a pixel edge of the sphere may miss it by a rounding error.
    left, right = math.ceil(crop.left * width - 1e-6), math.floor(crop.right * width + 1e-6)
    top, bottom = math.ceil(crop.top * height - 1e-6), math.floor(crop.bottom * height + 1e-6)
    if left >= right or top >= bottom:
        raise NotAPanorama(f"the picture covers less than a pixel of the sphere at {width}x{height}")
    across, down = image.width / (crop.right - crop.left), image.height / (crop.bottom - crop.top)
    box = (
        max(0.0, (left / width - crop.left) * across),
        max(0.0, (top / height - crop.top) * down),
        min(float(image.width), (right / width - crop.left) * across),
        min(float(image.height), (bottom / height - crop.top) * down),
    )
    full_turn = (crop.left, crop.right) == (0, 1)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[top:bottom, left:right] = np.asarray(_resample(image, box, (bottom - top, right - left), circular=full_turn))
    covered = np.zeros(size, np.bool_)
    covered[top:bottom, left:right] = True
    return Panorama(pixels, crop.sphere_size, covered)
