"""The data sets by name."""

from pathlib import Path

from dap.errors import InvalidParameter
from training.datasets.airsim360 import AirSim360
from training.datasets.base import Dataset
from training.datasets.deep360 import Deep360
from training.datasets.images import Images
from training.datasets.labelled_folder import LabelledFolder
from training.datasets.matterport3d import Matterport3DPano3D, Matterport3DUniFuse
from training.datasets.replica360 import Replica360
from training.datasets.stanford2d3d import Stanford2D3D
from training.datasets.structured3d import Structured3D
from training.datasets.three_d60 import ThreeD60
from training.datasets.videos import DEFAULT_EVERY_S, Videos

DATASETS: dict[str, type[Dataset]] = {
    kind.name: kind
    for kind in (
        Stanford2D3D,
        Matterport3DPano3D,
        Matterport3DUniFuse,
        Structured3D,
        Deep360,
        AirSim360,
        ThreeD60,
        Replica360,
        LabelledFolder,
        Images,
        Videos,
    )
}
"""Those that lie in files; scenes of the renderer are `training.datasets.rendered.Rendered`."""


def open_dataset(name: str, root: Path, list_file: Path | None = None, every_s: float = DEFAULT_EVERY_S) -> Dataset:
    """A data set; nothing is read yet.

    Args:
        name: one of `DATASETS`.
        root: folder that holds it.
        list_file: lines `rgb depth`, see `Dataset`.
        every_s: of `videos`, seconds from a frame to the next.

    Raises:
        InvalidParameter: no such data set.
    """
    if name not in DATASETS:
        raise InvalidParameter(f"the data sets are {', '.join(DATASETS)}; got {name}")
    if name == Videos.name:
        return Videos(root, list_file, every_s)
    return DATASETS[name](root, list_file)
