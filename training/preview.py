"""One picture that says how a run is doing: panoramas, predicted and true depth, the error, and the range mask."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dap.error_picture import error_picture
from dap.model.dap import DapNetwork
from training.evaluate import LabelledPanorama, predict

ROWS = 6
_NEAREST_M, _FARTHEST_M = 0.5, 50.0


def preview(network: DapNetwork, panoramas: Sequence[LabelledPanorama], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Up to `ROWS` panoramas: RGB | predicted depth | true depth | error | probability of the largest range.

    Depth is logarithmic, light is near; both maps share one scale. Sky and unknown pixels of the truth are black. The
    error is as `dap.error_picture` draws it: blue too near, red too far, striped where nothing is compared.

    Args:
        network: is left in the mode it was in.
        panoramas: all of one size (H, W).
        size: that the network is fed at.

    Returns:
        (rows H, 5 W, 3).
    """
    network_was_training = network.training
    network.eval()
    rows = []
    for panorama in panoramas[:: max(1, len(panoramas) // ROWS)][:ROWS]:
        depth, logits = predict(network, panorama.rgb, size)
        known = np.isfinite(panorama.depth) & (panorama.depth > 0)
        true = np.where(known, panorama.depth, np.nan).astype(np.float32)
        in_range = 1 / (1 + np.exp(-np.clip(logits[-1], -30, 30)))
        rows.append(
            [
                panorama.rgb,
                _grey(grey_depth(depth)),
                _grey(grey_depth(panorama.depth)),
                np.asarray(error_picture((depth - true) / true)),
                _grey((255 * in_range).astype(np.uint8)),
            ]
        )
    network.train(network_was_training)
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def grey_depth(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Metres (H, W) as uint8 grey, from white at half a metre to dark at 50 m; black where there is no finite depth."""
    shown = np.isfinite(depth) & (depth > 0)
    position = np.log(np.where(shown, depth, 1) / _NEAREST_M) / np.log(_FARTHEST_M / _NEAREST_M)
    return np.where(shown, 255 - 235 * np.clip(position, 0, 1), 0).astype(np.uint8)


def _grey(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.repeat(values[..., None], 3, axis=-1)
