import asyncio
import io
import json
import re
import zipfile
from email import message_from_bytes

import numpy as np
import pytest
from PIL import Image

from dap.formats.colormaps import COLORMAPS
from dap.formats.depth import DEPTH_FORMATS

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

    async def test_every_format_is_given_under_its_own_media_type(self, client, panorama) -> None:
        for name, form in DEPTH_FORMATS.items():
            answer = await client.post(f"/depth?format={name}", content=panorama(), headers=INPUT)
            assert (answer.status_code, answer.headers["content-type"]) == (200, form.media_type)
            assert ("x-depth-scale" in answer.headers) == (form.numbers is not None)
            if form.decode is not None:
                assert form.decode(answer.content).size == (64, 128)

    async def test_npz_has_the_probabilities_and_the_rays_that_make_points(self, client, panorama) -> None:
        answer = await client.post("/depth?format=npz&size=model", content=panorama(red=80), headers=INPUT)
        with np.load(io.BytesIO(answer.content)) as arrays:
            assert arrays["thresholds"].tolist() == [10, 20, 50, 100]
            assert (arrays["in_range"] == np.array([0, 0, 1, 1])[:, None, None]).all()
            points = arrays["depth"][..., None] * arrays["rays"]
        assert np.linalg.norm(points, axis=-1) == pytest.approx(40, rel=1e-5)


class TestSeveralFormats:
    async def test_come_as_a_zip_with_a_file_each(self, client, panorama) -> None:
        answer = await client.post("/depth?format=png,npy,json", content=panorama(red=80), headers=INPUT)
        assert answer.headers["content-type"] == "application/zip"
        assert "x-depth-scale" not in answer.headers
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.namelist() == ["depth.png", "depth.npy", "depth.json"]
            assert (numbers(archive.read("depth.png")) == 40 * 512).all()
            assert (np.load(io.BytesIO(archive.read("depth.npy"))) == 40).all()
            assert json.loads(archive.read("depth.json"))["valid_share"] == 1

    @pytest.mark.parametrize("accept", ["multipart/mixed", "multipart/*, application/zip;q=0.5"])
    async def test_come_as_parts_where_that_is_preferred(self, client, panorama, accept: str) -> None:
        headers = {**INPUT, "accept": accept}
        answer = await client.post("/depth?format=png,npy", content=panorama(), headers=headers)
        message = message_from_bytes(
            b"Content-Type: " + answer.headers["content-type"].encode() + b"\r\n\r\n" + answer.content
        )
        parts = message.get_payload()
        assert [part.get_content_type() for part in parts] == ["image/png", "application/x-npy"]
        assert [part.get_filename() for part in parts] == ["depth.png", "depth.npy"]
        assert numbers(parts[0].get_payload(decode=True)).shape == (64, 128)

    async def test_one_is_no_bundle_whatever_is_accepted(self, client, panorama) -> None:
        answer = await client.post("/depth?format=png", content=panorama(), headers={"accept": "multipart/mixed"})
        assert answer.headers["content-type"] == "image/png"

    async def test_together_have_no_more_pixels_than_an_answer_may(self, serving, engine, panorama) -> None:
        async with serving(max_output_pixels=2 * 64 * 32) as client:
            two = await client.post("/depth?format=png,npy&size=model", content=panorama())
            three = await client.post("/depth?format=png,npy,json&size=model", content=panorama())
        assert (two.status_code, three.status_code) == (200, 413)
        assert engine.batch_sizes == [1]


class TestFill:
    """The left half is 40 m, the right 5 m: with range=10 the left is not valid."""

    @pytest.fixture
    def halves(self) -> bytes:
        pixels = np.full((32, 64, 3), 80, np.uint8)
        pixels[:, 32:, 0] = 10
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    @pytest.mark.parametrize(
        ("fill", "invalid", "header"), [("nan", np.nan, "NaN"), ("range", 10, "10"), ("zero", 0, "0")]
    )
    async def test_is_what_float_formats_hold_where_nothing_is_valid(
        self, client, halves, fill: str, invalid: float, header: str
    ) -> None:
        for name in ("npy", "exr", "tiff"):
            answer = await client.post(f"/depth?format={name}&range=10&fill={fill}", content=halves)
            assert answer.headers["x-depth-invalid"] == header
        answer = await client.post(f"/depth?format=npy&range=10&fill={fill}", content=halves)
        metres = np.load(io.BytesIO(answer.content))
        np.testing.assert_array_equal(metres[:, :32], np.float32(invalid))
        assert (metres[:, 32:] == 5).all()


