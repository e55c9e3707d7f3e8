import io

import numpy as np
import pytest
from PIL import Image

from dap import sphere


async def test_in_the_middle_of_a_sphere_every_normal_looks_at_the_camera(client, panorama) -> None:
    answer = await client.post("/normals?format=npy", content=panorama(red=80))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-npy")
    assert (answer.headers["x-frame"], answer.headers["x-range"]) == ("ros", "100")
    normals = np.load(io.BytesIO(answer.content))
    assert normals.shape == (32, 64, 3)
    assert (normals * sphere.rays(32, 64)).sum(axis=-1) == pytest.approx(-1, abs=0.02)


@pytest.mark.parametrize(("frame", "forward"), [("ros", (1, 0, 0)), ("opengl", (0, 0, -1)), ("opencv", (0, 0, 1))])
async def test_the_frame_is_the_one_asked_for(client, panorama, frame: str, forward: tuple[int, int, int]) -> None:
    answer = await client.post(f"/normals?format=npy&frame={frame}", content=panorama())
    ahead = np.load(io.BytesIO(answer.content))[16, 32]
    assert ahead == pytest.approx(np.negative(forward), abs=0.1)


async def test_the_picture_has_128_for_zero_and_black_where_nothing_is_valid(client, panorama) -> None:
    with Image.open(io.BytesIO((await client.post("/normals", content=panorama(red=80))).content)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (64, 32))
        x, y, z = np.asarray(picture).astype(int)[16, 32]
    assert (x, y, z) == pytest.approx((0, 128, 128), abs=14)
    nothing = await client.post("/normals?range=10", content=panorama(red=80))
    assert not np.asarray(Image.open(io.BytesIO(nothing.content))).any()


async def test_the_size_asked_for_is_the_size_of_the_answer(client, panorama) -> None:
    answer = await client.post("/normals?size=input&format=npy", content=panorama(height=48))
    assert np.load(io.BytesIO(answer.content)).shape == (48, 96, 3)


@pytest.mark.parametrize("query", ["frame=nasa", "format=exr", "count=3", "max_points=3"])
async def test_a_bad_parameter_is_422(client, engine, panorama, query: str) -> None:
    answer = await client.post(f"/normals?{query}", content=panorama())
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-parameter")
    assert engine.batches == []


async def test_what_is_no_format_of_normals_is_not_acceptable(client, panorama) -> None:
    answer = await client.post("/normals", content=panorama(), headers={"accept": "image/jpeg"})
    assert answer.status_code == 406
