import asyncio
import base64
import io
import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

INFER = "/v2/models/dap-s/infer"


def pixels_of(*reds: int) -> np.ndarray:
    panoramas = np.zeros((len(reds), 32, 64, 3), np.uint8)
    panoramas[..., 0] = np.array(reds)[:, None, None]
    return panoramas


def request_of(panoramas: np.ndarray, **request: Any) -> dict[str, Any]:
    tensor = {"name": "panorama", "datatype": "UINT8", "shape": list(panoramas.shape), "data": panoramas.tolist()}
    return {"inputs": [tensor], **request}


def image_request(*images: bytes) -> tuple[bytes, dict[str, str]]:
    raw = b"".join(struct.pack("<I", len(image)) + image for image in images)
    tensor = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [len(images)],
        "parameters": {"binary_data_size": len(raw)},
    }
    text = json.dumps({"inputs": [tensor]}).encode()
    return text + raw, {"Inference-Header-Content-Length": str(len(text))}


def tensors_of(answer: httpx.Response) -> dict[str, np.ndarray]:
    assert answer.status_code == 200, answer.text
    return {
        output["name"]: np.array(output["data"], np.float32).reshape(output["shape"])
        for output in answer.json()["outputs"]
    }


class TestHealthAndMetadata:
    async def test_a_service_that_is_ready_is_live_and_ready(self, client) -> None:
        assert (await client.get("/v2/health/live")).json() == {"live": True}
        assert (await client.get("/v2/health/ready")).json() == {"ready": True}
        assert (await client.get("/v2/models/dap-s/ready")).json() == {"name": "dap-s", "ready": True}

    async def test_one_that_goes_down_is_live_and_not_ready(self, client) -> None:
        client.app.state.serving.drain()
        assert (await client.get("/v2/health/live")).status_code == 200
        for path in ("/v2/health/ready", "/v2/models/dap-s/ready"):
            answer = await client.get(path)
            assert answer.status_code == 503
            assert answer.json() == {"error": "the service is going down"}

    async def test_the_server_says_which_extensions_it_has(self, client) -> None:
        said = (await client.get("/v2")).json()
        assert set(said) == {"name", "version", "extensions"}
        assert said["extensions"] == ["binary_tensor_data"]

    @pytest.mark.parametrize("path", ["/v2/models/dap-s", "/v2/models/dap-s/versions/1"])
    async def test_the_model_says_what_it_takes_and_gives(self, client, path: str) -> None:
        said = (await client.get(path)).json()
        assert (said["name"], said["versions"]) == ("dap-s", ["1"])
        assert said["inputs"] == [
            {"name": "panorama", "datatype": "UINT8", "shape": [-1, 32, 64, 3]},
            {"name": "image", "datatype": "BYTES", "shape": [-1]},
        ]
        assert said["outputs"] == [
            {"name": "depth", "datatype": "FP32", "shape": [-1, 32, 64]},
            {"name": "in_range", "datatype": "FP32", "shape": [-1, 4, 32, 64]},
        ]

    @pytest.mark.parametrize("model", ["dap-l", "dap-s/versions/2"])
    async def test_a_model_that_is_not_served_is_not_found(self, client, model: str) -> None:
        for answer in (
            await client.get(f"/v2/models/{model}"),
            await client.get(f"/v2/models/{model}/ready"),
            await client.post(f"/v2/models/{model}/infer", json=request_of(pixels_of(80))),
        ):
            assert answer.status_code == 404
            assert "'dap-s', version 1, is served here" in answer.json()["error"]


