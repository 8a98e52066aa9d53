"""How a command is declared: options with a panel each, in frozen dataclasses where they are many.

    @dataclass(frozen=True)
    class Machine:
        device: Device = "auto"
        threads: Threads = None

    @command(app)
    def embed(manifest: ManifestPath, machine: Machine) -> None: ...

typer sees `embed(*, manifest, device="auto", threads=None)`; the function gets a `Machine` of what was given.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

#: The panels of every command's help, in this order.
WHAT, PROTOCOL, MACHINE, OUTPUT = "What", "Protocol", "Machine", "Output"
_PANELS = (WHAT, PROTOCOL, MACHINE, OUTPUT)
#: The panel of the options of `embank` itself, where typer puts its own.
GENERAL = "Options"

_Function = TypeVar("_Function", bound=Callable[..., None])


def option(panel: str, *names: str, help: str, **settings: Any) -> Any:
    """Declare an option, to stand in an `Annotated`.

    Args:
        panel: of the help, one of the names above.
        names: as `typer.Option` takes them; made of the parameter's name if none is given.
        help: one sentence or more.
        settings: of `typer.Option`. `show_default="TEXT"` says what is done where the option is left out.
    """
    if "min" in settings:
        settings.setdefault("metavar", "N")  # `<int range>` leaves little room for the help
    return typer.Option(*names, help=help, rich_help_panel=panel, **settings)


def command(app: typer.Typer, name: str | None = None, **settings: Any) -> Callable[[_Function], _Function]:
    """Register a function, its dataclasses expanded, as a command; the function itself stays as it is.

    Args:
        app: the group that the command is in.
        name: of the command; made of the function's name if it is left out.
        settings: of `typer.Typer.command`.
    """

    def register(function: _Function) -> _Function:
        app.command(name, cls=_Command, **settings)(expanded(function))
        return function

    return register


def expanded(function: Callable[..., None]) -> Callable[..., None]:
    """The function with the fields of its dataclasses as keyword parameters instead, in the panels' order.

    Raises:
        TypeError: an annotation is a text (`from __future__ import annotations`), or two parameters have the
            same name.
    """
    made: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        if is_dataclass(parameter.annotation):
            made[parameter.name] = parameter.annotation
            parameters += [_parameter(each) for each in fields(parameter.annotation)]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    if any(isinstance(parameter.annotation, str) for parameter in parameters):
        raise TypeError(f"{function.__name__}: annotations are texts, and typer would have to look them up")
    names = [parameter.name for parameter in parameters]
    if len(set(names)) < len(names):
        raise TypeError(f"{function.__name__} has two parameters of one name: {names}")
    built = {name: [each.name for each in fields(kind)] for name, kind in made.items()}

    @functools.wraps(function)
    def run(**values: Any) -> None:
        given = {name: made[name](**{each: values.pop(each) for each in built[name]}) for name in made}
        function(**given, **values)

    run.__signature__ = inspect.Signature(sorted(parameters, key=_place))  # type: ignore[attr-defined]
    run.__doc__ = "\n\n".join(" ".join(part.split()) for part in (function.__doc__ or "").split("\n\n"))
    run.__annotations__ = {}  # the signature has all of it, and typer would look through them twice
    return run


def _parameter(field: Field[Any]) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type
    )


def _place(parameter: inspect.Parameter) -> int:
    """The place of a parameter's panel; arguments and the context, which have none, are first."""
    for info in getattr(parameter.annotation, "__metadata__", ()):
        if info.rich_help_panel in _PANELS:
            return 1 + _PANELS.index(info.rich_help_panel)
    return 0


class _Command(TyperCommand):
    """A command whose help has `--help` in the last panel, and no column for `--no-` forms.

    By itself typer gives `--help` a panel before all others, and the `--no-` forms a column that leaves the
    other options little room; here the sentence on an option names them.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        before = [param.secondary_opts for param in self.params]
        for param in self.params:
            param.secondary_opts = []
        try:
            super().format_help(ctx, formatter)
        finally:
            for param, words in zip(self.params, before, strict=True):
                param.secondary_opts = words

    def get_help_option(self, ctx: Any) -> Any:
        found: Any = super().get_help_option(ctx)
        if found is not None:
            found.rich_help_panel = OUTPUT
        return found
