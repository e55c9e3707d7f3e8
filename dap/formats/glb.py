"""GLB, binary glTF 2.0: one primitive of POINTS, for the web, Blender and game engines.

glTF's own axes are +Y up. The coordinates in the file are those of the cloud's frame, and the node that holds them
turns that frame to x right, y up, looking along -z: so `frame` means here what it means everywhere, and every viewer
shows the room upright.

glTF's vertex colours are linear, a photograph's are sRGB, so they are converted. They are floats: linear light in 8
bits loses the shades of the dark, and not every reader scales 16 bits (trimesh cuts them off). The material is unlit,
for a photograph holds its light already. Source: Khronos, glTF 2.0 and KHR_materials_unlit; IEC 61966-2-1 (sRGB).
"""

import functools
import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from dap import sphere
from dap.cloud import PointCloud
from dap.formats.base import DEFAULT_OPTIONS, EncodeOptions, Format

_MAGIC, _VERSION, _JSON, _BIN = b"glTF", 2, b"JSON", b"BIN\0"
_FLOAT, _ARRAY_BUFFER, _POINTS = 5126, 34962, 0
_UNLIT = "KHR_materials_unlit"


def encode(cloud: PointCloud, _options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The cloud as GLB."""
    arrays = {"POSITION": cloud.points, "COLOR_0": _linear_of_srgb()[cloud.colors]}
    if cloud.normals is not None:
        arrays["NORMAL"] = cloud.normals
    scene: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "Depth Any Panoramas", "extras": {"notes": cloud.notes}},
        "scene": 0,
        "scenes": [{}],
    }
    # glTF has no empty accessors: a cloud without points is a scene without nodes.
    bodies = [array.tobytes() for array in arrays.values()] if len(cloud.points) else []
    if bodies:
        scene |= _mesh(cloud, arrays)
    return _glb(json.dumps(scene, separators=(",", ":")).encode(), bodies)


def _mesh(cloud: PointCloud, arrays: dict[str, npt.NDArray[np.float32]]) -> dict[str, Any]:
    to_gltf = np.eye(4)
    to_gltf[:3, :3] = sphere.frame_rotation("opengl") @ sphere.frame_rotation(cloud.frame).T
    lengths = [array.nbytes for array in arrays.values()]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    attributes = {name: i for i, name in enumerate(arrays)}
    return {
        "scenes": [{"nodes": [0]}],
        # By columns.
        "nodes": [{"name": "panorama", "mesh": 0, "matrix": to_gltf.T.ravel().tolist()}],
        "meshes": [{"primitives": [{"attributes": attributes, "mode": _POINTS, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0}, "extensions": {_UNLIT: {}}}],
        "extensionsUsed": [_UNLIT],
        "accessors": [_accessor(name, i, array) for i, (name, array) in enumerate(arrays.items())],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": length, "target": _ARRAY_BUFFER}
            for start, length in zip(starts, lengths, strict=True)
        ],
        "buffers": [{"byteLength": sum(lengths)}],
    }


def _accessor(name: str, view: int, array: npt.NDArray[np.float32]) -> dict[str, Any]:
    accessor: dict[str, Any] = {"bufferView": view, "componentType": _FLOAT, "count": len(array), "type": "VEC3"}
    if name == "POSITION":
        accessor |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
    return accessor


def _glb(scene: bytes, bodies: list[bytes]) -> bytes:
    scene += b" " * (-len(scene) % 4)
    chunks = [struct.pack("<I4s", len(scene), _JSON), scene]
    if bodies:
        chunks += [struct.pack("<I4s", sum(map(len, bodies)), _BIN), *bodies]
    return b"".join([struct.pack("<4sII", _MAGIC, _VERSION, 12 + sum(map(len, chunks))), *chunks])


@functools.cache
def _linear_of_srgb() -> npt.NDArray[np.float32]:
    """Linear light, 0 to 1, of each of the 256 values."""
    value = np.arange(256) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return linear.astype(np.float32)


FORMAT = Format(
    name="glb",
    media_type="model/gltf-binary",
    extension=".glb",
    description="GLB, binary glTF 2.0, coloured points in metres, upright in every viewer",
    write=encode,
)
