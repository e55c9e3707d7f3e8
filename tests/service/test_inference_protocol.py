import base64
import json
import struct
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st

from dap.errors import InputError, InputTooLarge, InvalidParameter, MalformedRequest, ResolutionNotOffered
from service.inference_protocol import InferenceRequest, RequestedOutput, Signature, encode_response, parse_request

SIGNATURE = Signature(sizes=((4, 8),), thresholds=2, max_batch=3, max_pixels=1000)
PIXELS = np.arange(2 * 4 * 8 * 3, dtype=np.uint8).reshape(2, 4, 8, 3)


def panorama_input(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "panorama", "datatype": "UINT8", "shape": [2, 4, 8, 3], "data": PIXELS.tolist()}
    return {name: value for name, value in (tensor | changes).items() if value is not None}


def parse(request: Any, tail: bytes = b"") -> InferenceRequest:
    text = json.dumps(request).encode()
    return parse_request(text + tail, str(len(text)) if tail else None, SIGNATURE)


def parse_of_triton(tensor: np.ndarray, name: str, datatype: str, **options: Any) -> InferenceRequest:
    """What another implementation of the protocol sends."""
    binary = options.pop("binary", True)
    sent = triton.InferInput(name, list(tensor.shape), datatype)
    sent.set_data_from_numpy(tensor, binary_data=binary)
    body, length = triton.InferenceServerClient.generate_request_body([sent], **options)
    return parse_request(body, None if length is None else str(length), SIGNATURE)


class TestPanoramas:
    @pytest.mark.parametrize("binary", [True, False])
    def test_pixels_arrive_as_a_triton_client_sends_them(self, binary: bool) -> None:
        request = parse_of_triton(PIXELS, "panorama", "UINT8", binary=binary)
        assert np.array_equal(np.stack(request.panoramas), PIXELS)

    @pytest.mark.parametrize("data", [PIXELS.tolist(), PIXELS.ravel().tolist()])
    def test_json_is_nested_or_flat(self, data: list[Any]) -> None:
        assert np.array_equal(np.stack(parse({"inputs": [panorama_input(data=data)]}).panoramas), PIXELS)

    @pytest.mark.parametrize(
        "shape",
        [
            [2, 4, 8],
            [2, 4, 8, 4],
            [2, 8, 4, 3],
            [0, 4, 8, 3],
            [-1, 4, 8, 3],
            [4, 4, 8, 3],
            [2.0, 4, 8, 3],
            [True, 4, 8, 3],
            [10**30, 4, 8, 3],
            "2483",
            None,
        ],
    )
    def test_a_shape_that_is_not_the_models_is_refused(self, shape: Any) -> None:
        with pytest.raises(InvalidParameter, match=r"shape|batch"):
            parse({"inputs": [panorama_input(shape=shape)]})

    @pytest.mark.parametrize("number", [256, -1, 10**30, 1.0, "1", None, [1], {}])
    def test_data_that_are_no_bytes_are_refused(self, number: Any) -> None:
        data = [number, *PIXELS.ravel().tolist()[1:]]
        with pytest.raises(InvalidParameter, match="data"):
            parse({"inputs": [panorama_input(data=data)]})

    @pytest.mark.parametrize("data", [[], [1, 2, 3], PIXELS[0].ravel().tolist(), [*PIXELS.ravel().tolist(), 1]])
    def test_data_of_another_number_are_refused(self, data: list[int]) -> None:
        with pytest.raises(MalformedRequest, match="192 bytes; got"):
            parse({"inputs": [panorama_input(data=data)]})

    @pytest.mark.parametrize("data", [None, 7, "text", {}, [[]], PIXELS[:, :3].tolist(), [[1], 2], [[[[1]]]]])
    def test_data_of_another_nesting_are_refused(self, data: Any) -> None:
        with pytest.raises(InvalidParameter, match="data"):
            parse({"inputs": [panorama_input(data=data)]})

    @pytest.mark.parametrize("datatype", ["FP32", "INT8", "uint8", None, 3])
    def test_another_datatype_is_refused(self, datatype: Any) -> None:
        with pytest.raises(InvalidParameter, match="UINT8"):
            parse({"inputs": [panorama_input(datatype=datatype)]})

    @pytest.mark.parametrize("size", [191, 193, 0, -192, "192", 192.0, True, 10**18])
    def test_binary_data_of_another_size_than_said_are_refused(self, size: Any) -> None:
        with pytest.raises(MalformedRequest, match="binary_data_size"):
            parse(
                {"inputs": [panorama_input(data=None, parameters={"binary_data_size": size})]},
                tail=PIXELS.tobytes(),
            )

    def test_binary_data_of_another_size_than_the_shape_are_refused(self) -> None:
        with pytest.raises(MalformedRequest, match="192 bytes; got 96"):
            parse(
                {"inputs": [panorama_input(data=None, parameters={"binary_data_size": 96})]},
                tail=PIXELS[0].tobytes(),
            )

    def test_data_here_and_there_are_refused(self) -> None:
        with pytest.raises(MalformedRequest, match="both"):
            parse({"inputs": [panorama_input(parameters={"binary_data_size": 192})]}, tail=PIXELS.tobytes())

    def test_bytes_that_belong_to_nothing_are_refused(self) -> None:
        with pytest.raises(MalformedRequest, match="follow the JSON"):
            parse({"inputs": [panorama_input()]}, tail=b"x")


