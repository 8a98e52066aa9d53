"""Losses of reconstructions over their updates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.report.page.blocks import Block, Chart, Column, DataTable, Paragraph, Section, Value
from engine.report.page.cells import compact, count_cell
from engine.report.page.groups import Group, Member, groups_of, partition
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.room import fitting, panels_each
from engine.report.page.svg.curves import NARROW, WIDE, Dimension, Panel, Series, draw
from engine.report.page.svg.element import panels
from engine.report.page.svg.looks import Look
from engine.report.record_values import at, number, numbers
from stores.bank.records import RunRecord
from stores.json_types import Json

#: Share of the page for tables.
_TABLED = 0.01
#: Curves of a panel, at most, and models from which panels are narrow.
_CURVES, _NARROW = 30, 3
#: Share of the page for curves, and bytes of one.
_DRAWN, _SIZE = 0.02, 500


@dataclass(frozen=True)
class Losses:
    """The losses of a record.

    Attributes:
        updates: done before each loss. names: of the networks. curves: the losses of each.
    """

    updates: tuple[float, ...]
    names: tuple[str, ...]
    curves: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, record: RunRecord) -> "Losses":
        """Read a record; what does not fit together is left out."""
        updates = tuple(numbers(at(record.metrics, "curves.steps")).tolist())
        names, losses = at(record.metrics, "curves.of"), at(record.metrics, "curves.losses")
        pairs = [
            (str(name), tuple(numbers(own).tolist()))
            for name, own in zip(_list(names), _list(losses), strict=False)
            if len(numbers(own)) == len(updates)
        ]
        return cls(updates, tuple(name for name, _ in pairs), tuple(curve for _, curve in pairs))

    @property
    def mean(self) -> tuple[float, ...]:
        """Geometric mean of the curves at each update; NaN where one is undefined or not positive."""
        return tuple(
            math.exp(math.fsum(map(math.log, column)) / len(column))
            if all(math.isfinite(value) and value > 0 for value in column)
            else math.nan
            for column in zip(*self.curves, strict=True)
        )


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section, or none without reconstructions."""
    groups, notes = partition(
        groups_of(page, "reconstruct"),
        lambda record: bool(Losses.of(record).curves),
        "no losses",
        "Run the reconstruction again",
    )
    if not groups and not notes:
        return ()
    blocks: list[Block] = [
        _chart(group, place, options, len(groups)) for place, group in enumerate(groups, 1)
    ]
    if blocks:
        lead = (
            "An image is sought whose feature map equals that of the original. Grey: each image and seed; "
            "blue: their geometric mean. Curves that still fall at the end say that more updates would help."
        )
        blocks.insert(0, Paragraph(lead))
    blocks += map(Paragraph, notes)
    return (Section("losses", "Losses of reconstructions", tuple(blocks)),)


def _chart(group: Group, place: int, options: PageOptions, charts: int) -> Chart:
    identity = f"losses-{place}"
    losses = {member.model: Losses.of(member.record) for member in group.members}
    values = tuple(v for one in losses.values() for curve in (*one.curves, one.mean) for v in curve)
    updates = tuple(update + 1 for one in losses.values() for update in one.updates)
    narrow = len(losses) >= _NARROW
    most = min(_CURVES, panels_each(options, _DRAWN, charts * len(losses), _SIZE))
    drawings = [
        draw(_panel(model, one, f"plot-{identity}-{count}", (updates, values), narrow, most))
        for count, (model, one) in enumerate(losses.items(), 1)
    ]
    networks = "/".join(sorted({f"{len(one.curves)}" for one in losses.values()}))
    notes = [f"One scale for all panels; {networks} images and seeds a model."]
    if any(len(one.curves) > most for one in losses.values()):
        notes.append(f"The first {most} curves of each model are drawn; means are of all.")
    return Chart(
        identity,
        f"{group.title}: mean squared error of the feature map over updates",
        panels(drawings, "small" if narrow else ""),
        f"Losses of reconstructions of {len(losses)} models. {_ends(group.members)}",
        fitting(_table(group, losses, identity, options.thumbnails), options, _TABLED, charts),
        tuple(notes),
    )


def _ends(members: Sequence[Member]) -> str:
    words = []
    for member in members:
        mean = Losses.of(member.record).mean
        if mean and math.isfinite(mean[0]) and math.isfinite(mean[-1]):
            words.append(f"{member.model} from {compact(mean[0])} to {compact(mean[-1])}")
    return f"Geometric means: {'; '.join(words)}." if words else "All are undefined."


def _panel(
    model: str,
    losses: Losses,
    identity: str,
    shared: tuple[tuple[float, ...], tuple[float, ...]],
    narrow: bool,
    most: int,
) -> Panel:
    x = tuple(update + 1 for update in losses.updates)
    mean = Series("", x, losses.mean, look=Look(0))
    curves = [Series("", x, curve, look=Look(None, dash="thin")) for curve in losses.curves[:most]]
    updates, values = shared
    return Panel(
        identity,
        model,
        f"Loss of {len(losses.curves)} reconstructions from {model} over updates.",
        (mean, *curves),
        Dimension("update", log=True, also=updates, most=4 if narrow else 6),
        Dimension("", log=True, also=values, most=5),
        width=NARROW if narrow else WIDE,
        height=110.0 if narrow else 160.0,
        keyed=False,
    )


def _table(group: Group, losses: dict[str, Losses], identity: str, named: bool) -> DataTable:
    """Return the losses as a table; images have their ids where `named`, else numbers, for patients' sake."""
    columns = (
        Column("model"),
        Column("image and seed"),
        Column("updates", True),
        Column("loss at first", True),
        Column("loss at last", True),
        Column("smallest loss", True),
    )
    rows, numbered = [], dict[str, str]()
    for model, one in losses.items():
        for name, curve in zip(one.names, one.curves, strict=True):
            finite = [value for value in curve if math.isfinite(value)]
            ends = (curve[0], curve[-1]) if curve else (math.nan, math.nan)
            shown = (*ends, min(finite, default=math.nan))
            cells = (Value(compact(v), number(v) if math.isfinite(v) else None) for v in shown)
            updates = one.updates[-1] if one.updates else math.nan
            image, _, seed = name.rpartition(", ")
            numbered.setdefault(image, image if named else f"image {len(numbered) + 1}")
            network = f"{numbered[image]}, {seed}"
            rows.append((Value(model), Value(network), count_cell(updates), *cells))
    caption = f"{group.title}: mean squared error of the feature map of each image and seed."
    return DataTable(f"table-{identity}", caption, columns, tuple(rows))
