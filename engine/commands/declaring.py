"""Declaration of commands: options with a panel each, in frozen dataclasses where they are many.

    class Machine(Options):
        device: Device = "auto"
        threads: Threads = None

    @command(app)
    def embed(manifest: ManifestPath, machine: Machine) -> None: ...

typer sees `embed(*, manifest, device="auto", threads=None)`; the function gets a `Machine` of what was given.
A command that is not run costs next to nothing: its parameters and dataclasses are made when they are needed.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, dataclass_transform

import typer
from typer.core import TyperCommand
from typer.main import get_callback, get_params_convertors_ctx_param_name_from_function

from stores.errors import Refused
from stores.manifest.uri_policy import shown

#: The panels of every command's help, in this order.
WHAT, PROTOCOL, MACHINE, OUTPUT = "What", "Protocol", "Machine", "Output"
_PANELS = (WHAT, PROTOCOL, MACHINE, OUTPUT)
#: The panel of the options of `embank` itself, where typer puts its own.
GENERAL = "Options"

_Function = TypeVar("_Function", bound=Callable[..., None])


@dataclass_transform(frozen_default=True)
class Options:
    """Options of a command that belong together; a class derived from it is a frozen dataclass.

    It becomes one when the first is made: that takes half a millisecond, and only one command is run.
    """

    def __init__(self, *args: Any, **values: Any) -> None:
        # In place: from now on the class has an `__init__` of its own.
        made: Any = dataclass(frozen=True)(type(self))
        made.__init__(self, *args, **values)


def option(panel: str, *names: str, help: str, **settings: Any) -> Any:
    """Declare an option for use in an `Annotated`.

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
    """Register a function, with its `Options` expanded, as a command; the function itself is unchanged.

    Args:
        app: the group that the command is in.
        name: of the command; made of the function's name if it is left out.
        settings: of `typer.Typer.command`.
    """

    def register(function: _Function) -> _Function:
        def described() -> None: ...

        described.__name__ = function.__name__
        paragraphs = (function.__doc__ or "").split("\n\n")
        described.__doc__ = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        kind: Any = functools.partial(_Command, function=function)
        app.command(name, cls=kind, **settings)(described)
        return function

    return register


def expanded(function: Callable[..., None]) -> Callable[..., None]:
    """Return the function with the fields of its `Options` as keyword parameters, in the panels' order.

    Raises:
        TypeError: an annotation is a text (`from __future__ import annotations`), or two parameters have the
            same name.
    """
    made: dict[str, type[Options]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        if isinstance(parameter.annotation, type) and issubclass(parameter.annotation, Options):
            made[parameter.name] = parameter.annotation
            parameters += _fields(parameter.annotation)
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    if any(isinstance(parameter.annotation, str) for parameter in parameters):
        raise TypeError(f"{function.__name__}: annotations are texts, and typer would have to look them up")
    names = [parameter.name for parameter in parameters]
    if len(set(names)) < len(names):
        raise TypeError(f"{function.__name__} has two parameters of one name: {names}")

    @functools.wraps(function)
    def run(**values: Any) -> None:
        options = {
            name: kind(**{field: values.pop(field) for field in kind.__annotations__})
            for name, kind in made.items()
        }
        function(**options, **values)

    run.__signature__ = inspect.Signature(sorted(parameters, key=_place))  # type: ignore[attr-defined]
    run.__annotations__ = {}  # the signature has all of it, and typer would look through them twice
    return run


def _fields(kind: type[Options]) -> list[inspect.Parameter]:
    """Return the fields of a class of options as parameters."""
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=vars(kind).get(name, inspect.Parameter.empty),
            annotation=annotation,
        )
        for name, annotation in kind.__annotations__.items()
    ]


def _place(parameter: inspect.Parameter) -> int:
    """Return the place of a parameter's panel; arguments and the context, which have none, are first."""
    for info in getattr(parameter.annotation, "__metadata__", ()):
        if info.rich_help_panel in _PANELS:
            return 1 + _PANELS.index(info.rich_help_panel)
    return 0


def _refuse_in_words(kind: Any) -> None:
    """Make the type of a choice refuse an unknown word with value, rule and remedy."""
    words, usual = list(getattr(kind, "choices", ())), kind.convert
    if not words:
        return

    def convert(value: Any, param: Any, context: Any) -> Any:
        value = getattr(kind, "former", {}).get(value, value)
        if value not in words:
            name = max(param.opts, key=len)
            rule = f"It is {', '.join(words[:-1])} or {words[-1]}"
            raise Refused(f"{name} {shown(str(value))}", rule, f"write for instance {name} {words[0]}")
        return usual(value, param, context)

    kind.convert = convert


class _Command(TyperCommand):
    """A command whose parameters are made when they are needed.

    Its help has `--help` in the last panel, where typer gives it one before all others, and no column for
    `--no-` forms, which leaves the other options little room: the sentence on an option names them.
    """

    def __init__(self, *args: Any, function: Callable[..., None], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._function = function
        del self.params, self.callback  # those of `described`; see `__getattr__`

    def __getattr__(self, name: str) -> Any:
        if name not in ("params", "callback"):
            raise AttributeError(name)
        run = expanded(self._function)
        params, convertors, context = get_params_convertors_ctx_param_name_from_function(run)
        callback = get_callback(
            callback=run,
            params=params,
            convertors=convertors,
            context_param_name=context,
            pretty_exceptions_short=False,
        )
        for param in params:
            _refuse_in_words(param.type)
        for attribute, value in (("params", params), ("callback", callback)):
            self.__dict__.setdefault(attribute, value)  # a callback that was set before stays
        return self.__dict__[name]

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
        option: Any = super().get_help_option(ctx)
        if option is not None:
            option.rich_help_panel = OUTPUT
        return option
