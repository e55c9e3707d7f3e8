"""Coloured point clouds of depth maps."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from dap.depth import DepthMap
from dap.sphere import Frame

Sampling = Literal["equal-area", "erp"]
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)


@dataclass(frozen=True)
class PointCloud:
    """Points with colours.

    Attributes:
        points: float32 (N, 3), metres, the camera at the origin.
        colors: uint8 (N, 3), RGB.
        frame: axes of the points.
        normals: float32 (N, 3), unit, towards the camera; None where not asked for.
        model: name of the model that the depth comes from.
    """

    points: npt.NDArray[np.float32]
    colors: npt.NDArray[np.uint8]
    frame: Frame
    normals: npt.NDArray[np.float32] | None = None
    model: str = ""


def point_cloud(
    depth_map: DepthMap,
    pixels: npt.NDArray[np.uint8],
    frame: Frame = "ros",
    max_points: int | None = None,
    sampling: Sampling = "equal-area",
) -> PointCloud:
    raise NotImplementedError
