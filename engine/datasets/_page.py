"""The facts of a data set as a page of text for the terminal."""

import textwrap
from collections.abc import Iterable

from engine.datasets._protocol import Facts

_WIDTH = 100


def page(facts: Facts) -> str:
    """Format all facts as text of at most 100 columns, in the order in which users need them."""
    counts = [f"{facts.images:,} images" if facts.images else "your own images"]
    counts += [f"{label or '(no label)'}: {count:,}" for label, count in facts.classes.items()]
    sections = (
        ("source", [facts.source]),
        ("licence", [facts.licence]),
        ("download", [f"{number}. {step}" for number, step in enumerate(facts.download, 1)]),
        ("counts (mode default)", counts),
        ("labels", [facts.label]),
        ("splits", [facts.splits]),
        ("groups", [facts.groups]),
        ("traps", [f"- {caveat}" for caveat in facts.caveats]),
        ("how this is known", [facts.checked]),
    )
    parts = [f"{facts.name}: {facts.title}"]
    parts += [_section(title, _wrapped(lines)) for title, lines in sections if any(lines)]
    if facts.layout:
        parts.insert(
            4 if facts.download else 3, _section("layout", [f"  {line}".rstrip() for line in facts.layout])
        )
    parts.append(_section("command", [_command(facts)]))
    if facts.options:
        parts.append(_section("options (-O NAME=VALUE)", _options(facts)))
    return "\n\n".join(parts)


def _section(title: str, lines: Iterable[str]) -> str:
    return "\n".join([title, *lines])


def _wrapped(lines: Iterable[str]) -> list[str]:
    return [
        textwrap.fill(
            line,
            _WIDTH,
            initial_indent="  ",
            subsequent_indent="    " if line[:1] in "-123456789" else "  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines
    ]


def _command(facts: Facts) -> str:
    mode = " [--mode as-published]" if "as-published" in facts.modes else ""
    return f"  embank manifest build {facts.name} ROOT -o {facts.name}.parquet{mode}"


def _options(facts: Facts) -> list[str]:
    lines = []
    for option in facts.options:
        values = f" ({' | '.join(option.values)})" if option.values else ""
        default = f" [{option.default}]" if option.default else ""
        lines += _wrapped([f"{option.name}{default}: {option.help}{values}"])
    return lines
