import asyncio
from collections.abc import AsyncIterator

import pytest

BOUNDARY = "frontier"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(body: bytes, name: str = "image", filename: str | None = "pano.png") -> bytes:
    file = f'; filename="{filename}"' if filename else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\nContent-Type: image/png\r\n\r\n'
    return head.encode() + body + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


class TestMultipart:
    async def test_a_form_with_the_field_image_is_as_good_as_a_raw_body(self, client, panorama) -> None:
        raw = await client.post("/depth", content=panorama())
        form = await client.post("/depth", files={"image": ("pano.png", panorama(), "image/png")})
        assert form.status_code == 200
        assert form.content == raw.content

    async def test_a_field_without_a_file_name_is_taken_too(self, client, panorama) -> None:
        answer = await client.post("/depth", content=part(panorama(), filename=None) + END, headers=FORM)
        assert answer.status_code == 200

    async def test_a_form_in_small_pieces_is_read_whole(self, client, panorama) -> None:
        whole = part(panorama()) + END

        async def crumbs() -> AsyncIterator[bytes]:
            for start in range(0, len(whole), 7):
                yield whole[start : start + 7]

        assert (await client.post("/depth", content=crumbs(), headers=FORM)).status_code == 200

    @pytest.mark.parametrize(
        ("body", "status", "slug"),
        [
            (END, 400, "empty-input"),
            (part(b"") + END, 400, "empty-input"),
            (part(b"png", name="file") + END, 422, "invalid-parameter"),
            (part(b"png") + part(b"png") + END, 400, "malformed-request"),
            (part(b"png"), 400, "malformed-request"),
            (b"no boundary here", 400, "malformed-request"),
            (b"", 400, "malformed-request"),
        ],
        ids=["no field", "empty field", "another field", "two images", "no end", "no boundary", "nothing"],
    )
    async def test_another_form_is_told_what_is_wrong(
        self, client, engine, body: bytes, status: int, slug: str
    ) -> None:
        answer = await client.post("/depth", content=body, headers=FORM)
        assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
        assert engine.batches == []

    @pytest.mark.parametrize("content_type", ["multipart/form-data", f"multipart/form-data; boundary={'x' * 300}"])
    async def test_a_form_without_a_usable_boundary_is_malformed(self, client, panorama, content_type: str) -> None:
        answer = await client.post("/depth", content=part(panorama()) + END, headers={"content-type": content_type})
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems/malformed-request")

    async def test_the_name_of_a_wrong_field_is_told(self, client) -> None:
        answer = await client.post("/depth", content=part(b"png", name="file") + END, headers=FORM)
        assert "'file'" in answer.json()["detail"]

    async def test_the_limit_of_bytes_holds_for_forms(self, serving) -> None:
        async with serving(max_body_bytes=4096) as client:
            answer = await client.post("/depth", files={"image": bytes(4096)})
        assert (answer.status_code, answer.json()["type"]) == (413, "/problems/input-too-large")


class TestDeadline:
    @pytest.mark.parametrize("limit", ["header", "setting"])
    async def test_a_request_that_takes_too_long_is_504_and_its_panorama_never_runs(
        self, serving, engine, panorama, until_queued, limit: str
    ) -> None:
        async with serving(request_timeout_s=0.2 if limit == "setting" else 60) as client:
            engine.gate.clear()
            busy = asyncio.create_task(client.post("/depth", content=panorama(red=1)))
            await asyncio.to_thread(engine.entered.acquire)
            headers = {"x-request-timeout": "0.2"} if limit == "header" else {}
            late = await client.post("/depth", content=panorama(red=2), headers=headers)
            engine.gate.set()
            await busy
            await client.post("/depth", content=panorama(red=3))
        assert (late.status_code, late.json()["type"]) == (504, "/problems/deadline-exceeded")
        assert 2 not in {int(batch[0, 0, 0, 0]) for batch in engine.batches}

    async def test_a_slow_upload_counts(self, client) -> None:
        async def stalled() -> AsyncIterator[bytes]:
            yield b"\xff\xd8"
            await asyncio.sleep(60)

        answer = await client.post("/depth", content=stalled(), headers={"x-request-timeout": "0.05"})
        assert answer.status_code == 504

    async def test_a_client_cannot_ask_for_more_than_the_service_allows(self, serving, engine, panorama) -> None:
        async with serving(request_timeout_s=0.05) as client:
            engine.gate.clear()
            answer = await client.post("/depth", content=panorama(), headers={"x-request-timeout": "1000"})
            engine.gate.set()
        assert answer.status_code == 504

    @pytest.mark.parametrize("asked", ["0", "-1", "soon", "nan"])
    async def test_a_time_that_is_none_is_422(self, client, panorama, asked: str) -> None:
        answer = await client.post("/depth", content=panorama(), headers={"x-request-timeout": asked})
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-parameter")


class TestClientGone:
    @staticmethod
    async def post_and_leave(app, body: bytes | None, leave: asyncio.Event) -> None:
        """POST /depth as a server would, whose client hangs up when `leave` is set."""
        coming = [] if body is None else [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict:
            if coming:
                return coming.pop()
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict) -> None:
            pass

        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/depth",
            "raw_path": b"/depth",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [],
            "client": ("127.0.0.1", 1),
            "server": ("service", 80),
        }
        await app(scope, receive, send)

    async def test_is_dropped_before_it_costs_a_place_in_a_batch(self, client, engine, panorama, until_queued) -> None:
        engine.gate.clear()
        busy = asyncio.create_task(client.post("/depth", content=panorama(red=1)))
        await asyncio.to_thread(engine.entered.acquire)
        leave = asyncio.Event()
        gone = asyncio.create_task(self.post_and_leave(client.app, panorama(red=2), leave))
        stays = asyncio.create_task(client.post("/depth", content=panorama(red=3)))
        await until_queued(client, 2)
        leave.set()
        await gone
        await until_queued(client, 1)
        engine.gate.set()
        assert (await busy).status_code == (await stays).status_code == 200
        assert [[int(pixels[0, 0, 0]) for pixels in batch] for batch in engine.batches] == [[1], [3]]

    async def test_is_logged_as_closed_by_the_client_and_no_failure(self, client, engine, panorama, caplog) -> None:
        caplog.set_level("INFO", "dap.access")
        engine.gate.clear()
        leave = asyncio.Event()
        gone = asyncio.create_task(self.post_and_leave(client.app, panorama(), leave))
        await asyncio.to_thread(engine.entered.acquire)
        leave.set()
        await gone
        engine.gate.set()
        assert [record.fields["status"] for record in caplog.records if record.name == "dap.access"] == [499]

    async def test_during_the_upload_is_no_failure_either(self, client, caplog) -> None:
        caplog.set_level("INFO")
        leave = asyncio.Event()
        leave.set()
        await self.post_and_leave(client.app, None, leave)
        assert [(record.name, record.fields["status"]) for record in caplog.records] == [("dap.access", 499)]
