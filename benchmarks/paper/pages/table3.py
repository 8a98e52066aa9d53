"""Table 3 of the paper."""

from benchmarks.paper.results_table import results_table
from benchmarks.paper.values import Values
from engine.report.page.blocks import DataTable

TITLE = "few-shot accuracy of all models on eight data sets"


def table(values: Values) -> DataTable:
    """Return the table."""
    return results_table("Table 3", values)
