"""Cross-validations with repeats: their predictions have each image several times."""

from typing import TYPE_CHECKING

import numpy as np

from engine.report.record_values import at, number
from stores.bank.records import RunRecord

if TYPE_CHECKING:
    import pyarrow as pa

#: Column of predictions that says in which repeat an image was tested.
_COLUMN = "repeat"


def first_repeat(table: "pa.Table") -> "pa.Table":
    """Return predictions with each image once: of several repeats those of the first."""
    if _COLUMN not in table.column_names:
        return table
    repeats = table.column(_COLUMN).to_numpy()
    return table.filter(repeats == np.min(repeats)) if len(repeats) else table


def repeats_of(record: RunRecord) -> int:
    """Return how often a record has tested each image; 1 without repeats."""
    count = number(at(record.asked, "cross_validation.repeats"))
    return int(count) if count == count else 1
