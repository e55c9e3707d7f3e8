"""Depth of panoramas in a few lines: what may be given, what comes back. The model's depth is the red channel / 2."""

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dap.errors import (
    BrokenImage,
    InputTooLarge,
    InvalidParameter,
    ModelFileMissing,
    NotAPanorama,
    ResolutionNotOffered,
    UnknownModel,
)
from dap.models import sibling_path
from dap.panorama import Limits, Panorama
from dap.predictor import Predictor
from tests.dap.graphs import METADATA, SIZE, red_graph, red_panorama, save
from tests.dap.images import gpano, saved, xmp


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(red_graph(), tmp_path / "red.onnx")


@pytest.fixture
def predictor(model: Path) -> Predictor:
    return Predictor(model, threads=1)


FAR_RIGHT = red_panorama(15.0, size=(32, 64))[0]
FAR_RIGHT[:, 32:, 0] = 2 * 60  # 15 m on the left, 60 m on the right half


def test_a_path_bytes_pixels_and_a_panorama_are_the_same(predictor: Predictor, tmp_path: Path) -> None:
    data = saved(FAR_RIGHT, "PNG")
    path = tmp_path / "pano.png"
    path.write_bytes(data)
    maps = [predictor.predict(given) for given in (path, str(path), data, FAR_RIGHT, Panorama(FAR_RIGHT, (32, 64)))]
    for depth_map in maps:
        np.testing.assert_array_equal(depth_map.depth, maps[0].depth)
        assert depth_map.size == (32, 64)
    assert maps[0].depth[16, 16] == 15
    assert maps[0].depth[16, 48] == 60
    assert (maps[0].model, maps[0].range, maps[0].range_mask) == ("red", 100.0, "head")


@pytest.mark.parametrize(("range_m", "left", "right"), [(10, False, False), (20, True, False), (100, True, True)])
def test_the_range_decides_what_is_valid(predictor: Predictor, range_m: float, left: bool, right: bool) -> None:
    valid = predictor.predict(FAR_RIGHT, range=range_m).valid
    assert (valid[:, 1:31].all(), valid[:, 33:63].all()) == (left, right)
    assert valid[:, 1:31].any() == left
    assert valid[:, 33:63].any() == right


def test_without_a_range_all_is_valid(predictor: Predictor) -> None:
    depth_map = predictor.predict(red_panorama(120.0)[0], range=None)
    assert depth_map.valid.all()
    assert (depth_map.range, depth_map.range_mask) == (None, "none")


@pytest.mark.parametrize(("size", "expected"), [("input", (32, 64)), ("model", SIZE), ((8, 16), (8, 16))])
def test_the_size_is_the_one_asked_for(predictor: Predictor, size: Any, expected: tuple[int, int]) -> None:
    assert predictor.predict(FAR_RIGHT, size=size).size == expected


class TestResolution:
    """A model that says red / 2 at 32x16, and red / 4 at 64x32."""

    @pytest.fixture
    def predictor(self, model: Path) -> Predictor:
        larger = red_graph(dataclasses.replace(METADATA, input_size=(32, 64)), divisor=4.0)
        save(larger, sibling_path(model, (32, 64)))
        return Predictor(model, threads=1)

    @pytest.mark.parametrize(("resolution", "seen", "metres"), [(None, (16, 32), 10), ((32, 64), (32, 64), 5)])
    def test_the_model_sees_the_panorama_at_the_resolution_asked_for(
        self, predictor: Predictor, resolution: tuple[int, int] | None, seen: tuple[int, int], metres: float
    ) -> None:
        pixels = red_panorama(10.0, size=(64, 128))[0]
        depth_map = predictor.predict(pixels, size="model", resolution=resolution)
        assert (depth_map.size, depth_map.resolution) == (seen, seen)
        assert (depth_map.depth == metres).all()
        enlarged = predictor.predict(pixels, resolution=resolution)
        assert (enlarged.size, enlarged.resolution) == ((64, 128), seen)

    def test_another_resolution_is_refused_with_those_that_there_are(self, predictor: Predictor) -> None:
        with pytest.raises(ResolutionNotOffered, match=r"red is offered at 32x16, 64x32; .* is 128x64"):
            predictor.predict(FAR_RIGHT, resolution=(64, 128))


def test_what_a_crop_does_not_show_is_not_valid(predictor: Predictor) -> None:
    crop = red_panorama(5.0, size=(16, 32))[0]  # the upper left quarter of the sphere
    packet = xmp(**gpano(full=(32, 64), crop=(16, 32), at=(0, 0)))
    data = saved(crop, "WEBP", lossless=True, xmp=packet)
    valid = predictor.predict(data, range=None).valid
    assert valid.shape == (32, 64)
    assert valid[:16, :32].all()
    assert not valid[16:].any()
    assert not valid[:, 32:].any()


