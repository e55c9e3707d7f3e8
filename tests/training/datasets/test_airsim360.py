from pathlib import Path

import numpy as np
import pytest

from dap.errors import InvalidParameter
from tests.training.datasets.files import depth_of, write_npy, write_rgb
from training.datasets.airsim360 import AirSim360


def add(folder: Path, number: int) -> None:
    write_rgb(folder / f"panorama_{number}.png")
    values = {(0, 1): 100.0, (0, 2): 100.5, (0, 3): 65504.0, (0, 4): np.nan}
    write_npy(folder / f"erp_distance_{number}.npy", depth_of(values, 42.5, np.float32))


def test_metres_above_100_are_out_of_every_range(tmp_path: Path) -> None:
    add(tmp_path / "city" / "flight_3", 17)
    dataset = AirSim360(tmp_path)
    depth = dataset.read(dataset.entries("all")[0]).depth
    assert depth is not None
    assert depth[0, :5].tolist() == [42.5, 100.0, np.inf, np.inf, 0]


def test_pairs_are_found_in_any_folder(tmp_path: Path) -> None:
    add(tmp_path / "a", 2)
    add(tmp_path / "b" / "c", 10)
    entries = AirSim360(tmp_path).entries("all")
    assert [entry.id for entry in entries] == ["a/panorama_2", "b/c/panorama_10"]
    assert not any(entry.missing() for entry in entries)


def test_dap_test_is_what_its_list_says(tmp_path: Path) -> None:
    for number in range(3):
        add(tmp_path, number)
    with pytest.raises(InvalidParameter, match="only a list file"):
        AirSim360(tmp_path).entries("test")
    (tmp_path / "test.txt").write_text("panorama_1.png erp_distance_1.npy\n")
    assert [entry.id for entry in AirSim360(tmp_path, tmp_path / "test.txt").entries("test")] == ["panorama_1"]
