import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dap.errors import DatasetError, InvalidParameter
from tests.training.datasets.files import SIZE, write_npy, write_png16, write_rgb
from training.datasets.commands import data
from training.datasets.registry import DATASETS
from training.datasets.shards import ShardReader


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(data, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(3):
        write_rgb(tmp_path / "root" / f"p{number}.rgb.png", shift=number)
        write_npy(tmp_path / "root" / f"p{number}.depth_m.npy", np.full(SIZE, 2.0, np.float32))
    return tmp_path / "root"


def test_check_says_what_there_is_and_draws_it(root: Path, tmp_path: Path) -> None:
    result = run("check", "labelled-folder", "--root", root, "--output", tmp_path / "sheet.jpg")
    assert result.exit_code == 0
    assert "labelled-folder all: 3 panoramas" in result.stdout
    assert "3 of 16x32" in result.stdout
    assert "50% 2.00" in result.stdout
    assert "problems: none" in result.stdout
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.size == (3 * 256, 256)


def test_check_ends_with_status_1_where_something_is_wrong(root: Path) -> None:
    (root / "p1.depth_m.npy").unlink()
    result = run("check", "labelled-folder", "--root", root, "--json")
    assert result.exit_code == 1
    (report,) = json.loads(result.stdout)["splits"]
    assert report["panoramas"] == 3
    assert report["read"] == 2
    assert report["problems"] == [{"id": "p1", "what": f"{root / 'p1.depth_m.npy'}: there is no such file"}]


def test_a_wrong_layout_is_told(root: Path) -> None:
    with pytest.raises(DatasetError, match=r"stanford2d3d: for train, area_\*/pano/rgb/.*p0\.depth_m\.npy"):
        run("check", "stanford2d3d", "--root", root)


def test_packing_and_verifying(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--output", out, "--shard-size", "2", "--image", "png")
    result = run("pack", "labelled-folder", "--root", root, *options)
    assert result.stdout == f"{out}: 3 samples in 2 shards\n"
    assert len(list(ShardReader(out))) == 3
    assert run("verify", out).stdout == f"{out}: 3 samples in 2 shards, as the manifest says\n"
    again = json.loads(run("pack", "labelled-folder", "--root", root, *options, "--json").stdout)
    assert (again["shards"], again["samples"], again["left_out"]) == (2, 3, 0)
    (out / "labelled-folder-all-000001.tar").write_bytes(b"")
    with pytest.raises(DatasetError, match="000001"):
        run("verify", out)


def test_rendered_scenes_need_no_root(tmp_path: Path) -> None:
    options = ("--count", "2", "--kind", "indoor", "--seed", "3", "--height", "16", "--output", tmp_path / "out")
    run("pack", "rendered", *options)
    assert [sample.metadata["seed"] for sample in ShardReader(tmp_path / "out")] == [3, 4]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("pack", "rendered"), "need --count"),
        (("pack", "images", "--count", "2"), "of rendered scenes, not of images"),
        (("pack", "images"), "--root, the folder that holds images, is needed"),
        (("pack", "stanford2d3d", "--root", "."), "--split is needed: stanford2d3d has train, val, test"),
        (("pack", "images", "--root", ".", "--every", "2"), "--every is of videos"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(InvalidParameter, match=complaint):
        run(*arguments, "--output", tmp_path / "out")


def test_a_list_is_of_one_split(root: Path) -> None:
    (root / "list.txt").write_text("a b\n")
    with pytest.raises(InvalidParameter, match="a list is of one split"):
        run("check", "stanford2d3d", "--root", root, "--list", root / "list.txt")


def test_the_list_names_every_data_set_and_what_it_expects() -> None:
    listed = json.loads(run("list", "--json").stdout)
    assert [one["name"] for one in listed] == [*DATASETS, "rendered", "rendered-pictures"]
    text = run("list").stdout
    for one in listed:
        assert f"{one['name']}: {one['summary']}" in text
        assert all(line in text for line in one["layout"])


def test_a_data_set_of_which_some_splits_are_here_is_checked_for_these(tmp_path: Path) -> None:
    folder = tmp_path / "area_5a" / "pano"
    name = "camera_f00_office_7_frame_equirectangular_domain"
    write_rgb(folder / "rgb" / f"{name}_rgb.png")
    write_png16(folder / "depth" / f"{name}_depth.png", np.full(SIZE, 512, np.uint16))
    told = run("check", "stanford2d3d", "--root", tmp_path).stdout
    assert "stanford2d3d test: 1 panoramas of 373 published" in told
    assert "stanford2d3d train: none here" in told