class TestInfer:
    async def test_pixels_become_metres_and_probabilities(self, client) -> None:
        tensors = tensors_of(await client.post(INFER, json=request_of(pixels_of(30, 120))))
        assert (tensors["depth"][0] == 15).all()
        assert (tensors["depth"][1] == 60).all()
        assert tensors["in_range"].shape == (2, 4, 32, 64)
        assert tensors["in_range"][:, :, 0, 0].tolist() == [[0, 1, 1, 1], [0, 0, 0, 1]]

    async def test_an_image_is_decoded_to_the_size_of_the_model(self, client, panorama) -> None:
        body, headers = image_request(panorama(red=80, height=256), panorama(red=40, kind="WEBP"))
        depth = tensors_of(await client.post(INFER, content=body, headers=headers))["depth"]
        assert depth.shape == (2, 32, 64)
        assert (depth[0] == 40).all()
        assert np.allclose(depth[1], 20, atol=2)  # WebP is lossy

    async def test_the_id_comes_back(self, client) -> None:
        answer = await client.post(INFER, json=request_of(pixels_of(80), id="frame 7"))
        assert answer.json()["id"] == "frame 7"
        assert answer.json()["model_name"] == "dap-s"

    async def test_what_a_partial_panorama_does_not_show_has_no_depth_and_is_in_no_range(self, client) -> None:
        """A picture of the upper half of the sphere."""
        image = _upper_half(red=40)
        data = [base64.b64encode(image).decode()]
        request = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": data}]}
        tensors = tensors_of(await client.post(INFER, json=request))
        assert np.isnan(tensors["depth"][0, 16:]).all()
        assert (tensors["in_range"][0, :, 16:] == 0).all()
        assert np.allclose(tensors["depth"][0, :16], 20, atol=2)

    async def test_the_panoramas_of_a_request_share_batches_with_those_of_others(
        self, client, engine, panorama, until_queued
    ) -> None:
        engine.gate.clear()
        first = asyncio.create_task(client.post("/depth", content=panorama()))
        await asyncio.to_thread(engine.entered.acquire)
        tensors = asyncio.create_task(client.post(INFER, json=request_of(pixels_of(20, 40, 60))))
        await until_queued(client, 3)
        other = asyncio.create_task(client.post("/depth", content=panorama()))
        await until_queued(client, 4)
        engine.gate.set()
        assert [answer.status_code for answer in await asyncio.gather(first, tensors, other)] == [200, 200, 200]
        assert engine.batch_sizes == [1, 4]

    async def test_the_stages_are_told_in_the_answer_and_counted(self, client) -> None:
        answer = await client.post(INFER, json=request_of(pixels_of(80, 80)))
        timing = answer.headers["server-timing"]
        assert [entry.split(";")[0] for entry in timing.split(", ")] == ["decode", "queue", "inference", "encode"]
        counted = client.app.state.telemetry.registry.get_sample_value
        labels = {"method": "POST", "route": "/v2/models/{model}/infer", "status": "200"}
        assert counted("dap_requests_total", labels) == 1
        assert counted("dap_queue_duration_seconds_count") == 2
        assert counted("dap_encode_duration_seconds_count") == 1


