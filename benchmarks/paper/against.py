"""The section of the report that sets our numbers beside the paper's (`embank report --against paper`)."""

import math
from dataclasses import replace

from benchmarks.paper.cells import RULE, Comparison, Context, comparison_table, missing_table
from benchmarks.paper.method_effects import effects_on, methods_block
from benchmarks.paper.ours import MODES, ours_of
from benchmarks.paper.results_table import FACTS, Place
from benchmarks.paper.sources import of_dataset
from benchmarks.paper.values import published_tables
from engine.report.page.blocks import Block, Details, Paragraph, Section
from engine.report.page.inputs import PageInput, PageOptions

_PAPER = "Anton et al. (J. Imaging 2022, 8, 320, doi:10.3390/jimaging8120320, CC BY 4.0)"


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section that sets a page's numbers beside the paper's; it shows neither times nor ids.

    Raises:
        MachineFault: I/O error.
    """
    page = replace(page, sources=tuple(map(of_dataset, page.sources)))
    ours = ours_of(page.sources)
    context = Context.of(page, ours)
    blocks: list[Block] = [Paragraph(summary(context))]
    absent = [name for name in FACTS if not context.has(name)]
    if len(absent) < len(FACTS):
        blocks.append(Paragraph(RULE))
    for name in FACTS:
        effects = effects_on(name, ours)
        if name not in absent:
            blocks += [comparison_table(name, context), *_missing(name, context)]
        if effects or name not in absent:
            blocks.append(methods_block(name, effects))
    if 0 < len(absent) < len(FACTS):
        blocks.append(Paragraph(f"No cell of {', '.join(absent)} was measured. {_here(context)}"))
    return (Section("against-paper", "Against the paper", tuple(blocks)),)


def _missing(name: str, context: Context) -> list[Block]:
    table = missing_table(name, context)
    if table is None:
        return []
    title = f"{name}: {len(table.rows)} cells without a number of ours, and why"
    return [Details(f"{table.id}-cells", title, (table,))]


def summary(context: Context) -> str:
    """Say how many cells of the paper were measured, and how many of them agree within the intervals."""
    counts = []
    for mode in MODES:
        pairs = [
            (context.get(mode, cell.model, Place(cell.dataset, cell.metric, 0)), cell)
            for cell in published_tables()
        ]
        inside = [
            Comparison.of(ours, theirs).inside
            for ours, theirs in pairs
            if ours is not None and math.isfinite(ours.value)
        ]
        if inside:
            counts.append(
                f"mode {mode}: {len(inside)} of {len(pairs)} cells measured, {inside.count('yes')} equal "
                f"within the intervals, {inside.count('no')} not, {inside.count('unknown')} unknown"
            )
    if not counts:
        return f"No cell of the tables of {_PAPER} was measured. {_here(context)}"
    return f"Our numbers beside those of {_PAPER}; {'; '.join(counts)}."


def _here(context: Context) -> str:
    datasets = ", ".join(dict.fromkeys(source.name for source in context.page.sources)) or "none"
    models = ", ".join(dict.fromkeys(value.model for value in context.ours.values)) or "none"
    return (
        f"It takes the paper's data sets, models and protocols; here are data sets: {datasets}; "
        f"models with results: {models}."
    )
