"""Named colours of pictures for the eye, near to far.

- `turbo`: near is warm, far is cool; the most colours to tell apart. In the manner of Google's Turbo (Mikhailov, 2019).
- `viridis`: even steps to the eye, and in grey too (Smith and van der Walt, 2015; CC0).
- `cividis`: the same to those who cannot tell red from green (Nuñez, Anderton and Renslow, PLOS ONE 13(7), 2018).
- `grey`: near is white. It ends brighter than the stripes of what is not valid.

Each but turbo falls in lightness all the way, so that it says the same when printed in black and white.
"""

import functools

import numpy as np
import numpy.typing as npt

# sRGB at even steps from near to far: the published tables at 11 or 16 places, back to front.
_ANCHORS: dict[str, str] = {
    "turbo": "7a0403 c42503 f05b12 fe9b2d e1dd37 a4fc3c 46f884 1ad4d1 3e9bfe 4662d9 30123b",
    "viridis": "fde725 d2e21b a5db36 7ad151 54c568 35b779 22a884 1f988b 23888e 2a788e 31688e 39568c 414487 472f7d"
    " 481a6c 440154",
    "cividis": "fee838 eed649 dbc75a c8b866 b7a96e a59c72 948e77 848279 757575 666970 575d6d 47516c 35456c 1e3a6f"
    " 002e6c 00224e",
    "grey": "ffffff 505050",
}
COLORMAPS: tuple[str, ...] = tuple(_ANCHORS)


@functools.cache
def colors(name: str, count: int) -> npt.NDArray[np.uint8]:
    """The colours of that name, one of `COLORMAPS`: uint8 (count, 3), sRGB, near to far. Read-only."""
    anchors = np.array([list(bytes.fromhex(anchor)) for anchor in _ANCHORS[name].split()], np.float64)
    at = np.linspace(0, len(anchors) - 1, count)
    found = np.stack([np.interp(at, range(len(anchors)), channel) for channel in anchors.T], axis=-1)
    table: npt.NDArray[np.uint8] = np.rint(found).astype(np.uint8)
    table.flags.writeable = False
    return table
