import pytest

from dap.formats.clouds import CLOUD_FORMATS
from dap.formats.depth import DEPTH_FORMATS
from service.app import create_app
from service.settings import Settings


@pytest.fixture(scope="module")
def schema() -> dict:
    return create_app(Settings()).openapi()


def test_every_path_for_programs_is_listed(schema) -> None:
    assert set(schema["paths"]) == {
        "/depth",
        "/pointcloud",
        "/models",
        "/healthz",
        "/readyz",
        "/metrics",
        "/problems/{slug}",
    }


@pytest.mark.parametrize(("path", "formats"), [("/depth", DEPTH_FORMATS), ("/pointcloud", CLOUD_FORMATS)])
class TestPanoramaPath:
    def test_every_format_is_an_answer(self, schema, path: str, formats) -> None:
        answer = schema["paths"][path]["post"]["responses"]["200"]
        assert set(answer["content"]) == {entry.media_type for entry in formats.values()}
        assert {"X-Model", "X-Range", "X-Range-Mask", "Server-Timing", "X-Request-Id"} <= set(answer["headers"])

    def test_every_status_of_a_bad_request_is_a_problem(self, schema, path: str, formats) -> None:
        responses = schema["paths"][path]["post"]["responses"]
        assert set(responses) == {"200", "400", "406", "413", "415", "422", "429", "500", "503", "504"}
        for status in set(responses) - {"200"}:
            assert responses[status]["content"] == {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            }
            assert "/problems/" in responses[status]["description"]

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

    def test_every_parameter_says_what_it_is(self, schema, path: str, formats) -> None:
        for parameter in schema["paths"][path]["post"]["parameters"]:
            assert parameter["description"]


def test_what_is_referred_to_is_there(schema) -> None:
    def references(node: object):
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
    assert "HTTPValidationError" not in str(schema["paths"])
