"""Near-duplicate images that audits list, and what searches return; pictures on request."""

from functools import partial
from typing import Any

from engine.report.page.blocks import Block, Column, DataTable, Picture, Section, Value
from engine.report.page.budget import Group, budget_of
from engine.report.page.evidence import Evidence, evidence_of
from engine.report.page.galleries import cut_galleries, picture_of, privacy_note
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.thumbnails import BankImages
from engine.report.page.values import number_value
from engine.report.record_values import at, number, text
from stores.bank.predictions import read_predictions_of
from stores.bank.reader import Bank
from stores.errors import BankError, Refused

#: Most pairs of an audit, and neighbours of a query, that are shown.
_PAIRS, _NEIGHBOURS = 12, 6
_COLUMNS = (
    Column("data set"),
    Column("model"),
    Column("images", numeric=True),
    Column("threshold", numeric=True, hint="least cosine similarity of a pair"),
    Column("pairs", numeric=True),
    Column("across splits", numeric=True, hint="pairs of images in two splits: leakage", group="of these"),
    Column("other label", numeric=True, hint="pairs of images with different labels", group="of these"),
    Column("other patient", numeric=True, hint="pairs of images of different patients", group="of these"),
)
_CAPTION = "Pairs of images whose embeddings are nearly equal, by `embank bank audit`."


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section; empty where no record is of an audit or a search."""
    audits, searches = evidence_of(page, "audit"), evidence_of(page, "search")
    blocks: list[Block] = []
    if audits:
        blocks.append(DataTable("table-audit", _CAPTION, _COLUMNS, tuple(map(_row, audits))))
    if any(promise["rows"] for cell in (*audits, *searches) for promise in cell.record.predictions.values()):
        if options.thumbnails:
            shelves, budget = _shelves(page, audits, searches), budget_of("neighbours", page, options)
            blocks += cut_galleries("gallery-neighbours", shelves, budget, "pairs and hits", joined=True)
        else:
            blocks.append(privacy_note("Images of near-duplicates and neighbours"))
    return (Section("neighbours", "Near-duplicates and neighbours", tuple(blocks)),) if blocks else ()


def _row(cell: Evidence) -> tuple[Value, ...]:
    metrics = cell.record.metrics
    across = number(metrics.get("across_splits"))
    counts = [number(metrics.get(name)) for name in ("different_label", "different_group")]
    return (
        Value(cell.source.name),
        Value(cell.model),
        number_value(number(metrics.get("images")), "{:,.0f}"),
        number_value(number(metrics.get("threshold")), "{:g}"),
        number_value(number(metrics.get("pairs")), "{:,.0f}"),
        Value("–")
        if across != across
        else Value(f"{across:,.0f}", across, tone="warning" if across > 0 else None),
        *(number_value(count, "{:,.0f}") for count in counts),
    )


def _shelves(
    page: PageInput, audits: tuple[Evidence, ...], searches: tuple[Evidence, ...]
) -> list[tuple[str, list[tuple[str, Group]]]]:
    """Return the pairs of each audit, and the neighbours of each query."""
    images = {source.name: BankImages(source) for source in page.sources}
    shelves: list[tuple[str, list[tuple[str, Group]]]] = []
    for cell in audits:
        splits = _splits(cell)
        pairs: list[tuple[str, Group]] = [
            ("", partial(_pair, images[cell.source.name], cell, place, pair, splits))
            for place, pair in enumerate(_predictions(cell, "pairs")[:_PAIRS], start=1)
        ]
        title = f"{cell.source.name}, {cell.model}: the most similar pairs, side by side"
        shelves += [(title, pairs)] if pairs else []
    for cell in searches:
        hits = _predictions(cell, None)[:_NEIGHBOURS]
        groups: list[tuple[str, Group]] = [
            ("", partial(_hit, images[cell.source.name], cell, hit)) for hit in hits
        ]
        query = text(at(cell.record.asked, "query.image_id")) or "a file"
        title = f"{cell.source.name}, {cell.model}: neighbours of {query}"
        shelves += [(title, groups)] if groups else []
    return shelves


def _predictions(cell: Evidence, table: str | None) -> list[dict[str, Any]]:
    if not cell.record.predictions:
        return []
    try:
        rows: list[dict[str, Any]] = read_predictions_of(cell.source.bank, cell.entry, table).to_pylist()
    except (BankError, Refused):
        return []
    return rows


def _splits(cell: Evidence) -> list[str]:
    """Return the split of every row of the bank; none where they cannot be read."""
    try:
        codes, names = Bank.open(cell.source.bank).column("split")
    except BankError:
        return []
    return [names[code] if code >= 0 else "" for code in codes.tolist()]


def _pair(
    images: BankImages, cell: Evidence, place: int, pair: dict[str, Any], splits: list[str]
) -> tuple[Picture, ...]:
    pictures = []
    for ending in ("_a", "_b"):
        row, image_id = int(pair[f"row{ending}"]), str(pair[f"image_id{ending}"])
        split = f", {splits[row]}" if row < len(splits) and splits[row] else ""
        title = f"pair {place}, cosine {pair['similarity']:.4f}: {image_id}{split}"
        make = partial(images.uncropped, cell.entry.feature, row)
        pictures.append(picture_of(title, make, f"Image {image_id} of pair {place}"))
    return tuple(pictures)


def _hit(images: BankImages, cell: Evidence, hit: dict[str, Any]) -> tuple[Picture, ...]:
    row, image_id = int(hit["row"]), str(hit["image_id"])
    words = [f"{name} {hit[name]:.4g}" for name in ("rank", "distance") if name in hit]
    make = partial(images.uncropped, cell.entry.feature, row)
    return (picture_of(f"{', '.join(words)}: {image_id}", make, f"Image {image_id}"),)
