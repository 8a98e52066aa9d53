"""Learning curves of finetunings: losses and the validation score over the steps."""

import math
from collections.abc import Sequence

from engine.report.json_parts import objects
from engine.report.page.blocks import Block, Chart, Column, DataTable, Paragraph, Section, Value
from engine.report.page.cells import compact, count_cell, number_cell
from engine.report.page.groups import Group, Member, groups_of, having
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.room import fitting
from engine.report.page.sections.selection import SCORES
from engine.report.page.svg.curves import Dimension, Panel, Series, draw
from engine.report.page.svg.element import panels
from engine.report.page.svg.looks import Look
from engine.report.record_values import at, number, text

_NEEDS = "curve.points"
#: Points up to which a line has marks.
_MARKS = 30
#: Share of the page for tables.
_TABLED = 0.03


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section, or none without finetunings."""
    groups, notes = having(groups_of(page, "finetune"), _NEEDS, "Finetune again")
    if not groups and not notes:
        return ()
    lead = Paragraph(
        "Loss and validation score of finetunings over their steps. The ring marks the weights that were "
        "tested. A training loss that falls while the validation loss rises says that the network overfits."
    )
    charts = [_chart(group, place, options, len(groups)) for place, group in enumerate(groups, 1)]
    blocks: list[Block] = [lead, *charts] if charts else []
    blocks += map(Paragraph, notes)
    return (Section("learning-curves", "Learning curves of finetunings", tuple(blocks)),)


def _chart(group: Group, place: int, options: PageOptions, charts: int) -> Chart:
    identity = f"learning-curves-{place}"
    score = " or ".join(
        dict.fromkeys(SCORES.get(s := text(m.record.metrics.get("select")), s) for m in group.members)
    )
    losses = _all(group, ("train_loss", "val_loss"))
    scores = _all(group, ("val_score",))
    drawings = []
    for count, member in enumerate(group.members, 1):
        drawings.append(draw(_losses(member, f"plot-{identity}-{count}-loss", losses)))
        drawings.append(draw(_score(member, f"plot-{identity}-{count}-score", scores, score)))
    return Chart(
        identity,
        f"{group.title}: losses and validation {score} over steps",
        panels(drawings),
        f"Learning curves of {len(group.members)} finetunings. {_results(group)}",
        fitting(_table(group, identity, score), options, _TABLED, charts),
        (_results(group), "Losses share one scale, scores another."),
    )


def _points(member: Member) -> list[dict[str, float]]:
    return [
        {name: number(point.get(name)) for name in ("step", "lr", "train_loss", "val_loss", "val_score")}
        for point in objects(at(member.record.metrics, _NEEDS))
    ]


def _all(group: Group, names: Sequence[str]) -> tuple[float, ...]:
    return tuple(p[name] for member in group.members for p in _points(member) for name in names)


def _results(group: Group) -> str:
    """Return what the tested weights reach, in words."""
    words = []
    for member in group.members:
        metrics = member.record.metrics
        step = number(metrics.get("tested_step"))
        which = "last" if group.mode == "as-published" else "best"
        accuracy, auroc = (number(at(metrics, f"test.{name}")) for name in ("accuracy", "auroc"))
        reached = [f"accuracy {accuracy:.3f}"] if math.isfinite(accuracy) else []
        reached += [f"AUROC {auroc:.3f}"] if math.isfinite(auroc) else []
        at_step = f" (step {step:,.0f})" if math.isfinite(step) else ""
        words.append(f"{member.model}: {which} weights{at_step}, test {', '.join(reached) or 'undefined'}")
    return "; ".join(words) + "."


def _series(member: Member, name: str, title: str, look: Look) -> Series:
    points = _points(member)
    steps, values = tuple(p["step"] for p in points), tuple(p[name] for p in points)
    tested = number(member.record.metrics.get("tested_step"))
    ringed = tuple((p["step"], p[name]) for p in points if p["step"] == tested)
    return Series(
        title,
        steps,
        values,
        look=look,
        marked=len(points) <= _MARKS,
        ringed=ringed if name == "val_score" else (),
    )


def _losses(member: Member, identity: str, values: tuple[float, ...]) -> Panel:
    series = (
        _series(member, "train_loss", "training", Look(0)),
        _series(member, "val_loss", "validation", Look(1)),
    )
    return Panel(
        identity,
        member.model,
        f"Training and validation loss of {member.model} over steps.",
        series,
        Dimension("step"),
        Dimension("loss", also=values),
        height=130.0,
    )


def _score(member: Member, identity: str, values: tuple[float, ...], score: str) -> Panel:
    return Panel(
        identity,
        member.model,
        f"Validation {score} of {member.model} over steps.",
        (_series(member, "val_score", "", Look(1)),),
        Dimension("step"),
        Dimension(f"validation {score}", also=values),
        height=130.0,
        keyed=False,
    )


def _table(group: Group, identity: str, score: str) -> DataTable:
    columns = (
        Column("model"),
        Column("step", True),
        Column("learning rate", True),
        Column("training loss", True, "Mean of the steps since the validation before"),
        Column("validation loss", True),
        Column(f"validation {score}", True),
    )
    rows = []
    for member in group.members:
        for point in _points(member):
            rate = point["lr"]
            rows.append(
                (
                    Value(member.model),
                    count_cell(point["step"]),
                    Value(compact(rate), rate if math.isfinite(rate) else None),
                    number_cell(point["train_loss"], reason="before the first step"),
                    number_cell(point["val_loss"], reason="no validation images"),
                    number_cell(point["val_score"]),
                )
            )
    caption = f"{group.title}: the validations of each finetuning."
    return DataTable(f"table-{identity}", caption, columns, tuple(rows))
