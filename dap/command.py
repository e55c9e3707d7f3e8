"""The command `dap`: the core's sub-commands, and those that wings bring through the entry-point group `dap.commands`.

A sub-command is imported when it is used, and its help line is read from its source, so that `dap --help` and
`dap predict` never import torch. A wing whose libraries are missing says so when one of its commands is used.
"""

import ast
import importlib
import importlib.util
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

import click

from dap.errors import DapError, InvalidParameter, with_cause

DISTRIBUTION = "depth-any-panorama"
GROUP = "dap.commands"
_CORE = {name: f"dap.commands:{name}" for name in ("models", "predict")}


class Commands(click.Group):
    """Sub-commands by name, each known as `module:function` until it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click passes it
        return sorted(_places())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click passes it
        place = _places().get(cmd_name)
        if place is None:
            return None
        module, _, function = place.partition(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), function)
        except ModuleNotFoundError as error:
            raise click.ClickException(
                f"`dap {cmd_name}` needs {error.name}, which is not installed here. The extras of {DISTRIBUTION} "
                "(train, export, gpu) bring what the core leaves out."
            ) from None
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click passes it
        rows = [(name, _first_line(place)) for name, place in sorted(_places().items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> object:
        """Run; what goes wrong in a way we know of is one line and a status: 2 for a wrong parameter, else 1."""
        try:
            return super().invoke(ctx)
        except InvalidParameter as error:
            raise click.UsageError(str(error)) from error
        except DapError as error:
            raise click.ClickException(with_cause(error)) from error


def _places() -> dict[str, str]:
    return {entry.name: entry.value for entry in entry_points(group=GROUP)} | _CORE


def _first_line(place: str) -> str:
    """The first line of a command's docstring, without importing its module."""
    module, _, function = place.partition(":")
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        return "(not installed)"
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "not installed"


@click.group(
    cls=Commands,
    context_settings={"auto_envvar_prefix": "DAP", "show_default": True, "help_option_names": ["-h", "--help"]},
)
@click.version_option(_version(), prog_name="dap")
def main() -> None:
    """Metric depth from 360° panoramas.

    Every flag has an environment twin, which the help of its command names.
    """
