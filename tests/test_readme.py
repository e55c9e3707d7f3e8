"""What the README tells a newcomer to type is typed here, and what the pages point to is there."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dap.formats.clouds import CLOUD_FORMATS
from dap.formats.depth import DEPTH_FORMATS
from dap.formats.evaluations import EVALUATION_FORMATS
from dap.formats.normals import NORMAL_FORMATS
from dap.formats.views import VIEW_FORMATS
from demo.process import ServiceProcess, running_service

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[str]:
    """Fenced code, but for what follows a comment that says why it is not run."""
    fences = re.findall(rf"^([^\n]*)\n```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [code for before, code in fences if not before.endswith("-->")]


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    with running_service() as running:
        yield running


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like the checkout to the README's commands, and takes what they write."""
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    shutil.copy(ROOT / "demo" / "sample.jpg", tmp_path / "pano.jpg")
    return tmp_path


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's examples are for curl")
def test_the_commands_of_the_readme_run(checkout: Path, service: ServiceProcess) -> None:
    script = "\n".join(blocks("bash")).replace("http://127.0.0.1:8000", service.url)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=checkout,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert (checkout / "preview.jpg").read_bytes().startswith(b"\xff\xd8")
    assert (checkout / "cloud.ply").read_bytes().startswith(b"ply\n")
    assert (checkout / "out" / "sample.depth.png").read_bytes().startswith(b"\x89PNG")
    assert '"valid_share"' in run.stdout
    assert "dap-official-l" in run.stdout


@pytest.mark.parametrize("snippet", blocks("python"))
def test_the_python_of_the_readme_runs(checkout: Path, service: ServiceProcess, snippet: str) -> None:
    code = snippet.replace("http://127.0.0.1:8000", service.url)
    run = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "metres along the ray" in run.stdout


def test_the_formats_of_the_readme_are_those_that_are_written() -> None:
    rows = re.findall(r"\| `([a-z]+/[a-z.-]+)`(?: \(default\))? \| `([a-z0-9-]+)` \|", README)
    registries = (DEPTH_FORMATS, CLOUD_FORMATS, NORMAL_FORMATS, VIEW_FORMATS, EVALUATION_FORMATS)
    formats = [form for registry in registries for form in registry.values()]
    assert rows == [(form.media_type, form.name) for form in formats]


def test_the_make_targets_of_the_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"`make ([a-z-]+)", page.read_text())}
    assert named - targets == set()
    assert {"demo", "test", "serve"} <= named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
