import io
import json
import struct
import zipfile
from math import log, sqrt

import httpx
import numpy as np
import OpenEXR
import pytest
from PIL import Image

from dap.depth import DepthMap
from dap.formats import png16
from dap.headers import png_chunk


def npy(metres: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, metres)
    return stream.getvalue()


def png(metres: np.ndarray, scale: float) -> bytes:
    stream = io.BytesIO()
    Image.fromarray((metres * scale).astype(np.uint16)).save(stream, "PNG")
    return stream.getvalue()


def exr(metres: np.ndarray) -> bytes:
    stream = io.BytesIO()
    OpenEXR.File({"type": OpenEXR.scanlineimage}, {"Z": metres}).write(stream)
    return stream.getvalue()


def everywhere(metres: float, height: int = 64) -> np.ndarray:
    return np.full((height, 2 * height), metres, np.float32)


async def post(
    client: httpx.AsyncClient, image: bytes, truth: bytes, query: str = "", **headers: str
) -> httpx.Response:
    return await client.post(f"/evaluate?{query}", files={"image": image, "truth": truth}, headers=headers)


async def test_the_metrics_are_those_of_the_definitions(client, panorama) -> None:
    # The engine says 5 m everywhere; the truth is 4 m above and 10 m below.
    truth = everywhere(4)
    truth[32:] = 10
    answer = await post(client, panorama(red=10), npy(truth))
    assert answer.status_code == 200
    said = answer.json()
    assert said["metrics"] == pytest.approx(
        {
            "absrel": (1 / 4 + 5 / 10) / 2,
            "sqrel": (1 / 4 + 25 / 10) / 2,
            "rmse": sqrt((1 + 25) / 2),
            "rmselog": sqrt((log(5 / 4) ** 2 + log(2) ** 2) / 2),
            "log10": (np.log10(5 / 4) + np.log10(2)) / 2,
            "mae": 3,
            "delta1": 0,
            "delta2": 1 / 2,
            "delta3": 1 / 2,
        },
        rel=1e-5,
    )
    assert (said["protocol"], said["pixels"], said["compared_share"]) == ("dap", 64 * 128, 1)
    assert said["scale"] == pytest.approx(7 / 5)
    assert set(said["aligned"]) == set(said["raw"]) == {"unweighted", "weighted"}
    assert set(said["timing"]) == {"decode", "queue", "inference"}
    assert answer.headers["x-protocol"] == "dap"
    assert answer.headers["x-range-mask"] == "head"


class TestTruth:
    @pytest.mark.parametrize(
        ("truth", "query"),
        [
            (npy(everywhere(4)), ""),
            (npy(everywhere(4000).astype(np.float64)), "truth_scale=1000"),
            (exr(everywhere(4)), ""),
            (png(everywhere(4), 4000), "truth_scale=4000"),
            (
                png16.FORMAT.encode(DepthMap(everywhere(4), everywhere(4) > 0, 100.0, "head", "lidar")),
                "",
            ),
        ],
        ids=["npy", "npy in millimetres", "exr", "png with a scale given", "png that says its scale"],
    )
    async def test_may_be_of_each_kind(self, client, panorama, truth: bytes, query: str) -> None:
        said = (await post(client, panorama(red=10), truth, query)).json()
        assert said["metrics"]["absrel"] == 0.25

    @pytest.mark.parametrize("height", [8, 32, 96])
    async def test_keeps_its_size_and_the_prediction_takes_it(self, client, panorama, height: int) -> None:
        said = (await post(client, panorama(red=10), npy(everywhere(4, height)))).json()
        assert (said["width"], said["height"], said["pixels"]) == (2 * height, height, 2 * height * height)
        assert said["metrics"]["absrel"] == 0.25

    @pytest.mark.parametrize(
        ("truth", "query", "status", "slug"),
        [
            (b"<html>", "", 415, "unsupported-media-type"),
            (b"", "", 400, "empty-input"),
            (png(everywhere(4), 512), "", 422, "invalid-parameter"),
            (png(everywhere(4), 512)[:-40], "truth_scale=512", 422, "broken-image"),
            (npy(everywhere(4))[:-1], "", 422, "broken-image"),
            (exr(everywhere(4))[:-100], "", 422, "broken-image"),
            (npy(everywhere(4)[:, :-1]), "", 422, "not-a-panorama"),
            (npy(everywhere(0)), "", 422, "invalid-parameter"),
            (npy(everywhere(200)), "", 422, "invalid-parameter"),
            (npy(np.array([[{}, {}]], object)), "", 415, "unsupported-media-type"),
        ],
        ids=[
            "html",
            "nothing",
            "png without a scale",
            "truncated png",
            "truncated npy",
            "truncated exr",
            "not 2:1",
            "nothing known",
            "all beyond the protocol",
            "pickle",
        ],
    )
    async def test_that_is_bad_is_refused_before_the_panorama_costs_inference(
        self, client, engine, panorama, truth: bytes, query: str, status: int, slug: str
    ) -> None:
        answer = await post(client, panorama(), truth, query)
        assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
        assert engine.batches == []

    async def test_with_more_pixels_than_an_answer_may_have_is_413_told_from_its_header(
        self, serving, engine, panorama
    ) -> None:
        header = npy(everywhere(4))[:128]
        small = png(everywhere(4), 512)
        bomb = small[:8] + png_chunk(b"IHDR", struct.pack(">II", 200_000, 100_000) + small[24:29]) + small[33:]
        async with serving(max_output_pixels=32 * 64) as client:
            claimed = await post(client, panorama(), header)
            whole = await post(client, panorama(), exr(everywhere(4)))
            lying = await post(client, panorama(), bomb, "truth_scale=512")
        for answer in (claimed, whole, lying):
            assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-many-pixels")
        assert engine.batches == []

    async def test_counts_for_the_limit_of_bytes(self, serving, engine, panorama) -> None:
        async with serving(max_body_bytes=4096) as client:
            answer = await post(client, panorama(), npy(everywhere(4)))
        assert (answer.status_code, answer.json()["type"]) == (413, "/problems/input-too-large")
        assert engine.batches == []