def test_a_panorama_with_holes_keeps_them_at_any_size(predictor: Predictor) -> None:
    covered = np.ones((32, 64), np.bool_)
    covered[24:] = False
    valid = predictor.predict(Panorama(FAR_RIGHT, (32, 64), covered), range=None, size="model").valid
    np.testing.assert_array_equal(valid, np.repeat(np.arange(16) < 12, 32).reshape(16, 32))


def test_a_blend_sees_the_panorama_twice_the_second_time_from_behind(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer, seen = predictor.engine.infer, []
    monkeypatch.setattr(predictor.engine, "infer", lambda pixels, **_: [seen.append(pixels[0]), infer(pixels)][1])
    blended = predictor.predict(FAR_RIGHT, size="model", seam="blend")
    straight, turned = seen
    np.testing.assert_array_equal(turned, np.roll(straight, 16, axis=1))
    # This model says the same of a pixel wherever it is.
    np.testing.assert_allclose(blended.depth, predictor.predict(FAR_RIGHT, size="model").depth, rtol=1e-5)


def test_only_who_asks_for_a_range_or_a_scale_has_range_masks_computed(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer, asked = predictor.engine.infer, []
    monkeypatch.setattr(
        predictor.engine,
        "infer",
        lambda pixels, in_range: [asked.append(in_range), infer(pixels, in_range=in_range)][1],
    )
    without = predictor.predict(FAR_RIGHT, range=None)
    within = predictor.predict(FAR_RIGHT, range=100)
    predictor.predict(FAR_RIGHT, range=None, keep_in_range=True)
    predictor.predict(FAR_RIGHT, range=None, camera_height=1.6)
    assert asked == [False, True, True, True]
    np.testing.assert_array_equal(without.depth, within.depth)


@pytest.mark.parametrize("source", ["file", "pixels"])
def test_guided_depth_has_the_edges_of_the_photo(predictor: Predictor, source: str) -> None:
    photo = np.zeros((32, 64, 3), np.uint8)
    photo[:, :, 0] = np.where((np.arange(64) > 10) & (np.arange(64) < 43), 30, 200)
    given = saved(photo, "PNG") if source == "file" else photo
    depth = predictor.predict(given, upsample="guided").depth
    assert abs(depth[16, 8] - depth[16, 10]) < 5
    assert depth[16, 10] - depth[16, 11] > 40
    assert depth[16, 43] - depth[16, 42] > 40


def test_the_other_options_reach_the_depth_map(predictor: Predictor) -> None:
    found = predictor.predict(FAR_RIGHT, range=None, nadir_mask=90, camera_height=None, keep_in_range=True)
    assert found.valid[:16].all()
    assert not found.valid[16:].any()
    assert found.in_range is not None
    assert found.in_range.shape == (4, 32, 64)
    with pytest.raises(InvalidParameter, match="camera_height"):
        predictor.predict(FAR_RIGHT, camera_height=-1)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((32, 64), np.uint8),
        np.zeros((32, 64, 4), np.uint8),
        np.zeros((32, 64, 3), np.float32),
    ],
)
def test_pixels_that_are_no_panorama_are_refused(predictor: Predictor, pixels: np.ndarray) -> None:
    with pytest.raises(NotAPanorama, match=r"Expected uint8 pixels of shape \(H, 2 H, 3\)"):
        predictor.predict(pixels)


def test_errors_say_what_is_wrong(model: Path, predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(BrokenImage):
        predictor.predict(saved(FAR_RIGHT, "PNG")[:-20])
    with pytest.raises(FileNotFoundError):
        predictor.predict(tmp_path / "nothing.jpg")
    with pytest.raises(InvalidParameter, match="range is one of"):
        predictor.predict(FAR_RIGHT, range=30)
    with pytest.raises(InputTooLarge):
        Predictor(model, limits=Limits(max_bytes=10)).predict(saved(FAR_RIGHT, "PNG"))


def test_a_model_that_cannot_be_had_is_an_error_before_any_panorama(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAP_HOME", str(tmp_path))
    with pytest.raises(UnknownModel):
        Predictor("dap-xl")
    with pytest.raises(ModelFileMissing):
        Predictor("dap-official-l")


def test_threads_that_share_a_predictor_take_turns_at_the_engine(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer, inside, most = predictor.engine.infer, threading.Semaphore(1), []

    def alone(panoramas: np.ndarray, **_: bool) -> Any:
        most.append(inside.acquire(blocking=False))
        inference = infer(panoramas)
        inside.release()
        return inference

    monkeypatch.setattr(predictor.engine, "infer", alone)
    depths = (5.0, 10.0, 15.0, 20.0, 25.0, 30.0)
    found: dict[float, float] = {}

    def predict(metres: float) -> None:
        found[metres] = float(predictor.predict(red_panorama(metres)[0]).depth.mean())

    threads = [threading.Thread(target=predict, args=(metres,)) for metres in depths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {metres: metres for metres in depths}
    assert most == [True] * len(depths)


def test_leaving_the_context_closes_the_engine(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Predictor(model) as predictor:
        closed: list[bool] = []
        monkeypatch.setattr(predictor.engine, "close", lambda: closed.append(True))
    assert closed == [True]
