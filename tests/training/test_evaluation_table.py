"""`dap evaluate`, as a shell sees it. The model's depth is the red channel / 2."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dap.command import main
from dap.errors import InvalidParameter
from dap.evaluation import PROTOCOLS
from dap.graph import GraphMetadata
from dap.models import sibling_path
from tests.dap.graphs import METADATA, SIZE, red_graph, red_panorama, save
from training.datasets.images import Images
from training.evaluation_table import Benchmark, evaluate_command

H, W = 32, 64
CAMERA = "camera_0_room_{}_frame_equirectangular_domain_{}.png"


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = save(red_graph(), tmp_path / "red.onnx")
    monkeypatch.setenv("DAP_MODEL", str(path))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two rooms of 10 m, seen as 12 m and as 10 m."""
    for name, metres in (("a", 12.0), ("b", 10.0)):
        write_pair(tmp_path / "truth", name, metres, np.full((H, W), 10.0, np.float32))
    return tmp_path / "truth"


def write_pair(folder: Path, name: str, seen_as: float, truth: np.ndarray) -> None:
    picture(folder / f"{name}.rgb.png", seen_as)
    np.save(folder / f"{name}.depth_m.npy", truth)


def picture(path: Path, metres: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(red_panorama(metres, size=(H, W))[0]).save(path)


def run(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(main, ["evaluate", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


def found(*arguments: object) -> dict[str, Any]:
    """The result of the one model."""
    (result,) = json.loads(run(*arguments, "--json").stdout)["results"]
    return result


def test_a_model_is_compared_at_the_resolution_asked_for(model: Path, folder: Path) -> None:
    """At the larger one this model sees everything half as far."""
    larger = red_graph(replace(METADATA, input_size=(H, W)), divisor=4.0)
    save(larger, sibling_path(model, (H, W)))
    result = found(folder, "--protocol", "raw", "--range", "none", "--resolution", f"{W}x{H}")
    assert result["model"] == f"red@{W}x{H}"
    assert result["mean"]["scores"]["absrel"] == pytest.approx((0.4 + 0.5) / 2)
    assert "red is offered at 32x16, 64x32" in run(folder, "--resolution", "128x64", status=2).output


def by_image(path: Path, *arguments: object) -> dict[str, dict[str, Any]]:
    """What is written of each panorama, by its name."""
    run(*arguments, "--per-image", path)
    return {line["panorama"]: line for line in map(json.loads, path.read_text().splitlines())}


def test_the_metrics_are_those_of_the_field(folder: Path) -> None:
    result = found(folder)
    assert result["model"] == "red"
    assert result["mean"]["images"] == 2
    assert result["mean"]["scores"]["absrel"] == pytest.approx(0.1)
    assert result["mean"]["scores"]["rmse"] == pytest.approx(1)
    assert result["mean"]["weighted"]["delta1"] == 1
    assert result["mean"]["aligned"]["absrel"] == pytest.approx(0, abs=1e-6)


def test_a_folder_of_pairs_is_a_data_set_too(folder: Path) -> None:
    assert found("--dataset", "labelled-folder", "--root", folder) == found(folder)


def test_a_published_data_set_is_read_in_its_own_units_and_its_test_split_is_taken(tmp_path: Path) -> None:
    """Stanford2D3D: 512 steps a metre, 65535 where there is none; area 5 tests, area 1 trains."""
    for area, numbers in (("area_5a", 10 * 512), ("area_1", 1 * 512)):
        pano = tmp_path / area / "pano"
        picture(pano / "rgb" / CAMERA.format(0, "rgb"), 12.0)
        (pano / "depth").mkdir()
        depth = np.full((H, W), numbers, np.uint16)
        depth[:4] = 65535
        Image.fromarray(depth).save(pano / "depth" / CAMERA.format(0, "depth"))
    mean = found("--dataset", "stanford2d3d", "--root", tmp_path)["mean"]
    assert mean["scores"]["absrel"] == pytest.approx(0.2)
    assert mean["pixels"] == (H - 4) * W, "the truth keeps its size, though the model sees half as many rows"
    assert found("--dataset", "stanford2d3d", "--root", tmp_path, "--split", "train")["mean"]["scores"][
        "absrel"
    ] == pytest.approx(11)


class TestDapOfficial:
    """DAP clips the truth to 100 m, sky and all: half of these panoramas is farther, the other half is seen rightly."""

    @staticmethod
    def assert_half_is_farther(*arguments: object) -> None:
        mean = found(*arguments, "--protocol", "dap-official")["mean"]
        assert mean["pixels"] == H * W
        assert mean["scores"]["absrel"] == pytest.approx(0.5 / 2), "50 m where the truth counts as 100 m"
        assert mean["scores"]["mae"] == pytest.approx(0.5 / 2), "in units of 100 m"
        assert found(*arguments, "--protocol", "dap")["mean"]["pixels"] == H * W / 2, "the honest one leaves it out"

    def test_compares_what_airsim360_has_beyond_100_m(self, tmp_path: Path) -> None:
        picture(tmp_path / "panorama_0.png", 50.0)
        metres = np.full((H, W), 50.0, np.float32)
        metres[:, : W // 4], metres[:, W // 4 : W // 2] = 250.0, 65504.0
        np.save(tmp_path / "erp_distance_0.npy", metres)
        self.assert_half_is_farther("--dataset", "airsim360", "--root", tmp_path)

    def test_compares_what_deep360_has_beyond_100_m_and_its_sky(self, tmp_path: Path) -> None:
        folder = tmp_path / "ep1_500frames" / "testing"
        (folder / "rgb").mkdir(parents=True)
        (folder / "depth").mkdir()
        Image.fromarray(red_panorama(50.0, size=(2 * H, H))[0]).save(folder / "rgb" / "000000_12_rgb1.png")
        metres = np.full((2 * H, H), 50.0, np.float32)
        metres[: H // 2], metres[H // 2 : H] = 250.0, 1000.0  # the upper half: from behind over the top to the front
        np.savez(folder / "depth" / "000000_depth.npz", metres)
        self.assert_half_is_farther("--dataset", "deep360", "--root", tmp_path)

    def test_leaves_out_what_stanford2d3d_has_beyond_101_m(self, tmp_path: Path) -> None:
        pano = tmp_path / "area_5a" / "pano"
        picture(pano / "rgb" / CAMERA.format(0, "rgb"), 50.0)
        (pano / "depth").mkdir()
        steps = np.full((H, W), 50 * 512, np.uint16)
        steps[:4], steps[4:8], steps[8:16] = 65535, 127 * 512, 100.5 * 512
        Image.fromarray(steps).save(pano / "depth" / CAMERA.format(0, "depth"))
        mean = found("--dataset", "stanford2d3d", "--root", tmp_path, "--protocol", "dap-official")["mean"]
        assert (mean["max_truth"], mean["pixels"]) == (101, 24 * W)
        assert mean["scores"]["mae"] == pytest.approx(0.5 * 8 / 24)


def test_each_model_has_its_rows_and_the_protocols_own_numbers_are_marked(folder: Path, tmp_path: Path) -> None:
    nearer = GraphMetadata("nearer", (10.0, 20.0, 50.0, 100.0), SIZE, "CC0-1.0", "0" * 64)
    save(red_graph(nearer, divisor=4.0), tmp_path / "nearer.onnx")
    lines = run(folder, "--model", tmp_path / "red.onnx", "--model", tmp_path / "nearer.onnx").stdout.splitlines()
    assert lines[0].startswith("labelled-folder all, protocol dap")
    assert lines[1].split()[:4] == ["model", "panoramas", "numbers", "absrel"]
    own = [line.split() for line in lines if "*" in line][1:]
    assert [row[:5] for row in own] == [["red", "2", "*", "pixels", "0.1000"], ["nearer", "2", "*", "pixels", "0.4500"]]
    aligned = next(line.split() for line in lines if line.startswith("red") and "pixels, aligned" in line)
    assert aligned[4] == "0.0000"


def test_another_protocol_has_other_numbers_of_its_own(folder: Path) -> None:
    """DA2 aligns medians, and ends at 5 m."""
    assert "none has truth that the protocol compares" in run(folder, "--protocol", "da2", status=2).output
    for name in ("a", "b"):
        np.save(folder / f"{name}.depth_m.npy", np.full((H, W), 4.0, np.float32))
    own = [line for line in run(folder, "--protocol", "da2").stdout.splitlines() if "*" in line][1:]
    assert "pixels, aligned" in own[0]


def test_a_protocol_that_knows_no_range_mask_compares_the_depth_under_it(folder: Path, tmp_path: Path) -> None:
    """Beyond 10 m nothing is valid: 12 m under a mask would count as 100 m, or as nothing once it is enlarged."""
    numbers = by_image(tmp_path / "lines", folder, "--protocol", "raw", "--range", "10")
    assert numbers["a"]["scores"]["absrel"] == pytest.approx(0.2)
    numbers = by_image(tmp_path / "lines", folder, "--protocol", "dap", "--range", "10")
    assert numbers["a"]["scores"]["absrel"] == pytest.approx(9)


def test_the_limit_of_a_data_set_can_be_given(folder: Path, tmp_path: Path) -> None:
    np.save(folder / "b.depth_m.npy", np.tile(np.array([10.0, 300.0], np.float32), (H, W // 2)))
    numbers = by_image(tmp_path / "lines", folder, "--protocol", "unik3d", "--max-truth", "100")
    assert numbers["b"]["pixels"] == 24 * 32, "without 15% of the rows at each pole"
    assert numbers["b"]["max_truth"] == 100
    assert "pano3d compares truth up to 8 m" in run(folder, "--protocol", "pano3d", "--max-truth", 12, status=2).output


def test_dac_pools_delta1_over_the_pixels_of_all_panoramas(folder: Path) -> None:
    """A room of three quarters, seen 30% too far, counts three times what a quarter that is right does."""
    far, right = np.zeros((2, H, W), np.float32)
    far[: 3 * H // 4], right[: H // 4] = 10, 10
    write_pair(folder, "a", 13.0, far)
    write_pair(folder, "b", 10.0, right)
    assert found(folder, "--protocol", "dac")["mean"]["scores"]["delta1"] == pytest.approx(0.25)
    assert found(folder, "--protocol", "dap")["mean"]["scores"]["delta1"] == pytest.approx(0.5)


def test_the_numbers_of_every_panorama_go_to_a_file_a_line_each(folder: Path, tmp_path: Path) -> None:
    numbers = by_image(tmp_path / "lines.jsonl", folder)
    assert {name: line["scores"]["absrel"] for name, line in numbers.items()} == pytest.approx({"a": 0.2, "b": 0})
    assert {line["model"] for line in numbers.values()} == {"red"}
    assert {(line["dataset"], line["split"], line["protocol"]) for line in numbers.values()} == {
        ("labelled-folder", "all", "dap")
    }


def test_a_limit_takes_panoramas_from_the_whole_split(folder: Path, tmp_path: Path) -> None:
    for name in ("c", "d"):
        write_pair(folder, name, 10.0, np.full((H, W), 10.0, np.float32))
    assert [*by_image(tmp_path / "lines", folder, "--limit", 2)] == ["a", "c"]
    assert [*by_image(tmp_path / "lines", folder, "--limit", 9)] == ["a", "b", "c", "d"]


def test_a_panorama_of_sky_alone_takes_no_part_and_is_told(folder: Path) -> None:
    np.save(folder / "b.depth_m.npy", np.full((H, W), np.inf, np.float32))
    result = found(folder)
    assert result["left_out"] == ["b"]
    assert result["mean"]["images"] == 1
    assert "without truth that the protocol compares: 1" in run(folder).stdout


def test_a_missing_truth_is_named_before_anything_is_predicted(folder: Path) -> None:
    (folder / "b.depth_m.npy").unlink()
    output = run(folder, "--model", "none-of-that-name", status=1).output
    assert "missing files: 1, the first is" in output
    assert "b.depth_m.npy" in output


def test_a_folder_without_pairs_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "NAME.rgb.png and NAME.depth_m.npy" in run(tmp_path / "empty", status=1).output


@pytest.mark.parametrize("arguments", [(), ("--dataset", "stanford2d3d"), ("--root", "."), (".", "--root", ".")])
def test_what_is_evaluated_on_is_said_in_one_way(arguments: tuple[str, ...]) -> None:
    assert "a FOLDER of pairs, or a data set by --dataset and --root, was expected" in run(*arguments, status=2).output


def test_a_data_set_without_depth_is_refused(tmp_path: Path) -> None:
    assert "'images' is not one of" in run("--dataset", "images", "--root", tmp_path, status=2).output
    with pytest.raises(InvalidParameter, match="images has no true depth"):
        Benchmark.of(Images(tmp_path), None, PROTOCOLS["dap"], 100.0)


def test_every_flag_has_an_environment_twin() -> None:
    text = " ".join(run("--help").output.split())
    flags = [parameter for parameter in evaluate_command.params if isinstance(parameter, click.Option)]
    assert text.count("[env var: DAP_") == len(flags)
