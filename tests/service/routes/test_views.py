import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from dap import sphere


def arrays(npz: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(npz)) as file:
        return dict(file)


async def test_a_cube_is_six_files_of_depth_and_six_of_colour_and_the_cameras(client, panorama) -> None:
    answer = await client.post("/views?view_size=64", content=panorama(red=80))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        cameras = json.loads(archive.read("cameras.json"))
        assert len(archive.namelist()) == 13
        for view in cameras["views"]:
            with Image.open(io.BytesIO(archive.read(view["depth"]))) as depth:
                assert (depth.format, depth.size) == ("PNG", (64, 64))
    assert [view["name"] for view in cameras["views"]] == ["front", "right", "back", "left", "up", "down"]


async def test_z_of_a_sphere_falls_towards_the_corners_and_the_ray_does_not(client, panorama) -> None:
    z = arrays((await client.post("/views?format=npz&view_size=64", content=panorama(red=80))).content)["depth"]
    ray = arrays((await client.post("/views?format=npz&view_size=64&depth=ray", content=panorama(red=80))).content)
    assert z[:, 32, 32] == pytest.approx(40, rel=1e-3)
    assert z[:, 0, 0] == pytest.approx(40 / np.sqrt(3), rel=0.03)
    assert ray["depth"] == pytest.approx(40)


async def test_each_pixel_of_each_view_leads_through_k_and_pose_back_to_its_place(client) -> None:
    """The panorama's red is told from the direction, so a point says which direction it came from."""
    rays = sphere.rays(64, 128)
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[..., 0] = np.rint(60 + 40 * rays[..., 1])  # 30 m ahead, 50 m to the left, 10 m to the right
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    answer = await client.post(
        "/views?layout=horizon&count=5&view_size=96x48&fov=70&format=npz", content=file.getvalue()
    )
    found = arrays(answer.content)
    assert found["depth"].shape == (5, 48, 96)
    u, v = np.meshgrid(np.arange(96), np.arange(48))
    in_camera = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(found["K"]).T * found["depth"][..., None]
    points = np.einsum("nij,nhwj->nhwi", found["poses"][:, :3, :3], in_camera)
    distance = np.linalg.norm(points, axis=-1)
    assert distance == pytest.approx(30 + 20 * points[..., 1] / distance, abs=1.5)


@pytest.mark.parametrize(("layout", "count"), [("cube", 6), ("horizon", 8), ("icosahedron", 12)])
async def test_a_layout_has_its_number_of_views(client, panorama, layout: str, count: int) -> None:
    answer = await client.post(f"/views?layout={layout}&view_size=16&format=npz", content=panorama())
    assert len(arrays(answer.content)["depth"]) == count


@pytest.mark.parametrize(
    "query",
    [
        "layout=sphere",
        "count=4",
        "layout=cube&count=6",
        "layout=horizon&count=0",
        "layout=horizon&count=37",
        "fov=9",
        "fov=151",
        "fov=nan",
        "view_size=15",
        "view_size=5000",
        "view_size=0x64",
        "view_size=64x",
        "view_size=4096",
        "depth=disparity",
        "frame=nasa",
        "format=png",
    ],
)
async def test_a_bad_parameter_is_422_before_anything_is_done(client, engine, panorama, query: str) -> None:
    answer = await client.post(f"/views?{query}", content=panorama())
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-parameter")
    assert engine.batches == []


async def test_views_and_map_together_have_no_more_pixels_than_an_answer_may(serving, engine, panorama) -> None:
    async with serving(max_output_pixels=64 * 32 + 6 * 32 * 32) as client:
        fits = await client.post("/views?size=model&view_size=32", content=panorama())
        exceeds = await client.post("/views?size=model&view_size=33", content=panorama())
    assert (fits.status_code, exceeds.status_code) == (200, 413)
    assert engine.batch_sizes == [1]
