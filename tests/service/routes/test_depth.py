import asyncio
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

INPUT = {"content-type": "image/png"}


def numbers(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


async def test_a_panorama_comes_back_as_16_bit_png_of_its_own_size(client, panorama) -> None:
    answer = await client.post("/depth", content=panorama(red=80, height=64), headers=INPUT)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    depth = numbers(answer.content)
    assert depth.dtype == np.uint16
    assert depth.shape == (64, 128)
    assert (depth == 40 * 512).all()


async def test_the_headers_say_what_the_numbers_mean(client, panorama) -> None:
    headers = (await client.post("/depth?range=50", content=panorama(), headers=INPUT)).headers
    assert headers["x-depth-unit"] == "metre"
    assert headers["x-depth-scale"] == "512"
    assert headers["x-depth-invalid"] == "0"
    assert headers["x-model"] == "dap-s"
    assert headers["x-range"] == "50"
    assert headers["x-range-mask"] == "head"
    assert headers["vary"] == "Accept"
    stages = [re.fullmatch(r"(\w+);dur=\d+\.\d", entry)[1] for entry in headers["server-timing"].split(", ")]
    assert stages == ["decode", "queue", "inference", "encode"]


class TestFormat:
    @pytest.mark.parametrize(
        ("accept", "media_type"),
        [
            ("*/*", "image/png"),
            ("image/*", "image/png"),
            ("image/jpeg", "image/jpeg"),
            ("application/x-npy", "application/x-npy"),
            ("application/json", "application/json"),
            ("image/png;q=0.2, application/x-npy;q=0.9", "application/x-npy"),
            ("image/png;q=0, image/*", "image/jpeg"),
            ("text/html,application/xhtml+xml,*/*;q=0.8", "image/png"),
        ],
    )
    async def test_accept_chooses(self, client, panorama, accept: str, media_type: str) -> None:
        answer = await client.post("/depth", content=panorama(), headers={**INPUT, "accept": accept})
        assert answer.headers["content-type"] == media_type

    async def test_the_parameter_goes_before_accept(self, client, panorama) -> None:
        answer = await client.post("/depth?format=npy", content=panorama(), headers={**INPUT, "accept": "image/png"})
        assert answer.headers["content-type"] == "application/x-npy"

    async def test_npy_holds_metres_and_nan(self, client, panorama) -> None:
        answer = await client.post("/depth?format=npy&range=20", content=panorama(red=80), headers=INPUT)
        metres = np.load(io.BytesIO(answer.content))
        assert metres.dtype == np.float32
        assert np.isnan(metres).all()
        assert (answer.headers["x-depth-scale"], answer.headers["x-depth-invalid"]) == ("1", "NaN")

    async def test_jpeg_is_a_picture_of_the_same_size_and_no_numbers(self, client, panorama) -> None:
        answer = await client.post("/depth", content=panorama(), headers={**INPUT, "accept": "image/jpeg"})
        with Image.open(io.BytesIO(answer.content)) as picture:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (128, 64))
        assert "x-depth-scale" not in answer.headers

    async def test_json_is_statistics_with_model_range_and_timing(self, client, panorama) -> None:
        answer = await client.post("/depth?format=json", content=panorama(red=80), headers=INPUT)
        said = answer.json()
        assert (said["model"], said["range"], said["range_mask"]) == ("dap-s", 100, "head")
        assert said["valid_share"] == 1
        assert said["median"] == pytest.approx(40, abs=1 / 512)
        assert set(said["timing"]) == {"decode", "queue", "inference"}

    async def test_json_of_nothing_valid_is_still_json(self, client, panorama) -> None:
        answer = await client.post("/depth?format=json&range=10", content=panorama(red=80), headers=INPUT)
        said = json.loads(answer.content, parse_constant=pytest.fail)
        assert (said["valid_share"], said["median"]) == (0, None)


