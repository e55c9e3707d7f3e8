from collections.abc import AsyncIterator

import httpx
import pytest

KEY = "a-key-of-some-length"


@pytest.fixture
async def at_probe_port(serving) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service whose probes have port 9000; httpx says the URL's port as the server's."""
    async with serving(probe_port=9000, api_keys=KEY) as client:
        client.base_url = "http://service:9000"
        yield client


@pytest.fixture
async def at_main_port(serving) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(probe_port=9000, api_keys=KEY) as client:
        client.base_url = "http://service:8000"
        client.headers["Authorization"] = f"Bearer {KEY}"
        yield client


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_the_port_of_probes_answers_them_without_a_key(at_probe_port, path: str) -> None:
    assert (await at_probe_port.get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/models", "/openapi.json"])
async def test_it_answers_nothing_else(at_probe_port, path: str) -> None:
    answer = await at_probe_port.get(path)
    assert (answer.status_code, answer.json()["title"]) == (404, "Not Found")


async def test_it_takes_no_panorama(at_probe_port, panorama, engine) -> None:
    assert (await at_probe_port.post("/depth", content=panorama())).status_code == 404
    assert engine.batches == []


async def test_metrics_are_at_no_other_port(at_main_port, panorama) -> None:
    assert (await at_main_port.get("/metrics")).status_code == 404
    assert (await at_main_port.get("/readyz")).status_code == 200
    assert (await at_main_port.post("/depth", content=panorama())).status_code == 200


async def test_without_a_port_of_their_own_they_are_at_the_only_one(client) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await client.get(path)).status_code == 200