class TestForm:
    async def test_a_bare_image_is_told_that_a_form_is_expected(self, client, panorama) -> None:
        answer = await client.post("/evaluate", content=panorama(), headers={"content-type": "image/png"})
        assert (answer.status_code, answer.json()["type"]) == (415, "/problems/unsupported-media-type")
        assert "`image` and `truth`" in answer.json()["detail"]

    @pytest.mark.parametrize(
        ("fields", "status", "slug"),
        [
            (["image"], 400, "empty-input"),
            (["truth"], 400, "empty-input"),
            (["image", "truth", "mask"], 422, "invalid-parameter"),
            (["image", "truth", "truth"], 400, "malformed-request"),
        ],
    )
    async def test_has_an_image_and_a_truth_and_nothing_else(
        self, client, engine, panorama, fields: list[str], status: int, slug: str
    ) -> None:
        content = {"image": panorama(), "truth": npy(everywhere(4)), "mask": b"png"}
        answer = await client.post("/evaluate", files=[(name, content[name]) for name in fields])
        assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
        assert engine.batches == []

    async def test_may_have_its_fields_in_any_order(self, client, panorama) -> None:
        files = [("truth", npy(everywhere(4))), ("image", panorama(red=10))]
        assert (await client.post("/evaluate", files=files)).json()["metrics"]["absrel"] == 0.25


class TestProtocol:
    async def test_decides_what_the_range_mask_leaves_out(self, client, panorama) -> None:
        # The engine says 40 m, which is not within 20 m: under dap it counts as 100 m, raw as what it is.
        truth = npy(everywhere(50))
        masked = (await post(client, panorama(red=80), truth, "protocol=dap&range=20")).json()
        raw = (await post(client, panorama(red=80), truth, "protocol=raw")).json()
        assert (masked["range"], masked["metrics"]["mae"]) == (20, 50)
        assert (raw["range"], raw["metrics"]["mae"]) == (None, 10)

    async def test_with_its_own_alignment_says_so(self, client, panorama) -> None:
        said = (await post(client, panorama(red=10), npy(everywhere(4)), "protocol=da2")).json()
        assert (said["alignment"], said["scale"], said["metrics"]["absrel"]) == ("median", 0.8, 0)
        assert said["raw"]["unweighted"]["absrel"] == 0.25

    async def test_without_a_limit_takes_that_of_the_data_set(self, client, panorama) -> None:
        truth = everywhere(4)
        truth[:, :64] = 300
        answer = await post(client, panorama(red=10), npy(truth), "protocol=unik3d&max_truth=100")
        assert (answer.json()["max_truth"], answer.json()["metrics"]["absrel"]) == (100, 0.25)

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("protocol=panda&range=10", "panda knows no range mask"),
            ("protocol=panda&max_truth=5", "panda compares truth up to 10 m"),
            ("protocol=kitti", "protocol is one of dap, raw"),
            ("truth_scale=0", "truth_scale"),
            ("format=npy", "format is one of json, jpeg, png"),
            ("size=model", "there is no query parameter 'size'"),
        ],
    )
    async def test_takes_no_parameter_that_it_does_not_know(
        self, client, engine, panorama, query: str, expected: str
    ) -> None:
        answer = await post(client, panorama(), npy(everywhere(4)), query)
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-parameter")
        assert expected in answer.json()["detail"]
        assert engine.batches == []


class TestPicture:
    @pytest.mark.parametrize(("query", "accept"), [("format=jpeg", "*/*"), ("", "image/jpeg")])
    async def test_shows_the_error_at_the_size_of_the_truth(self, client, panorama, query: str, accept: str) -> None:
        answer = await post(client, panorama(red=10), npy(everywhere(4, 32)), query, accept=accept)
        assert answer.headers["content-type"] == "image/jpeg"
        with Image.open(io.BytesIO(answer.content)) as picture:
            assert picture.size == (64, 32)
            red, _, blue = picture.getpixel((5, 5))
        assert red > blue + 40

    async def test_and_metrics_come_as_a_zip(self, client, panorama) -> None:
        answer = await post(client, panorama(red=10), npy(everywhere(4)), "format=json,jpeg")
        assert answer.headers["content-type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.namelist() == ["evaluation.json", "evaluation.jpg"]
            assert json.loads(archive.read("evaluation.json"))["metrics"]["absrel"] == 0.25

    async def test_and_metrics_come_as_multipart_if_that_is_preferred(self, client, panorama) -> None:
        answer = await post(client, panorama(), npy(everywhere(4)), "format=json,png", accept="multipart/mixed")
        assert answer.headers["content-type"].startswith("multipart/mixed; boundary=")


async def test_a_bad_panorama_is_refused_as_on_any_path(client, engine, panorama) -> None:
    answer = await post(client, panorama(height=64, width=96), npy(everywhere(4)))
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/not-a-panorama")
    assert engine.batches == []