class TestColours:
    async def test_a_picture_has_the_colours_of_the_map_that_is_named(self, client, panorama) -> None:
        pictures = {
            name: (await client.post(f"/depth?format=jpeg&colormap={name}", content=panorama())).content
            for name in COLORMAPS
        }
        assert len(set(pictures.values())) == len(COLORMAPS)
        with Image.open(io.BytesIO(pictures["grey"])) as grey:
            red, green, blue = (np.asarray(channel).astype(int) for channel in grey.convert("RGB").split())
        assert abs(red - green).max() <= 2
        assert abs(red - blue).max() <= 2


class TestOptions:
    """What the core does with them its own tests show; here, that they arrive."""

    async def test_blend_costs_two_panoramas_of_one_batch_where_there_may_be_a_seam(
        self, serving, engine, panorama, red_model
    ) -> None:
        async with serving(model=str(red_model)) as client:
            answer = await client.post("/depth?seam=blend&format=npy", content=panorama(red=80))
        assert engine.batch_sizes == [2]
        assert np.load(io.BytesIO(answer.content)) == pytest.approx(40, rel=1e-5)

    async def test_nearest_invents_no_depth_and_bilinear_does(self, client) -> None:
        pixels = np.full((128, 256, 3), 80, np.uint8)
        pixels[:, 128:] = 40
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        found = {}
        for upsample in ("nearest", "bilinear", "guided"):
            answer = await client.post(f"/depth?format=npy&upsample={upsample}", content=file.getvalue())
            found[upsample] = set(np.unique(np.load(io.BytesIO(answer.content))).tolist())
        assert found["nearest"] == {20, 40}
        assert len(found["bilinear"]) > 2
        assert {round(metres) for metres in found["guided"]} == {20, 40}  # the colours have an edge there

    async def test_a_nadir_mask_is_not_valid(self, client, panorama) -> None:
        answer = await client.post("/depth?nadir_mask=45", content=panorama(red=80, height=32))
        valid = numbers(answer.content) > 0
        assert valid[:24].all()
        assert not valid[24:].any()

    async def test_a_camera_height_scales_and_the_factor_is_in_the_answer(self, client) -> None:
        down = (np.arange(32) + 0.5) / 32 * np.pi - np.pi / 2
        metres = np.where(down > 0, np.minimum(100, 20 / np.abs(np.sin(down))), 100)  # a floor 20 m below
        pixels = np.broadcast_to(np.rint(2 * metres).astype(np.uint8)[:, None, None], (32, 64, 3))
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
        answer = await client.post("/depth?camera_height=10&format=json", content=file.getvalue())
        assert float(answer.headers["x-scale-factor"]) == pytest.approx(0.5, rel=0.03)
        assert answer.json()["scale_factor"] == pytest.approx(float(answer.headers["x-scale-factor"]), rel=1e-4)
        plain = await client.post("/depth", content=file.getvalue())
        assert "x-scale-factor" not in plain.headers

    async def test_a_camera_height_without_a_floor_is_a_problem_of_its_own(self, client, panorama) -> None:
        answer = await client.post("/depth?camera_height=1.6&nadir_mask=90", content=panorama())
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/floor-not-found")


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
            "format=png,png",
            "format=png,gif",
            "format=,",
            "rnage=20",
            "fill=range&format=npy&range=none",
            "fill=zero",
            "fill=zero&format=png,jpeg",
            "fill=mean&format=npy",
            "colormap=grey",
            "colormap=plasma&format=jpeg",
            "seam=smooth",
            "upsample=bicubic",
            "nadir_mask=91",
            "nadir_mask=-1",
            "nadir_mask=nan",
            "camera_height=0",
            "camera_height=inf",
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
