import re

import pytest


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
