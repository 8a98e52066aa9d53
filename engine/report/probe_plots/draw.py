"""Pictures of probe records by kind."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.report.drawing import save_figure
from engine.report.probe_plots.confusion import draw_confusion
from engine.report.probe_plots.curves import draw_curves
from engine.report.probe_plots.fits import Fit, answers_of, fits_of
from engine.report.probe_plots.low_shot import draw_low_shot
from engine.report.probe_plots.reliability import draw_reliability
from engine.report.probe_plots.strata import draw_strata
from engine.report.probes import probe_figure, sweeps_of
from stores.bank.record_index import RecordEntry
from stores.bank.records import RunRecord


@dataclass(frozen=True)
class Plot:
    """A kind of picture that is drawn from the metrics of records.

    Attributes:
        words: what it shows, for people.
        needs: dotted path that a fit's metrics have.
        remedy: how to make a record that has it.
        draw: makes the figure.
    """

    words: str
    needs: str
    remedy: str
    draw: Callable[[Sequence[Fit]], Any]


_AGAIN = "run the probe again in the default mode"
PLOTS: Mapping[str, Plot] = {
    "reliability": Plot("reliability before and after", "calibration.bins", _AGAIN, draw_reliability),
    "confusion": Plot("confusion matrices", "test.confusion_matrix", "run the probe again", draw_confusion),
    "strata": Plot("strata", "strata", "run the probe again with --strata COLUMN", draw_strata),
    "low-shot": Plot(
        "low-shot curves",
        "low_shot.curve",
        "run the probe again with --low-shot COUNTS, e.g. 1,2,5,10",
        draw_low_shot,
    ),
}
#: Kind -> what it shows, all kinds.
WORDS = {
    "selection": "validation score against C",
    "curves": "ROC and precision-recall curves",
    **{name: plot.words for name, plot in PLOTS.items()},
}


def draw_probes(
    records: Sequence[RunRecord], out: Path, kind: str, bank: str, entry: RecordEntry | None = None
) -> Path:
    """Draw probes from their records, and curves from the predictions beside them.

    Args:
        records: at least one.
        out: PNG, SVG or PDF by its ending, written atomically; missing folders are made.
        kind: a key of `WORDS`.
        bank: of the records.
        entry: of the only record, if it was read; None for new ones, whose predictions are attached.

    Raises:
        Refused: a record lacks what is drawn, it is too much for one picture, or the folder is not writable.
        BankError: damaged predictions.
    """
    if kind == "selection":
        return probe_figure(records, out)
    if kind == "curves":
        figure = draw_curves([answers_of(record, bank, entry) for record in records])
    else:
        plot = PLOTS[kind]
        figure = plot.draw(fits_of(records, plot.needs, plot.remedy))
    import matplotlib.pyplot as plt

    save_figure(figure, out, "probe", dpi=150)
    plt.close(figure)
    return out


def refuse_lacking_plot(entry: RecordEntry, kind: str, bank: str, name: str, remedy: str) -> None:
    """Refuse a record that lacks what its picture shows, before anything is written.

    Args:
        kind: a key of `WORDS`.
        bank: of the record.
        name: of the record, and remedy: for messages.

    Raises:
        Refused, BankError: as `draw_probes`.
    """
    record = entry.record
    assert record is not None
    if kind == "selection":
        sweeps_of(record, name, remedy)
    elif kind == "curves":
        answers_of(record, bank, entry)
    else:
        fits_of([record], PLOTS[kind].needs, PLOTS[kind].remedy)
