"""The Open Inference Protocol (V2) over HTTP: tensors in, tensors out, as KServe and Triton clients speak it.

A pure codec: bytes of a request to an `InferenceRequest`, outputs of the model to the bytes of an answer. Both with the
extension for binary tensor data, where the JSON comes first and the tensors follow it raw.

Sources: Open Inference Protocol, specification/protocol/inference_rest.md; Triton's extension_binary_data.md.
"""

import base64
import json
import math
import operator
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from dap.errors import InputTooLarge, InvalidParameter, MalformedRequest
from dap.resolutions import Size, choose_resolution, parse_resolution

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
JsonObject = dict[str, Any]

BINARY_DATA_HEADER = "Inference-Header-Content-Length"
EXTENSIONS = ("binary_tensor_data",)
OUTPUTS = ("depth", "in_range")

_DATA = re.compile(rb'"data"\s*:\s*(?=\[)')
_PLAIN_VALUES = 65536  # of JSON beside the numbers of a tensor: more than enough for names and shapes
_WITHOUT_BRACKETS = bytes.maketrans(b"[]", b"  ")
_CHUNK_BYTES = 65536  # of JSON that is read in one go; the interpreter lock is free in between
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Signature:
    """What tensors a model takes and gives.

    Attributes:
        sizes: (H, W) of its panoramas, the first for who does not ask; those of a request are of one size.
        thresholds: how many channels `in_range` has.
        max_batch: panoramas of a request at most.
        max_pixels: of all of them together, unless it is one.
    """

    sizes: tuple[Size, ...]
    thresholds: int
    max_batch: int
    max_pixels: int

    def at(self, size: Size) -> "Signature":
        """The same for requests of one of the sizes."""
        fitting = max(1, min(self.max_batch, self.max_pixels // math.prod(size)))
        return replace(self, sizes=(size,), max_batch=fitting)

    def inputs(self) -> list[JsonObject]:
        """The inputs, as the model's metadata lists them. A request has one of them."""
        height, width = self._shape
        return [
            {"name": "panorama", "datatype": "UINT8", "shape": [-1, height, width, 3]},
            {"name": "image", "datatype": "BYTES", "shape": [-1]},
        ]

    def outputs(self) -> list[JsonObject]:
        """The outputs, as the model's metadata lists them."""
        height, width = self._shape
        return [
            {"name": "depth", "datatype": "FP32", "shape": [-1, height, width]},
            {"name": "in_range", "datatype": "FP32", "shape": [-1, self.thresholds, height, width]},
        ]

    @property
    def _shape(self) -> Size:
        """(H, W) of tensors, as the protocol has it: -1 where it depends on the request."""
        return self.sizes[0] if len(self.sizes) == 1 else (-1, -1)


@dataclass(frozen=True)
class RequestedOutput:
    """An output that the answer has, as raw bytes or as JSON."""

    name: str
    binary: bool


@dataclass(frozen=True)
class InferenceRequest:
    """What a request asks for.

    Attributes:
        id: comes back with the answer; None if there was none.
        panoramas: one for each item of the batch: uint8 (H, W, 3) of `size`, or the bytes of an image file.
        size: (H, W) at which the model is to see them, one of the signature's.
        outputs: in the order of the answer.
    """

    id: str | None
    panoramas: tuple[Pixels, ...] | tuple[bytes, ...]
    size: Size
    outputs: tuple[RequestedOutput, ...]


def parse_request(body: bytes, header_length: str | None, signature: Signature) -> InferenceRequest:
    """An inference request from its body. What it claims is held against its bytes before room is made for it.

    Args:
        body: JSON, with raw tensors after it if `header_length` says so.
        header_length: the header Inference-Header-Content-Length, None where there is none.
        signature: of the model that is asked.

    Raises:
        MalformedRequest: not JSON, not an object, or its binary data are not where it says.
        InputTooLarge: more JSON than a batch of panoramas needs, or more panoramas than a batch may have.
        InvalidParameter: an input, an output or a parameter that this model does not take.
        ResolutionNotOffered: a size that it is not offered at.
    """
    text, tail = _split(body, header_length)
    text, numbers = _cut_numbers(text)
    request = _read_json(text)
    _refuse_parameters(request, ("sequence_id",))
    inputs = _objects(request, "inputs")
    if len(inputs) != 1:
        raise InvalidParameter(f"a request has one input, `panorama` or `image`; got {len(inputs)}")
    size = _size_of(request, inputs[0], signature.sizes)
    return InferenceRequest(
        _id_of(request), _read_input(inputs[0], numbers, tail, signature.at(size)), size, tuple(_outputs_of(request))
    )


def encode_response(
    request: InferenceRequest, model: str, version: str, depth: Sequence[Floats], in_range: Sequence[Floats]
) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON if raw tensors follow it.

    Args:
        request: whose outputs are answered.
        model: the name of the model.
        version: of the model.
        depth: of each panorama float32 (H, W), metres; NaN (in JSON `null`) where the panorama shows nothing.
        in_range: of each panorama float32 (T, H, W).
    """
    values = {"depth": depth, "in_range": in_range}
    described: list[bytes] = []
    raw: list[memoryview] = []
    for output in request.outputs:
        tensor = values[output.name]
        entry: JsonObject = {"name": output.name, "datatype": "FP32", "shape": [len(tensor), *tensor[0].shape]}
        if output.binary:
            buffers = [np.ascontiguousarray(item, "<f4").data.cast("B") for item in tensor]
            raw += buffers
            entry["parameters"] = {"binary_data_size": sum(map(len, buffers))}
            described.append(_dump(entry))
        else:
            described.append(_dump(entry)[:-1] + b',"data":[' + b",".join(_json_rows(tensor)) + b"]}")
    head = {"model_name": model, "model_version": version} | ({} if request.id is None else {"id": request.id})
    text = _dump(head)[:-1] + b',"outputs":[' + b",".join(described) + b"]}"
    return b"".join([text, *raw]), len(text) if raw else None


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    # Of thousands of digits int() would make a ValueError.
    length = int(header_length[:20]) if header_length.isascii() and header_length.isdecimal() else -1
    if not 0 <= length <= len(body):
        raise MalformedRequest(
            f"{BINARY_DATA_HEADER} is the length of the JSON at the start of the body, which has {len(body)} bytes; "
            f"got {header_length!r:.100}"
        )
    return body[:length], memoryview(body)[length:]


def _cut_numbers(text: bytes) -> tuple[bytes, bytes | None]:
    """The JSON with `null` for the numbers of a tensor, and those numbers as they stand there, from `[` to `]`.

    They are read apart (`_pixels_of_json`), for there may be millions: all JSON at once would take a hundred times its
    bytes of memory, and hold the interpreter lock for a second.
    """
    begin = _DATA.search(text)
    if begin is None:
        return text, None
    start = begin.end()
    # Among numbers there is neither a string nor an object, so their last bracket stands before the next of those.
    ends = [place for place in (text.find(b'"', start), text.find(b"}", start)) if place >= 0]
    end = text.rfind(b"]", start, min(ends, default=start)) + 1
    return (text[:start] + b"null" + text[end:], text[start:end]) if end else (text, None)


def _read_json(text: bytes) -> JsonObject:
    if sum(map(text.count, (b",", b"[", b"{", b'"'))) > _PLAIN_VALUES:
        raise InputTooLarge("the JSON has more values than an inference request needs beside its tensor")
    try:
        request = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"the inference request is not JSON: {error!s:.200}") from None
    if not isinstance(request, dict):
        raise MalformedRequest("an inference request is a JSON object")
    return request


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _id_of(request: JsonObject) -> str | None:
    name = request.get("id")
    if not (name is None or isinstance(name, str)):
        raise InvalidParameter("the id of a request is a string")
    return name


def _size_of(request: JsonObject, tensor: JsonObject, sizes: Sequence[Size]) -> Size:
    """What the parameter `resolution` says, or the shape of the pixels where there is a choice."""
    wanted: Any = _parameters_of(request).get("resolution")
    if not (wanted is None or isinstance(wanted, str)):
        raise InvalidParameter(f"the parameter resolution is a string; got {wanted!r:.100}")
    size = None if wanted is None else parse_resolution(wanted)
    if wanted is None and len(sizes) > 1 and tensor.get("name") == "panorama":
        match tensor.get("shape"):
            case [int(), int(height), int(width), 3]:
                size = (height, width)
    return choose_resolution(size, sizes, "this model")


def _outputs_of(request: JsonObject) -> Iterator[RequestedOutput]:
    binary = _flag(_parameters_of(request), "binary_data_output", default=False)
    if not request.get("outputs"):
        yield from (RequestedOutput(name, binary) for name in OUTPUTS)
        return
    wanted = set(OUTPUTS)
    for output in _objects(request, "outputs"):
        name = output.get("name")
        if not isinstance(name, str) or name not in wanted:
            raise InvalidParameter(f"the outputs are `depth` and `in_range`, each once; got {name!r:.100}")
        wanted.remove(name)
        _refuse_parameters(output, ("shared_memory_region", "classification"))
        yield RequestedOutput(name, _flag(_parameters_of(output), "binary_data", default=binary))


def _read_input(
    tensor: JsonObject, numbers: bytes | None, tail: memoryview, signature: Signature
) -> tuple[Pixels, ...] | tuple[bytes, ...]:
    known = {entry["name"]: entry for entry in signature.inputs()}
    name = tensor.get("name")
    if not isinstance(name, str) or name not in known:
        raise InvalidParameter(f"an input is `panorama` or `image`; got {name!r:.100}")
    if tensor.get("datatype") != known[name]["datatype"]:
        raise InvalidParameter(
            f"the datatype of `{name}` is {known[name]['datatype']}; got {tensor.get('datatype')!r:.100}"
        )
    _refuse_parameters(tensor, ("shared_memory_region",))
    shape = _read_shape(tensor, known[name]["shape"], signature.max_batch)
    raw = _raw_of(tensor, tail)
    if name == "image":
        return _images_of_raw(raw, shape[0]) if raw is not None else _images_of_json(tensor.get("data"), shape[0])
    pixels = raw if raw is not None else _pixels_of_json(numbers, shape)
    if len(pixels) != math.prod(shape):
        raise MalformedRequest(f"a tensor of shape {shape} has {math.prod(shape)} bytes; got {len(pixels)}")
    return tuple(np.frombuffer(pixels, np.uint8).reshape(shape))


def _read_shape(tensor: JsonObject, expected: Sequence[int], max_batch: int) -> list[int]:
    shape: Any = tensor.get("shape")
    is_shape = isinstance(shape, list) and len(shape) == len(expected) and all(type(size) is int for size in shape)
    if not is_shape or shape[1:] != expected[1:]:
        raise InvalidParameter(f"the shape of `{tensor['name']}` is {list(expected)}; got {shape!r:.100}")
    if not 1 <= shape[0] <= max_batch:
        raise InvalidParameter(f"a batch has 1 to {max_batch} panoramas; got {shape[0]!r:.30}")
    return [shape[0], *expected[1:]]


def _raw_of(tensor: JsonObject, tail: memoryview) -> memoryview | None:
    """What follows the JSON, if the tensor is there; None if it is in the JSON."""
    size = _parameters_of(tensor).get("binary_data_size")
    if size is None:
        if len(tail):
            raise MalformedRequest(f"{len(tail)} bytes follow the JSON, but no tensor has a binary_data_size")
        return None
    if "data" in tensor:
        raise MalformedRequest("a tensor is in the JSON or after it; this one has both `data` and a binary_data_size")
    if type(size) is not int or size != len(tail):
        raise MalformedRequest(f"binary_data_size is {size!r:.30}, but {len(tail)} bytes follow the JSON")
    return tail


def _images_of_raw(raw: memoryview, count: int) -> tuple[bytes, ...]:
    """Elements of a BYTES tensor: each has its length before it, four bytes, little-endian."""
    images: list[bytes] = []
    place = 0
    while place + _LENGTH.size <= len(raw) and len(images) < count:
        start = place + _LENGTH.size
        place = start + _LENGTH.unpack_from(raw, place)[0]
        images.append(bytes(raw[start:place]))
    if place != len(raw) or len(images) != count:
        raise MalformedRequest(f"{count} elements of a BYTES tensor were expected; its {len(raw)} bytes are not those")
    return tuple(images)


def _images_of_json(data: Any, count: int) -> tuple[bytes, ...]:
    if not isinstance(data, list) or len(data) != count or not all(isinstance(item, str) for item in data):
        raise InvalidParameter(f"the data of `image` is a list of {count} strings, each an image file in base64")
    try:
        return tuple(base64.b64decode(item, validate=True) for item in data)
    except ValueError as error:
        raise InvalidParameter(f"in JSON an `image` is in base64: {error}") from None


def _pixels_of_json(numbers: bytes | None, shape: Sequence[int]) -> bytearray:
    """The numbers of a tensor, row by row. The protocol takes them flat or nested as the shape is."""
    if numbers is None:
        raise InvalidParameter("the data of `panorama` are a list of numbers")
    lists = 1 + sum(accumulate(shape[:-1], operator.mul))
    if not numbers.count(b"[") == numbers.count(b"]") in (1, lists):
        raise InvalidParameter(f"the data of `panorama` are nested as its shape says, {list(shape)}, or flat")
    pixels = bytearray()
    place = 0
    while 0 <= place < len(numbers) and len(pixels) <= math.prod(shape):
        end = numbers.find(b",", place + _CHUNK_BYTES)
        chunk = numbers[place:] if end < 0 else numbers[place:end]
        place = end + 1 if end >= 0 else -1
        try:
            pixels += bytes(json.loads(b"[%b]" % chunk.translate(_WITHOUT_BRACKETS)))
        except (TypeError, ValueError):
            raise InvalidParameter("the data of `panorama` are whole numbers from 0 to 255") from None
    return pixels


def _json_rows(tensor: Iterable[Floats]) -> Iterator[bytes]:
    """The numbers of a tensor in JSON, each as short as makes it the same float32 again.

    Row by row: the interpreter lock is free in between, so the event loop does not stand still for a second.
    """
    for row in chain.from_iterable(item.reshape(-1, item.shape[-1]) for item in tensor):
        text = ",".join(["%.9g"] * len(row)) % tuple(row.tolist())
        yield text.replace("nan", "null").encode()


def _objects(holder: JsonObject, name: str) -> list[JsonObject]:
    objects = holder.get(name)
    if not isinstance(objects, list) or not all(isinstance(entry, dict) for entry in objects):
        raise InvalidParameter(f"the {name} of a request are a list of objects")
    return objects


def _parameters_of(holder: JsonObject) -> JsonObject:
    parameters = holder.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidParameter("`parameters` are an object")
    return parameters


def _refuse_parameters(holder: JsonObject, names: Iterable[str]) -> None:
    """Refuse what would change the meaning of the answer; what is unknown is ignored, as the protocol has it."""
    for name in names:
        if _parameters_of(holder).get(name):
            raise InvalidParameter(f"the parameter {name} is not supported here")


def _flag(parameters: JsonObject, name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidParameter(f"the parameter {name} is true or false; got {value!r:.100}")
    return value


def _dump(value: JsonObject) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
