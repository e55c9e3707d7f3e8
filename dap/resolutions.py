"""Resolutions: the input sizes at which a model sees a panorama, as people write them (`1024x512`), and which to take.

A network that looks at more pixels of the same panorama sees finer things and takes longer, by more than as many times.
"""

import re
from collections.abc import Sequence

from dap.errors import InvalidParameter, ResolutionNotOffered
from dap.model.config import PATCH

Size = tuple[int, int]
"""(H, W) in pixels."""

PATTERN = r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})"
"""Of `WxH`, as a regular expression."""


def resolution_text(size: Size) -> str:
    """`WxH` of (H, W)."""
    height, width = size
    return f"{width}x{height}"


def resolution_list(sizes: Sequence[Size]) -> str:
    """Several, with commas between."""
    return ", ".join(map(resolution_text, sizes))


def parse_resolution(text: str) -> Size:
    """(H, W) of `WxH`.

    Raises:
        InvalidParameter: not of that form.
    """
    match = re.fullmatch(PATTERN, text)
    if match is None:
        raise InvalidParameter(f"a resolution is WxH in pixels, such as 1024x512; got {text!r:.100}")
    return int(match[2]), int(match[1])


def check_resolution(size: Size) -> Size:
    """The same size, if a network can be asked to see panoramas at it.

    Raises:
        InvalidParameter: not W = 2 H, or no multiples of 16.
    """
    height, width = size
    if width != 2 * height or height % PATCH:
        raise InvalidParameter(
            f"a resolution is WxH in pixels with W = 2 H, both multiples of {PATCH}; got {resolution_text(size)}"
        )
    return size


def choose_resolution(wanted: Size | None, offered: Sequence[Size], model: str) -> Size:
    """The size wanted, if it is offered.

    Args:
        wanted: (H, W); None for the first of those offered.
        offered: sizes, the one for who does not ask first.
        model: the name of the model that offers them.

    Raises:
        ResolutionNotOffered: it is not; the message lists those that are.
    """
    if wanted is None:
        return offered[0]
    if wanted not in offered:
        raise ResolutionNotOffered(
            f"{model} is offered at {resolution_list(offered)}; the resolution asked for is {resolution_text(wanted)}"
        )
    return wanted


def batch_limit(most: int, size: Size, default: Size) -> int:
    """Panoramas of a size that run together at most, where it is `most` of the default size, at least 1.

    Of a larger size as many fewer as it has more pixels, so that a batch needs no more memory and takes hardly longer;
    of a smaller one no more.
    """
    return max(1, min(most, most * default[0] * default[1] // (size[0] * size[1])))
