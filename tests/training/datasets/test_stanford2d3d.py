from pathlib import Path

import numpy as np
import pytest

from dap.errors import InvalidParameter
from tests.training.datasets.files import depth_of, write_png16, write_rgb
from training.datasets.stanford2d3d import Stanford2D3D

NAME = "camera_{}_{}_frame_equirectangular_domain_{}.png"


def add(root: Path, area: str, uuid: str, room: str = "office_7") -> None:
    folder = root / area / "pano"
    write_rgb(folder / "rgb" / NAME.format(uuid, room, "rgb"))
    values = {(2, 3): 512, (2, 4): 65535, (2, 5): 0, (2, 6): 65534}
    write_png16(folder / "depth" / NAME.format(uuid, room, "depth"), depth_of(values, 1280, np.uint16))


def test_a_number_is_a_512th_of_a_metre_and_65535_is_a_hole(tmp_path: Path) -> None:
    add(tmp_path, "area_1", "0a2ac")
    dataset = Stanford2D3D(tmp_path)
    (entry,) = dataset.entries("train")
    depth = dataset.read(entry).depth
    assert depth is not None
    assert depth[0, 0] == 2.5
    assert depth[2, 3] == 1.0
    assert depth[2, 4] == 0, "65535 is unknown, not 128 m and not sky"
    assert depth[2, 5] == 0
    assert depth[2, 6] == pytest.approx(65534 / 512)
    assert np.isfinite(depth).all()


def test_areas_5a_and_5b_are_the_test_split(tmp_path: Path) -> None:
    for area in ("area_1", "area_2", "area_3", "area_4", "area_5a", "area_5b", "area_6"):
        add(tmp_path, area, "f00")
    dataset = Stanford2D3D(tmp_path)
    assert [entry.metadata["area"] for entry in dataset.entries("train")] == [f"area_{i}" for i in (1, 2, 3, 4, 6)]
    assert [entry.metadata["area"] for entry in dataset.entries("test")] == ["area_5a", "area_5b"]


def test_the_forty_of_val_need_a_list(tmp_path: Path) -> None:
    add(tmp_path, "area_1", "f00")
    with pytest.raises(InvalidParameter, match="only a list file"):
        Stanford2D3D(tmp_path).entries("val")
    lines = tmp_path / "val.txt"
    lines.write_text(
        f"area_1/pano/rgb/{NAME.format('f00', 'office_7', 'rgb')} "
        f"area_1/pano/depth/{NAME.format('f00', 'office_7', 'depth')}"
    )
    listed = Stanford2D3D(tmp_path, lines)
    (entry,) = listed.entries("val")
    assert entry.id == Stanford2D3D(tmp_path).entries("train")[0].id, "an id does not depend on how it was found"
    assert not entry.missing()