class TestRefusals:
    async def refused(self, client, status: int, **request: Any) -> str:
        answer = await client.post(INFER, **request)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/json"
        assert set(answer.json()) == {"error"}
        return answer.json()["error"]

    async def test_no_json(self, client) -> None:
        assert "JSON" in await self.refused(client, 400, content=b"{")

    async def test_another_shape(self, client) -> None:
        assert "[-1, 32, 64, 3]" in await self.refused(client, 422, json=request_of(pixels_of(80)[:, :16]))

    async def test_a_batch_beyond_the_limit(self, client) -> None:
        assert "1 to 4 panoramas" in await self.refused(client, 422, json=request_of(pixels_of(*range(5))))

    async def test_a_batch_that_could_never_wait_together(self, serving) -> None:
        async with serving(max_queued_pixels=2 * 32 * 64) as client:
            assert "1 to 2 panoramas" in await self.refused(client, 422, json=request_of(pixels_of(1, 2, 3)))
            assert (await client.post(INFER, json=request_of(pixels_of(1, 2)))).status_code == 200

    async def test_a_batch_is_as_large_as_batches_may_be_however_large_panoramas_are(self, serving, engine) -> None:
        engine.input_size, engine.thresholds = (512, 1024), (10.0,)
        async with serving(max_batch_size=16) as client:
            body, headers = image_request(*[b""] * 17)
            assert "1 to 16 panoramas" in await self.refused(client, 422, content=body, headers=headers)

    @pytest.mark.parametrize(
        ("image", "status"), [(b"", 400), (b"<html>", 415), (b"\xff\xd8\xff\xe0nothing", 422)], ids=str
    )
    async def test_an_image_that_is_none(self, client, panorama, image: bytes, status: int) -> None:
        body, headers = image_request(panorama(), image)
        await self.refused(client, status, content=body, headers=headers)

    async def test_a_picture_with_too_many_pixels(self, serving, panorama) -> None:
        async with serving(max_image_pixels=64 * 128) as client:
            body, headers = image_request(panorama(height=128))
            await self.refused(client, 413, content=body, headers=headers)

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, identity"])
    async def test_a_compressed_body_whose_size_nobody_knows(self, client, encoding: str) -> None:
        error = await self.refused(client, 415, content=b"{}", headers={"content-encoding": encoding})
        assert "compressed" in error

    async def test_a_body_beyond_the_limit(self, serving) -> None:
        async with serving(max_body_bytes=4096) as client:
            await self.refused(client, 413, content=bytes(5000))

    async def test_a_request_too_many(self, serving, engine) -> None:
        async with serving(max_requests=1) as client:
            engine.gate.clear()
            first = asyncio.create_task(client.post(INFER, json=request_of(pixels_of(80))))
            await asyncio.to_thread(engine.entered.acquire)
            answer = await client.post(INFER, json=request_of(pixels_of(80)))
            engine.gate.set()
            assert (await first).status_code == 200
        assert (answer.status_code, set(answer.json())) == (429, {"error"})
        assert int(answer.headers["retry-after"]) >= 1

    async def test_a_full_queue(self, serving, engine, until_queued) -> None:
        async with serving(max_queued_pixels=2 * 32 * 64) as client:
            engine.gate.clear()
            posts = [asyncio.create_task(client.post(INFER, json=request_of(pixels_of(80))))]
            await asyncio.to_thread(engine.entered.acquire)
            posts.append(asyncio.create_task(client.post(INFER, json=request_of(pixels_of(80)))))
            await until_queued(client, 1)
            await self.refused(client, 429, json=request_of(pixels_of(80, 80)))
            engine.gate.set()
            assert [answer.status_code for answer in await asyncio.gather(*posts)] == [200, 200]

    async def test_a_deadline_that_is_over_takes_all_panoramas_with_it(self, client, engine) -> None:
        engine.gate.clear()
        headers = {"x-request-timeout": "0.05"}
        await self.refused(client, 504, json=request_of(pixels_of(80, 80)), headers=headers)
        engine.gate.set()
        assert client.app.state.telemetry.registry.get_sample_value("dap_queue_panoramas") == 0

    async def test_one_panorama_that_the_engine_fails_on_fails_its_request_and_no_other(
        self, client, engine, panorama
    ) -> None:
        def fail_on_red_99(panoramas: np.ndarray) -> None:
            if (panoramas[..., 0] == 99).any():
                raise RuntimeError("99")

        engine.before = fail_on_red_99
        bad, good = await asyncio.gather(
            client.post(INFER, json=request_of(pixels_of(80, 99))), client.post("/depth", content=panorama())
        )
        assert (bad.status_code, good.status_code) == (500, 200)
        assert bad.json() == {"error": "the engine failed on this panorama"}

    async def test_a_path_and_a_method_that_there_are_not(self, client) -> None:
        for answer in (await client.get("/v2/models/dap-s/config"), await client.put("/v2")):
            assert answer.status_code in (404, 405)
            assert set(answer.json()) == {"error"}

    async def test_the_reason_is_counted(self, client) -> None:
        await client.post(INFER, content=b"{")
        counted = client.app.state.telemetry.registry.get_sample_value
        assert counted("dap_refusals_total", {"reason": "malformed-request"}) == 1


def _upper_half(red: int) -> bytes:
    """A JPEG with GPano data that place it on the upper half of a sphere of 128 x 64."""
    xmp = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" '
        'GPano:ProjectionType="equirectangular" GPano:FullPanoWidthPixels="128" GPano:FullPanoHeightPixels="64" '
        'GPano:CroppedAreaImageWidthPixels="128" GPano:CroppedAreaImageHeightPixels="32" '
        'GPano:CroppedAreaLeftPixels="0" GPano:CroppedAreaTopPixels="0"/></rdf:RDF></x:xmpmeta>'
    )
    file = io.BytesIO()
    Image.new("RGB", (128, 32), (red, 20, 40)).save(file, "JPEG", xmp=xmp.encode())
    return file.getvalue()


@pytest.fixture(scope="module")
def address(serve) -> Iterator[str]:
    with serve() as (_, url):
        yield url.removeprefix("http://")


@pytest.fixture(scope="module")
def triton_client(address) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as client:
        yield client


def triton_input(name: str, datatype: str, tensor: np.ndarray, *, binary: bool = True) -> triton.InferInput:
    sent = triton.InferInput(name, list(tensor.shape), datatype)
    sent.set_data_from_numpy(tensor, binary_data=binary)
    return sent


