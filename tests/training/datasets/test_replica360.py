import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dap.errors import BrokenImage, DatasetError
from tests.training.datasets.files import depth_of, write_rgb
from training.datasets.replica360 import Replica360, read_dpt


def dpt(metres: npt.NDArray[np.float32]) -> bytes:
    return struct.pack("<fii", 202021.25, metres.shape[1], metres.shape[0]) + metres.tobytes()


def add(folder: Path, number: int = 0, picture: str = "jpg") -> None:
    write_rgb(folder / f"{number:04d}_rgb_pano.{picture}")
    (folder / f"{number:04d}_depth_pano.dpt").write_bytes(dpt(depth_of({(0, 1): -1.0}, 1.25, np.float32)))
    mask = depth_of({(0, 2): 0}, 255, np.uint8)
    Image.fromarray(mask).save(folder / f"{number:04d}_mask_pano.png")


def test_depth_is_in_metres_and_unknown_below_zero_and_where_the_mask_is_black(tmp_path: Path) -> None:
    add(tmp_path / "office_0_circ")
    dataset = Replica360(tmp_path)
    (entry,) = dataset.entries("test")
    assert entry.metadata == {"scene": "office_0_circ"}
    depth = dataset.read(entry).depth
    assert depth is not None
    assert depth[0, :4].tolist() == [1.25, 0, 0, 1.25]


def test_pictures_may_be_png(tmp_path: Path) -> None:
    add(tmp_path / "hotel_0_line", picture="png")
    (entry,) = Replica360(tmp_path).entries("test")
    assert not entry.missing()


@pytest.mark.parametrize("cut", [3, 11, 12, 100])
def test_a_dpt_that_is_cut_off_is_broken(cut: int) -> None:
    with pytest.raises(BrokenImage, match=r"\.dpt"):
        read_dpt(dpt(np.ones((4, 8), np.float32))[:cut])


def test_what_is_no_dpt_is_refused() -> None:
    with pytest.raises(BrokenImage, match=r"202021\.25"):
        read_dpt(bytes(44))


def test_a_missing_mask_is_an_error_and_not_a_depth_without_one(tmp_path: Path) -> None:
    add(tmp_path / "room_1_rand")
    (tmp_path / "room_1_rand" / "0000_mask_pano.png").unlink()
    dataset = Replica360(tmp_path)
    with pytest.raises(DatasetError, match="0000_mask_pano"):
        dataset.read(dataset.entries("test")[0])