class TestImages:
    def test_images_arrive_as_a_triton_client_sends_them(self) -> None:
        images = np.array([b"\xff\xd8jpeg\x00", b"\x89png"], np.object_)
        assert parse_of_triton(images, "image", "BYTES").panoramas == (b"\xff\xd8jpeg\x00", b"\x89png")

    def test_in_json_an_image_is_in_base64(self) -> None:
        data = [base64.b64encode(b"\xff\xd8\x00").decode()]
        request = parse({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": data}]})
        assert request.panoramas == (b"\xff\xd8\x00",)

    @pytest.mark.parametrize("data", [["not base64!"], ["YQ"], [1], ["YQ==", "YQ=="], "YQ==", None, [["YQ=="]]])
    def test_anything_else_is_refused(self, data: Any) -> None:
        with pytest.raises(InvalidParameter, match="base64"):
            parse({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": data}]})

    @pytest.mark.parametrize(
        "raw",
        [
            b"\x03\x00\x00",
            b"\x03\x00\x00\x00ab",
            b"\x03\x00\x00\x00abcd",
            b"\xff\xff\xff\xffabc",
            struct.pack("<I", 1) + b"a" + struct.pack("<I", 1) + b"b",
        ],
    )
    def test_elements_that_do_not_fill_their_bytes_are_refused(self, raw: bytes) -> None:
        tensor = {
            "name": "image",
            "datatype": "BYTES",
            "shape": [1],
            "parameters": {"binary_data_size": len(raw)},
        }
        with pytest.raises(MalformedRequest, match="BYTES"):
            parse({"inputs": [tensor]}, tail=raw)


class TestRequest:
    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"\xff", b'{"inputs": NaN}', b"[" * 60000, b"9" * 5000])
    def test_what_is_no_json_object_is_refused(self, body: bytes) -> None:
        with pytest.raises(MalformedRequest):
            parse_request(body, None, SIGNATURE)

    @pytest.mark.parametrize("length", ["", "x", "-1", "1.0", "99", "١", "9" * 5000, "0" * 5000 + "x"])
    def test_a_header_length_that_is_none_is_refused(self, length: str) -> None:
        with pytest.raises(MalformedRequest, match="Inference-Header-Content-Length"):
            parse_request(b"{}", length, SIGNATURE)

    def test_a_header_length_of_thousands_of_zeros_is_a_number_still(self) -> None:
        with pytest.raises(MalformedRequest, match="not JSON"):
            parse_request(b"{}", "0" * 5000, SIGNATURE)

    @pytest.mark.parametrize("inputs", [None, [], {}, [1], "x", [panorama_input(), panorama_input()]])
    def test_there_is_one_input(self, inputs: Any) -> None:
        with pytest.raises(InvalidParameter, match="input"):
            parse({"inputs": inputs})

    @pytest.mark.parametrize("name", ["depth", "", None, 3, ["panorama"]])
    def test_its_name_is_one_of_two(self, name: Any) -> None:
        with pytest.raises(InvalidParameter, match="`panorama` or `image`"):
            parse({"inputs": [panorama_input(name=name)]})

    @pytest.mark.parametrize("piece", [b"[],", b"{},", b'"",', b"1,"])
    def test_json_that_unpacks_to_much_more_than_its_bytes_is_refused_unread(self, piece: bytes) -> None:
        bomb = b'{"x":[' + piece * 200_000 + b"1]}"
        with pytest.raises(InputTooLarge):
            parse_request(bomb, None, SIGNATURE)

    @pytest.mark.parametrize("indent", [None, 0])
    @pytest.mark.parametrize("flat", [True, False])
    def test_the_largest_batch_of_json_is_no_bomb(self, flat: bool, indent: int | None) -> None:
        signature = Signature(sizes=((64, 128),), thresholds=2, max_batch=2, max_pixels=2 * 64 * 128)
        pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 128, 3), np.uint8)
        data = (pixels.ravel() if flat else pixels).tolist()
        tensor = {"name": "panorama", "datatype": "UINT8", "shape": [2, 64, 128, 3], "data": data}
        body = json.dumps({"inputs": [tensor]}, indent=indent).encode()
        assert np.array_equal(np.stack(parse_request(body, None, signature).panoramas), pixels)

    def test_an_id_is_a_string(self) -> None:
        assert parse({"id": "7", "inputs": [panorama_input()]}).id == "7"
        assert parse({"inputs": [panorama_input()]}).id is None
        with pytest.raises(InvalidParameter, match="id"):
            parse({"id": 7, "inputs": [panorama_input()]})

    @pytest.mark.parametrize(
        ("where", "name"),
        [("request", "sequence_id"), ("input", "shared_memory_region"), ("output", "classification")],
    )
    def test_what_would_change_the_meaning_of_the_answer_is_refused(self, where: str, name: str) -> None:
        parameters = {"parameters": {name: 1}}
        request = {"inputs": [panorama_input()], "outputs": [{"name": "depth"}]}
        holder = {"request": request, "input": request["inputs"][0], "output": request["outputs"][0]}[where]
        holder.update(parameters)
        with pytest.raises(InvalidParameter, match=name):
            parse(request)

    def test_parameters_that_nobody_knows_are_ignored(self) -> None:
        parse({"inputs": [panorama_input(parameters={"content_type": "np"})], "parameters": {"mine": 1}})

    @pytest.mark.parametrize("parameters", [[], "x", 1])
    def test_parameters_are_an_object(self, parameters: Any) -> None:
        with pytest.raises(InvalidParameter, match="parameters"):
            parse({"inputs": [panorama_input()], "parameters": parameters})


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_whatever_the_bytes_are_they_are_read_or_refused(data: st.DataObject) -> None:
    """A sound request with a piece of it cut out and something else put in its place."""
    tensor = panorama_input(data=None, parameters={"binary_data_size": 192})
    text = json.dumps({"id": "7", "inputs": [tensor], "outputs": [{"name": "depth"}]}).encode()
    body = text + PIXELS.tobytes() if data.draw(st.booleans()) else json.dumps({"inputs": [panorama_input()]}).encode()
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 20)))
    piece = data.draw(st.sampled_from([b"", b"[", b"]", b"{", b'"', b"null", b"-1", b"1e9", b"\xff", b'"data":[0]']))
    length = data.draw(st.sampled_from([None, str(len(text)), str(len(body)), "0"]))
    try:
        request = parse_request(body[:start] + piece + body[end:], length, SIGNATURE)
    except InputError:
        return
    assert all(panorama.shape == (4, 8, 3) for panorama in request.panoramas)


