"""The directive `cli-reference`: every command, argument and option, as the command line itself knows them.

    ```{cli-reference}
    ```

Commands come from the tree that `embank` runs, so none can be missing or out of date. Importing it needs
neither torch nor a network.
"""

from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_NOT_SHOWN = ("help", "install_completion", "show_completion")


def tree() -> Any:
    """Build the command tree of `embank`."""
    from typer.main import get_command

    import cli

    return get_command(cli.app)


def commands(command: Any, words: tuple[str, ...] = ("embank",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (words, command) of a command and all below it, in the order of the help, without hidden ones."""
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from commands(inner, (*words, name))


def _is_shown(parameter: Any) -> bool:
    return parameter.name not in _NOT_SHOWN and not getattr(parameter, "hidden", False)


def described(words: tuple[str, ...], command: Any) -> str:
    """Describe a command in Markdown: a heading, what it does, how it is called, a table of its options."""
    level = "#" * min(len(words) + 1, 4)
    lines = [f"{level} {' '.join(words)}", "", _cell(command.help or command.short_help or ""), ""]
    parameters = [parameter for parameter in command.params if _is_shown(parameter)]
    arguments = [parameter for parameter in parameters if parameter.param_type_name == "argument"]
    options = [parameter for parameter in parameters if parameter.param_type_name == "option"]
    if not getattr(command, "commands", {}):
        usage = " ".join([*words, *(["[OPTIONS]"] if options else []), *map(_argument, arguments)]).replace(
            "\\", ""
        )
        lines += ["```text", usage, "```", ""]
    for panel in dict.fromkeys(_panel(parameter) for parameter in parameters):
        lines += [panel, ""] if panel else []
        lines += ["| argument or option | takes | default | what |", "| --- | --- | --- | --- |"]
        shown = [parameter for parameter in arguments if _panel(parameter) == panel]
        lines += [_row(f"`{_argument(parameter)}`", parameter) for parameter in shown]
        shown = [parameter for parameter in options if _panel(parameter) == panel]
        lines += [_row(_names(parameter), parameter) for parameter in shown]
        lines.append("")
    return "\n".join(lines)


def _panel(parameter: Any) -> str:
    """Return the heading under which the help shows a parameter; empty if there is none."""
    panel = getattr(parameter, "rich_help_panel", None)
    return panel if isinstance(panel, str) else ""


def _argument(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name.upper()).strip("{}[]")
    return name.replace("|", r"\|") if parameter.required else f"[{name}]"


def _names(option: Any) -> str:
    names = sorted(option.opts, key=lambda name: not name.startswith("--"))
    return ", ".join(f"`{name}`" for name in [*names, *option.secondary_opts])


def _row(name: str, parameter: Any) -> str:
    description = _cell(getattr(parameter, "help", "") or "")
    return f"| {name} | {_takes(parameter)} | {_default(parameter)} | {description} |"


def _takes(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return ""
    kind = parameter.type
    if getattr(kind, "choices", None):
        words = [getattr(choice, "value", choice) for choice in kind.choices]
        text = ", ".join(f"`{word}`" for word in words)
    elif " range" in kind.name:
        text = kind.name.removesuffix(" range") + (f", at least {kind.min}" if kind.min is not None else "")
        text += f", at most {kind.max}" if kind.max is not None else ""
    else:
        text = str(parameter.metavar or kind.name).lower().strip("{}").replace("|", r"\|")
    return f"{text}; repeatable" if getattr(parameter, "multiple", False) else text


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = getattr(parameter, "show_default", None)
    if isinstance(value, str):
        return _cell(value)
    value = parameter.default
    if isinstance(value, bool) and parameter.secondary_opts:
        return f"`{(parameter.opts if value else parameter.secondary_opts)[0]}`"
    if (
        value in (None, "")
        or callable(value)
        or isinstance(value, (bool, list, tuple))
        or repr(value) == "Sentinel.UNSET"
    ):
        return ""
    return f"`{getattr(value, 'value', value)}`"


def _cell(text: str) -> str:
    text = " ".join(str(text).split()).replace("|", r"\|")
    return text.replace("<", "&lt;").replace("$", r"\$").replace("*", r"\*")


class CliReference(SphinxDirective):
    """Put the description of every command here."""

    has_content = False

    def run(self) -> list[Any]:
        text = "\n".join(described(words, command) for words, command in commands(tree()))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("cli-reference", CliReference)
    return {"parallel_read_safe": True}
