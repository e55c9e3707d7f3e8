from typing import get_args

import pytest
from pydantic import ValidationError

from service.settings import Settings

AMOUNTS = {
    name
    for name, field in Settings.model_fields.items()
    if {int, float} & {field.annotation, *get_args(field.annotation)}
}
PORTS = {"port", "probe_port"}


def test_the_environment_sets_what_is_not_given(monkeypatch) -> None:
    monkeypatch.setenv("DAP_PORT", "9000")
    monkeypatch.setenv("DAP_MAX_BATCH_SIZE", "16")
    settings = Settings(max_batch_size=2)
    assert (settings.port, settings.max_batch_size) == (9000, 2)


def test_other_variables_of_the_project_are_none_of_the_service(monkeypatch) -> None:
    monkeypatch.setenv("DAP_HOME", "/somewhere")
    assert Settings() == Settings(port=8000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 65536},
        {"max_batch_size": 0},
        {"batch_delay_s": -1},
        {"gpu_arena_gb": 0},
        {"request_timeout_s": 0},
        {"max_body_bytes": 10},
        {"decode_threads": 0},
        {"engine": "abacus"},
        {"max_body_bytes": 5000, "max_bytes_in_progress": 4999},
        {"no_such_setting": 1},
        {"port": 8000, "probe_port": 8000},
        {"cors_origins": "example.org"},
        {"cors_origins": "https://example.org/page"},
        {"upload_stall_s": 0},
        {"resolutions": ""},
        {"resolutions": "512x256,1024"},
    ],
)
def test_a_value_that_cannot_work_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)


@pytest.mark.parametrize("name", sorted(AMOUNTS - PORTS))
def test_every_amount_says_what_too_much_of_it_does(name: str) -> None:
    description = Settings.model_fields[name].description
    assert "Too high:" in description or "more slow" in description


def test_resolutions_are_sizes_with_commas_between() -> None:
    assert Settings(resolutions="1024x512, 512x256").sizes == ((512, 1024), (256, 512))
    assert Settings().sizes is None


@pytest.mark.parametrize(
    ("batch", "lanes", "pixels", "requests"),
    [(16, 1, 3 * 16 * 1024 * 512, 80), (16, 2, 4 * 16 * 1024 * 512, 128), (1, 2, 32 * 512 * 256, 64)],
)
def test_by_default_two_full_batches_come_in_while_each_lane_has_its_next_one_waiting(
    batch: int, lanes: int, pixels: int, requests: int
) -> None:
    assert Settings().queued_pixels(batch * 1024 * 512, lanes) == pixels
    assert Settings().requests(batch, lanes) == requests


def test_what_is_given_is_kept_whatever_is_served() -> None:
    chosen = Settings(max_queued_pixels=5, max_requests=3)
    assert (chosen.queued_pixels(1024 * 512, lanes=2), chosen.requests(16, lanes=2)) == (5, 3)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1
