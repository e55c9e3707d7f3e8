"""Clouds to write, and what readers that are not ours find in them.

PCD alone has no small reader: its own is here, written from the format's description and not from ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import laspy
import numpy as np
import numpy.typing as npt
import pygltflib
from plyfile import PlyData

from dap import sphere
from dap.cloud import PointCloud

Columns = npt.NDArray[np.generic]


def some_cloud(count: int = 100, frame: sphere.Frame = "ros", *, normals: bool = False, seed: int = 0) -> PointCloud:
    random = np.random.default_rng(seed)
    points = random.uniform(-100, 100, (count, 3)).astype(np.float32)
    colors = random.integers(0, 256, (count, 3), dtype=np.uint8)
    towards = random.normal(0, 1, (count, 3))
    unit = (towards / np.linalg.norm(towards, axis=1, keepdims=True)).astype(np.float32)
    return PointCloud(points, colors, frame, unit if normals else None, "dap-s")


@dataclass(frozen=True)
class Found:
    """What a reader finds: points and normals in the axes of the file, colours as uint8 sRGB."""

    points: Columns
    colors: Columns
    normals: Columns | None


def read_ply(data: bytes) -> Found:
    vertices = PlyData.read(BytesIO(data))["vertex"]
    names = {entry.name for entry in vertices.properties}
    return _found(lambda name: vertices[name], names, ("x", "y", "z"), ("red", "green", "blue"), ("nx", "ny", "nz"))


def read_pcd(data: bytes) -> Found:
    fields = pcd_fields(data)
    rgb = np.ascontiguousarray(fields["rgb"]).view("<u4")
    channels = {"red": rgb >> 16 & 255, "green": rgb >> 8 & 255, "blue": rgb & 255}
    columns = {**{name: fields[name] for name in fields.dtype.names or ()}, **channels}
    return _found(
        columns.__getitem__,
        set(columns),
        ("x", "y", "z"),
        ("red", "green", "blue"),
        ("normal_x", "normal_y", "normal_z"),
    )


def pcd_header(data: bytes) -> tuple[dict[str, list[str]], bytes]:
    """Entries of a PCD header by their key, and the bytes after it."""
    entries: dict[str, list[str]] = {}
    while "DATA" not in entries:
        line, _, data = data.partition(b"\n")
        if not line.startswith(b"#"):
            key, *values = line.decode("ascii").split(" ")
            entries[key] = values
    return entries, data


def pcd_fields(data: bytes) -> npt.NDArray[np.void]:
    """The points of a binary PCD with fields of one number each."""
    header, body = pcd_header(data)
    assert header["DATA"] == ["binary"]
    assert set(header["COUNT"]) == {"1"}
    kinds = [f"<{kind.lower()}{size}" for kind, size in zip(header["TYPE"], header["SIZE"], strict=True)]
    count = int(header["WIDTH"][0]) * int(header["HEIGHT"][0])
    assert [str(count)] == header["POINTS"]
    dtype = np.dtype(list(zip(header["FIELDS"], kinds, strict=True)))
    assert len(body) == count * dtype.itemsize
    return np.frombuffer(body, dtype)


def read_las(data: bytes) -> Found:
    file = laspy.read(BytesIO(data))
    names = set(file.point_format.dimension_names)
    columns: dict[str, Columns] = {name: np.asarray(file[name]) for name in names}
    columns |= {"x": np.asarray(file.x), "y": np.asarray(file.y), "z": np.asarray(file.z)}
    for name in ("red", "green", "blue"):
        # 16 bits whose upper byte repeats in the lower one: all of the 16-bit scale is used.
        assert (columns[name] % 257 == 0).all()
        columns[name] = columns[name] // 257
    return _found(
        columns.__getitem__, names, ("x", "y", "z"), ("red", "green", "blue"), ("NormalX", "NormalY", "NormalZ")
    )


def read_glb(data: bytes) -> Found:
    file = pygltflib.GLTF2.load_from_bytes(data)
    if not file.meshes:
        return Found(np.zeros((0, 3)), np.zeros((0, 3)), None)
    attributes = file.meshes[0].primitives[0].attributes
    linear = gltf_array(file, attributes.COLOR_0).astype(np.float64)
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)
    normals = None if attributes.NORMAL is None else gltf_array(file, attributes.NORMAL)
    return Found(gltf_array(file, attributes.POSITION), np.rint(srgb * 255), normals)


def gltf_array(file: pygltflib.GLTF2, index: int) -> npt.NDArray[np.float32]:
    accessor = file.accessors[index]
    assert (accessor.componentType, accessor.type) == (pygltflib.FLOAT, pygltflib.VEC3)
    view = file.bufferViews[accessor.bufferView]
    body = file.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    return np.frombuffer(body, "<f4").reshape(accessor.count, 3)


def read_npz(data: bytes) -> Found:
    arrays = np.load(BytesIO(data), allow_pickle=False)
    return Found(arrays["points"], arrays["colors"], arrays.get("normals"))


READERS: dict[str, Callable[[bytes], Found]] = {
    "ply": read_ply,
    "pcd": read_pcd,
    "las": read_las,
    "laz": read_las,
    "glb": read_glb,
    "npz": read_npz,
}


def _found(column: Callable[[str], Columns], names: set[str], *wanted: tuple[str, ...]) -> Found:
    points, colors, normals = (
        np.stack([column(name) for name in group], axis=1) if names.issuperset(group) or group[0] == "x" else None
        for group in wanted
    )
    assert points is not None
    assert colors is not None
    return Found(points, colors, normals)
