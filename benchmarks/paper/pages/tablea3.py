"""Table A3 of the paper."""

from benchmarks.paper.results_table import results_table
from benchmarks.paper.values import Values
from engine.report.page.blocks import DataTable

TITLE = "invariance to another view of the same patient"


def table(values: Values) -> DataTable:
    """Return the table."""
    return results_table("Table A3", values)
