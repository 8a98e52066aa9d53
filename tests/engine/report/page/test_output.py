"""Files of a page: tables are complete, however little of them fits on the page."""

import csv
from pathlib import Path

from engine.report.page.inputs import PageOptions
from engine.report.page.output import Output
from stores.json_types import JsonObject
from tests.page_records import page, probe

SWEEP: JsonObject = {
    "select": "accuracy",
    "best_C": 1.0,
    "sweep": {"C": [1.0], "val_score": [0.8], "converged": [True]},
}


def test_tables_are_complete_where_the_page_is_cut(tmp_path: Path) -> None:
    names = [f"m{place:02}" for place in range(40)]
    entries = [probe(name, 0.5, 0.4, 0.6, metrics=SWEEP) for name in names]
    output = Output(tmp_path / "r.html", tmp_path / "tables", False, ())
    size, files = output.write(page(*entries), PageOptions(max_bytes=50_000))
    assert b"rows are left out" in output.page.read_bytes()
    (table,) = [path for path in files if path.match("*selection*.csv")]
    with table.open() as file:
        _, *rows = csv.reader(file)
    assert sorted(row[0] for row in rows) == names
    assert size == output.page.stat().st_size
