"""The sub-command `dap serve`. Each flag is a field of `Settings`, and so has an environment twin `DAP_<NAME>`.

A secret has no flag: every user of the machine can read the command lines of all processes.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

import click
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from service.memory import keep_what_is_freed
from service.settings import Settings


def _flag(name: str, field: FieldInfo) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        f"--{name.replace('_', '-')}",
        name,
        type=_click_type(field.annotation),
        envvar=f"DAP_{name.upper()}",
        show_envvar=True,
        default=field.default,
        show_default=field.default is not None,
        help=field.description,
    )


def _click_type(annotation: Any) -> click.ParamType[Any]:
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    kinds = (annotation, *get_args(annotation))
    return click.FLOAT if float in kinds else click.INT if int in kinds else click.STRING


def _flags(command: Callable[..., None]) -> Callable[..., None]:
    for name, field in reversed(Settings.model_fields.items()):
        if SecretStr not in get_args(field.annotation):
            command = _flag(name, field)(command)
    return command


@click.command()
@_flags
def serve(**flags: Any) -> None:
    """Serve metric depth and point clouds of panoramas over HTTP.

    The port answers at once; /readyz says when the model is loaded and warm. SIGTERM finishes what was accepted and
    exits with 0.
    """
    try:
        settings = Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise click.UsageError("; ".join(_complaint(dict(detail)) for detail in error.errors())) from None
    keep_what_is_freed()
    # What serves takes half a second to import; `dap --help` should not.
    from service.server import run

    try:
        status = run(settings)
    except OSError as error:
        raise click.ClickException(error.strerror or str(error)) from None
    raise SystemExit(status)


def _complaint(detail: dict[str, Any]) -> str:
    if not detail["loc"]:
        return str(detail["msg"])
    name = str(detail["loc"][0])
    return f"--{name.replace('_', '-')} (DAP_{name.upper()}): {detail['msg']}; got {detail['input']!r}"
