from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from dap.depth import DepthMap
from dap.errors import DatasetError
from dap.formats import exr, png16
from tests.training.datasets.files import SIZE, depth_of, write_npy, write_png16, write_rgb
from training.datasets.labelled_folder import LabelledFolder
from training.synthetic.commands import render


def test_zero_and_nan_are_unknown_and_infinity_is_sky(tmp_path: Path) -> None:
    write_rgb(tmp_path / "a.rgb.png")
    write_npy(tmp_path / "a.depth_m.npy", depth_of({(0, 1): 0, (0, 2): np.nan, (0, 3): np.inf}, 1.5, np.float32))
    dataset = LabelledFolder(tmp_path)
    (entry,) = dataset.entries("all")
    assert entry.id == "a"
    depth = dataset.read(entry).depth
    assert depth is not None
    assert depth[0, :4].tolist() == [1.5, 0, 0, np.inf]


def test_what_dap_predict_writes_beside_a_photo_is_a_pair(tmp_path: Path) -> None:
    valid = np.ones(SIZE, np.bool_)
    valid[0, 0] = False
    depth_map = DepthMap(np.full(SIZE, 2.5, np.float32), valid, 100.0, "head", "dap-s")
    for name, format_module in {"b": exr, "c": png16}.items():
        write_rgb(tmp_path / f"{name}.jpg")
        ending = ".depth.exr" if format_module is exr else ".depth.png"
        (tmp_path / f"{name}{ending}").write_bytes(format_module.encode(depth_map))
    dataset = LabelledFolder(tmp_path)
    for entry in dataset.entries("all"):
        depth = dataset.read(entry).depth
        assert depth is not None
        assert depth[0, :2].tolist() == [0, 2.5], entry.id


def test_what_dap_render_writes_is_a_pair_with_its_exact_depth(tmp_path: Path) -> None:
    arguments = ["--count", "1", "--size", "32x16", "--kind", "outdoor", "--seed", "1", "--output", str(tmp_path)]
    CliRunner().invoke(render, arguments, catch_exceptions=False)
    dataset = LabelledFolder(tmp_path)
    (entry,) = dataset.entries("all")
    assert entry.depth == tmp_path / "000001.depth.npy"
    depth = dataset.read(entry).depth
    assert depth is not None
    np.testing.assert_array_equal(depth, np.nan_to_num(np.load(entry.depth), nan=0, posinf=np.inf))


def test_a_picture_and_a_depth_without_their_other_half_are_entries_that_miss_it(tmp_path: Path) -> None:
    write_rgb(tmp_path / "x" / "alone.rgb.png")
    write_npy(tmp_path / "y" / "only.depth_m.npy", np.ones(SIZE, np.float32))
    missing = {entry.id: [path.name for path in entry.missing()] for entry in LabelledFolder(tmp_path).entries("all")}
    assert missing == {"x/alone": ["alone.depth_m.npy"], "y/only": ["only.rgb.png"]}


def test_a_png_of_depth_that_does_not_say_its_scale_is_refused(tmp_path: Path) -> None:
    write_rgb(tmp_path / "a.jpg")
    write_png16(tmp_path / "a.depth.png", np.full(SIZE, 700, np.uint16))
    dataset = LabelledFolder(tmp_path)
    with pytest.raises(DatasetError, match=r"a\.depth\.png: .*scale"):
        dataset.read(dataset.entries("all")[0])