class TestSizes:
    """A model that is offered at two sizes: the pixels say which, or the parameter `resolution`."""

    TWO = Signature(sizes=((4, 8), (8, 16)), thresholds=2, max_batch=3, max_pixels=2 * 8 * 16)

    def parse(self, tensor: dict[str, Any], **request: Any) -> InferenceRequest:
        return parse_request(json.dumps({"inputs": [tensor], **request}).encode(), None, self.TWO)

    def pixels(self, *shape: int) -> dict[str, Any]:
        return panorama_input(shape=[*shape, 3], data=np.zeros((*shape, 3), np.uint8).tolist())

    def test_the_metadata_leave_height_and_width_open(self) -> None:
        assert [tensor["shape"] for tensor in self.TWO.inputs()] == [[-1, -1, -1, 3], [-1]]
        assert [tensor["shape"] for tensor in self.TWO.outputs()] == [[-1, -1, -1], [-1, 2, -1, -1]]

    @pytest.mark.parametrize("size", [(4, 8), (8, 16)])
    def test_pixels_say_by_their_shape_at_which_size_they_are(self, size: tuple[int, int]) -> None:
        request = self.parse(self.pixels(1, *size))
        assert request.size == size
        assert request.panoramas[0].shape == (*size, 3)

    def test_images_are_seen_at_the_resolution_that_the_request_names(self) -> None:
        image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["AAAA"]}
        assert self.parse(image).size == (4, 8)
        assert self.parse(image, parameters={"resolution": "16x8"}).size == (8, 16)

    def test_a_size_that_there_is_not_is_refused_with_those_that_there_are(self) -> None:
        for tensor, parameters in (
            (self.pixels(1, 2, 4), {}),
            (self.pixels(1, 4, 8), {"resolution": "4x2"}),
        ):
            with pytest.raises(ResolutionNotOffered, match=r"offered at 8x4, 16x8; .* is 4x2"):
                self.parse(tensor, parameters=parameters)

    def test_pixels_and_parameter_must_agree(self) -> None:
        with pytest.raises(InvalidParameter, match=r"shape of `panorama` is \[-1, 8, 16, 3\]"):
            self.parse(self.pixels(1, 4, 8), parameters={"resolution": "16x8"})

    @pytest.mark.parametrize("resolution", [16, "16", ["16x8"], "x"])
    def test_a_resolution_is_wxh(self, resolution: Any) -> None:
        with pytest.raises(InvalidParameter, match="resolution"):
            self.parse(self.pixels(1, 4, 8), parameters={"resolution": resolution})

    def test_of_a_larger_size_a_request_may_have_fewer(self) -> None:
        assert len(self.parse(self.pixels(3, 4, 8)).panoramas) == 3
        assert len(self.parse(self.pixels(2, 8, 16)).panoramas) == 2
        with pytest.raises(InvalidParameter, match="a batch has 1 to 2 panoramas; got 3"):
            self.parse(self.pixels(3, 8, 16))


