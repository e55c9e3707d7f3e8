import re

import pytest

from dap.depth import RANGES, UPSAMPLES
from dap.formats.clouds import CLOUD_FORMATS
from dap.formats.colormaps import COLORMAPS
from dap.formats.depth import DEPTH_FORMATS
from dap.formats.normals import NORMAL_FORMATS
from dap.formats.views import VIEW_FORMATS
from dap.sphere import FRAMES


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_a_page_and_all_that_it_loads_come_from_this_service(client, path: str) -> None:
    page = await client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    loaded = re.findall(r"""(?:src|href)=["']([^"'#]+)["']""", page.text)
    assert loaded
    for address in loaded:
        if not address.startswith("data:"):
            assert (await client.get(address)).status_code == 200


@pytest.mark.parametrize("name", ["index.html", "index.js", "docs.html", "docs.js", "style.css"])
async def test_no_page_names_another_host_and_no_script_is_inline(client, name: str) -> None:
    text = (await client.get(f"/web/{name}")).text
    assert "://" not in text
    assert not re.search(r"<script>|\son\w+=|\sstyle=", text)


@pytest.mark.parametrize("name", ["pages.py", "..%2fapp.py", "%2e%2e/app.py", "style.css/"])
async def test_nothing_but_the_pages_is_given(client, name: str) -> None:
    assert (await client.get(f"/web/{name}")).status_code == 404


async def test_the_policy_lets_the_page_show_its_preview_and_nothing_load_from_elsewhere(client) -> None:
    policy = (await client.get("/")).headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "blob:" in policy
    assert "unsafe" not in policy


async def test_the_page_offers_a_download_of_each_format_and_every_choice_there_is(client) -> None:
    page = (await client.get("/")).text
    registries = {
        "/depth": DEPTH_FORMATS,
        "/pointcloud": CLOUD_FORMATS,
        "/normals": NORMAL_FORMATS,
        "/views": VIEW_FORMATS,
    }
    offered = re.findall(r'<button data-path="([^"]+)" data-format="([^"]+)">', page)
    assert sorted(offered) == sorted((path, name) for path, formats in registries.items() for name in formats)

    def choices(name: str) -> set[str]:
        (select,) = re.findall(rf'<select name="{name}"[^>]*>(.*?)</select>', page)
        return {value or text for value, text in re.findall(r'<option(?: value="([^"]+)")?[^>]*>([^<]*)', select)}

    assert choices("range") == {*(f"{metres:g}" for metres in RANGES), "none"}
    assert choices("upsample") == set(UPSAMPLES)
    assert choices("colormap") == set(COLORMAPS)
    assert choices("frame") == set(FRAMES)
    assert choices("resolution") == set()  # until the page has asked which there are


async def test_what_can_be_changed_or_pressed_on_the_page_has_a_name(client) -> None:
    page = (await client.get("/")).text
    unlabelled = re.sub(r"<label\b.*?</label>", "", page, flags=re.DOTALL)
    assert not re.search(r"<(input|select)\b", unlabelled)
    assert all(text.strip() for text in re.findall(r"<button[^>]*>(.*?)</button>", page))
