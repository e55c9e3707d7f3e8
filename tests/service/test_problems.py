import logging

import pytest

from dap import errors
from dap.errors import DapError, EngineError
from service.problems import problem_response

MEMBERS = {"type", "title", "status", "detail", "request_id"}


def tree(error: type[DapError]) -> list[type[DapError]]:
    return [error, *(kind for child in error.__subclasses__() for kind in tree(child))]


OURS = [error for error in tree(DapError) if error.__module__ == errors.__name__]


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nowhere", 404, "about:blank"),
        ("GET", "/depth", 405, "about:blank"),
        ("DELETE", "/models", 405, "about:blank"),
        ("POST", "/depth?range=1", 422, "/problems/invalid-parameter"),
        ("POST", "/depth", 400, "/problems/empty-input"),
    ],
)
async def test_every_error_is_a_problem(client, method: str, path: str, status: int, kind: str) -> None:
    answer = await client.request(method, path)
    problem = answer.json()
    assert answer.status_code == problem["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(problem) == MEMBERS
    assert problem["type"] == kind
    assert problem["request_id"] == answer.headers["x-request-id"]


async def test_a_wrong_method_is_told_the_right_one(client) -> None:
    assert (await client.get("/depth")).headers["allow"] == "POST"


@pytest.mark.parametrize("error", OURS, ids=lambda error: error.__name__)
async def test_the_type_of_every_error_leads_to_what_it_means(client, error: type[DapError]) -> None:
    meaning = await client.get(f"/problems/{error.slug}")
    assert meaning.json() == {"type": f"/problems/{error.slug}", "title": error.title, "status": error.status}


async def test_an_unknown_type_is_404(client) -> None:
    assert (await client.get("/problems/bad-weather")).status_code == 404


@pytest.mark.parametrize(
    ("error", "retry_after"),
    [
        (errors.Overloaded("full", retry_after_s=3.2), "4"),
        (errors.Overloaded("full", retry_after_s=0.01), "1"),
        (errors.NotReady("loading"), "1"),
        (errors.LoadInProgress("wait", retry_after_s=5.0), "5"),
        (errors.DeadlineExceeded("late"), None),
        (errors.BrokenImage("truncated"), None),
    ],
)
def test_who_may_come_back_is_told_when(error: DapError, retry_after: str | None) -> None:
    assert problem_response({"type": "http", "path": "/depth"}, error).headers.get("retry-after") == retry_after


class TestUnexpectedError:
    @pytest.fixture
    def broken(self, client, monkeypatch):
        async def trip(*args, **kwargs):
            raise ZeroDivisionError("in /srv/secret/file.py")

        monkeypatch.setattr(client.app.state.pipeline, "answer", trip)
        return client

    async def test_is_a_bare_500_that_leaks_nothing(self, broken, panorama) -> None:
        answer = await broken.post("/depth", content=panorama())
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "/problems/internal"
        for secret in ("secret", "Traceback", "ZeroDivisionError", ".py"):
            assert secret not in answer.text

    async def test_is_in_the_log_under_the_same_request_id(self, broken, panorama, caplog) -> None:
        answer = await broken.post("/depth", content=panorama())
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert record.fields["request_id"] == answer.headers["x-request-id"]
        assert record.exc_info[0] is ZeroDivisionError

    async def test_still_has_the_headers_of_every_answer(self, broken, panorama) -> None:
        assert (await broken.post("/depth", content=panorama())).headers["x-content-type-options"] == "nosniff"


async def test_an_engine_error_is_logged_with_its_cause(client, engine, panorama, caplog) -> None:
    def fail(panoramas) -> None:
        if panoramas.any():
            raise ValueError("a cause worth reading")

    engine.before = fail
    answer = await client.post("/depth", content=panorama())
    assert answer.status_code == 500
    assert "a cause worth reading" not in answer.text
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert isinstance(record.exc_info[1], EngineError)
    assert str(record.exc_info[1].__cause__) == "a cause worth reading"
