"""The command: which sub-commands there are, what they cost, and how failures read."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from click.testing import CliRunner

from dap import command

ROOT = Path(__file__).parents[2]


@pytest.fixture
def wing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A wing with a command that works, one that fails, one that is wrong, and one whose library is missing."""
    (tmp_path / "good_wing.py").write_text(
        "import click\n"
        "from dap.errors import EngineError, EngineUnavailable, InvalidParameter, ModelFileMissing\n"
        "@click.command()\n"
        "def sing():\n"
        '    """Sing a song.\n\n    All of it.\n    """\n'
        "    click.echo('la')\n"
        "@click.command()\n"
        "def fail():\n"
        '    raise ModelFileMissing("put it there")\n'
        "@click.command()\n"
        "def wrong():\n"
        '    raise InvalidParameter("range is one of 10")\n'
        "@click.command()\n"
        "@click.argument('said')\n"
        "@click.argument('kind')\n"
        "def strain(said, kind):\n"
        "    error = {'library': RuntimeError, 'system': OSError, 'own': EngineUnavailable}[kind](said)\n"
        "    raise EngineError('ONNX Runtime failed on a batch of 1.') from error\n"
    )
    (tmp_path / "poor_wing.py").write_text("import a_library_that_is_not_here\ndef paint():\n    '''Paint.'''\n")
    monkeypatch.syspath_prepend(tmp_path)
    places = {
        "sing": "good_wing:sing",
        "fail": "good_wing:fail",
        "wrong": "good_wing:wrong",
        "strain": "good_wing:strain",
        "paint": "poor_wing:paint",
        "gone": "no_such_wing.commands:gone",
    }
    entries = [EntryPoint(name, place, command.GROUP) for name, place in places.items()]
    monkeypatch.setattr(command, "entry_points", lambda group: entries)
    yield
    sys.modules.pop("good_wing", None)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command.main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


@pytest.mark.usefixtures("wing")
def test_a_command_of_a_wing_runs() -> None:
    assert run("sing") == (0, "la\n")


@pytest.mark.usefixtures("wing")
def test_the_help_lists_every_command_with_its_first_line_and_imports_none() -> None:
    status, text = run("--help")
    assert status == 0
    assert ["sing", "Sing a song."] in [line.split(maxsplit=1) for line in text.splitlines()]
    assert ["paint", "Paint."] in [line.split(maxsplit=1) for line in text.splitlines()]
    assert ["gone", "(not installed)"] in [line.split(maxsplit=1) for line in text.splitlines()]
    assert {"predict", "models"} < {line.split()[0] for line in text.splitlines() if line.strip()}
    assert "good_wing" not in sys.modules


@pytest.mark.usefixtures("wing")
@pytest.mark.parametrize(("name", "missing"), [("paint", "a_library_that_is_not_here"), ("gone", "no_such_wing")])
def test_a_wing_that_lacks_a_library_says_so_when_it_is_used(name: str, missing: str) -> None:
    status, text = run(name)
    assert status == 1
    assert text.startswith(f"Error: `dap {name}` needs {missing}, which is not installed here.")


@pytest.mark.usefixtures("wing")
def test_what_goes_wrong_is_one_line_and_a_status() -> None:
    assert run("fail") == (1, "Error: put it there\n")
    assert run("wrong") == (2, "Error: range is one of 10\n")


@pytest.mark.usefixtures("wing")
@pytest.mark.parametrize(
    ("kind", "said", "cause"),
    [
        ("library", "cuDNN failure 8: in conv.cc\nstack\nof it", " Cause: cuDNN failure 8: in conv.cc"),
        ("library", " \n", " Cause: RuntimeError"),
        ("library", "\n\x1b[31mred\x07", " Cause:  [31mred "),
        ("library", "x" * 1000, " Cause: " + "x" * 300),
        ("library", "failed on a batch of 1.", ""),
        ("system", "no room", ""),
        ("own", "no GPU", ""),
    ],
)
def test_an_engine_that_fails_says_what_its_library_said_in_one_line(kind: str, said: str, cause: str) -> None:
    status, text = run("strain", said, kind)
    assert (status, text) == (1, f"Error: ONNX Runtime failed on a batch of 1.{cause}\n")


@pytest.mark.usefixtures("wing")
def test_an_unknown_command_is_a_wrong_use() -> None:
    status, text = run("dance")
    assert status == 2
    assert "No such command 'dance'" in text


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["models"], ["evaluate", "--help"]])
def test_help_and_the_core_load_no_torch(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom click.testing import CliRunner\nfrom dap.command import main\n"
        "result = CliRunner().invoke(main, sys.argv[1:])\nprint('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("False\n", "")
