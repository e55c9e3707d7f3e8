"""Command-line options that several sub-commands share."""

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from dap.engines import ENGINES, PRECISIONS
from dap.models import DEFAULT_MODEL

Command = TypeVar("Command", bound=Callable[..., Any])

option = functools.partial(click.option, show_envvar=True)
"""`click.option` whose help names the environment twin."""


class PixelSize(click.ParamType[tuple[int, int] | str]):
    """WxH in pixels with W = 2 H, converted to (h, w); or one of some words."""

    name = "size"

    def __init__(self, *words: str) -> None:
        self._words = words

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002 - click passes them
        return "|".join((*self._words, "WxH"))

    def convert(
        self, value: tuple[int, int] | str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int] | str:
        if isinstance(value, tuple) or value in self._words:
            return value
        match = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", value)
        if match is None or int(match[1]) != 2 * int(match[2]):
            expected = ", ".join((*self._words, "WxH in pixels with W = 2 H"))
            self.fail(f"{value!r} is not one of: {expected}", param, ctx)
        return int(match[2]), int(match[1])


threads_option = option(
    "--threads",
    type=click.IntRange(min=1),
    envvar="DAP_THREADS",
    help="Cores that work on one panorama on the CPU; by default all that this process may use.",
)
json_option = option("--json", "as_json", is_flag=True, envvar="DAP_JSON", help="Print one JSON document, for scripts.")


def engine_options(command: Command) -> Command:
    """`--model`, `--engine`, `--device`, `--threads` and `--precision`, as `dap.predictor.Predictor` takes them."""
    options = (
        option(
            "--model",
            default=DEFAULT_MODEL,
            envvar="DAP_MODEL",
            help="A name that `dap models` lists, or a model's file.",
        ),
        option(
            "--engine",
            type=click.Choice(ENGINES),
            default="auto",
            envvar="DAP_ENGINE",
            help="What runs it; auto: what its file is for.",
        ),
        option(
            "--device",
            default="auto",
            envvar="DAP_DEVICE",
            help="cpu, cuda or cuda:N; auto: a GPU where there is one.",
        ),
        threads_option,
        option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default="fp32",
            envvar="DAP_PRECISION",
            help="Of the torch engine.",
        ),
    )
    for decorate in reversed(options):
        command = decorate(command)
    return command
