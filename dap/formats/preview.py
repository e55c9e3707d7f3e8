"""Pictures for the eye, JPEG and PNG: depth in colours, what is not valid striped grey, a legend in metres below.

Colours, those of `dap.formats.colormaps`, run over the logarithm of the depth between its 1st and 99th percentile: a
room of 4 m and a square of 80 m both use all of them.
"""

import math
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dap.depth import MAX_STEPS, STEPS_PER_METRE, DepthMap
from dap.formats import png
from dap.formats.base import DEFAULT_OPTIONS, EncodeOptions, Format
from dap.formats.colormaps import colors

QUALITY = 90
STRIPES_RGB = ((34, 34, 34), (58, 58, 58))
MIN_HEIGHT_WITH_LEGEND = 128

_COLORS = 254
_SMALLEST_SPAN = 1.5


def encode(depth_map: DepthMap, options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The depth as a coloured JPEG of the same size."""
    stream = BytesIO()
    _picture(depth_map, options.colormap).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def encode_png(depth_map: DepthMap, options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The same picture as PNG, without loss."""
    return png.encode(np.asarray(_picture(depth_map, options.colormap)))


def _picture(depth_map: DepthMap, colormap: str) -> Image.Image:
    near, far = _limits(depth_map)
    picture = _colored(_indices(depth_map, near, far), colormap)
    if picture.height >= MIN_HEIGHT_WITH_LEGEND:
        _draw_legend(picture, near, far, colormap)
    return picture


def _limits(depth_map: DepthMap) -> tuple[float, float]:
    """Metres of the nearest and the farthest colour."""
    # A small copy has the same percentiles at a fraction of the cost.
    height, width = depth_map.size
    percentiles = depth_map.resize((min(height, 256), min(width, 512))).statistics().percentiles
    near = max(percentiles.get(1, 1.0), 1e-2)
    return near, max(percentiles.get(99, 100.0), near * _SMALLEST_SPAN)


def _indices(depth_map: DepthMap, near: float, far: float) -> npt.NDArray[np.uint8]:
    metres = np.clip(np.arange(MAX_STEPS + 1) / STEPS_PER_METRE, near, far)
    color_of_steps = np.rint(np.log(metres / near) / math.log(far / near) * (_COLORS - 1)).astype(np.uint8)
    height, width = depth_map.size
    stripe = max(4, height // 64)
    diagonals = (np.arange(height, dtype=np.uint16)[:, None] + np.arange(width, dtype=np.uint16)) // stripe % 2
    stripes = diagonals.astype(np.uint8) + np.uint8(_COLORS)
    return np.where(depth_map.valid, color_of_steps[depth_map.quantised()], stripes)


def _colored(indices: npt.NDArray[np.uint8], colormap: str) -> Image.Image:
    height, width = indices.shape
    image = Image.frombytes("P", (width, height), indices.tobytes())
    image.putpalette(colors(colormap, _COLORS).tobytes() + np.array(STRIPES_RGB, np.uint8).tobytes())
    return image.convert("RGB")


def _draw_legend(picture: Image.Image, near: float, far: float, colormap: str) -> None:
    """A bar of all the colours over the lowest rows, where the tripod stands, with round metres beneath."""
    width, height = picture.size
    letters = max(10, height // 36)
    bar = _colored(np.tile(np.linspace(0, _COLORS - 1, width).astype(np.uint8), (letters // 2, 1)), colormap)
    top = height - 2 * letters
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, top, width, height), fill=(0, 0, 0))
    picture.paste(bar, (0, top))
    font = ImageFont.load_default(letters)
    for metres in _round_metres(near, far):
        x = round(math.log(metres / near) / math.log(far / near) * width)
        draw.line((x, top, x, top + letters // 2), fill=(0, 0, 0))
        draw.text((x, height - letters // 4), f"{metres:g} m", fill=(255, 255, 255), font=font, anchor="ms")


def _round_metres(near: float, far: float) -> list[float]:
    """1, 2, 5 times the powers of ten, away from the edges of the picture; the middle where there is none."""
    inner = (far / near) ** 0.04
    candidates = [factor * 10.0**power for power in range(-2, 4) for factor in (1, 2, 5)]
    fitting = [metres for metres in candidates if near * inner <= metres <= far / inner]
    return fitting or [float(f"{math.sqrt(near * far):.2g}")]


JPEG = Format(
    name="jpeg",
    media_type="image/jpeg",
    extension=".jpg",
    description="coloured JPEG with a legend in metres, for the eye",
    write=encode,
)

PNG = Format(
    name="png-preview",
    media_type="image/png",
    extension=".preview.png",
    description="the same picture as PNG",
    write=encode_png,
)