class TestRange:
    @pytest.mark.parametrize(("range_", "is_valid"), [("10", False), ("20", False), ("50", True), ("100", True)])
    async def test_valid_is_what_the_head_says_is_nearer(self, client, panorama, range_: str, is_valid: bool) -> None:
        answer = await client.post(f"/depth?range={range_}", content=panorama(red=80), headers=INPUT)
        assert answer.headers["x-range"] == range_
        assert ((numbers(answer.content) > 0) == is_valid).all()

    async def test_the_default_is_100(self, client, panorama) -> None:
        assert (await client.post("/depth", content=panorama(), headers=INPUT)).headers["x-range"] == "100"

    async def test_none_masks_nothing(self, client, panorama) -> None:
        answer = await client.post("/depth?range=none", content=panorama(red=240), headers=INPUT)
        assert (answer.headers["x-range"], answer.headers["x-range-mask"]) == ("none", "none")
        assert (numbers(answer.content) == 120 * 512).all()

    async def test_a_model_with_the_100_m_head_alone_masks_by_depth_and_says_so(
        self, serving, engine, panorama
    ) -> None:
        engine.thresholds = (100.0,)
        async with serving() as client:
            near = await client.post("/depth?range=20", content=panorama(red=30), headers=INPUT)
            far = await client.post("/depth?range=20", content=panorama(red=50), headers=INPUT)
            head = await client.post("/depth?range=100", content=panorama(red=50), headers=INPUT)
        assert near.headers["x-range-mask"] == far.headers["x-range-mask"] == "depth"
        assert head.headers["x-range-mask"] == "head"
        assert (numbers(near.content) == 15 * 512).all()
        assert (numbers(far.content) == 0).all()


class TestSize:
    @pytest.mark.parametrize(
        ("size", "shape"), [("model", (32, 64)), ("input", (40, 80)), ("16x8", (8, 16)), ("400x200", (200, 400))]
    )
    async def test_the_answer_has_the_size_asked_for(self, client, panorama, size: str, shape: tuple[int, int]) -> None:
        answer = await client.post(f"/depth?size={size}", content=panorama(height=40), headers=INPUT)
        assert numbers(answer.content).shape == shape

    async def test_more_pixels_than_an_answer_may_have_are_refused_before_the_engine(
        self, serving, engine, panorama
    ) -> None:
        async with serving(max_output_pixels=64 * 32) as client:
            as_posted = await client.post("/depth", content=panorama(height=64), headers=INPUT)
            as_asked = await client.post("/depth?size=128x64", content=panorama(height=32), headers=INPUT)
            small = await client.post("/depth?size=model", content=panorama(height=64), headers=INPUT)
        assert (as_posted.status_code, as_asked.status_code, small.status_code) == (413, 413, 200)
        assert as_posted.json()["type"] == "/problems/too-many-pixels"
        assert engine.batch_sizes == [1]


class TestBadParameter:
    @pytest.mark.parametrize(
        "query",
        [
            "range=15",
            "range=",
            "range=100m",
            "size=big",
            "size=100x100",
            "size=0x0",
            "size=-64x-32",
            "format=gif",
            "rnage=20",
        ],
    )
    async def test_is_422_and_nothing_else_happens(self, client, engine, panorama, query: str) -> None:
        answer = await client.post(f"/depth?{query}", content=panorama(), headers=INPUT)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "/problems/invalid-parameter"
        assert engine.batches == []

    async def test_the_detail_names_what_was_expected_and_what_came(self, client, panorama) -> None:
        detail = (await client.post("/depth?range=15", content=panorama(), headers=INPUT)).json()["detail"]
        assert "'range'" in detail
        assert "'none'" in detail
        assert "'15'" in detail

    async def test_nothing_acceptable_is_406_and_lists_what_there_is(self, client, panorama) -> None:
        answer = await client.post("/depth", content=panorama(), headers={**INPUT, "accept": "text/html"})
        assert answer.status_code == 406
        assert answer.json()["type"] == "/problems/not-acceptable"
        assert "application/x-npy" in answer.json()["detail"]


