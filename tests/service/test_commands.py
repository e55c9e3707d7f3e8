import pytest
from click.testing import CliRunner

from service import server
from service.commands import serve
from service.settings import Settings


@pytest.fixture
def served(monkeypatch) -> list[Settings]:
    """The settings that the server was run with."""
    runs: list[Settings] = []

    def run(settings: Settings) -> int:
        runs.append(settings)
        return 0

    monkeypatch.setattr(server, "run", run)
    return runs


SECRETS = {"api_keys", "admin_key"}


@pytest.mark.parametrize("name", sorted(Settings.model_fields.keys() - SECRETS))
def test_every_setting_is_a_flag_with_an_environment_twin(name: str) -> None:
    (option,) = [option for option in serve.params if option.name == name]
    assert option.opts == [f"--{name.replace('_', '-')}"]
    assert option.envvar == f"DAP_{name.upper()}"
    assert option.help == Settings.model_fields[name].description


def test_a_secret_comes_from_the_environment_alone_since_command_lines_are_public(served) -> None:
    assert SECRETS.isdisjoint(option.name for option in serve.params)
    secret = "an-uncommonly-long-secret"
    assert CliRunner().invoke(serve, [], env={"DAP_API_KEYS": secret}).exit_code == 0
    assert served[0].api_keys.get_secret_value() == secret
    helped = CliRunner().invoke(serve, ["--help"], env={"DAP_API_KEYS": secret, "DAP_ADMIN_KEY": secret})
    assert secret not in helped.output + repr(served[0])


def test_without_flags_the_defaults_hold(served) -> None:
    assert CliRunner().invoke(serve, []).exit_code == 0
    assert served == [Settings()]


def test_a_flag_goes_before_the_environment(served) -> None:
    environment = {"DAP_PORT": "9000", "DAP_THREADS": "2"}
    assert CliRunner().invoke(serve, ["--port", "0"], env=environment).exit_code == 0
    assert served == [Settings(port=0, threads=2)]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--max-batch-size", "0"], "--max-batch-size (DAP_MAX_BATCH_SIZE)"),
        (["--max-bytes-in-progress", "1"], "max_body_bytes"),
        (["--port", "http"], "'--port'"),
        (["--engine", "abacus"], "'--engine'"),
    ],
)
def test_a_value_that_cannot_work_is_a_usage_error(served, arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(serve, arguments)
    assert result.exit_code == 2
    assert complaint in result.output
    assert served == []


def test_an_address_that_is_taken_is_one_line() -> None:
    with server.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(serve, ["--port", str(port)])
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert line.startswith(f"Error: cannot listen on 127.0.0.1 port {port}: Address already in use")


def test_the_status_of_the_server_is_that_of_the_command(monkeypatch) -> None:
    monkeypatch.setattr(server, "run", lambda settings: 1)
    assert CliRunner().invoke(serve, []).exit_code == 1
