"""Depth in 16 bits, as shards hold it: steps of equal ratio, with codes of their own for unknown and for sky.

    code 0              unknown
    code 1 ... 65534    metres = 0.01 * 100000 ** ((code - 1) / 65533): from 1 cm to 1 km
    code 65535          sky, or out of every range

Why a ratio: losses and metrics of depth are relative (SILog, AbsRel, delta), so an error should weigh the same at 0.1 m
as at 100 m. One step is 0.0176 %: what is read back is within 0.0088 % of what was written, 9 micrometres at 0.1 m, 9
mm at 100 m. Even steps of 2 mm (1/512 m, as the service answers) are 1 % off at 0.1 m and end at 128 m; half-precision
floats are within 0.049 %. Nearer than 1 cm is written as 1 cm, farther than 1 km as 1 km.

The numbers stand in the manifest and in the JSON of each sample, so that a reader in another language needs no more.
"""

import functools
import math

import numpy as np
import numpy.typing as npt

from training.datasets.base import SKY, UNKNOWN

NEAR_M, FAR_M = 0.01, 1000.0
UNKNOWN_CODE, SKY_CODE = 0, 65535
FIRST_CODE, LAST_CODE = 1, 65534

DESCRIPTION: dict[str, object] = {
    "unit": "metre",
    "kind": "ray distance",
    "codes": "log",
    "near": NEAR_M,
    "far": FAR_M,
    "first": FIRST_CODE,
    "last": LAST_CODE,
    "unknown": UNKNOWN_CODE,
    "sky": SKY_CODE,
}

_STEPS = LAST_CODE - FIRST_CODE
_LOG_SPAN = math.log(FAR_M / NEAR_M)


def encode(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Codes, uint16 (H, W), of metres float32 (H, W); NaN and what is not above zero is unknown, +inf is sky."""
    surface = np.isfinite(depth) & (depth > 0)
    metres = np.clip(np.where(surface, depth, np.float32(1)), NEAR_M, FAR_M).astype(np.float64)
    codes = FIRST_CODE + np.rint(np.log(metres / NEAR_M) * (_STEPS / _LOG_SPAN))
    return np.where(surface, codes, np.where(np.isposinf(depth), SKY_CODE, UNKNOWN_CODE)).astype(np.uint16)


def decode(codes: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Metres, float32 (H, W), with `UNKNOWN` and `SKY`, of codes uint16 (H, W)."""
    metres: npt.NDArray[np.float32] = metres_of_codes()[codes]
    return metres


@functools.cache
def metres_of_codes() -> npt.NDArray[np.float32]:
    """Metres of every code, float32 (65536,); read-only."""
    table: npt.NDArray[np.float32]
    table = (NEAR_M * np.exp((np.arange(SKY_CODE + 1) - FIRST_CODE) * (_LOG_SPAN / _STEPS))).astype(np.float32)
    table[UNKNOWN_CODE], table[SKY_CODE] = UNKNOWN, SKY
    table.flags.writeable = False
    return table
