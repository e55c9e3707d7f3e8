from pathlib import Path

import numpy as np
import pytest

from dap.errors import DatasetError
from tests.training.label_files import ALONE, model, packed
from training.datasets.base import SKY
from training.labelling import Labeler, label
from training.labels import label_of


def test_depth_is_metres_and_what_the_widest_range_mask_leaves_out_is_sky(tmp_path: Path) -> None:
    labels, _ = label(packed(tmp_path).folder, tmp_path / "labels", Labeler.of(model(tmp_path)), ALONE)
    found = [label_of(member) for member in labels.members(0)]
    assert [one.id for one in found] == ["p0", "p1"]
    for one in found:
        assert one.depth.shape == (32, 64)
        assert (np.isfinite(one.depth) | (one.depth == SKY)).all()
        assert one.metadata["range"] == max(one.metadata["thresholds"])


def test_a_shard_of_panoramas_holds_no_labels(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="p0 is no label"):
        label_of(next(packed(tmp_path).members(0)))