class TestBadInput:
    @pytest.mark.parametrize(
        ("body", "content_type", "status", "slug"),
        [
            (b"", "image/jpeg", 400, "empty-input"),
            (b"", "application/octet-stream", 400, "empty-input"),
            (b"<html>not an image</html>", "image/jpeg", 415, "unsupported-media-type"),
            (b"\x00" * 100, "application/octet-stream", 415, "unsupported-media-type"),
            (b"{}", "application/json", 415, "unsupported-media-type"),
            (b"\xff\xd8\xff", "image/jpeg", 422, "broken-image"),
        ],
    )
    async def test_is_told_with_its_status(
        self, client, engine, body: bytes, content_type: str, status: int, slug: str
    ) -> None:
        answer = await client.post("/depth", content=body, headers={"content-type": content_type})
        assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
        assert engine.batches == []

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    async def test_a_truncated_image_is_422(self, client, engine, kind: str) -> None:
        file = io.BytesIO()
        noise = np.random.default_rng(1).integers(0, 256, (64, 128, 3), np.uint8)
        Image.fromarray(noise).save(file, kind)
        whole = file.getvalue()
        answer = await client.post("/depth", content=whole[: len(whole) // 2], headers=INPUT)
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/broken-image")
        assert engine.batches == []

    async def test_more_bytes_than_the_limit_are_413(self, serving, engine, panorama) -> None:
        async with serving(max_body_bytes=4096) as client:
            answer = await client.post("/depth", content=panorama() + bytes(4096), headers=INPUT)
        assert (answer.status_code, answer.json()["type"]) == (413, "/problems/input-too-large")
        assert engine.batches == []

    async def test_more_pixels_than_the_limit_are_413_told_from_the_header(self, serving, engine, panorama) -> None:
        header_alone = panorama(height=64)[:64]
        async with serving(max_image_pixels=64 * 128 - 1) as client:
            answer = await client.post("/depth", content=panorama(height=64), headers=INPUT)
            assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-many-pixels")
            bomb = await client.post("/depth", content=header_alone, headers=INPUT)
            assert bomb.status_code in (413, 422)
        assert engine.batches == []

    async def test_neither_2_to_1_nor_gpano_is_422_with_what_was_expected(self, client, engine, panorama) -> None:
        answer = await client.post("/depth", content=panorama(height=64, width=96), headers=INPUT)
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/not-a-panorama")
        assert "twice as wide as high" in answer.json()["detail"]
        assert "96x64" in answer.json()["detail"]
        assert engine.batches == []


class TestBody:
    @pytest.mark.parametrize("content_type", ["image/png", "image/jpeg", "application/octet-stream", "IMAGE/PNG", None])
    async def test_is_judged_by_its_content_whatever_image_it_says_it_is(self, client, panorama, content_type) -> None:
        headers = {"content-type": content_type} if content_type else {}
        assert (await client.post("/depth", content=panorama(), headers=headers)).status_code == 200

    async def test_may_be_what_curl_calls_a_form(self, client, panorama) -> None:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        assert (await client.post("/depth", content=panorama(), headers=headers)).status_code == 200

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    async def test_may_be_any_of_the_image_formats(self, client, panorama, kind: str) -> None:
        assert (await client.post("/depth", content=panorama(kind=kind))).status_code == 200


async def test_requests_that_come_together_run_in_one_batch_and_keep_apart(
    client, engine, panorama, until_queued
) -> None:
    engine.gate.clear()
    first = asyncio.create_task(client.post("/depth", content=panorama(red=10)))
    await asyncio.to_thread(engine.entered.acquire)
    others = [asyncio.create_task(client.post("/depth?format=npy", content=panorama(red=red))) for red in (20, 40, 60)]
    await until_queued(client, 3)
    engine.gate.set()
    await first
    metres = [np.load(io.BytesIO((await other).content))[0, 0] for other in others]
    assert engine.batch_sizes == [1, 3]
    assert metres == [10, 20, 30]


async def test_nan_from_the_engine_is_500_and_never_an_answer(client, engine, panorama) -> None:
    infer = engine.infer

    def infer_nan(panoramas):
        inference = infer(panoramas)
        inference.depth[..., 0, 0] = np.nan
        return inference

    engine.infer = infer_nan
    answer = await client.post("/depth", content=panorama())
    assert (answer.status_code, answer.json()["type"]) == (500, "/problems/engine-error")
