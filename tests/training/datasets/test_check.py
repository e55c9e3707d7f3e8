from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.datasets.files import SIZE, depth_of, write_npy, write_png16, write_rgb
from training.datasets.base import Sample
from training.datasets.check import check, contact_sheet, tile
from training.datasets.images import Images
from training.datasets.labelled_folder import LabelledFolder
from training.datasets.structured3d import Structured3D


def add(root: Path, name: str, depth: np.ndarray) -> None:
    write_rgb(root / f"{name}.rgb.png", depth.shape)
    write_npy(root / f"{name}.depth_m.npy", depth)


def test_shares_are_of_the_sphere(tmp_path: Path) -> None:
    """Rows above 30 degrees are a third of the rows and a quarter of the sphere: (1 - sin 30) / 2."""
    depth = np.full((36, 72), 4.0, np.float32)
    depth[:12] = np.inf
    depth[24:] = 0
    add(tmp_path, "a", depth)
    report, _ = check(LabelledFolder(tmp_path), "all")
    assert report.sky_share == pytest.approx(0.25)
    assert report.unknown_share == pytest.approx(0.25)
    assert report.sizes == {"36x72": 1}
    assert report.problems == ()


def test_percentiles_are_over_all_panoramas_and_leave_sky_and_unknown_out(tmp_path: Path) -> None:
    for number, metres in enumerate((1.0, 2.0, 3.0, 50.0)):
        add(tmp_path, f"p{number}", depth_of({(0, 0): 0, (0, 1): np.inf}, metres, np.float32))
    report, _ = check(LabelledFolder(tmp_path), "all")
    half_a_step = 9e-5
    assert report.depth_percentiles[1] == pytest.approx(1.0, rel=half_a_step)
    assert report.depth_percentiles[25] == pytest.approx(1.0, rel=half_a_step)
    assert report.depth_percentiles[75] == pytest.approx(3.0, rel=half_a_step)
    assert report.depth_percentiles[95] == pytest.approx(50.0, rel=half_a_step)


def test_missing_broken_and_mismatched_files_are_problems_with_their_paths(tmp_path: Path) -> None:
    whole = np.ones(SIZE, np.float32)
    for name in ("ok", "alone", "broken", "mismatch"):
        add(tmp_path, name, whole)
    (tmp_path / "alone.depth_m.npy").unlink()
    (tmp_path / "broken.rgb.png").write_bytes(b"\x89PNG")
    write_npy(tmp_path / "mismatch.depth_m.npy", np.ones((8, 16), np.float32))
    report, tiles = check(LabelledFolder(tmp_path), "all")
    assert (report.panoramas, report.read, len(tiles)) == (4, 1, 1)
    assert {problem.id for problem in report.problems} == {"alone", "broken", "mismatch"}
    named = {problem.id: problem.what.removeprefix(str(tmp_path)) for problem in report.problems}
    assert named["alone"] == "/alone.depth_m.npy: there is no such file"
    assert named["broken"].startswith("/broken.rgb.png: ")
    assert named["mismatch"].startswith("/mismatch.depth_m.npy: expected (16, 32)")


def test_a_size_that_is_not_the_published_one_is_a_problem(tmp_path: Path) -> None:
    folder = tmp_path / "scene_00000" / "2D_rendering" / "1" / "panorama" / "full"
    write_rgb(folder / "rgb_rawlight.png")
    write_png16(folder / "depth.png", np.full(SIZE, 1000, np.uint16))
    report, _ = check(Structured3D(tmp_path), "train")
    (problem,) = report.problems
    assert problem.what.endswith("expected (512, 1024) as published; it is (16, 32)")


def test_a_limit_reads_as_many_evenly_spread_and_still_misses_no_file(tmp_path: Path) -> None:
    for number in range(10):
        add(tmp_path, f"p{number}", np.ones(SIZE, np.float32))
    (tmp_path / "p7.depth_m.npy").unlink()
    report, tiles = check(LabelledFolder(tmp_path), "all", limit=2)
    assert (report.panoramas, report.read, len(tiles)) == (10, 2, 2)
    assert [problem.id for problem in report.problems] == ["p7"]


def test_panoramas_without_depth_have_no_shares(tmp_path: Path) -> None:
    write_rgb(tmp_path / "a.jpg")
    report, tiles = check(Images(tmp_path), "all")
    assert (report.unknown_share, report.sky_share, report.depth_percentiles) == (None, None, {})
    assert tiles[0].size == (256, 128)


def test_a_tile_shows_the_panorama_above_its_depth() -> None:
    rgb = np.full((*SIZE, 3), (10, 20, 30), np.uint8)
    near_left = np.full(SIZE, 8.0, np.float32)
    near_left[:, :16] = 1.0
    picture = np.asarray(tile(Sample("a", rgb, near_left, {}))).astype(int)
    assert picture.shape == (256, 256, 3)
    assert (picture[:128] == (10, 20, 30)).all()
    assert picture[180, 60, 0] > picture[180, 60, 2], "near is warm"
    assert picture[180, 200, 2] > picture[180, 200, 0], "far is cool"


def test_a_sheet_holds_four_tiles_a_row() -> None:
    tiles = [Image.new("RGB", (256, 256), (number, 0, 0)) for number in range(6)]
    sheet = contact_sheet(tiles)
    assert sheet.size == (4 * 256, 2 * 256)
    assert sheet.getpixel((256 + 5, 256 + 5)) == (5, 0, 0)
