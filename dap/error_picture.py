"""Where a prediction is wrong, for the eye: blue is too near, red is too far, what was not compared is striped grey.

The colours run over the relative error, (prediction - truth) / truth, from -50 to +50 percent in every picture, so that
two can be compared; beyond that they stay what they are at the ends. A legend below says the percentages.
"""

import functools

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

LIMIT = 0.5
MIN_HEIGHT_WITH_LEGEND = 128

# From too near to too far; as dark on either side, so that neither looks the worse one.
_ANCHORS_RGB = (
    (16, 46, 122),
    (42, 98, 196),
    (112, 166, 232),
    (196, 220, 246),
    (246, 246, 246),
    (250, 210, 192),
    (236, 140, 108),
    (204, 66, 48),
    (126, 18, 30),
)
_STRIPES_RGB = ((34, 34, 34), (58, 58, 58))
_COLORS = 253  # odd: no error has a colour of its own
_LEGEND = {-0.5: "-50 % too near", -0.25: "-25 %", 0.0: "0", 0.25: "+25 %", 0.5: "too far +50 %"}


def error_picture(relative_error: npt.NDArray[np.float32]) -> Image.Image:
    """The error in colours, RGB of the same size; with a legend from 128 rows on.

    Args:
        relative_error: float32 (H, W), (prediction - truth) / truth; NaN where nothing was compared.
    """
    picture = _colored(_indices(relative_error))
    if picture.height >= MIN_HEIGHT_WITH_LEGEND:
        _draw_legend(picture)
    return picture


def _indices(error: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    height, width = error.shape
    stripe = max(4, height // 64)
    diagonals = (np.arange(height, dtype=np.uint16)[:, None] + np.arange(width, dtype=np.uint16)) // stripe % 2
    stripes = diagonals.astype(np.uint8) + np.uint8(_COLORS)
    compared = np.isfinite(error)
    shares = np.clip(np.where(compared, error, np.float32(0)) / np.float32(2 * LIMIT) + np.float32(0.5), 0, 1)
    return np.where(compared, np.rint(shares * (_COLORS - 1)).astype(np.uint8), stripes)


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
    return np.concatenate([np.rint(colors), _STRIPES_RGB]).astype(np.uint8).tobytes()


def _draw_legend(picture: Image.Image) -> None:
    """A bar of all the colours over the lowest rows, where the tripod stands, with percentages beneath."""
    width, height = picture.size
    letters = max(10, height // 36)
    top = height - 2 * letters
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, top, width, height), fill=(0, 0, 0))
    bar = np.linspace(0, _COLORS - 1, width).round().astype(np.uint8)
    picture.paste(_colored(np.tile(bar, (letters // 2, 1))), (0, top))
    font = ImageFont.load_default(letters)
    for error, text in _LEGEND.items():
        x = round((error / (2 * LIMIT) + 0.5) * (width - 1))
        side = {-LIMIT: "l", LIMIT: "r"}.get(error, "m")
        draw.line((x, top, x, top + letters // 2), fill=(0, 0, 0))
        draw.text((x, height - letters // 4), text, fill=(255, 255, 255), font=font, anchor=f"{side}s")
