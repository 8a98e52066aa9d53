"""Charts of probes' fits, one for each group of records, and how many of them stand open."""

from collections.abc import Callable, Sequence

from engine.report.page.blocks import Block, Chart, Details, Paragraph
from engine.report.page.fits import fits_of, lacking
from engine.report.page.groups import Group, first_seeds, groups_of
from engine.report.page.inputs import PageInput, PageOptions

#: Draws a group, which is the n-th of so many.
Draw = Callable[[Group, int, int, PageOptions], Chart]


def charts_of_fits(
    page: PageInput, options: PageOptions, path: str, draw: Draw, *, published: bool = True
) -> tuple[tuple[Chart, ...], tuple[Paragraph, ...]]:
    """Draw the probes whose records have what a chart shows; say which lack it, and which seeds are drawn.

    Args:
        path: dotted, of what a fit has to have, e.g. `sweep.val_score`.
        published: whether probes as published are expected to have it.
    """
    groups, seeds = first_seeds(groups_of(page, "probe"))
    drawn = [group for group in groups if fits_of(group, path)]
    expected = [group for group in groups if published or group.mode == "default"]
    notes = (*lacking(expected, path, "Run the probe again"), *([seeds] if seeds else []))
    charts = tuple(draw(group, place, len(drawn), options) for place, group in enumerate(drawn, 1))
    return charts, tuple(map(Paragraph, notes))


def folded(charts: Sequence[Block], identity: str, title: str, most: int) -> tuple[Block, ...]:
    """Return charts as they are, or under a summary where there are more than `most`."""
    if len(charts) <= most:
        return tuple(charts)
    return (Details(identity, f"{title} ({len(charts)} charts)", tuple(charts)),)
