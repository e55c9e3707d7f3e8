"""`dap predict` and `dap models`, as a shell sees them. The model's depth is the red channel / 2."""

import dataclasses
import io
import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from plyfile import PlyData

from dap import commands
from dap.command import main
from dap.errors import DownloadFailed, EngineError
from dap.hub import Progress
from dap.models import Model, sibling_path
from dap.sphere import latitudes
from tests.dap.graphs import METADATA, SIZE, red_graph, red_panorama, save
from tests.dap.images import saved


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = save(red_graph(), tmp_path / "red.onnx")
    monkeypatch.setenv("DAP_MODEL", str(path))
    monkeypatch.setenv("DAP_HOME", str(tmp_path / "home"))
    return path


@pytest.fixture
def pano(tmp_path: Path) -> Path:
    """A panorama in which everything is 15 m away."""
    return picture(tmp_path / "pano.png", 15.0)


def picture(path: Path, metres: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(saved(red_panorama(metres, size=(32, 64))[0], "PNG"))
    return path


def floor_panorama(below_m: float) -> np.ndarray:
    """uint8 (32, 64, 3) for `red_graph`, in squares of its pixels: a level floor, and 120 m above the horizon."""
    down = np.maximum(np.sin(-latitudes(SIZE[0])), below_m / 120)
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[..., 0] = np.repeat(np.rint(2 * below_m / down), 2)[:, None]
    return pixels


def run(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.usefixtures("model")
class TestPredict:
    def test_a_panorama_becomes_a_16_bit_png_of_its_size(self, pano: Path, tmp_path: Path) -> None:
        run("predict", pano, "-o", tmp_path / "out")
        with Image.open(tmp_path / "out" / "pano.depth.png") as image:
            assert image.size == (64, 32)
            np.testing.assert_array_equal(np.asarray(image), 15 * 512)

    def test_every_format_that_is_named_is_written(self, pano: Path, tmp_path: Path) -> None:
        wanted = [part for name in ("png", "npy", "jpeg", "json", "ply") for part in ("--format", name)]
        run("predict", pano, "-o", tmp_path / "out", *wanted)
        assert names(tmp_path / "out") == [f"pano.depth.{kind}" for kind in ("jpg", "json", "npy", "ply", "png")]
        assert np.load(tmp_path / "out" / "pano.depth.npy")[16, 32] == 15
        assert json.loads((tmp_path / "out" / "pano.depth.json").read_text())["median"] == 15

    def test_range_and_size_are_those_asked_for(self, pano: Path, tmp_path: Path) -> None:
        run("predict", pano, "-o", tmp_path, "--format", "npy", "--range", "10", "--size", "128x64")
        depth = np.load(tmp_path / "pano.depth.npy")
        assert depth.shape == (64, 128)
        assert np.isnan(depth).all()

    def test_a_cloud_has_the_frame_and_no_more_points_than_asked_for(self, pano: Path, tmp_path: Path) -> None:
        run("predict", pano, "-o", tmp_path, "--format", "ply", "--frame", "opengl", "--max-points", 50)
        vertices = PlyData.read(io.BytesIO((tmp_path / "pano.depth.ply").read_bytes()))["vertex"]
        points = np.stack([vertices[axis] for axis in "xyz"], axis=1)
        assert 0 < len(points) <= 50
        np.testing.assert_allclose(np.linalg.norm(points, axis=1), 15, rtol=1e-5)
        assert set(vertices["red"]) == {30}

    def test_a_known_camera_height_sets_the_scale_and_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "floor.png").write_bytes(saved(floor_panorama(10.0), "PNG"))
        told = run("predict", tmp_path / "floor.png", "-o", tmp_path, "-f", "npy", "--camera-height", "5", "--json")
        # The red channel counts half metres.
        assert json.loads(told.stdout)["written"][0]["scale_factor"] == pytest.approx(0.5, rel=0.03)
        assert np.load(tmp_path / "floor.depth.npy")[-1, 32] == pytest.approx(5, rel=0.05)

    def test_a_camera_height_without_a_floor_fails_that_file(self, tmp_path: Path) -> None:
        picture(tmp_path / "nothing.png", 120.0)
        result = run("predict", tmp_path / "nothing.png", "-o", tmp_path, "--camera-height", "1.6", "--json", status=1)
        assert json.loads(result.stdout)["failed"][0]["error"] == "floor-not-found"

    def test_the_nadir_mask_is_not_valid(self, pano: Path, tmp_path: Path) -> None:
        run("predict", pano, "-o", tmp_path, "-f", "npy", "--nadir-mask", "45", "--range", "20")
        depth = np.load(tmp_path / "pano.depth.npy")
        np.testing.assert_array_equal(np.isnan(depth), np.arange(32)[:, None] >= np.full((1, 64), 24))

    def test_the_seam_and_the_upsampling_are_those_asked_for(self, tmp_path: Path) -> None:
        step = red_panorama(4.0)[0]
        step[:, 8:24, 0] = 80
        (tmp_path / "step.png").write_bytes(saved(np.repeat(np.repeat(step, 2, 0), 2, 1), "PNG"))
        run("predict", tmp_path / "step.png", "-o", tmp_path, "-f", "npy", "--upsample", "guided", "--seam", "blend")
        guided = np.load(tmp_path / "step.depth.npy")
        np.testing.assert_allclose(guided[4], np.where(np.repeat(step[4, :, 0], 2) == 80, 40, 4), rtol=1e-2)

    def test_what_stands_where_nothing_is_valid_is_chosen(self, pano: Path, tmp_path: Path) -> None:
        run("predict", pano, "-o", tmp_path, "-f", "npy", "--range", "10", "--fill", "range")
        np.testing.assert_array_equal(np.load(tmp_path / "pano.depth.npy"), 10)

    def test_probabilities_and_points_of_one_format_have_two_files(self, pano: Path, tmp_path: Path) -> None:
        run("predict", pano, "-o", tmp_path / "out", "-f", "npz", "-f", "cloud-npz", "--normals", "--max-edge", "0.1")
        assert names(tmp_path / "out") == ["pano.depth.cloud.npz", "pano.depth.npz"]
        with np.load(tmp_path / "out" / "pano.depth.npz") as arrays:
            assert arrays["in_range"].shape == (4, 32, 64)
            np.testing.assert_array_equal(arrays["thresholds"], [10, 20, 50, 100])
        with np.load(tmp_path / "out" / "pano.depth.cloud.npz") as arrays:
            assert arrays["normals"].shape == arrays["points"].shape

    def test_a_folder_keeps_its_subfolders(self, tmp_path: Path) -> None:
        picture(tmp_path / "in" / "a.png", 5.0)
        picture(tmp_path / "in" / "deep" / "er" / "a.PNG", 6.0)
        (tmp_path / "in" / "notes.txt").write_text("no picture")
        run("predict", tmp_path / "in", "-o", tmp_path / "out")
        assert names(tmp_path / "out") == ["a.depth.png", "deep/er/a.depth.png"]

    def test_one_bad_file_is_told_and_does_not_stop_the_others(self, tmp_path: Path) -> None:
        for name in ("a.png", "c.png"):
            picture(tmp_path / "in" / name, 5.0)
        (tmp_path / "in" / "b.png").write_bytes(b"no picture")
        result = run("predict", tmp_path / "in", "-o", tmp_path / "out", status=1)
        assert names(tmp_path / "out") == ["a.depth.png", "c.depth.png"]
        assert f"{tmp_path / 'in' / 'b.png'}: " in result.stderr
        assert "Traceback" not in result.output
        assert result.stdout == f"2 of 3 panoramas written to {tmp_path / 'out'}\n"

    def test_of_an_engine_that_fails_its_librarys_words_are_told(
        self, pano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise EngineError("ONNX Runtime failed on a batch of 1.") from RuntimeError("no kernel for Conv\nat 0x7f")

        monkeypatch.setattr("dap.commands.Predictor.predict", fail)
        result = run("predict", pano, "-o", tmp_path / "out", "--json", status=1)
        (failed,) = json.loads(result.stdout)["failed"]
        assert failed["detail"] == "ONNX Runtime failed on a batch of 1. Cause: no kernel for Conv"
        assert f"{pano}: {failed['detail']}\n" in result.stderr

    def test_the_summary_for_scripts_is_one_json_document(self, pano: Path, tmp_path: Path) -> None:
        (tmp_path / "broken.png").write_bytes(b"no picture")
        result = run("predict", tmp_path, "-o", tmp_path / "out", "--json", status=1)
        summary = json.loads(result.stdout)
        assert (summary["model"], summary["engine"], summary["device"]) == ("red", "onnx", "cpu")
        assert summary["resolution"] == "32x16"
        (written,), (failed,) = summary["written"], summary["failed"]
        assert written["input"] == str(pano)
        assert written["outputs"] == {"png": str(tmp_path / "out" / "pano.depth.png")}
        assert (written["valid_share"], written["range"], written["range_mask"]) == (1.0, 100.0, "head")
        assert (failed["input"], failed["error"]) == (str(tmp_path / "broken.png"), "unsupported-media-type")

    def test_the_model_sees_the_panorama_at_the_resolution_asked_for(
        self, model: Path, pano: Path, tmp_path: Path
    ) -> None:
        larger = red_graph(dataclasses.replace(METADATA, input_size=(32, 64)), divisor=3.0)
        save(larger, sibling_path(model, (32, 64)))
        told = run("predict", pano, "-o", tmp_path / "out", "-f", "npy", "--resolution", "64x32", "--json")
        assert json.loads(told.stdout)["resolution"] == "64x32"
        assert (np.load(tmp_path / "out" / "pano.depth.npy") == 10).all()
        refused = run("predict", pano, "-o", tmp_path / "out", "--resolution", "128x64", status=2)
        assert "red is offered at 32x16, 64x32" in refused.stderr

    def test_results_beside_their_pictures_are_no_input_of_the_next_run(self, pano: Path) -> None:
        pictures = [word for name in ("png", "jpeg", "png-preview") for word in ("--format", name)]
        for _ in range(2):
            result = run("predict", pano.parent, "-o", pano.parent, *pictures)
            assert result.stdout.startswith("1 of 1")

    def test_two_pictures_with_one_name_are_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        picture(tmp_path / "in" / "a.png", 5.0)
        (tmp_path / "in" / "a.jpg").write_bytes(saved(red_panorama(5.0, size=(32, 64))[0], "JPEG"))
        result = run("predict", tmp_path / "in", "-o", tmp_path / "out", status=2)
        assert "would have the same name" in result.output
        assert not (tmp_path / "out").exists()

    def test_a_folder_without_pictures_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        assert "There is no picture" in run("predict", tmp_path / "in", "-o", tmp_path / "out", status=2).output

    @pytest.mark.parametrize("size", ["512", "512x512", "0x0", "big"])
    def test_a_size_that_is_none_is_a_wrong_use(self, pano: Path, tmp_path: Path, size: str) -> None:
        assert "W = 2 H" in run("predict", pano, "-o", tmp_path, "--size", size, status=2).output

    def test_every_flag_has_a_twin_in_the_environment(
        self, pano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DAP_PREDICT_OUTPUT", str(tmp_path / "out"))
        monkeypatch.setenv("DAP_PREDICT_FORMAT", "npy jpeg")
        monkeypatch.setenv("DAP_PREDICT_RANGE", "10")
        monkeypatch.setenv("DAP_PREDICT_SIZE", "model")
        run("predict", pano)
        assert names(tmp_path / "out") == ["pano.depth.jpg", "pano.depth.npy"]
        assert np.isnan(np.load(tmp_path / "out" / "pano.depth.npy")).all()

    def test_the_help_names_each_twin(self) -> None:
        text = " ".join(run("predict", "--help").output.split())
        flags = [parameter for parameter in commands.predict.params if isinstance(parameter, click.Option)]
        assert text.count("[env var: DAP_") == len(flags)

    def test_a_model_that_is_not_here_is_one_line(self, pano: Path, tmp_path: Path) -> None:
        result = run("predict", pano, "-o", tmp_path / "out", "--model", "dap-official-l", status=1)
        assert result.stderr.startswith("Error: dap-official-l is not on this machine.")
        assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("model")
class TestModels:
    def test_the_list_shows_name_state_size_ranges_licence_and_file(self, tmp_path: Path) -> None:
        bundled, official, *_ = run("models").stdout.split("\n\n")
        assert bundled.startswith("dap-s  (")
        assert "default" in bundled
        assert "Apache-2.0" in bundled
        assert official.startswith("dap-official-l  (not downloaded)")
        assert "input 1024x512, range mask at 100 m" in official
        assert "see the model card" in official
        assert str(tmp_path / "home" / "models" / "dap-official-l" / "model.pth") in official

    def test_scripts_get_json(self) -> None:
        models = {model["name"]: model for model in json.loads(run("models", "--json").stdout)}
        assert [name for name, model in models.items() if model["default"]] == ["dap-s"]
        assert models["dap-official-l"]["input_size"] == [512, 1024]
        assert models["dap-official-l"]["resolutions"] == ["1024x512"]
        assert models["dap-official-l"]["state"] == "not downloaded"

    def test_pull_says_where_the_file_is_and_its_licence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def pull(model: Model, progress: Progress) -> Path:
            progress(1000, 2000)
            progress(2000, 2000)
            return model.path

        monkeypatch.setattr(commands, "pull_model", pull)
        place, licence = run("models", "pull", "dap-official-l").stdout.splitlines()
        assert place.endswith("dap-official-l/model.pth")
        assert licence.startswith("licence: see the model card")

    def test_a_pull_that_fails_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def pull(model: Model, progress: Progress) -> Path:
            raise DownloadFailed("Cannot reach the hub.")

        monkeypatch.setattr(commands, "pull_model", pull)
        assert run("models", "pull", "dap-official-l", status=1).stderr.endswith("Error: Cannot reach the hub.\n")

    def test_what_is_on_no_hub_cannot_be_pulled(self) -> None:
        assert "dap-s is on no hub" in run("models", "pull", "dap-s", status=2).output
