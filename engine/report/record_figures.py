"""The figure of one record, drawn again: no image, model or embedding is opened."""

import shlex
from pathlib import Path

from engine.errors import Refused
from engine.report.record_values import text
from stores.bank.record_index import RecordEntry
from stores.bank.records import RunRecord

#: Kinds of records that have a figure.
KINDS = ("probe", "invariance", "finetune", "reconstruct")


def refuse_undrawable(entry: RecordEntry, bank: str, plot: str | None = None) -> None:
    """Refuse a record that has no figure, or lacks a part of it, as one of an earlier version may.

    Args:
        bank: as the user named it.
        plot: kind of picture of a probe (`engine.report.probe_plots.draw.WORDS`); None for the usual one.

    Raises:
        Refused: naming the record.
    """
    record = entry.record
    assert record is not None
    name = f"record {entry.id} ({record.kind}{f' of {entry.model}' * bool(entry.model)})"
    if record.kind not in KINDS:
        raise Refused(
            f"{name} has no figure",
            f"Figures are drawn of records of {', '.join(KINDS[:-1])} and {KINDS[-1]}",
            f"leave -o out to read it, or name a record that `embank records ls {shlex.quote(bank)} --kind "
            f"{'` or `--kind '.join(KINDS)}` lists",
        )
    if record.asked.get("cross_validation"):
        raise Refused(
            f"{name} is cross-validated and has no figure",
            "The figure of a probe shows one sweep of C, and each fold has its own",
            "leave -o out to read its numbers",
        )
    if record.asked.get("transform") == "multi-view":
        raise Refused(
            f"{name} compares pairs of stored views and has no figure",
            "The figure of an invariance shows the views that transforms made",
            "leave -o out to read its numbers",
        )
    remedy = f"run the evaluation again: `{_command(record, bank)}`, with the options of that run"
    if plot is not None and record.kind != "probe":
        raise Refused(f"--plot {plot} of {name}", "It names pictures of probes", "leave --plot out")
    if record.kind == "probe":
        from engine.report.probe_plots.draw import refuse_lacking_plot

        refuse_lacking_plot(entry, plot or "selection", bank, name, remedy)
    elif record.kind == "finetune":
        from engine.report.learning_curves import LearningCurve

        LearningCurve.of(record, name, remedy)
    elif record.kind == "reconstruct":
        from engine.report.loss_figure import Curves

        Curves.of(record, name, remedy)
    else:
        from engine.report.invariance_figure import Transform

        Transform.of(record, name, remedy)


def _command(record: RunRecord, bank: str) -> str:
    """Return the command that makes a record like this one, less its further options."""
    asked = record.asked
    words = ["embank", record.kind, *(["MANIFEST", "--bank"] if record.kind == "finetune" else []), bank]
    labels = text(asked.get("label")).split(", ") if asked.get("multi_label") else [text(asked.get("label"))]
    for option, values in (
        ("--model", [text(asked.get("model"))]),
        ("--label", labels),
        ("--transform", [text(asked.get("transform"))]),
    ):
        words += [word for value in values if value for word in (option, value)]
    return shlex.join([*words, *["--multi-label"] * bool(asked.get("multi_label"))])


def table_beside(entry: RecordEntry, out: Path) -> Path | None:
    """Return the path of the table that `draw` writes beside the figure; None for figures without one."""
    if entry.record is None or entry.record.kind != "finetune":
        return None
    from engine.report.learning_curves import table_beside

    return table_beside(out)


def draw(entry: RecordEntry, out: Path, bank: str, plot: str | None = None) -> None:
    """Draw the figure of a record that `refuse_undrawable` lets through, as its evaluation drew it.

    Args:
        out: PNG, SVG or PDF by its ending, written atomically; missing folders are made.
        bank, plot: as there.

    Raises:
        Refused: the folder is not writable. MachineFault: the disk is full or fails.
    """
    assert entry.record is not None
    if entry.record.kind == "probe":
        from engine.report.probe_plots.draw import draw_probes

        draw_probes([entry.record], out, plot or "selection", bank, entry)
    elif entry.record.kind == "finetune":
        from engine.report.learning_curves import learning_curves_figure

        learning_curves_figure([entry.record], out)
    elif entry.record.kind == "reconstruct":
        from engine.report.loss_figure import loss_figure

        loss_figure(entry.record, out)
    else:
        from engine.report.invariance_figure import invariance_figure

        invariance_figure([entry.record], out)
