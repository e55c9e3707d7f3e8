"""From what an engine says to the depth map that was asked for: one way for Python, command line and service."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dap.depth import SEAMS, UPSAMPLES, DepthMap, Seam, Upsample, apply_range, check_range
from dap.errors import InvalidParameter
from dap.floor import floor_distance
from dap.model.config import PATCH
from dap.seam import Output, blend, half_turn
from dap.sphere import latitudes
from dap.upsampling import nearest

MAX_CAMERA_HEIGHT_M = 1000.0


@dataclass(frozen=True)
class DepthOptions:
    """What may be asked of a depth map.

    Attributes:
        range: metres of the range mask, one of `dap.depth.RANGES`; None for no mask.
        seam: `blend` predicts twice, half a turn apart, and has no seam at the left and right border. A network to
            which longitude is a circle has none to begin with, and predicts once.
        upsample: how the network's depth becomes larger, see `DepthMap.resize`.
        nadir_mask: degrees around straight down that are not valid, 0 to 90: the operator and the tripod.
        camera_height: metres of the camera above the floor, if known: it then fixes the scale of the depth. None for
            the scale that the model gives.
        keep_in_range: whether the depth map has the in-range probabilities too.

    Raises:
        InvalidParameter: a value is none of these.
    """

    range: float | None = 100.0
    seam: Seam = "none"
    upsample: Upsample = "bilinear"
    nadir_mask: float = 0.0
    camera_height: float | None = None
    keep_in_range: bool = False

    def __post_init__(self) -> None:
        check_range(self.range)
        if self.seam not in SEAMS:
            raise InvalidParameter(f"seam is one of {', '.join(SEAMS)}; got {self.seam}")
        if self.upsample not in UPSAMPLES:
            raise InvalidParameter(f"upsample is one of {', '.join(UPSAMPLES)}; got {self.upsample}")
        if not 0 <= self.nadir_mask <= 90:
            raise InvalidParameter(f"nadir_mask is 0 to 90 degrees; got {self.nadir_mask:g}")
        if self.camera_height is not None and not 0 < self.camera_height <= MAX_CAMERA_HEIGHT_M:
            raise InvalidParameter(
                f"camera_height is above 0 and at most {MAX_CAMERA_HEIGHT_M:g} metres; got {self.camera_height:g}"
            )

    @property
    def needs_in_range(self) -> bool:
        """Whether `finish` looks at the in-range probabilities: without them an engine has less to do."""
        return self.range is not None or self.camera_height is not None or self.keep_in_range

    @property
    def needs_colours(self) -> bool:
        """Whether `finish` looks at the panorama's colours, best at the size of the depth map asked for."""
        return self.upsample == "guided"


def is_seen_twice(width: int, options: DepthOptions, *, spherical: bool) -> bool:
    """Whether a panorama of `width` columns is seen from behind, too, for one answer.

    Not by a network to which longitude is a circle: half a turn by whole patches turns its answer, and nothing else.
    """
    return options.seam == "blend" and not (spherical and width % (2 * PATCH) == 0)


def engine_inputs(
    pixels: npt.NDArray[np.uint8], options: DepthOptions, *, spherical: bool
) -> list[npt.NDArray[np.uint8]]:
    """The panoramas, uint8 (H, W, 3), that an engine is to see for one answer, in the order that `finish` takes.

    Args:
        pixels: uint8 (H, W, 3), the panorama at the size of the model's input.
        options: of the depth map.
        spherical: longitude is a circle to the model, as `dap.models.Model` says.
    """
    return [pixels, half_turn(pixels)] if is_seen_twice(pixels.shape[1], options, spherical=spherical) else [pixels]


def finish(
    outputs: Sequence[Output],
    thresholds: Sequence[float],
    options: DepthOptions,
    model: str,
    covered: npt.NDArray[np.bool_] | None,
    size: tuple[int, int],
    guide: npt.NDArray[np.uint8] | None = None,
) -> DepthMap:
    """The depth map asked for: blend, scale, range mask, nadir mask, size, in this order.

    Args:
        outputs: depth (H, W) and in-range probabilities (T, H, W) of each of `engine_inputs`; of the latter T is 0
            where not `options.needs_in_range`.
        thresholds: T metres of the model, ascending.
        options: of the depth map.
        model: its name.
        covered: bool (H, W), what of the sphere the picture shows; None for all of it.
        size: (h, w) of the result.
        guide: uint8 (h', w', 3), the panorama, where `options.needs_colours`.

    Raises:
        FloorNotFound: a camera height was given, and there is no floor to measure from.
        InvalidParameter: `upsample` is `guided` and there is no guide.
    """
    depth, in_range = blend(*outputs) if len(outputs) == 2 else outputs[0]
    factor = 1.0
    if options.camera_height is not None:
        factor = options.camera_height / floor_distance(depth, _usable(in_range, covered, options.nadir_mask))
    depth_map = apply_range(
        depth,
        in_range,
        thresholds,
        options.range,
        model,
        covered,
        keep_in_range=options.keep_in_range,
        scale_factor=factor,
    )
    # Masked before, so that nothing of the tripod mixes in, and after, since validity may follow colours over an edge.
    sized = depth_map.without_nadir(options.nadir_mask).resize(size, options.upsample, guide)
    if covered is not None:
        sized = replace(sized, valid=sized.valid & nearest(covered, size))
    return sized.without_nadir(options.nadir_mask)


def _usable(
    in_range: npt.NDArray[np.float32], covered: npt.NDArray[np.bool_] | None, nadir_mask: float
) -> npt.NDArray[np.bool_]:
    """Where a floor may be looked for: in sight, within the model's largest threshold, not under the nadir mask."""
    usable: npt.NDArray[np.bool_] = in_range[-1] > 0.5
    if covered is not None:
        usable &= covered
    usable[np.pi / 2 + latitudes(len(usable)) < np.radians(nadir_mask)] = False
    return usable
