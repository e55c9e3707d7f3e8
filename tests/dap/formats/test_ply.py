"""PLY, read back by plyfile."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from plyfile import PlyData

from dap import sphere
from dap.cloud import PointCloud
from dap.formats import ply

AXES = {
    "ros": "x forward, y left, z up",
    "opengl": "x right, y up, looking along -z",
    "opencv": "x right, y down, z forward",
}


def some_cloud(count: int = 100, frame: sphere.Frame = "ros") -> PointCloud:
    random = np.random.default_rng(0)
    points = random.normal(0, 5, (count, 3)).astype(np.float32)
    return PointCloud(points, random.integers(0, 256, (count, 3), dtype=np.uint8), frame, model="dap-s")


def read(cloud: PointCloud) -> PlyData:
    return PlyData.read(BytesIO(ply.encode(cloud)))


@pytest.mark.parametrize("count", [0, 1, 100])
def test_another_reader_finds_the_same_points_and_colours(count: int) -> None:
    cloud = some_cloud(count)
    found = read(cloud)
    assert (found.text, found.byte_order) == (False, "<")
    vertices = found["vertex"]
    assert [entry.name for entry in vertices.properties] == ["x", "y", "z", "red", "green", "blue"]
    np.testing.assert_array_equal(np.stack([vertices[axis] for axis in "xyz"], axis=1), cloud.points)
    colors = np.stack([vertices[name] for name in ("red", "green", "blue")], axis=1)
    assert colors.dtype == np.uint8
    np.testing.assert_array_equal(colors, cloud.colors)


def test_normals_are_written_where_there_are_some() -> None:
    cloud = some_cloud()
    vertices = read(replace(cloud, normals=-cloud.points))["vertex"]
    np.testing.assert_array_equal(np.stack([vertices[axis] for axis in ("nx", "ny", "nz")], axis=1), -cloud.points)
    np.testing.assert_array_equal(vertices["blue"], cloud.colors[:, 2])


@pytest.mark.parametrize("frame", sphere.FRAMES)
def test_the_header_says_unit_frame_and_model(frame: sphere.Frame) -> None:
    assert read(some_cloud(frame=frame)).comments == ["unit metre", f"frame {frame}: {AXES[frame]}", "model dap-s"]


def test_a_model_with_an_odd_name_cannot_add_to_the_header() -> None:
    cloud = replace(some_cloud(), model="x\nelement face 1\r\u2028ü")
    assert read(cloud).comments[-1] == "model x element face 1 ??"
