import io

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData

from dap.formats.clouds import CLOUD_FORMATS

AXES = {"ros": (1, 0, 0), "opengl": (0, 0, -1), "opencv": (0, 0, 1)}


def cloud(ply: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Points and colours as a reader that is not ours sees them."""
    vertices = PlyData.read(io.BytesIO(ply))["vertex"]
    return np.stack([vertices[name] for name in "xyz"], 1), np.stack(
        [vertices[name] for name in ("red", "green", "blue")], 1
    )


async def test_a_panorama_of_one_depth_is_a_sphere_of_points_in_its_colours(client, panorama) -> None:
    answer = await client.post("/pointcloud", content=panorama(red=80))
    assert answer.status_code == 200
    points, colours = cloud(answer.content)
    assert np.linalg.norm(points, axis=1) == pytest.approx(40, rel=1e-5)
    assert (colours == (80, 20, 40)).all()


async def test_the_headers_name_model_range_and_timing_and_no_numbers(client, panorama) -> None:
    headers = (await client.post("/pointcloud?range=none", content=panorama())).headers
    assert (headers["x-model"], headers["x-range"], headers["x-range-mask"]) == ("dap-s", "none", "none")
    assert headers["server-timing"].startswith("decode;dur=")
    assert "x-depth-scale" not in headers


async def test_equal_area_spreads_the_points_over_the_sphere_and_erp_crowds_them_at_the_poles(client, panorama) -> None:
    def share_above_60_degrees(points: np.ndarray) -> float:
        return float((np.abs(points[:, 2]) / np.linalg.norm(points, axis=1) > np.sin(np.pi / 3)).mean())

    even, _ = cloud((await client.post("/pointcloud", content=panorama())).content)
    erp, _ = cloud((await client.post("/pointcloud?sampling=erp", content=panorama())).content)
    assert share_above_60_degrees(even) == pytest.approx(1 - np.sin(np.pi / 3), abs=0.03)
    assert share_above_60_degrees(erp) == pytest.approx(1 / 3, abs=0.03)
    assert len(erp) == 32 * 64


@pytest.mark.parametrize("frame", AXES)
async def test_forward_is_where_the_frame_says(client, frame: str) -> None:
    pixels = np.full((64, 128, 3), 255, np.uint8)
    pixels[24:40, 48:80, 0] = 20  # 10 m ahead, 127.5 m everywhere else
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    points, _ = cloud((await client.post(f"/pointcloud?frame={frame}&range=20", content=file.getvalue())).content)
    ahead = points.mean(axis=0)
    assert ahead / np.linalg.norm(ahead) == pytest.approx(AXES[frame], abs=0.05)


async def test_outside_the_range_there_are_no_points(client, panorama) -> None:
    points, _ = cloud((await client.post("/pointcloud?range=20", content=panorama(red=80))).content)
    assert len(points) == 0


@pytest.mark.parametrize("sampling", ["equal-area", "erp"])
async def test_never_more_points_than_asked_for(client, panorama, sampling: str) -> None:
    answer = await client.post(f"/pointcloud?max_points=100&sampling={sampling}", content=panorama())
    assert 50 < len(cloud(answer.content)[0]) <= 100


async def test_never_more_points_than_the_service_allows(serving, panorama) -> None:
    async with serving(max_cloud_points=300) as client:
        unasked = await client.post("/pointcloud", content=panorama())
        asked = await client.post("/pointcloud?max_points=301", content=panorama())
    assert 200 < len(cloud(unasked.content)[0]) <= 300
    assert (asked.status_code, asked.json()["type"]) == (422, "/problems/invalid-parameter")


async def test_a_larger_depth_map_gives_more_points(client, panorama) -> None:
    sizes = [
        len(cloud((await client.post(f"/pointcloud?sampling=erp&size={size}", content=panorama(height=64))).content)[0])
        for size in ("model", "input", "256x128")
    ]
    assert sizes == [32 * 64, 64 * 128, 128 * 256]


def split_room() -> bytes:
    """10 m in the middle half of the picture, 40 m around it, as the red engine sees it."""
    pixels = np.full((32, 64, 3), 80, np.uint8)
    pixels[:, 16:48, 0] = 20
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


async def test_max_edge_leaves_out_what_is_at_depth_edges(client) -> None:
    whole, _ = cloud((await client.post("/pointcloud?sampling=erp", content=split_room())).content)
    clean, _ = cloud((await client.post("/pointcloud?sampling=erp&max_edge=0.1", content=split_room())).content)
    assert len(whole) == 32 * 64
    assert 0.5 * len(whole) < len(clean) < len(whole)


async def test_normals_look_at_the_camera_in_the_axes_of_the_points(client, panorama) -> None:
    for frame in AXES:
        answer = await client.post(f"/pointcloud?normals=true&frame={frame}", content=panorama(red=80))
        assert answer.headers["x-frame"] == frame
        vertices = PlyData.read(io.BytesIO(answer.content))["vertex"]
        normals = np.stack([vertices[name] for name in ("nx", "ny", "nz")], 1)
        points, _ = cloud(answer.content)
        assert len(points) > 1000
        assert (normals * points).sum(axis=1) / 40 == pytest.approx(-1, abs=0.02)  # the engine's world is a sphere


async def test_a_nadir_mask_takes_what_is_below_the_camera(client, panorama) -> None:
    points, _ = cloud((await client.post("/pointcloud?nadir_mask=30", content=panorama())).content)
    steepest = np.degrees(np.arcsin(points[:, 2] / np.linalg.norm(points, axis=1))).min()
    assert -60 - 180 / 32 < steepest < -60 + 180 / 32


async def test_every_format_is_given_under_its_own_media_type(client, panorama) -> None:
    for name, form in CLOUD_FORMATS.items():
        answer = await client.post(f"/pointcloud?format={name}&max_points=200", content=panorama())
        assert (answer.status_code, answer.headers["content-type"]) == (200, form.media_type)
        assert len(answer.content) > 200


async def test_the_same_input_gives_the_same_cloud(client, panorama) -> None:
    first, second = [(await client.post("/pointcloud", content=panorama())).content for _ in range(2)]
    assert first == second


@pytest.mark.parametrize(
    "query",
    ["frame=nasa", "sampling=random", "max_points=0", "max_points=many", "max_edge=0", "normals=maybe", "format=stl"],
)
async def test_a_bad_parameter_is_422(client, engine, panorama, query: str) -> None:
    answer = await client.post(f"/pointcloud?{query}", content=panorama())
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-parameter")
    assert engine.batches == []


async def test_what_is_not_a_cloud_is_not_acceptable(client, panorama) -> None:
    answer = await client.post("/pointcloud", content=panorama(), headers={"accept": "image/png"})
    assert answer.status_code == 406
