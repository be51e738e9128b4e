"""The commands of the processes that stay, made of their settings.

A process that starts does not come by here: `antiphon.deploy.__main__` starts it without this library.
"""

from __future__ import annotations

from inspect import Parameter, Signature
from typing import Annotated, Any

import typer

from ..services.declared import Service
from ..services.running import run
from ..services.settings import Setting


def add_service(app: typer.Typer, service: Service) -> None:
    """Add the command of a process to a command line, with an option for each setting that has one."""

    def command(**options: Any) -> None:
        run(service, options)

    shown = sorted((each for each in service.settings if each.has_option), key=lambda each: not each.is_argument)
    parameters = [
        Parameter(each.key, Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(each)) for each in shown
    ]
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined] # PEP 362, which typer reads
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = service.help
    app.command(service.name, epilog=service.epilog)(command)


def _annotation(setting: Setting) -> Any:
    """The option as typer shows it. It takes texts: what they mean is for the settings."""
    help = f"{setting.help} [{', '.join([setting.variable, *_default(setting)])}]"
    if setting.is_argument:
        return Annotated[str | None, typer.Argument(metavar=setting.metavar, help=help, show_default=False)]
    names = [f"--{setting.name}", *filter(None, [setting.short])]
    if setting.kind is bool:
        return Annotated[bool | None, typer.Option(*names, help=help, show_default=False)]
    kind: Any = list[str] if setting.kind is list else str
    return Annotated[kind | None, typer.Option(*names, metavar=setting.metavar, help=help, show_default=False)]


def _default(setting: Setting) -> list[str]:
    if setting.kind is bool or setting.default in (None, "", []):
        return []
    value = f"{setting.default:g}" if isinstance(setting.default, float) else setting.default
    return [f"default: {value}"]
