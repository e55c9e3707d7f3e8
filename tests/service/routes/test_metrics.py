import asyncio

from prometheus_client.parser import text_string_to_metric_families


async def scrape(client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


async def test_a_request_is_counted_by_route_and_status_and_timed_in_every_stage(client, panorama) -> None:
    before = await scrape(client)
    await client.post("/depth?range=20", content=panorama())
    after = await scrape(client)
    labels = (("method", "POST"), ("route", "/depth"), ("status", "200"))
    assert after["dap_requests_total", labels] == 1
    assert after["dap_request_duration_seconds_count", (("route", "/depth"),)] == 1
    for stage in ("decode", "queue", "inference", "encode"):
        name = f"dap_{stage}_duration_seconds_count"
        of = (("resolution", "64x32"),) if stage == "inference" else ()
        assert after[name, of] == before.get((name, of), 0) + 1
    assert after["dap_engine_busy_seconds_total", ()] > before["dap_engine_busy_seconds_total", ()]


async def test_a_refusal_is_counted_by_its_reason(client, panorama) -> None:
    await client.post("/depth", content=b"")
    await client.post("/depth?range=3", content=panorama())
    counted = await scrape(client)
    assert counted["dap_refusals_total", (("reason", "empty-input"),)] == 1
    assert counted["dap_refusals_total", (("reason", "invalid-parameter"),)] == 1


async def test_batch_sizes_fall_into_powers_of_two(client, engine, panorama, until_queued) -> None:
    before = await scrape(client)
    engine.gate.clear()
    first = asyncio.create_task(client.post("/depth", content=panorama()))
    await asyncio.to_thread(engine.entered.acquire)
    others = [asyncio.create_task(client.post("/depth", content=panorama())) for _ in range(3)]
    await until_queued(client, 3)
    waiting = await scrape(client)
    engine.gate.set()
    await asyncio.gather(first, *others)
    after = await scrape(client)

    def batches_up_to(size: str) -> float:
        key = ("dap_batch_size_bucket", (("le", size),))
        return after[key] - before[key]

    assert [batches_up_to(size) for size in ("1.0", "2.0", "4.0", "+Inf")] == [1, 1, 2, 2]
    assert waiting["dap_queue_panoramas", ()] == 3
    assert waiting["dap_queue_pixels", ()] == 3 * 32 * 64
    assert waiting["dap_requests_in_progress", ()] == 5  # four panoramas and the scrape


async def test_the_model_and_readiness_are_told(client) -> None:
    counted = await scrape(client)
    assert counted["dap_model_info", (("device", "cpu"), ("engine", "red"), ("model", "dap-s"))] == 1
    assert counted["dap_ready", ()] == 1
    client.app.state.serving.drain()
    assert (await scrape(client))["dap_ready", ()] == 0


async def test_what_clients_make_up_becomes_no_label(client) -> None:
    await client.get("/made/up/path")
    await client.request("BREW", "/depth")
    names = {labels for name, labels in await scrape(client) if name == "dap_requests_total"}
    routes = {value for labels in names for key, value in labels if key == "route"}
    methods = {value for labels in names for key, value in labels if key == "method"}
    assert routes <= {"unmatched", "/depth", "/metrics"}
    assert methods <= {"GET", "POST", "other"}


async def test_two_services_in_one_process_count_apart(serving, panorama) -> None:
    async with serving() as one:
        await one.post("/depth", content=panorama())
        async with serving() as other:
            counted = await scrape(other)
    assert not any(name == "dap_requests_total" and ("route", "/depth") in labels for name, labels in counted)
