"""Views as a zip of pictures, read by Pillow, and as arrays."""

import json
from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from dap.formats.views import VIEW_FORMATS
from dap.views import Measure, Views, views
from tests.dap.images import picture
from tests.dap.rooms import box, depth_map


def some_views(measure: Measure = "z") -> Views:
    room = box(64)
    valid = np.random.default_rng(0).random(room.size) < 0.8
    source = depth_map(np.where(valid, room.depth, np.nan), valid)
    return views(source, picture(), "horizon", count=3, size=(24, 32), fov_deg=100, measure=measure, frame="opengl")


def opened(found: Views) -> ZipFile:
    return ZipFile(BytesIO(VIEW_FORMATS["zip"].encode(found)))


def test_a_zip_holds_two_pictures_for_each_view_and_their_cameras() -> None:
    names = [f"{view}.{kind}" for view in ("00", "01", "02") for kind in ("depth.png", "jpg")]
    assert opened(some_views()).namelist() == ["cameras.json", *names]


@pytest.mark.parametrize("measure", ["z", "ray"])
def test_what_cameras_json_says_is_enough_to_read_the_pictures(measure: Measure) -> None:
    found = some_views(measure)
    with opened(found) as archive:
        cameras = json.loads(archive.read("cameras.json"))
        depth = cameras["depth"]
        assert (depth["measure"], depth["unit"], depth["sampling"]) == (measure, "metre", "nearest")
        for i, view in enumerate(cameras["views"]):
            values = np.array(Image.open(archive.open(view["depth"])))
            assert values.dtype == np.uint16
            np.testing.assert_array_equal(values != depth["invalid"], found.valid[i])
            metres = values / depth["scale"]
            np.testing.assert_allclose(metres[found.valid[i]], found.depth[i][found.valid[i]], atol=1.01 / 1024)
            colors = np.array(Image.open(archive.open(view["colors"]))).astype(int)
            assert np.abs(colors - found.colors[i]).mean() < 4
            np.testing.assert_array_equal(view["pose"], found.poses[i])


def test_cameras_json_says_how_its_cameras_stand() -> None:
    with opened(some_views()) as archive:
        cameras = json.loads(archive.read("cameras.json"))
    assert (cameras["width"], cameras["height"], cameras["fov_deg"], cameras["layout"]) == (32, 24, 100, "horizon")
    focal = 16 / np.tan(np.radians(50))
    np.testing.assert_allclose(cameras["K"], [[focal, 0, 15.5], [0, focal, 11.5], [0, 0, 1]])
    assert cameras["camera_axes"] == "x right, y down, z forward"
    assert (cameras["frame"], cameras["world_axes"]) == ("opengl", "x right, y up, looking along -z")
    assert (cameras["model"], cameras["range"], cameras["range_mask"]) == ("test", None, "none")


def test_an_npz_holds_all_of_it_as_arrays() -> None:
    found = some_views()
    arrays = np.load(BytesIO(VIEW_FORMATS["npz"].encode(found)), allow_pickle=False)
    np.testing.assert_array_equal(arrays["depth"], np.where(found.valid, found.depth, np.nan))
    np.testing.assert_array_equal(arrays["valid"], found.valid)
    np.testing.assert_array_equal(arrays["colors"], found.colors)
    np.testing.assert_array_equal(arrays["K"], found.intrinsics)
    np.testing.assert_array_equal(arrays["poses"], found.poses)
    words = {name: str(arrays[name]) for name in ("measure", "frame", "model")}
    assert words == {"measure": "z", "frame": "opengl", "model": "test"}
    assert (tuple(arrays["names"]), np.isnan(arrays["range"])) == (("00", "01", "02"), True)
