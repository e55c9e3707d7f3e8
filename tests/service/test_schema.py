"""Whatever openapi.json allows or forbids, the service answers as openapi.json says.

`SCHEMA_EXAMPLES=500 pytest tests/service/test_schema.py` hunts for longer, and anew each time.
"""

import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.python import asgi
from schemathesis.specs.openapi import media_types
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.specs.openapi.formats import unregister_string_format

from dap.headers import MEDIA_TYPES
from service.app import create_app
from service.settings import Settings
from tests.service.conftest import RedEngine

HUNTED = "SCHEMA_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "12"))


def fails_only_for_want_of_time(_context: object, answer: schemathesis.Response, case: schemathesis.Case) -> None:
    hurried = "x-request-timeout" in {name.lower() for name in case.headers}
    assert answer.status_code < 500 or (answer.status_code == 504 and hurried), answer.text


CHECKS = [
    fails_only_for_want_of_time,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
REFUSALS = ["400", "401", "403", "404", "405", "406", "409", "411", "413", "415", "422", "503"]
ADMIN_KEY = "an-admin-key-of-the-tests"

_SCHEMA = json.loads((Path(__file__).parent.parent.parent / "docs" / "openapi.json").read_text())
OPERATIONS = [(path, method) for path, operations in _SCHEMA["paths"].items() for method in operations]
PANORAMA_PATHS = ("/depth", "/normals", "/pointcloud", "/views")
# The others take nothing, or a name of any kind.
CHOOSY = [(path, method) for path, method in OPERATIONS if "requestBody" in _SCHEMA["paths"][path][method]]


def saved(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def array(metres: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, metres)
    return file.getvalue()


FILES = [
    *(saved(Image.new("RGB", (64, 32), (80, 20, 40)), kind) for kind in ("JPEG", "PNG", "WEBP")),
    saved(Image.linear_gradient("L").resize((66, 33)), "PNG"),
    saved(Image.new("RGB", (64, 60)), "JPEG"),
    saved(Image.fromarray(np.full((16, 32), 4096, np.uint16)), "PNG"),
    array(np.full((16, 32), 40, np.float32)),
]


@pytest.fixture
def schema() -> Iterator[schemathesis.BaseSchema]:
    files = st.one_of(st.sampled_from(FILES), st.binary(max_size=64))  # those that can be used, and some that cannot
    schemathesis.openapi.format("binary", files)
    for media_type in (*MEDIA_TYPES.values(), "application/octet-stream"):
        schemathesis.openapi.media_type(media_type, files)
    app = create_app(Settings(admin_key=ADMIN_KEY, max_output_pixels=2**21), lambda model, settings: RedEngine())
    loaded = schemathesis.openapi.from_asgi("/openapi.json", app)
    loaded.config.checks.negative_data_rejection.expected_statuses = REFUSALS
    with asgi.get_client(app) as client:
        while not client.get("/readyz").ok:
            time.sleep(0.01)
        yield loaded
    unregister_string_format("binary")
    media_types.unregister_all()


@pytest.mark.parametrize("mode", GenerationMode)
def test_every_operation_answers_as_the_schema_says(schema: schemathesis.BaseSchema, mode: GenerationMode) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=not HUNTED,
        database=None,
        deadline=None,
        phases=[Phase.generate, *([Phase.shrink] if HUNTED else [])],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def answers(data: st.DataObject) -> None:
        # Of headers and query together something is nearly always such that no other counts.
        fixed = data.draw(st.sampled_from([{}, {"headers": {}}, {"headers": {}, "query": {}}]))
        case = data.draw(operation.as_strategy(generation_mode=mode, **fixed))
        answer = case.call_and_validate(headers={"Authorization": f"Bearer {ADMIN_KEY}"}, checks=CHECKS)
        seen.add((path, int(answer.status_code)))

    seen: set[tuple[str, int]] = set()
    for path, method in OPERATIONS if mode is GenerationMode.POSITIVE else CHOOSY:
        operation = schema[path][method]
        answers()
    assert {(path, 200 if mode is GenerationMode.POSITIVE else 422) for path in PANORAMA_PATHS} <= seen
