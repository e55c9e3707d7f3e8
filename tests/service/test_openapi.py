"""openapi.json: complete, exact, and the same as the copy that is kept."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dap.formats.clouds import CLOUD_FORMATS
from dap.formats.depth import DEPTH_FORMATS
from service import openapi
from service.app import create_app
from service.settings import Settings

ROOT = Path(__file__).parent.parent.parent
COMMAND = "python -m service.openapi > docs/openapi.json"


@pytest.fixture(scope="module")
def schema() -> dict:
    return create_app(Settings()).openapi()


def test_the_copy_that_is_kept_is_up_to_date(schema) -> None:
    kept = (ROOT / "docs" / "openapi.json").read_text()
    assert kept == openapi.dump(schema), f"the interface has changed; if it was meant to: {COMMAND}"


def test_the_command_prints_what_the_test_compares(schema) -> None:
    _, _, module, *_ = COMMAND.split()
    run = subprocess.run([sys.executable, "-m", module], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == openapi.dump(schema)


def operations(schema: dict) -> Iterator[tuple[str, dict]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_path_for_programs_is_listed_and_no_page_for_people(schema) -> None:
    listed = set(schema["paths"])
    assert {"/depth", "/pointcloud", "/models", "/healthz", "/readyz", "/metrics", "/problems/{slug}"} <= listed
    assert not {"/", "/docs", "/web/{name}", "/openapi.json"} & listed


def test_every_parameter_says_what_it_is_and_what_it_takes(schema) -> None:
    for name, operation in operations(schema):
        for parameter in operation.get("parameters", []):
            assert parameter.get("description") or parameter["in"] == "path", (name, parameter)
            assert "null" not in str(parameter["schema"].get("anyOf", "")), (name, parameter)


def test_every_answer_that_is_no_answer_is_a_problem(schema) -> None:
    for name, operation in operations(schema):
        for status, answer in operation["responses"].items():
            if int(status) < 400 or name.split()[1].startswith("/v2"):
                continue
            (media_type,) = answer["content"]
            assert media_type == "application/problem+json", (name, status)


@pytest.mark.parametrize(("path", "formats"), [("/depth", DEPTH_FORMATS), ("/pointcloud", CLOUD_FORMATS)])
class TestPanoramaPath:
    def test_every_format_is_an_answer(self, schema, path: str, formats) -> None:
        answer = schema["paths"][path]["post"]["responses"]["200"]
        assert {entry.media_type for entry in formats.values()} <= set(answer["content"])
        required = {name for name, header in answer["headers"].items() if header["required"]}
        assert required == {"X-Model", "X-Resolution", "X-Range", "X-Range-Mask", "Server-Timing", "X-Request-Id"}

    def test_every_status_of_a_bad_request_lists_its_problems_with_an_example(self, schema, path: str, formats) -> None:
        responses = schema["paths"][path]["post"]["responses"]
        assert {"200", "400", "406", "413", "415", "422", "429", "500", "503", "504"} <= set(responses)
        for status in set(responses) - {"200"}:
            problem = responses[status]["content"]["application/problem+json"]
            assert problem["schema"] == {"$ref": "#/components/schemas/Problem"}
            for slug, example in problem["examples"].items():
                assert example["value"]["type"] == f"/problems/{slug}"
                assert example["value"]["status"] == int(status)
                assert f"/problems/{slug}" in responses[status]["description"]
        assert "floor-not-found" in responses["422"]["content"]["application/problem+json"]["examples"]

    def test_who_is_to_come_back_is_told_when(self, schema, path: str, formats) -> None:
        responses = schema["paths"][path]["post"]["responses"]
        assert {status for status, answer in responses.items() if "Retry-After" in answer.get("headers", {})} == {
            "429",
            "503",
        }

    def test_the_body_is_an_image_or_a_form(self, schema, path: str, formats) -> None:
        body = schema["paths"][path]["post"]["requestBody"]
        assert body["required"]
        assert set(body["content"]) == {
            "image/jpeg",
            "image/png",
            "image/webp",
            "application/octet-stream",
            "multipart/form-data",
        }


async def test_who_has_no_key_is_told_what_the_schema_says(serving, schema) -> None:
    async with serving(api_keys="a-key-of-sixteen-characters") as client:
        for path, methods in schema["paths"].items():
            for method, operation in methods.items():
                answer = await client.request(method, re.sub(r"{\w+}", "dap-s", path))
                if "security" not in operation:
                    assert answer.status_code not in (401, 403), path
                    continue
                assert answer.status_code in (401, 403), path
                assert answer.headers["content-type"] in operation["responses"][str(answer.status_code)]["content"]


def test_what_an_operator_sets_is_in_the_schema_of_that_service() -> None:
    schema = create_app(Settings(max_cloud_points=300)).openapi()
    (max_points,) = [p for p in schema["paths"]["/pointcloud"]["post"]["parameters"] if p["name"] == "max_points"]
    assert (max_points["schema"]["type"], max_points["schema"]["minimum"]) == ("integer", 1)
    assert max_points["schema"]["maximum"] == 300


def test_what_is_referred_to_is_there(schema) -> None:
    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            yield from ([node["$ref"]] if "$ref" in node else [])
            for child in node.values():
                yield from references(child)
        elif isinstance(node, list):
            for child in node:
                yield from references(child)

    names = {reference.removeprefix("#/components/schemas/") for reference in references(schema)}
    assert "Problem" in names
    assert names <= set(schema["components"]["schemas"])


def test_fastapis_own_form_of_errors_is_nowhere(schema) -> None:
    assert "HTTPValidationError" not in str(schema)
