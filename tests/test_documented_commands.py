"""Every `dap` command that a page tells to type is one that the command line takes. Nothing is run."""

import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import pytest

from dap.command import main

ROOT = Path(__file__).parent.parent
PAGES = [page for folder in ("*.md", "docs/**/*.md", "dap/weights/*.md") for page in sorted(ROOT.glob(folder))]
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """What follows `dap` in each command of the fenced code of a page, up to the end of that command."""
    lines = "\n".join(FENCED.findall(page)).replace("\\\n", " ").splitlines()
    return [command for line in lines if re.search(r"\bdap ", line) for command in commands_of(line)]


def commands_of(line: str) -> list[str]:
    """Of a line for a shell, which may set variables first, start something that starts `dap`, or be a loop."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = []
    ended = True
    for word in lexer:
        if word == "dap":
            found.append([])
            ended = False
        elif set(word) <= set(";|&<>()"):
            ended = True
        elif not ended:
            found[-1].append(word)
    return [shlex.join(words) for words in found if words]


def check(command: str) -> None:
    """Refuse what the command line would: a wrong name, option, choice or number, and what is missing or too much.

    A value with a `$` stands for another, and a path for a file that is there.

    Raises:
        click.UsageError: with what is wrong.
    """
    context, words = called(shlex.split(command))
    if isinstance(group := context.command, click.Group) and not group.invoke_without_command:
        raise click.UsageError(f"{context.command_path} is a group of commands")
    values, too_much, _ = context.command.make_parser(context).parse_args(words)
    if too_much:
        raise click.UsageError(f"too much: {' '.join(too_much)}")
    for parameter in context.command.params:
        value = values.get(parameter.name)
        if value is None or parameter.value_is_missing(value):
            if parameter.required:
                raise click.MissingParameter(ctx=context, param=parameter)
        elif not isinstance(parameter.type, click.Path) and "$" not in str(value):
            parameter.type_cast_value(context, value)


def check_mention(command: str) -> None:
    """Refuse a command amid the text, which may leave out what it needs, for its name, or an option or its value.

    A value in capitals stands for another.

    Raises:
        click.UsageError: with what is wrong.
    """
    context, words = called([word for word in shlex.split(command) if word != "COMMAND"])
    parameters = context.command.get_params(context)
    by_name = {name: parameter for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}
    for word, value in zip(words, [*words, "-"][1:], strict=True):
        if word.startswith("-"):
            if word not in by_name:
                raise click.NoSuchOption(word, ctx=context)
            if not value.startswith("-") and not value.isupper() and not isinstance(by_name[word].type, click.Path):
                by_name[word].type(value, by_name[word], context)


def called(words: list[str]) -> tuple[click.Context, list[str]]:
    """The sub-command that words call, in its context, and the words that are for it; a group where they end there."""
    context = click.Context(main, info_name="dap")
    while isinstance(group := context.command, click.Group) and words and not words[0].startswith("-"):
        found = group.get_command(context, words[0])
        if found is None:
            raise click.UsageError(f"no command {words[0]} of {context.command_path}")
        context, words = click.Context(found, info_name=words[0], parent=context), words[1:]
    return context, words


def refusals(check: Callable[[str], None], commands: Iterable[str]) -> list[str]:
    refused = []
    for command in commands:
        try:
            check(command)
        except click.UsageError as error:
            refused.append(f"dap {command}: {error.format_message()}")
    return refused


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_command_line_takes_the_commands_of_the_page(page: Path) -> None:
    assert refusals(check, commands(page.read_text())) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_command_line_knows_what_the_text_of_the_page_mentions(page: Path) -> None:
    text = FENCED.sub("", page.read_text())
    mentioned = [command for code in re.findall(r"`(dap [^`]+)`", text) for command in commands_of(code)]
    assert refusals(check_mention, mentioned) == []


def test_commands_are_found_in_every_way_that_pages_write_them() -> None:
    page = """
Amid the text, `dap serve`.

```sh
dap predict pano.jpg -o out   # it's a comment
LIMIT=3 dap models | head
for stage in a b; do torchrun -m -- dap train status --runs "$stage"; done
dap export --model a \\
  --output b
```
"""
    assert commands(page) == [
        "predict pano.jpg -o out",
        "models",
        "train status --runs '$stage'",
        "export --model a --output b",
    ]


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("data curate --shards packed --output out", "--shards"),
        ("data curate packed", "Missing"),
        ("data curate packed more --output out", "too much: more"),
        ("data curat packed", "no command curat of dap data"),
        ("train", "dap train is a group of commands"),
        ("train pipeline --preset papers", "'papers' is not one of"),
        ("export --model a --output b --size 1024", "1024"),
    ],
)
def test_what_the_command_line_would_refuse_is_refused(command: str, error: str) -> None:
    with pytest.raises(click.UsageError) as raised:
        check(command)
    assert error in raised.value.format_message()


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("data curat", "no command curat of dap data"),
        ("data curate --shards X", "--shards"),
        ("render --seed 7 --size 512x1024", "W = 2 H"),
    ],
)
def test_what_is_mentioned_may_be_a_part_of_a_command_but_not_of_another(command: str, error: str) -> None:
    check_mention("render --output OUT --count")
    with pytest.raises(click.UsageError) as raised:
        check_mention(command)
    assert error in raised.value.format_message()
