"""Table A1 of the paper."""

from benchmarks.paper.results_table import results_table
from benchmarks.paper.values import Values
from engine.report.page.blocks import DataTable

TITLE = "invariance to rotation and to hue"


def table(values: Values) -> DataTable:
    """Return the table."""
    return results_table("Table A1", values)
