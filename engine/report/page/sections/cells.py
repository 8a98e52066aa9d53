"""What made each number: key, seed, device, versions, record, and the command that computes it again."""

import shlex
from collections.abc import Mapping

from engine.report.page.blocks import Block, Column, DataTable, Details, Paragraph, Section, Value
from engine.report.page.commands import command_of
from engine.report.page.evidence import Evidence, evidence_of
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.record_values import text
from stores.json_types import Json

#: Digits of a key that are shown; the rest is in the record.
_DIGITS = 12


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return a line for each cell, folded by data set, and the versions that made them."""
    cells = evidence_of(page)
    if not cells:
        return ()
    versions = _version_sets(cells)
    blocks: list[Block] = [
        Paragraph(
            "Each number of this page comes from one record. The key is the digest of everything that its "
            "features depend on (weights, preprocessing, decoder, precision, images). Commands run in the "
            "folder of the bank; options that have their default are left out."
        )
    ]
    for position, source in enumerate(page.sources, start=1):
        own = [cell for cell in cells if cell.source is source]
        if own:
            table = _table(f"table-cells-{position}", own, page, options, versions)
            summary = f"{source.name}: {len(own):,} cell{'s' * (len(own) != 1)}"
            blocks.append(Details(f"details-cells-{position}", summary, (table,)))
    blocks.append(_software(versions))
    return (Section("cells", "What made each number", tuple(blocks)),)


def _version_sets(cells: tuple[Evidence, ...]) -> dict[str, tuple[str, Mapping[str, Json]]]:
    """Name each different set of versions: their text -> (name, versions)."""
    sets: dict[str, tuple[str, Mapping[str, Json]]] = {}
    for cell in cells:
        sets.setdefault(_text_of(cell.record.versions), (f"V{len(sets) + 1}", cell.record.versions))
    return sets


def _text_of(versions: Mapping[str, Json]) -> str:
    return ", ".join(f"{package} {version}" for package, version in sorted(versions.items()))


def _table(
    id: str,
    cells: list[Evidence],
    page: PageInput,
    options: PageOptions,
    versions: Mapping[str, tuple[str, Mapping[str, Json]]],
) -> DataTable:
    """Return the table of one data set."""
    columns = [
        Column("model"),
        Column("evaluation"),
        Column("seed", numeric=True),
        Column("key", hint="first digits of the digest of what the features depend on"),
        Column("device"),
        Column("versions", hint="a set of the table below"),
        *([Column("record", hint="id, as `embank records show` takes it")] if options.timings else []),
        Column("command"),
    ]
    rows = tuple(_row(cell, page, options, versions) for cell in cells)
    caption = f"Cells of {cells[0].source.name}; its bank is {_bank_of(cells[0])}."
    return DataTable(id, caption, tuple(columns), rows)


def _row(
    cell: Evidence,
    page: PageInput,
    options: PageOptions,
    versions: Mapping[str, tuple[str, Mapping[str, Json]]],
) -> tuple[Value, ...]:
    used, seed = cell.record.used, cell.seed
    # The key of an embedding run is spelled out in its record; the feature's name ends in its digest.
    key = text(used.get("key")) or cell.entry.feature.rpartition(".")[2]
    command = _local(page.commands.get(cell.entry.id, ""), _bank_of(cell)) or command_of(
        cell.record, _bank_of(cell), ids=options.thumbnails
    )
    device = " ".join(filter(None, (text(used.get("device")), text(used.get("precision")))))
    return (
        Value(cell.model or "all"),
        Value(cell.label),
        Value("–") if seed is None else Value(str(seed), seed),
        Value(key[:_DIGITS] or "–"),
        Value(device or "–"),
        Value(versions[_text_of(cell.record.versions)][0]),
        *([Value(cell.entry.id or "–")] if options.timings else []),
        Value(command or "–"),
    )


def _bank_of(cell: Evidence) -> str:
    """Return the bank's own name: the folder that it lies in differs from machine to machine."""
    return str(cell.source.bank).rstrip("/").rpartition("/")[2]


def _local(command: str, bank: str) -> str:
    """Return a command with the bank's own name instead of its path."""
    words = []
    for word in shlex.split(command):
        _, path, rest = word.partition(f"/{bank}")
        words.append(bank + rest if path and rest[:1] in ("", "/") else word)
    return shlex.join(words)


def _software(versions: Mapping[str, tuple[str, Mapping[str, Json]]]) -> Details:
    rows = tuple(
        (Value(name), Value(described or "not recorded")) for described, (name, _) in versions.items()
    )
    columns = (Column("set"), Column("versions"))
    table = DataTable(
        "table-version-sets", "Versions of all packages that can change a number.", columns, rows
    )
    return Details(
        "details-version-sets", f"Sets of versions ({len(rows)} set{'s' * (len(rows) != 1)})", (table,)
    )
