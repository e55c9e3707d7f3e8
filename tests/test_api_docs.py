"""Each curl line of docs/api.md is typed here, against a process of its own; its tables list what there is."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dap.formats.clouds import CLOUD_FORMATS
from dap.formats.depth import DEPTH_FORMATS
from demo.process import ServiceProcess, running_service
from service.app import create_app
from service.settings import Settings

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "api.md").read_text()
ADMIN_KEY = "of-the-test-of-the-docs"

# How files of a kind begin.
MAGIC = {
    ".exr": b"\x76\x2f\x31\x01",
    ".jpg": b"\xff\xd8\xff",
    ".json": b"{",
    ".laz": b"LASF",
    ".multipart": b"--dap-0\r\nContent-Type: application/json",
    ".npy": b"\x93NUMPY",
    ".npz": b"PK",
    ".pcd": b"# .PCD",
    ".ply": b"ply\nformat binary_little_endian",
    ".png": b"\x89PNG",
    ".tiff": b"II",
    ".zip": b"PK",
}

BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="the lines are for curl")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    key = tmp_path_factory.mktemp("keys") / "admin"
    key.write_text(ADMIN_KEY)
    with running_service("--admin-key-file", str(key)) as running:
        yield running


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the checkout to the lines, and keeps what they write for those that follow."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "demo").symlink_to(ROOT / "demo")
    (folder / "README.md").symlink_to(ROOT / "README.md")
    return folder


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.replace("http://127.0.0.1:8000", "")[-70:])
def test_the_line_is_answered_as_the_page_says(line: str, service: ServiceProcess, checkout: Path) -> None:
    command, _, expected = line.partition(" # ")
    asked = command.replace("http://127.0.0.1:8000", service.url)
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", asked.replace("curl ", "curl -sS -w '%{stderr}%{http_code}' ", 1)],
        cwd=checkout,
        env={**os.environ, "DAP_ADMIN_KEY": ADMIN_KEY},
        capture_output=True,
    )
    assert run.stderr.decode() == (expected or "200"), run.stdout
    written = re.search(r" -o (\S+)", command)
    if written:
        name = Path(written[1])
        assert (checkout / name).read_bytes().startswith(MAGIC[name.suffix])
    else:
        assert run.stdout


def test_every_path_has_a_line() -> None:
    asked = {re.sub(r"\?.*", "", path) for path in re.findall(r"http://127\.0\.0\.1:8000(/[^' ]*)", "\n".join(LINES))}
    for path in create_app(Settings()).openapi()["paths"]:
        shape = re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)))
        assert path.startswith("/v2") or any(shape.fullmatch(address) for address in asked), path


def test_every_parameter_and_status_is_named() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    operations = [operation for methods in paths.values() for operation in methods.values()]
    parameters = {
        parameter["name"].lower() for operation in operations for parameter in operation.get("parameters", [])
    }
    statuses = {status for operation in operations for status in operation["responses"]}
    unnamed = {name for name in parameters if not re.search(rf"\b{name}\b", PAGE, re.IGNORECASE)}
    assert unnamed - {"slug", "model_version", "inference-header-content-length", "content-encoding"} == set()
    assert {status for status in statuses if int(status) >= 400 and status not in PAGE} == set()


def test_the_tables_list_the_formats() -> None:
    for name, form in DEPTH_FORMATS.items():
        assert re.search(rf"^\|.*`{name}`.*\|.*`{form.media_type}`", PAGE, re.MULTILINE), name
    assert all(f"`{name}`" in PAGE for name in CLOUD_FORMATS)


def test_the_headers_of_answers_are_described() -> None:
    responses = create_app(Settings()).openapi()["paths"]["/depth"]["post"]["responses"]
    assert [name for name in responses["200"]["headers"] if f"`{name}`" not in PAGE] == []
