"""Issues that limit what numbers mean, as they are printed before the numbers."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.report import console
from engine.report.json_parts import objects
from stores.json_types import Json
from stores.manifest.uri_policy import plain

#: Issues of one code that are printed in full; of more, only what they concern is.
_IN_FULL = 2
#: Names that a line lists.
_NAMES = 6


def print_validity(reports: Sequence[Mapping[str, Any]]) -> None:
    """Print errors and warnings, a line each, and the codes of notes; nothing where there are none.

    Args:
        reports: with `model` and `validity`.
    """
    models_of: dict[tuple[str, str, str, str], list[str]] = {}
    for report in reports:
        for one in _issues(report):
            names = models_of.setdefault(one, [])
            names.append(str(report.get("model", "")))
    for line in _lines(models_of, len({str(report.get("model", "")) for report in reports})):
        for part in _wrapped(plain(line), console.width()):
            console.write(part)


def _wrapped(text: str, width: int) -> list[str]:
    """Wrap a line; tables, which know wide characters, are imported only where there may be some."""
    if text.isascii():
        return textwrap.wrap(text, max(width, 20), break_on_hyphens=False)
    from engine.report import tables

    return tables.wrapped(text, width)


def _issues(report: Mapping[str, Any]) -> Iterable[tuple[str, str, str, str]]:
    validity: Json = report.get("validity") or []
    return dict.fromkeys(
        (str(one["severity"]), str(one["code"]), str(one["subject"]), str(one["sentence"]))
        for one in objects(validity)
    )


def _lines(models_of: Mapping[tuple[str, str, str, str], list[str]], models: int) -> Iterable[str]:
    by_code: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for (severity, code, subject, sentence), names in models_of.items():
        distinct = list(dict.fromkeys(names))
        whose = [] if len(distinct) == models else [_listed(distinct)]
        start = ", ".join([*whose, *([subject] if subject else [])])
        by_code.setdefault((severity, code), []).append((start, sentence))
    for severity in ("error", "warning"):
        for (level, code), sentences in by_code.items():
            if level == severity:
                yield from (f"{severity}: {text}" for text in _shortened(code, sentences))
    notes = [code.replace("_", " ") for level, code in by_code if level == "note"]
    if notes:
        yield f"note: {', '.join(dict.fromkeys(notes))}"


def _shortened(code: str, issues: Sequence[tuple[str, str]]) -> Sequence[str]:
    """Return the issues of a code as sentences; many as one sentence that lists what they concern.

    Args:
        issues: (what it concerns, sentence); the former is empty for an issue of all models.
    """
    if len(issues) <= _IN_FULL:
        return [f"{start}: {sentence}" if start else sentence for start, sentence in issues]
    concerned = list(dict.fromkeys(start or "all models" for start, _ in issues))
    return [f"{code.replace('_', ' ')} ({len(issues)}): {_listed(concerned)}"]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more