class TestTritonClient:
    """The protocol as others speak it: tritonclient against a process of its own."""

    def test_the_server_and_its_model_are_ready_and_say_what_they_are(self, triton_client) -> None:
        assert triton_client.is_server_live()
        assert triton_client.is_server_ready()
        assert triton_client.is_model_ready("red")
        assert triton_client.is_model_ready("red", "1")
        assert not triton_client.is_model_ready("blue")
        assert "binary_tensor_data" in triton_client.get_server_metadata()["extensions"]
        assert triton_client.get_model_metadata("red")["inputs"][0]["shape"] == [-1, 32, 64, 3]

    @pytest.mark.parametrize("binary_in", [True, False])
    @pytest.mark.parametrize("binary_out", [True, False])
    def test_pixels_become_metres_and_probabilities(self, triton_client, binary_in: bool, binary_out: bool) -> None:
        result = triton_client.infer(
            "red",
            [triton_input("panorama", "UINT8", pixels_of(30, 120), binary=binary_in)],
            outputs=[triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("depth", "in_range")],
            request_id="frame 7",
        )
        depth, in_range = result.as_numpy("depth"), result.as_numpy("in_range")
        assert result.get_response()["id"] == "frame 7"
        assert (depth.dtype, depth.shape, in_range.shape) == (np.float32, (2, 32, 64), (2, 4, 32, 64))
        assert (depth[0] == 15).all()
        assert (depth[1] == 60).all()
        assert in_range[:, :, 0, 0].tolist() == [[0, 1, 1, 1], [0, 0, 0, 1]]

    def test_image_files_need_no_decoder_at_the_client(self, triton_client, panorama) -> None:
        images = np.array([panorama(red=80, height=128), panorama(red=40, height=64)], np.object_)
        result = triton_client.infer("red", [triton_input("image", "BYTES", images)], model_version="1")
        assert [depth[0, 0] for depth in result.as_numpy("depth")] == [40, 20]

    def test_an_output_that_is_not_asked_for_is_not_there(self, triton_client) -> None:
        wanted = [triton.InferRequestedOutput("depth")]
        result = triton_client.infer("red", [triton_input("panorama", "UINT8", pixels_of(80))], outputs=wanted)
        assert result.as_numpy("in_range") is None

    def test_requests_that_come_together_are_all_answered(self, address) -> None:
        with triton.InferenceServerClient(address, concurrency=4) as client:
            sent = [
                client.async_infer("red", [triton_input("panorama", "UINT8", pixels_of(red))])
                for red in range(20, 200, 20)
            ]
            assert [request.get_result().as_numpy("depth")[0, 0, 0] for request in sent] == list(range(10, 100, 10))

    def test_an_answer_may_be_wanted_compressed_and_comes_as_it_is(self, triton_client) -> None:
        sent = [triton_input("panorama", "UINT8", pixels_of(80))]
        result = triton_client.infer("red", sent, response_compression_algorithm="gzip")
        assert (result.as_numpy("depth") == 40).all()

    @pytest.mark.parametrize(
        ("model", "tensor", "options", "status", "message"),
        [
            ("blue", pixels_of(1), {}, "404", "'red', version 1, is served here"),
            ("red", pixels_of(1)[:, :16], {}, "422", "shape"),
            ("red", pixels_of(*range(5)), {}, "422", "1 to 4 panoramas"),
            ("red", pixels_of(1), {"request_compression_algorithm": "gzip"}, "415", "compressed"),
            ("red", pixels_of(1), {"sequence_id": 7}, "422", "sequence_id"),
            ("red", pixels_of(1), {"outputs": [triton.InferRequestedOutput("normals")]}, "422", "outputs"),
            ("red", pixels_of(1), {"headers": {"X-Request-Timeout": "0"}}, "422", "x-request-timeout"),
        ],
    )
    def test_a_refusal_says_why_where_the_client_looks_for_it(
        self, triton_client, model: str, tensor: np.ndarray, options: dict, status: str, message: str
    ) -> None:
        with pytest.raises(InferenceServerException) as refusal:
            triton_client.infer(model, [triton_input("panorama", "UINT8", tensor)], **options)
        assert refusal.value.status() == status
        assert message in refusal.value.message().lower() or message in refusal.value.message()

    def test_the_connection_serves_on_after_a_refusal(self, triton_client) -> None:
        with pytest.raises(InferenceServerException):
            triton_client.infer("red", [triton_input("panorama", "UINT8", pixels_of(1)[:, :16])])
        assert triton_client.is_server_ready()
