"""The failure ledger: rows without an embedding, rows that evaluations left out, cells without a number."""

from collections import Counter
from collections.abc import Mapping

from engine.decode.protocol import FAILURE_REASONS
from engine.report.page.blocks import Block, Column, DataTable, Details, Paragraph, Section, Tone, Value
from engine.report.page.evidence import evidence_of, used_features
from engine.report.page.inputs import Gap, PageInput, PageOptions
from engine.report.record_values import number
from stores.json_types import Json

#: State of a gap -> its tone.
_TONES: Mapping[str, Tone] = {"failed": "error", "missing": "warning", "impossible": "note"}
#: Reason why an evaluation left rows out -> in words.
_LEFT_OUT = {
    "failed": "no embedding",
    "unlabelled": "no label",
    "outside_split": "in no split that takes part",
    "only_own_patient": "all neighbours are of the same patient",
}


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the ledger; it is there also where nothing failed, and says so."""
    if not any(source.entries for source in page.sources) and not page.gaps:
        return ()
    blocks: list[Block] = [*_gaps(page.gaps), *_rows(page), *_left_out(page)]
    unreadable = [
        Paragraph(f"{source.name}, record {entry.name}: {entry.error.found}", tone="error")
        for source in page.sources
        for entry in source.entries
        if entry.error is not None
    ]
    blocks = [*unreadable, *blocks]
    if not blocks:
        blocks = [Paragraph("No row failed, and no cell lacks a number.", tone="good")]
    return (Section("failures", "Failures and gaps", tuple(blocks)),)


def _gaps(gaps: tuple[Gap, ...]) -> list[Block]:
    if not gaps:
        return []
    counts = Counter(gap.state for gap in gaps)
    words = ", ".join(f"{counts[state]:,} {state}" for state in _TONES if counts[state])
    rows = tuple(
        (
            Value(gap.dataset),
            Value(gap.model or "all"),
            Value(gap.evaluation),
            Value(gap.mode),
            Value(str(gap.seed), gap.seed),
            Value(gap.state, tone=_TONES.get(gap.state)),
            Value(gap.reason),
            Value(gap.remedy),
        )
        for gap in gaps
    )
    columns = (
        Column("data set"),
        Column("model"),
        Column("evaluation"),
        Column("mode"),
        Column("seed", numeric=True),
        Column("state"),
        Column("reason"),
        Column("remedy"),
    )
    return [DataTable("table-gaps", f"Cells of the study without a number: {words}.", columns, rows)]


def _rows(page: PageInput) -> list[Block]:
    rows, unfinished = [], []
    for one in used_features(page, failures=True):
        if one.description is None:
            continue
        total = int(one.description["counts"]["rows"])
        listed = one.description.get("failures", [])
        counts = Counter(failure["code"] for failure in listed)
        details = {failure["code"]: failure["detail"] for failure in reversed(listed)}
        if not one.description["counts"]["sealed"]:
            unfinished.append(f"{one.model} on {one.source.name}")
        for code, count in sorted(counts.items()):
            rows.append(
                (
                    Value(one.source.name),
                    Value(one.model),
                    Value(code),
                    Value(f"{count:,}", count),
                    Value(f"{100 * count / total:.2g} %", count / total),
                    Value(FAILURE_REASONS.get(code, details[code])),
                )
            )
    blocks: list[Block] = []
    if unfinished:
        blocks.append(Paragraph(f"Embeddings are not finished: {', '.join(unfinished)}.", tone="warning"))
    if rows:
        columns = (
            Column("data set"),
            Column("model"),
            Column("reason"),
            Column("rows", numeric=True),
            Column("share", numeric=True, hint="of all rows of the data set"),
            Column("meaning"),
        )
        caption = "Rows without an embedding, by data set, model and reason; evaluations leave them out."
        blocks.append(DataTable("table-failed-rows", caption, columns, tuple(rows)))
    return blocks


def _left_out(page: PageInput) -> list[Block]:
    """Say which rows evaluations left out, once for evaluations that agree."""
    groups: dict[tuple[str, str, str, int], list[str]] = {}
    for one in evidence_of(page):
        for reason, count in _counts(one.record.failures).items():
            place = (one.source.name, one.model, _LEFT_OUT.get(reason, reason.replace("_", " ")), count)
            groups.setdefault(place, []).append(one.label)
    if not groups:
        return []
    rows = tuple(
        (
            Value(dataset),
            Value(model),
            Value(reason),
            Value(f"{count:,}", count),
            Value(", ".join(dict.fromkeys(labels))),
        )
        for (dataset, model, reason, count), labels in groups.items()
    )
    columns = (
        Column("data set"),
        Column("model"),
        Column("reason"),
        Column("rows", numeric=True),
        Column("evaluations"),
    )
    caption = "Rows that evaluations left out, with the evaluations that did."
    table = DataTable("table-left-out", caption, columns, rows)
    return [Details("details-left-out", f"Rows left out by evaluations ({len(rows):,} lines)", (table,))]


def _counts(failures: Mapping[str, Json]) -> dict[str, int]:
    """Return the positive counts by reason; of several label columns the largest."""
    counts: dict[str, int] = {}
    for name, value in failures.items():
        inner = value if isinstance(value, dict) else {name: value}
        for reason, count in inner.items():
            rows = number(count)
            if rows > 0:
                counts[str(reason)] = max(counts.get(str(reason), 0), int(rows))
    return counts
