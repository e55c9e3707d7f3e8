import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from dap.errors import AccessDenied, InvalidParameter, Unauthenticated
from service.keys import Access, Keys
from service.settings import Settings

USER, OTHER_USER, ADMIN = "user-key-0123456789", "other-key-987654321", "admin-key-123456789"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class TestKeys:
    def test_a_key_is_known_whole_or_not_at_all(self) -> None:
        keys = Keys([USER, OTHER_USER])
        assert USER in keys
        assert OTHER_USER in keys
        for wrong in (USER[:-1], USER + "x", USER.upper(), "", USER + "\udcff"):
            assert wrong not in keys

    def test_it_keeps_no_key_in_the_clear(self) -> None:
        assert USER not in repr(vars(Keys([USER])))


class TestAccess:
    def test_without_keys_everybody_is_a_user_and_nobody_an_admin(self) -> None:
        access = Access()
        access.require_user("")
        with pytest.raises(AccessDenied, match="switched off"):
            access.require_admin(f"Bearer {USER}")

    @pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", f"Basic {USER}", f"{USER}", "Bearer wrong-key"])
    def test_what_is_no_known_bearer_key_opens_nothing(self, authorization: str) -> None:
        access = Access([USER], [ADMIN])
        for require in (access.require_user, access.require_admin):
            with pytest.raises(Unauthenticated):
                require(authorization)

    def test_the_admin_key_opens_all_and_a_users_key_only_what_users_do(self) -> None:
        access = Access([USER], [ADMIN])
        access.require_user(f"Bearer {USER}")
        access.require_user(f"bearer  {ADMIN}")
        access.require_admin(f"Bearer {ADMIN}")
        with pytest.raises(AccessDenied) as denied:
            access.require_admin(f"Bearer {USER}")
        assert denied.type is AccessDenied

    def test_keys_of_the_environment_and_of_files_add_up(self, tmp_path: Path) -> None:
        file = tmp_path / "keys"
        file.write_text(f"# those of the robots\n\n{OTHER_USER}\n")
        (tmp_path / "admin").write_text(ADMIN + "\n")
        access = Access.of(Settings(api_keys=f"{USER}, {USER}", api_keys_file=file, admin_key_file=tmp_path / "admin"))
        for key in (USER, OTHER_USER, ADMIN):
            access.require_user(f"Bearer {key}")
        access.require_admin(f"Bearer {ADMIN}")

    @pytest.mark.parametrize("keys", ["", "short", f"{USER},", "with a space in between", "schlüssel-0123456789"])
    def test_what_cannot_be_a_key_ends_the_start_and_is_not_told(self, keys: str) -> None:
        with pytest.raises(InvalidParameter, match="DAP_API_KEYS: a key is at least 16") as refused:
            Access.of(Settings(api_keys=keys))
        for key in filter(None, keys.split(",")):
            assert key not in str(refused.value)

    def test_a_file_without_a_key_would_leave_the_service_open_and_ends_the_start(self, tmp_path: Path) -> None:
        (tmp_path / "keys").write_text("# none yet\n")
        with pytest.raises(InvalidParameter, match="DAP_API_KEYS_FILE holds no key"):
            Access.of(Settings(api_keys_file=tmp_path / "keys"))

    def test_a_file_that_is_not_there_ends_the_start(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidParameter, match="DAP_ADMIN_KEY_FILE: the file cannot be read: No such file"):
            Access.of(Settings(admin_key_file=tmp_path / "nowhere"))


class TestRequireKey:
    @pytest.fixture
    async def guarded(self, serving) -> AsyncIterator[httpx.AsyncClient]:
        async with serving(api_keys=f"{USER},{OTHER_USER}", admin_key=ADMIN) as client:
            yield client

    @pytest.mark.parametrize("key", [USER, OTHER_USER, ADMIN])
    async def test_a_known_key_opens_the_service(self, guarded, panorama, key: str) -> None:
        assert (await guarded.post("/depth", content=panorama(), headers=bearer(key))).status_code == 200

    async def test_without_one_nothing_of_the_body_is_read(self, guarded, engine) -> None:
        read = []

        async def body() -> AsyncIterator[bytes]:
            for number in range(3):
                read.append(number)
                yield b"x"

        started = []

        async def watched(scope, receive, send) -> None:
            async def watched_send(message) -> None:
                if message["type"] == "http.response.start":
                    started.append(len(read))
                await send(message)

            await guarded.app(scope, receive, watched_send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(watched), base_url="http://service") as client:
            answer = await client.post("/depth", content=body())
        assert (answer.status_code, answer.json()["type"]) == (401, "/problems/unauthenticated")
        assert answer.headers["www-authenticate"] == 'Bearer realm="dap"'
        assert started == [0]
        assert engine.batches == []

    @pytest.mark.parametrize("path", ["/models", "/metrics", "/v2", "/nowhere", "/web", "//healthz"])
    async def test_all_that_is_not_open_needs_one(self, guarded, path: str) -> None:
        assert (await guarded.get("http://service" + path)).status_code == 401

    @pytest.mark.parametrize(
        "path", ["/", "/docs", "/openapi.json", "/web/style.css", "/healthz", "/readyz", "/problems/unauthenticated"]
    )
    async def test_pages_and_probes_do_not(self, guarded, path: str) -> None:
        assert (await guarded.get(path)).status_code == 200

    @pytest.mark.parametrize(("headers", "status"), [({}, 401), (bearer("wrong" * 5), 401), (bearer(USER), 403)])
    async def test_models_are_loaded_with_the_admin_key_alone(self, guarded, headers: dict, status: int) -> None:
        assert (await guarded.post("/models/dap-s:load", headers=headers)).status_code == status

    async def test_no_key_is_in_an_answer_or_in_the_log(self, guarded, panorama, caplog) -> None:
        caplog.set_level(logging.DEBUG)
        answers = [
            await guarded.post("/depth", content=panorama(), headers=bearer(USER)),
            await guarded.post("/depth", content=panorama(), headers=bearer("a-key-that-is-wrong")),
        ]
        said = caplog.text + "".join(str(vars(record)) for record in caplog.records)
        said += "".join(answer.text + str(answer.headers) for answer in answers[1:])
        for key in (USER, OTHER_USER, ADMIN, "a-key-that-is-wrong"):
            assert key not in said
