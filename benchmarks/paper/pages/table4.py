"""Table 4 of the paper."""

from benchmarks.paper.results_table import results_table
from benchmarks.paper.values import Values
from engine.report.page.blocks import DataTable

TITLE = "linear and finetuned accuracy on CheXpert and EyePACS"


def table(values: Values) -> DataTable:
    """Return the table."""
    return results_table("Table 4", values)
