"""GLB, binary glTF 2.0: one primitive of POINTS, for the web, Blender and game engines.

glTF's own axes are +Y up. The coordinates in the file are those of the cloud's frame, and the node that holds them
turns that frame to x right, y up, looking along -z: so `frame` means here what it means everywhere, and every viewer
shows the room upright.

glTF's vertex colours are linear, a photograph's are sRGB: they are converted, to 16 bits because 8 would lose the
shades of the dark. The material is unlit, for a photograph holds its light already. Source: Khronos, glTF 2.0 and
KHR_materials_unlit; IEC 61966-2-1 (sRGB).
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
_FLOAT, _UNSIGNED_SHORT, _ARRAY_BUFFER, _POINTS = 5126, 5123, 34962, 0
_UNLIT = "KHR_materials_unlit"


def encode(cloud: PointCloud, _options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
    """The cloud as GLB."""
    arrays: dict[str, npt.NDArray[Any]] = {"POSITION": cloud.points, "COLOR_0": _linear_colors(cloud.colors)}
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


def _mesh(cloud: PointCloud, arrays: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
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
        "materials": [{"extensions": {_UNLIT: {}}}],
        "extensionsUsed": [_UNLIT],
        "accessors": [_accessor(name, i, array) for i, (name, array) in enumerate(arrays.items())],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": length, "target": _ARRAY_BUFFER}
            for start, length in zip(starts, lengths, strict=True)
        ],
        "buffers": [{"byteLength": sum(lengths)}],
    }


def _accessor(name: str, view: int, array: npt.NDArray[Any]) -> dict[str, Any]:
    accessor: dict[str, Any] = {"bufferView": view, "componentType": _FLOAT, "count": len(array), "type": "VEC3"}
    if name == "POSITION":
        accessor |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
    if name == "COLOR_0":
        accessor |= {"componentType": _UNSIGNED_SHORT, "normalized": True, "type": "VEC4"}
    return accessor


def _glb(scene: bytes, bodies: list[bytes]) -> bytes:
    scene += b" " * (-len(scene) % 4)
    chunks = [struct.pack("<I4s", len(scene), _JSON), scene]
    if bodies:
        # Every element is a multiple of four bytes long, and so is the whole.
        chunks += [struct.pack("<I4s", sum(map(len, bodies)), _BIN), *bodies]
    return b"".join([struct.pack("<4sII", _MAGIC, _VERSION, 12 + sum(map(len, chunks))), *chunks])


def _linear_colors(colors: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """uint16 (N, 4), linear light and full opacity. VEC4, since an element starts at a multiple of four bytes."""
    linear = np.full((len(colors), 4), np.iinfo(np.uint16).max, "<u2")
    linear[:, :3] = _linear_of_srgb()[colors]
    return linear


@functools.cache
def _linear_of_srgb() -> npt.NDArray[np.uint16]:
    value = np.arange(256) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    steps: npt.NDArray[np.uint16] = np.rint(linear * np.iinfo(np.uint16).max).astype(np.uint16)
    return steps


FORMAT = Format(
    name="glb",
    media_type="model/gltf-binary",
    extension=".glb",
    description="GLB, binary glTF 2.0, coloured points in metres, upright in every viewer",
    write=encode,
)
