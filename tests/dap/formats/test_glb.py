"""GLB, as pygltflib and trimesh read it."""

import struct
from dataclasses import replace
from io import BytesIO

import numpy as np
import pygltflib
import pytest
import trimesh

from dap import sphere
from dap.formats import glb
from tests.dap.formats.some_clouds import gltf_array, some_cloud


@pytest.mark.parametrize("frame", sphere.FRAMES)
def test_a_viewer_shows_the_room_upright_whatever_the_frame(frame: sphere.Frame) -> None:
    up_forward_left = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], np.float32)
    cloud = replace(some_cloud(3, frame), points=sphere.to_frame(up_forward_left, frame))
    scene = trimesh.load(BytesIO(glb.encode(cloud)), file_type="glb", force="scene")
    # glTF 2.0, section 3.4: +Y is up; a camera looks along -Z, with +X to its right.
    np.testing.assert_allclose(scene.to_geometry().vertices, [[0, 1, 0], [0, 0, -1], [-1, 0, 0]], atol=1e-6)


@pytest.mark.parametrize("frame", sphere.FRAMES)
def test_the_numbers_in_the_file_are_in_the_frame_that_was_asked_for(frame: sphere.Frame) -> None:
    cloud = some_cloud(frame=frame)
    file = pygltflib.GLTF2.load_from_bytes(glb.encode(cloud))
    np.testing.assert_array_equal(gltf_array(file, 0), cloud.points)
    assert file.asset.extras["notes"] == list(cloud.notes)


def test_the_file_is_a_primitive_of_points_with_all_that_gltf_asks_of_it() -> None:
    cloud = some_cloud(normals=True)
    file = pygltflib.GLTF2.load_from_bytes(glb.encode(cloud))
    primitive = file.meshes[0].primitives[0]
    assert primitive.mode == pygltflib.POINTS
    position = file.accessors[primitive.attributes.POSITION]
    assert (position.min, position.max) == (cloud.points.min(axis=0).tolist(), cloud.points.max(axis=0).tolist())
    assert {accessor.count for accessor in file.accessors} == {100}
    ends = [view.byteOffset + view.byteLength for view in file.bufferViews]
    assert ends[-1] == file.buffers[0].byteLength == len(file.binary_blob())
    assert [view.byteOffset for view in file.bufferViews] == [0, *ends[:-1]]


@pytest.mark.parametrize("count", [0, 1, 100])
def test_the_container_adds_up(count: int) -> None:
    data = glb.encode(some_cloud(count))
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    kinds, position = [], 12
    while position < len(data):
        size, kind = struct.unpack_from("<I4s", data, position)
        assert size % 4 == 0
        kinds.append(kind)
        position += 8 + size
    assert position == len(data)
    assert kinds == ([b"JSON", b"BIN\0"] if count else [b"JSON"])


def test_colours_are_linear_light_and_need_no_lamp() -> None:
    cloud = replace(some_cloud(3), colors=np.array([[0, 0, 0], [255, 255, 255], [10, 128, 188]], np.uint8))
    file = pygltflib.GLTF2.load_from_bytes(glb.encode(cloud))
    # IEC 61966-2-1: 10 is on the straight part, / 12.92; 128 is 21.6% of the light, 188 is half of it.
    expected = [[0, 0, 0], [1, 1, 1], [10 / 255 / 12.92, 0.21586, 0.50289]]
    np.testing.assert_allclose(gltf_array(file, file.meshes[0].primitives[0].attributes.COLOR_0), expected, atol=1e-5)
    assert "KHR_materials_unlit" in file.materials[0].extensions
    assert file.extensionsUsed == ["KHR_materials_unlit"]
