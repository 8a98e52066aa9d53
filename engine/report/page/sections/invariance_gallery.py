"""Invariance: cosines of transforms and models beside baselines, and views of an image on request."""

from collections.abc import Mapping, Sequence
from functools import partial

from engine.report.page.blocks import Block, Column, DataTable, Details, Picture, Section, Value
from engine.report.page.budget import Group, budget_of
from engine.report.page.evidence import Evidence, evidence_of
from engine.report.page.galleries import cut_galleries, privacy_note
from engine.report.page.inputs import PageInput, PageOptions, Source
from engine.report.page.results import results_of
from engine.report.page.thumbnails import BankImages, NoPicture, jpeg, placeholder
from engine.report.page.values import number_value
from engine.report.record_values import number, text

_CAPTION = (
    "Mean cosine of whitened features before and after a transform (Anton et al., 2022); 1 is perfectly "
    "invariant; ± is half of a 95 % interval over images or patients. Coloured cells do not exceed the "
    "baseline of different images."
)
_BASELINE = "Baseline: mean cosine of whitened features of different images."


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section; empty where no record is of an invariance."""
    cells = evidence_of(page, "invariance")
    if not cells:
        return ()
    blocks: list[Block] = []
    names = {(one.dataset, one.entry.name): one.protocol for one in results_of(page)}
    for position, source in enumerate(page.sources, start=1):
        own = [cell for cell in cells if cell.source is source]
        blocks += _tables(own, names, position) if own else []
    shelves = [(source.name, _groups(source, cells)) for source in page.sources]
    if options.thumbnails and any(groups for _, groups in shelves):
        budget = budget_of("invariance", page, options)
        blocks += cut_galleries("gallery-invariance", shelves, budget, "transforms with views")
    elif not options.thumbnails:
        blocks.append(privacy_note("Views of an image"))
    return (Section("invariance", "Invariance", tuple(blocks)),)


def _tables(cells: Sequence[Evidence], names: Mapping[tuple[str, str], str], position: int) -> list[Block]:
    """Return transforms x models of one data set: cosines, and folded away their baselines.

    Args:
        names: (data set, name of a record) -> its evaluation, with settings where several have one transform.
    """
    models = list(dict.fromkeys(cell.model for cell in cells))
    lines: dict[tuple[bool, str], dict[str, Evidence]] = {}
    for cell in cells:
        name = names[cell.source.name, cell.entry.name].removeprefix("invariance: ")
        place = (cell.mode != "default", name + f", {cell.mode}" * (cell.mode != "default"))
        lines.setdefault(place, {}).setdefault(cell.model, cell)
    columns = (Column("transform"), *(Column(model, numeric=True) for model in models))
    cosines, baselines = [], []
    for (_, name), by_model in sorted(lines.items()):
        own = [by_model.get(model) for model in models]
        cosines.append((Value(name), *map(_cosine, own)))
        baselines.append((Value(name), *(_with_interval(cell, "baseline") for cell in own)))
    dataset = cells[0].source.name
    table = DataTable(f"table-invariance-{position}", f"{dataset}. {_CAPTION}", columns, tuple(cosines))
    below = DataTable(
        f"table-invariance-baseline-{position}", f"{dataset}. {_BASELINE}", columns, tuple(baselines)
    )
    folded = Details(f"details-invariance-{position}", f"Baselines on {dataset}", (below,))
    return [table, folded]


def _cosine(cell: Evidence | None) -> Value:
    value = _with_interval(cell, "cosine")
    if cell is None or value.number is None:
        return value
    metrics = cell.record.metrics
    low = value.number if value.low is None else value.low
    baseline = number(metrics.get("baseline"))
    high = baseline + number(metrics.get("baseline_ci95"))
    end = high if high == high else baseline
    exceeds = end != end or low > end
    return value if exceeds else Value(value.text, value.number, value.low, value.high, tone="warning")


def _with_interval(cell: Evidence | None, name: str) -> Value:
    """Return a mean of a record with half its interval; a dash where the model has no record."""
    if cell is None:
        return Value("–")
    interval = "ci95" if name == "cosine" else f"{name}_ci95"
    value, half = number(cell.record.metrics.get(name)), number(cell.record.metrics.get(interval))
    if value != value or half != half:
        return number_value(value, reason=text(cell.record.metrics.get("reason")))
    return Value(f"{value:.3f} ± {half:.3f}".replace("-", "−"), value, value - half, value + half)


def _groups(source: Source, cells: tuple[Evidence, ...]) -> list[tuple[str, Group]]:
    """Return a group for each transform in the default mode: one image and views of it."""
    first: dict[str, Evidence] = {}
    for cell in cells:
        transform = text(cell.record.asked.get("transform"))
        if cell.source is source and cell.mode == "default" and transform != "multi-view":
            first.setdefault(transform, cell)
    images, chosen = BankImages(source), tuple(first.values())
    return [(name, partial(_pictures, images, cell, chosen)) for name, cell in first.items()]


def _pictures(images: BankImages, cell: Evidence, chosen: Sequence[Evidence]) -> tuple[Picture, ...]:
    from engine.report.page.example_views import row_of, views_of

    name = text(cell.record.asked.get("transform"))
    try:
        views = views_of(cell, images, row_of(chosen))
    except NoPicture as reason:
        return (placeholder(name, str(reason)),)
    return tuple(jpeg(title, pixels, f"{name}: {title}") for title, pixels in views)
