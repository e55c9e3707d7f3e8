from pathlib import Path

import pytest

from dap.errors import InvalidParameter
from training.datasets.registry import DATASETS, open_dataset
from training.datasets.videos import Videos


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_opens_by_its_name(tmp_path: Path, name: str) -> None:
    dataset = open_dataset(name, tmp_path)
    assert dataset.name == name
    assert dataset.root == tmp_path
    assert dataset.listed_splits <= set(dataset.splits)
    assert set(dataset.published) <= set(dataset.splits)


def test_the_seconds_between_frames_reach_the_videos(tmp_path: Path) -> None:
    assert isinstance(open_dataset("videos", tmp_path, every_s=3.0), Videos)
    with pytest.raises(InvalidParameter, match="above zero"):
        open_dataset("videos", tmp_path, every_s=-1.0)


def test_a_name_that_is_none_is_told_the_others(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"stanford2d3d.*; got kitti"):
        open_dataset("kitti", tmp_path)
