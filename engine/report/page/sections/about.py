"""The last section: what the page was made from, and how to read it."""

from collections.abc import Iterable, Iterator

from engine.report.page.blocks import Block, Column, Command, DataTable, Details, Paragraph, Section, Value
from engine.report.page.inputs import PageInput, PageOptions, Source
from stores.bank.records import RunRecord
from stores.json_types import Json

_READING = (
    "Intervals are 95 % intervals. Differences between models are paired: both models answer for the same "
    "images, and patients are resampled where they are known, else images. p values are adjusted for all "
    "pairs of a comparison by Holm's method.",
    "Numbers are rounded for reading. The CSV files that the buttons give have them in full precision.",
    "This file makes no request: it has everything in it, and its content security policy forbids the rest.",
)


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section."""
    blocks: list[Block] = [Paragraph(text) for text in _READING]
    blocks.append(_sources(page))
    if page.study:
        blocks.append(Details("study-file", "The study file", (Command(page.study.rstrip("\n")),)))
    return (Section("about", "About this page", tuple(blocks)),)


def made(page: PageInput, options: PageOptions) -> tuple[str, ...]:
    """Return the lines of the footer."""
    versions = sorted({str(record.versions.get("embank", "")) for record in _records(page)} - {""})
    lines = [
        f"Made by embank from {_count(page):,} records"
        + (f", embank {', '.join(versions)}" if versions else "")
    ]
    if options.timings and (dates := sorted(record.created for record in _records(page))):
        lines.append(
            f"The records were made from {dates[0][:16].replace('T', ' ')} to "
            f"{dates[-1][:16].replace('T', ' ')} UTC."
        )
    return tuple(lines)


def _records(page: PageInput) -> Iterator[RunRecord]:
    for source in page.sources:
        yield from (entry.record for entry in source.entries if entry.record is not None)


def _count(page: PageInput) -> int:
    return sum(1 for _ in _records(page))


def _sources(page: PageInput) -> DataTable:
    columns = (
        Column("data set"),
        Column("records", numeric=True),
        Column("images (digest)", hint="First digits of the SHA-256 over the images' ids and contents"),
        Column(
            "manifest (digest)",
            hint="First digits of the SHA-256 of the manifest: ids, labels, splits, groups",
        ),
    )
    rows = tuple(_source_row(source) for source in page.sources)
    return DataTable(
        "table-sources", "Data sets, and the records that this page is drawn from.", columns, rows
    )


def _source_row(source: Source) -> tuple[Value, ...]:
    records = [entry.record for entry in source.entries if entry.record is not None]
    return (
        Value(source.name),
        Value(f"{len(records):,}", float(len(records))),
        _digests(record.used.get("image_digest") for record in records),
        _digests(record.used.get("manifest_digest") for record in records),
    )


def _digests(values: Iterable[Json]) -> Value:
    digests = sorted({value[:12] for value in values if isinstance(value, str) and value})
    return Value(", ".join(digests) or "–")