class TestOutputs:
    def outputs(self, **request: Any) -> list[tuple[str, bool]]:
        parsed = parse({"inputs": [panorama_input()], **request})
        return [(output.name, output.binary) for output in parsed.outputs]

    def test_without_a_wish_there_are_all_of_them_in_json(self) -> None:
        assert self.outputs() == self.outputs(outputs=[]) == [("depth", False), ("in_range", False)]

    def test_those_that_are_asked_for_come_in_that_order(self) -> None:
        assert self.outputs(outputs=[{"name": "in_range"}]) == [("in_range", False)]
        assert self.outputs(outputs=[{"name": "in_range"}, {"name": "depth"}]) == [
            ("in_range", False),
            ("depth", False),
        ]

    def test_each_says_whether_it_is_binary_or_else_the_request_does(self) -> None:
        asked = [{"name": "depth", "parameters": {"binary_data": False}}, {"name": "in_range"}]
        assert self.outputs(outputs=asked, parameters={"binary_data_output": True}) == [
            ("depth", False),
            ("in_range", True),
        ]

    @pytest.mark.parametrize("outputs", [[{"name": "normals"}], [{"name": "depth"}] * 2, [{}], ["depth"], {"name": 1}])
    def test_an_output_that_there_is_not_is_refused(self, outputs: Any) -> None:
        with pytest.raises(InvalidParameter, match="outputs"):
            self.outputs(outputs=outputs)

    def test_binary_is_true_or_false(self) -> None:
        with pytest.raises(InvalidParameter, match="binary_data"):
            self.outputs(outputs=[{"name": "depth", "parameters": {"binary_data": "yes"}}])


class TestResponse:
    DEPTH = np.array([[[0.1, 1e-5], [np.nan, 16777217.0]], [[1 / 3, 2.0], [3.0, 4.0]]], np.float32)
    IN_RANGE = np.linspace(0, 1, 2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2)

    def encode(self, *outputs: RequestedOutput, request_id: str | None = None) -> tuple[bytes, int | None]:
        request = InferenceRequest(request_id, (), (4, 8), outputs)
        return encode_response(request, "dap-s", "1", list(self.DEPTH), list(self.IN_RANGE))

    @pytest.mark.parametrize("depth_binary", [True, False])
    @pytest.mark.parametrize("in_range_binary", [True, False])
    def test_a_triton_client_reads_the_numbers_back_exactly(self, depth_binary: bool, in_range_binary: bool) -> None:
        body, length = self.encode(RequestedOutput("depth", depth_binary), RequestedOutput("in_range", in_range_binary))
        result = triton.InferResult.from_response_body(body, header_length=length)
        assert np.array_equal(result.as_numpy("depth"), self.DEPTH, equal_nan=True)
        assert np.array_equal(result.as_numpy("in_range"), self.IN_RANGE)

    def test_json_has_null_where_there_is_no_depth(self) -> None:
        body, length = self.encode(RequestedOutput("depth", binary=False))
        assert length is None
        (depth,) = json.loads(body, parse_constant=pytest.fail)["outputs"]
        assert depth["data"][2] is None
        assert depth["shape"] == [2, 2, 2]

    def test_model_version_and_id_are_in_the_answer(self) -> None:
        head = json.loads(self.encode(RequestedOutput("depth", binary=False), request_id="frame 7")[0])
        assert (head["model_name"], head["model_version"], head["id"]) == ("dap-s", "1", "frame 7")
        assert "id" not in json.loads(self.encode(RequestedOutput("depth", binary=False))[0])

    def test_only_what_was_asked_for_is_in_the_answer(self) -> None:
        body, length = self.encode(RequestedOutput("in_range", binary=True))
        (output,) = json.loads(body[:length])["outputs"]
        assert output["parameters"] == {"binary_data_size": self.IN_RANGE.nbytes}
        assert body[length:] == self.IN_RANGE.tobytes()
