"""`embank records`: what runs and evaluations found."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands.checking import check_curve_table, check_output
from engine.commands.declaring import WHAT, command, option
from engine.commands.options import (
    BankPath,
    Force,
    Json,
    KindFilter,
    MaybeFile,
    ModelFilter,
    ProbePlot,
    TableOut,
)
from engine.commands.showing import end_with_failures, show
from stores.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stores.bank.record_index import RecordEntry

app = typer.Typer(
    help="Results of runs and evaluations: list, show, draw, export as tables.", no_args_is_help=True
)


@command(app, "ls")
def records_ls(
    bank: BankPath, kind: KindFilter = None, model: ModelFilter = None, json: Json = False
) -> None:
    """List the records of a bank with their results, newest last. Exit 1 if one cannot be read."""
    from engine.report import records
    from engine.report.bank_text import print_damage
    from stores.bank.record_index import read_index, select

    entries = select(bank, read_index(bank), kind, model)
    damaged = records.unreadable(entries)

    def text() -> None:
        records.print_list(entries)
        print_damage(damaged)

    readable = [records.to_dict(entry) for entry in entries if entry.record is not None] if json else []
    show({"bank": bank, "records": readable, "damaged": damaged}, json, text)
    end_with_failures(bool(damaged))


RecordId = Annotated[
    str,
    typer.Argument(metavar="RECORD", help="Its id from `records ls`, or a beginning that fits no other."),
]


@command(app, "show")
def records_show(
    bank: BankPath,
    record: RecordId,
    out: MaybeFile = None,
    plot: ProbePlot = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Show one record: settings, inputs, results, the seconds it took, and the versions.

    -o draws the figure of a probe, an invariance or a finetuning again, or the losses of a reconstruction,
    from the record alone: .png, .svg or .pdf. The numbers of a learning curve are written beside it, as .csv.
    --plot takes another picture of a probe, from the record and the predictions beside it: selection of C,
    reliability, curves (ROC, precision-recall), confusion, strata or low-shot.
    """
    from engine.report import records
    from stores.bank.record_index import record_of

    entry = record_of(bank, record)
    kind = plot.value if plot else None
    if kind and not out:
        raise Refused(f"--plot {kind} without -o", "It is a kind of picture", "name its file with -o")
    drawn = _draw(entry, bank, out, force, kind) if out else {}
    document = {"bank": bank, **records.full_dict(entry, bank), **drawn}
    show(document if json else {}, json, lambda: records.print_record(entry, bank, drawn))


def _draw(entry: "RecordEntry", bank: str, out: Path, force: bool, plot: str | None) -> dict[str, Path]:
    """Draw the figure of a record; it may replace one that the evaluation drew, as the evaluation may.

    Returns:
        `{figure}`, and `table` where numbers are written beside it.
    """
    from engine.report.record_figures import draw, refuse_undrawable, table_beside

    refuse_undrawable(entry, bank, plot)
    check_output(out, bank, entry.record.kind if entry.record else "", force)
    table = table_beside(entry, out)
    check_curve_table(table, bank, force)
    draw(entry, out, bank, plot)
    return {"figure": out, **({"table": table} if table else {})}


Predictions = Annotated[
    str | None,
    option(WHAT, metavar="RECORD", help="Write the predictions of single images of this record instead."),
]
PredictionsTable = Annotated[
    str | None, option(WHAT, help="Of the predictions, e.g. episodes.", show_default="images")
]


@command(app, "export")
def records_export(
    bank: BankPath,
    out: TableOut,
    kind: KindFilter = None,
    model: ModelFilter = None,
    predictions: Predictions = None,
    table: PredictionsTable = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write records as a tidy table, a row for each value. Exit 1 if a record cannot be read.

    -o takes the table: .csv, .parquet or .json.
    """
    from engine.report import records
    from stores.bank.record_index import read_index, select
    from stores.bank.record_table import ENDINGS

    check_output(out, bank, "", force, kinds=ENDINGS)
    if predictions is not None or table is not None:
        records.export_predictions(bank, predictions, table, out, filters=(kind, model), as_json=json)
        return
    _export_values(bank, select(bank, read_index(bank), kind, model), out, json)


def _export_values(bank: str, entries: "Sequence[RecordEntry]", out: Path, json: bool) -> None:
    """Write a row for each value of the records that can be read, and name the others."""
    from engine.report import records
    from engine.report.bank_text import print_damage
    from engine.report.console import write
    from stores.bank.record_table import write_records

    readable = [entry for entry in entries if entry.record is not None]
    if not readable:
        rule, remedy = "An export takes what is there", "run an evaluation first"
        raise Refused(f"{bank} has no record that can be read", rule, remedy)
    rows = write_records(readable, out)
    damaged = records.unreadable(entries)

    def text() -> None:
        write(f"{out}: {rows:,} values of {len(readable):,} records")
        print_damage([{**entry, "reason": f"left out: {entry['reason']}"} for entry in damaged])

    count = len(readable)
    show({"bank": bank, "file": out, "records": count, "rows": rows, "damaged": damaged}, json, text)
    end_with_failures(bool(damaged))
