"""The figure of finetunings, drawn from records alone: losses, validation score and learning rate by step."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.finetune.curve import Curve
from engine.report.console import clipped
from engine.report.drawing import draw_figure
from engine.report.json_parts import members
from engine.report.record_values import at, number, refuse_lacking, text
from stores.bank.records import RunRecord
from stores.manifest.uri_policy import plain
from stores.outputs import new_file

#: Parts of a record that its figure shows.
NEEDED = ("metrics.curve.points", "metrics.tested_step", "metrics.select")
#: Score by which the best weights are chosen -> its name.
SCORES = {
    "accuracy": "accuracy",
    "mean-per-class": "balanced accuracy",
    "auroc": "AUROC",
    "log-loss": "log loss",
}
#: Colours that people with any colour vision tell apart (Okabe and Ito, 2008), dark enough for paper.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_SOFT = "#6a6a6a"
#: Longest name in a legend, in characters.
_LEGEND = 44
#: Points of a curve that have a mark; of longer curves every so many points have one.
_MARKS = 30


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """The learning curve of a record.

    Attributes:
        model: title.
        select: score by which the best weights are chosen, a key of `SCORES`.
        curve: the validations.
        tested_step: of the weights that were tested: the best ones, or the last.
        best: whether these are the best ones.
        result: the test score in a few words.
    """

    model: str
    select: str
    curve: Curve
    tested_step: float
    best: bool
    result: str

    @classmethod
    def of(cls, record: RunRecord, name: str = "", remedy: str = "finetune again") -> "LearningCurve":
        """Take the record of a finetuning.

        Args:
            name: of the record, and remedy: what to do where it lacks something, as for
                `engine.report.record_values.refuse_lacking`.

        Raises:
            Refused: it lacks what is drawn, or has no validation.
        """
        refuse_lacking(record, NEEDED, remedy, name)
        metrics, best = record.metrics, record.asked.get("mode") != "as-published"
        try:
            curve = Curve.from_dict(members(metrics["curve"]))
        except ValueError as error:
            curve, reason = Curve(), str(error)
        else:
            reason = "it has no validation"
        if not curve.points:
            name = name or f"The finetune record of {text(record.asked.get('model'))} ({record.created})"
            raise Refused(f"{name} has no learning curve", f"There is nothing to draw: {reason}", remedy)
        return cls(
            text(record.asked.get("model")),
            text(metrics["select"]),
            curve,
            number(metrics["tested_step"]),
            best,
            _test_score(record),
        )

    @property
    def score(self) -> str:
        """Name of the validation score."""
        return SCORES.get(self.select, self.select)

    def values(self, column: str) -> NDArray[np.float64]:
        """Return a column of the curve, float64 [n]."""
        return np.array([getattr(point, column) for point in self.curve.points], np.float64)


def _test_score(record: RunRecord) -> str:
    names = {"accuracy": "accuracy", "auroc": "AUROC"}
    scores = {shown: number(at(record.metrics, f"test.{name}")) for name, shown in names.items()}
    return ", ".join(f"{shown} {value:.3f}" for shown, value in scores.items() if np.isfinite(value))


def learning_curves_figure(records: Sequence[RunRecord], out: Path) -> Path:
    """Draw the learning curves of finetunings over the steps, and write their numbers beside the figure.

    Of one record the training loss and the validation loss have a colour each; of several each record has
    one. A large ring marks the weights that were tested.

    Args:
        records: of finetunings, at least one.
        out: PNG, SVG or PDF by its ending, written atomically; missing folders are made. The numbers of one
            record lie beside it under the same name with the ending .csv.

    Raises:
        Refused: a record lacks what is drawn, or the folder is not writable. MachineFault: the disk is full.
    """
    draw_figure(lambda: draw_learning_curves(records), out, "finetune", dpi=130)
    if len(records) == 1:
        write_curve(records[0], table_beside(out))
    return out


def table_beside(out: Path) -> Path:
    """Return the path of the table beside a figure."""
    return out.with_suffix(".csv")


def is_table(path: Path) -> bool:
    """Return whether a file begins as the table of a learning curve, which a later one may replace."""
    head = Curve().to_csv().encode()
    try:
        with path.open("rb") as file:
            return file.read(len(head)) == head
    except OSError:
        return False


def write_curve(record: RunRecord, out: Path) -> None:
    """Write a record's learning curve as CSV, atomically; its numbers are read back to the same bits.

    Raises:
        Refused: the record has none, or the folder is not writable. MachineFault: the disk is full or fails.
    """
    table = LearningCurve.of(record).curve.to_csv()
    with new_file(out) as file:
        file.write(table.encode())


def scalars(curve: Curve, select: str) -> list[tuple[int, dict[str, float]]]:
    """Return the step and the scalars of each validation, by their tags in TensorBoard.

    Args:
        select: score by which the best weights are chosen, a key of `SCORES`.
    """
    score = f"score/validation {SCORES.get(select, select)}"
    return [
        (
            point.step,
            {
                "loss/train": point.train_loss,
                "loss/validation": point.val_loss,
                score: point.val_score,
                "learning rate": point.lr,
            },
        )
        for point in curve.points
    ]


def draw_learning_curves(records: Sequence[RunRecord]) -> Any:
    """Return the matplotlib figure of `learning_curves_figure`, of at least one record."""
    import matplotlib.pyplot as plt

    curves = [LearningCurve.of(record) for record in records]
    figure = plt.figure(figsize=(6.4, 6.6 + 0.16 * max(0, len(curves) - 1)), layout="constrained")
    losses, scores, rates = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.1])
    figure.suptitle(_title(records, curves), fontsize=10)
    _losses(losses, curves)
    _scores(scores, curves)
    _rates(rates, curves)
    rates.set_xlabel("step", fontsize=9)
    for axes, label in ((losses, "loss"), (scores, _score_label(curves)), (rates, "learning rate")):
        axes.set_ylabel(label, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels()
    return figure


def _title(records: Sequence[RunRecord], curves: Sequence[LearningCurve]) -> str:
    published = ", as published" if not curves[0].best else ""
    label = text(records[0].asked.get("label"))
    of = clipped(curves[0].model, _LEGEND) if len(curves) == 1 else f"{len(curves)} models"
    return _literal(f"Finetuning of {of}{f' for {label}' if label not in ('', 'label') else ''}{published}")


def _score_label(curves: Sequence[LearningCurve]) -> str:
    names = list(dict.fromkeys(curve.score for curve in curves))
    return f"validation {' or '.join(names)}"


def _losses(axes: Any, curves: Sequence[LearningCurve]) -> None:
    several = len(curves) > 1
    for i, curve in enumerate(curves):
        colour, name = _COLOURS[i % len(_COLOURS)], f"{_name(curve)}, " * several
        other = colour if several else _COLOURS[1]
        _line(axes, curve, "train_loss", colour, "-", "o", f"{name}training (augmented)")
        _line(axes, curve, "val_loss", other, "--", "s", f"{name}validation")
    axes.legend(fontsize=7 if several else 8, frameon=False)


def _scores(axes: Any, curves: Sequence[LearningCurve]) -> None:
    several = len(curves) > 1
    for i, curve in enumerate(curves):
        colour = _COLOURS[i % len(_COLOURS)] if several else _COLOURS[1]
        _line(axes, curve, "val_score", colour, "--", "s", f"{_name(curve)}, validation" * several)
        steps, values = curve.values("step"), curve.values("val_score")
        of_tested = values[steps == curve.tested_step]
        which = "best weights" if curve.best else "last weights"
        result = f": test {curve.result}" if curve.result else ""
        label = f"{which}, step {curve.tested_step:,.0f}{result}"
        if of_tested.size:
            ring = {"markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.6}
            axes.plot([curve.tested_step], of_tested[:1], "o", color=colour, label=label, **ring)
    axes.margins(y=0.12)
    axes.legend(fontsize=7 if several else 8, frameon=False)


def _rates(axes: Any, curves: Sequence[LearningCurve]) -> None:
    for curve in curves:
        axes.plot(curve.values("step"), curve.values("lr"), color=_SOFT, linewidth=1.2)
    highest = max(float(np.nanmax(curve.values("lr"), initial=0.0)) for curve in curves)
    axes.set_ylim(0, 1.15 * highest or 1.0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    axes.yaxis.get_offset_text().set_fontsize(7)


def _line(
    axes: Any, curve: LearningCurve, column: str, colour: str, line: str, mark: str, label: str
) -> None:
    """Plot a column; a value that is undefined leaves a gap."""
    values = curve.values(column)
    axes.plot(
        curve.values("step"),
        values,
        color=colour,
        linestyle=line,
        linewidth=1.4,
        marker=mark,
        markersize=4,
        markevery=max(1, -(-len(values) // _MARKS)),
        label=label or None,
    )


def _name(curve: LearningCurve) -> str:
    return _literal(clipped(curve.model, _LEGEND))


def _literal(text: str) -> str:
    """Return text that Matplotlib draws literally: a dollar would begin a formula."""
    return plain(text).replace("$", r"\$")
