"""PLY, as plyfile reads it."""

from dataclasses import replace
from io import BytesIO

import pytest
from plyfile import PlyData

from dap import sphere
from dap.cloud import PointCloud
from dap.formats import ply
from tests.dap.formats.some_clouds import some_cloud


def read(cloud: PointCloud) -> PlyData:
    return PlyData.read(BytesIO(ply.encode(cloud)))


@pytest.mark.parametrize("normals", [False, True])
def test_a_vertex_has_the_properties_that_every_program_knows(normals: bool) -> None:
    found = read(some_cloud(normals=normals))
    assert (found.text, found.byte_order) == (False, "<")
    properties = [(entry.name, entry.val_dtype) for entry in found["vertex"].properties]
    between = [(name, "f4") for name in ("nx", "ny", "nz")] if normals else []
    colors = [(name, "u1") for name in ("red", "green", "blue")]
    assert properties == [("x", "f4"), ("y", "f4"), ("z", "f4"), *between, *colors]


@pytest.mark.parametrize("frame", sphere.FRAMES)
def test_the_header_says_unit_frame_and_model(frame: sphere.Frame) -> None:
    axes = {
        "ros": "x forward, y left, z up",
        "opengl": "x right, y up, looking along -z",
        "opencv": "x right, y down, z forward",
    }
    assert read(some_cloud(frame=frame)).comments == ["unit metre", f"frame {frame}: {axes[frame]}", "model dap-s"]


def test_a_model_with_an_odd_name_cannot_add_to_the_header() -> None:
    cloud = replace(some_cloud(), model="x\nelement face 1\r\u2028ü")
    assert read(cloud).comments[-1] == "model x element face 1 ??"
