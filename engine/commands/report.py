"""`embank report`: one page with everything that the records of a bank or a study say."""

from pathlib import Path
from typing import Annotated

import typer

from engine.commands.choices import Against
from engine.commands.declaring import OUTPUT, WHAT, option
from engine.commands.options import Force, Json, PageOut
from engine.commands.showing import end_with_failures, show

PageSource = Annotated[
    str,
    typer.Argument(metavar="BANK|STUDY", help="A bank, or the folder that `embank study run` has made."),
]
AgainstOption = Annotated[
    Against | None,
    option(WHAT, "--against", metavar="paper", help="Set the numbers beside those that were published."),
]
Thumbnails = Annotated[
    bool,
    option(WHAT, "--thumbnails", help="Show single images too; a patient may be recognised by one."),
]
Tables = Annotated[
    Path | None,
    option(OUTPUT, "--tables", metavar="FOLDER", help="Also write each table as .csv and .tex there."),
]
NoTimings = Annotated[
    bool, option(OUTPUT, "--no-timings", help="Leave out dates, times and the ids of records.")
]


def report(
    source: PageSource,
    out: PageOut,
    against: AgainstOption = None,
    thumbnails: Thumbnails = False,
    tables: Tables = None,
    no_timings: NoTimings = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write one self-contained HTML page: verdict, validity, results, charts, tables. Exit 1 on damage.

    -o takes the page: .html. It is drawn from records alone, opens from a disk, and makes no request. Of a
    bank it shows the latest record of each model and setting, and compares the models where no comparison is
    kept; of a study the records of its cells, and which cells have none. The same records give the same
    page, byte for byte.
    """
    from engine.report.page_text import print_report
    from engine.study.report import report as write

    made = write(
        source,
        out,
        against=against.value if against else None,
        thumbnails=thumbnails,
        tables=tables,
        timings=not no_timings,
        force=force,
    )
    show(made.to_dict(), json, lambda: print_report(made.to_dict()))
    end_with_failures(bool(made.damaged))
