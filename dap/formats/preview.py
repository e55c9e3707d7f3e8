"""JPEG for the eye: near is warm, far is cool, what is not valid is striped grey; a legend below says the metres.

Colours run over the logarithm of the depth between its 1st and 99th percentile: a room of 4 m and a square of 80 m both
use all of them.
"""

import functools
import math
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dap.depth import MAX_STEPS, STEPS_PER_METRE, DepthMap
from dap.formats.base import DEFAULT_OPTIONS, EncodeOptions, Format

QUALITY = 90
STRIPES_RGB = ((34, 34, 34), (58, 58, 58))
MIN_HEIGHT_WITH_LEGEND = 128

# Near to far, in the manner of Google's Turbo: even in brightness on both sides of a bright middle.
_ANCHORS_RGB = (
    (122, 4, 3),
    (196, 37, 3),
    (240, 91, 18),
    (254, 155, 45),
    (225, 221, 55),
    (164, 252, 60),
    (70, 248, 132),
    (26, 212, 209),
    (62, 155, 254),
    (70, 98, 217),
    (48, 18, 59),
)
_COLORS = 254
_SMALLEST_SPAN = 1.5


def encode(depth_map: DepthMap, _options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The depth as a coloured JPEG of the same size."""
    near, far = _limits(depth_map)
    picture = _colored(_indices(depth_map, near, far))
    if picture.height >= MIN_HEIGHT_WITH_LEGEND:
        _draw_legend(picture, near, far)
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


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


def _colored(indices: npt.NDArray[np.uint8]) -> Image.Image:
    height, width = indices.shape
    image = Image.frombytes("P", (width, height), indices.tobytes())
    image.putpalette(_palette())
    return image.convert("RGB")


@functools.cache
def _palette() -> bytes:
    anchors = np.array(_ANCHORS_RGB, np.float64)
    at = np.linspace(0, len(anchors) - 1, _COLORS)
    colors = np.stack([np.interp(at, range(len(anchors)), channel) for channel in anchors.T], axis=-1)
    return np.concatenate([np.rint(colors), STRIPES_RGB]).astype(np.uint8).tobytes()


def _draw_legend(picture: Image.Image, near: float, far: float) -> None:
    """A bar of all the colours over the lowest rows, where the tripod stands, with round metres beneath."""
    width, height = picture.size
    letters = max(10, height // 36)
    bar = _colored(np.tile(np.linspace(0, _COLORS - 1, width).astype(np.uint8), (letters // 2, 1)))
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


FORMAT = Format(
    name="jpeg",
    media_type="image/jpeg",
    extension=".jpg",
    description="coloured JPEG with a legend in metres, for the eye",
    write=encode,
)
