"""One picture that says how a run is doing: panorama, predicted depth, true depth and the range mask, one row each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dap.model.dap import DapNetwork
from training.evaluate import LabelledPanorama, predict

ROWS = 6
_NEAREST_M, _FARTHEST_M = 0.5, 50.0


def write_preview(
    path: Path, network: DapNetwork, panoramas: Sequence[LabelledPanorama], size: tuple[int, int]
) -> None:
    """Write a PNG of up to `ROWS` panoramas: RGB | predicted depth | true depth | probability of being in the largest
    range.

    Depth is logarithmic, light is near; both maps share one scale. Sky and unknown pixels of the truth are black.
    """
    network_was_training = network.training
    network.eval()
    rows = []
    for panorama in panoramas[:: max(1, len(panoramas) // ROWS)][:ROWS]:
        depth, logits = predict(network, panorama.rgb, size)
        in_range = 1 / (1 + np.exp(-np.clip(logits[-1], -30, 30)))
        grey = np.stack([grey_depth(depth), grey_depth(panorama.depth), (255 * in_range).astype(np.uint8)])
        rows.append(np.concatenate([panorama.rgb, *np.repeat(grey[..., None], 3, axis=-1)], axis=1))
    network.train(network_was_training)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)


def grey_depth(depth: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Metres (H, W) as uint8 grey, from white at half a metre to dark at 50 m; black where there is no finite depth."""
    shown = np.isfinite(depth) & (depth > 0)
    position = np.log(np.where(shown, depth, 1) / _NEAREST_M) / np.log(_FARTHEST_M / _NEAREST_M)
    return np.where(shown, 255 - 235 * np.clip(position, 0, 1), 0).astype(np.uint8)
