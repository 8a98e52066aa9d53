"""What limits the numbers, before any of them: issues by code, results that were not checked, gaps."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from engine.report.json_parts import objects
from engine.report.page.blocks import Block, Column, DataTable, Details, Paragraph, Section, Tone, Value
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.results import Result, results_of
from engine.report.page.room import fitting

#: Severity -> tone, the gravest first.
_TONES: dict[str, Tone] = {"error": "error", "warning": "warning", "note": "note"}
_PLURALS = {"error": "problem", "warning": "caution", "note": "note"}
_MEANING = (
    "A problem means that the number is no evidence; a caution, that it may mislead; a note is good to know."
)
#: Share of the page that the list of all issues may take.
_SHARE = 0.08
#: Places that a box names.
_NAMED = 4


@dataclass(frozen=True)
class Issue:
    """One issue of one result.

    Attributes:
        result: that it limits.
        code, severity, sentence, rule, remedy, subject: as the record has them.
    """

    result: Result
    code: str
    severity: str
    sentence: str
    rule: str
    remedy: str
    subject: str

    @property
    def title(self) -> str:
        """The code in words."""
        words = self.code.replace("_", " ")
        return words[:1].upper() + words[1:]


def issues_of(results: Sequence[Result]) -> list[Issue]:
    """Return the issues of all results, the gravest first, then the most frequent."""
    issues = [
        Issue(one, *(str(body.get(name) or "") for name in _FIELDS))
        for one in results
        for body in objects(list(one.record.validity or []))
    ]
    counts = Counter(issue.code for issue in issues)
    order = list(_TONES)
    return sorted(issues, key=lambda i: (order.index(i.severity), -counts[i.code], i.code))


_FIELDS = ("code", "severity", "sentence", "rule", "remedy", "subject")


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section, if there are results or gaps."""
    results = results_of(page)
    if not results and not page.gaps:
        return ()
    issues = issues_of(results)
    blocks: list[Block] = [Paragraph(_summary(results, issues))]
    blocks += _unchecked(results)
    blocks += _gaps(page)
    blocks += _boxes(results, issues)
    if issues:
        table = _codes(results, issues)
        every = fitting(_table(issues), options, _SHARE, 1)
        kinds = f"{len(table.rows)} kinds of issue: where they are, what should hold, what to do"
        blocks.append(Details("issues", kinds, (table,)))
        blocks.append(Details("every-issue", f"All {len(issues):,} issues, by result", (every,)))
    return (Section("validity", "Is it valid?", tuple(blocks)),)


def _summary(results: Sequence[Result], issues: Sequence[Issue]) -> str:
    checked = sum(one.record.validity is not None for one in results)
    if not results:
        return "There are no results to check."
    if not checked:
        return "None of the results was checked."
    concerned = {
        severity: len({id(i.result) for i in issues if i.severity == severity}) for severity in _TONES
    }
    words = [f"{_PLURALS[s]}s in {count:,}" for s, count in concerned.items() if count]
    if not words:
        return f"{checked:,} results were checked, and no issue was seen."
    if not concerned["error"] and not concerned["warning"]:
        return f"{checked:,} results were checked: no problem and no caution, {words[0]}. {_MEANING}"
    return f"{checked:,} results were checked: {', '.join(words)} of them. {_MEANING}"


def _unchecked(results: Sequence[Result]) -> list[Block]:
    old = [one for one in results if one.record.validity is None]
    if not old:
        return []
    text = (
        f"{len(old):,} of {len(results):,} results were not checked, since their records are of an earlier "
        f"version of embank: {_places(old)}. Evaluate again to have them checked."
    )
    return [Paragraph(text, "warning")]


def _gaps(page: PageInput) -> list[Block]:
    failed = [gap for gap in page.gaps if gap.state == "failed"]
    missing = [gap for gap in page.gaps if gap.state == "missing"]
    blocks: list[Block] = []
    if failed:
        first = failed[0]
        where = ", ".join(filter(None, (first.dataset, first.model, first.evaluation)))
        what = "result" if len(failed) == 1 else "results"
        text = f"{len(failed):,} {what} could not be made or read. {where}: {first.reason}."
        blocks.append(Paragraph(text, "error"))
    if missing:
        text = f"{len(missing):,} results of the study are not made yet: what is said here may change."
        blocks.append(Paragraph(text, "warning"))
    return blocks


def _boxes(results: Sequence[Result], issues: Sequence[Issue]) -> list[Block]:
    """Return a box for the results that are no evidence, and one for those that may mislead."""
    blocks: list[Block] = []
    for severity, say in (("error", "are no evidence"), ("warning", "may mislead")):
        own = [issue for issue in issues if issue.severity == severity]
        codes = _by_code(own).values()
        if severity == "error":
            words = [f"{one[0].title.lower()} ({_places(_results(one))})" for one in codes]
        else:
            words = [f"{one[0].title.lower()} ({len(_results(one))})" for one in codes]
        if own:
            text = f"{len(_results(own)):,} of {len(results):,} results {say}: {'; '.join(words)}."
            blocks.append(Paragraph(text, _TONES[severity]))
    return blocks


def _by_code(issues: Sequence[Issue]) -> dict[tuple[str, str], list[Issue]]:
    codes: dict[tuple[str, str], list[Issue]] = {}
    for issue in issues:
        codes.setdefault((issue.severity, issue.code), []).append(issue)
    return codes


def _results(issues: Sequence[Issue]) -> list[Result]:
    return list({id(issue.result): issue.result for issue in issues}.values())


def _codes(results: Sequence[Result], issues: Sequence[Issue]) -> DataTable:
    """Return a row for each code: how often, where, what should hold and what to do."""
    columns = (
        Column("issue"),
        Column("severity"),
        Column("results", numeric=True, hint="How many have it"),
        Column("where"),
        Column("what should hold"),
        Column("what to do"),
    )
    rows = []
    for (severity, _), own in _by_code(issues).items():
        concerned = _results(own)
        first = own[0]
        rows.append(
            (
                Value(first.title, reason=f"For instance, {concerned[0].model}: {first.sentence}"),
                Value(_PLURALS[severity], tone=_TONES[severity]),
                Value(f"{len(concerned):,}", float(len(concerned))),
                Value(_places(concerned)),
                Value(first.rule),
                Value(first.remedy),
            )
        )
    caption = f"Issues of {len(results):,} results, the gravest first."
    return DataTable("table-issues", caption, columns, tuple(rows))


def _places(results: Sequence[Result]) -> str:
    several = len({one.dataset for one in results}) > 1
    counts = Counter(
        " ".join(
            filter(None, (one.dataset * several, one.protocol, "as published" * (one.mode != "default")))
        )
        for one in results
    )
    named = [f"{name}: {count} model{'s' * (count > 1)}" for name, count in counts.items()]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return "; ".join(named[:_NAMED]) + more


def _table(issues: Sequence[Issue]) -> DataTable:
    columns = tuple(
        map(Column, ("issue", "severity", "data set", "evaluation", "mode", "model", "what was met"))
    )
    rows = tuple(
        (
            Value(issue.title),
            Value(_PLURALS[issue.severity], tone=_TONES[issue.severity]),
            Value(issue.result.dataset),
            Value(issue.result.protocol),
            Value(issue.result.mode),
            Value(issue.result.model),
            Value(f"{issue.subject}: {issue.sentence}" if issue.subject else issue.sentence),
        )
        for issue in issues
    )
    return DataTable("table-validity", "Every issue of every result.", columns, rows)
