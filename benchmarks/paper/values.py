"""Results by model, data set and metric: one type for the published ones and for our own.

Metrics that end in `_pct` are percent; cosines, LPIPS and attentive diffusion are plain numbers. A confidence
interval is given as its half width, in the unit of its value. The sources are in `published/SOURCE.md`.
"""

import csv
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import overload

PUBLISHED = Path(__file__).parent / "published"

#: Tables of results in the paper: name -> file.
TABLES = {
    "Table 3": "table3_few_shot",
    "Table 4": "table4_many_shot",
    "Table A1": "tableA1_rotation_hue_invariance",
    "Table A2": "tableA2_hflip_invariance",
    "Table A3": "tableA3_multiview_invariance",
    "Table A4": "tableA4_lpips_alex",
    "Table A5": "tableA5_lpips_squeeze",
    "Table A6": "tableA6_lpips_vgg",
    "Table A7": "tableA7_attentive_diffusion",
}
#: `Value.source` of the results of all thirteen checkpoints.
STORED = "stored results"


@dataclass(frozen=True)
class Value:
    """One number of one model on one data set.

    Attributes:
        model, dataset, metric: e.g. `byol`, `bach`, `few_shot_2way_20shot_accuracy_pct`.
        value: in the metric's unit; NaN if undefined.
        ci95: half width of its 95 % interval; None where none is given.
        text: as printed, with its trailing zeros; "" for a number that is not printed anywhere.
        source: e.g. `Table 3`, or where our own is from.
        reason: why it is undefined, or what is to be known of it; "" for nothing.
        ci95_text: the half width as printed.
    """

    model: str
    dataset: str
    metric: str
    value: float
    ci95: float | None = None
    text: str = ""
    source: str = ""
    reason: str = ""
    ci95_text: str = ""

    @property
    def decimals(self) -> int | None:
        """Return the number of printed decimals; None for a number that is not printed anywhere."""
        return len(self.text.partition(".")[2]) if self.text else None


#: What `where` takes: one name, several, or None for any.
Names = str | Collection[str] | None


class Values(Sequence[Value]):
    """Values in order, at most one of each model, data set and metric.

    Args:
        values: in any order, which is preserved.

    Raises:
        ValueError: two values of one model, data set and metric.
    """

    def __init__(self, values: Iterable[Value]) -> None:
        self._values = tuple(values)
        self._of = {(one.model, one.dataset, one.metric): one for one in self._values}
        if len(self._of) != len(self._values):
            raise ValueError("two values of one model, data set and metric")

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Value]:
        return iter(self._values)

    @overload
    def __getitem__(self, index: int) -> Value: ...
    @overload
    def __getitem__(self, index: slice) -> "Values": ...
    def __getitem__(self, index: int | slice) -> "Value | Values":
        return Values(self._values[index]) if isinstance(index, slice) else self._values[index]

    def __repr__(self) -> str:
        return f"Values of {len(self)}: {len(self.models())} models, {len(self.datasets())} data sets"

    def get(self, model: str, dataset: str, metric: str) -> Value | None:
        """Return a value; None if there is none."""
        return self._of.get((model, dataset, metric))

    def where(self, *, model: Names = None, dataset: Names = None, metric: Names = None) -> "Values":
        """Return the values of these models, data sets and metrics; None stands for any."""
        return Values(
            one
            for one in self._values
            if _names(model, one.model) and _names(dataset, one.dataset) and _names(metric, one.metric)
        )

    @cached_property
    def _orders(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        rows = [(one.model, one.dataset, one.metric) for one in self._values]
        models, datasets, metrics = (tuple(dict.fromkeys(row[place] for row in rows)) for place in range(3))
        return models, datasets, metrics

    def models(self) -> tuple[str, ...]:
        """Return the models in order of appearance."""
        return self._orders[0]

    def datasets(self) -> tuple[str, ...]:
        """Return the data sets in order of appearance."""
        return self._orders[1]

    def metrics(self) -> tuple[str, ...]:
        """Return the metrics in order of appearance."""
        return self._orders[2]


def _names(wanted: Names, name: str) -> bool:
    if wanted is None or isinstance(wanted, str):
        return wanted in (None, name)
    return name in wanted


def read_values(path: Path, source: str) -> Values:
    """Read a CSV file with columns model, dataset, metric, value, ci95; an empty ci95 is none given.

    Args:
        source: of its values.

    Raises:
        OSError: the file cannot be read. ValueError: a cell is not a number.
    """
    with path.open(encoding="utf-8", newline="") as file:
        return Values(
            Value(
                row["model"],
                row["dataset"],
                row["metric"],
                float(row["value"]) if row["value"] else math.nan,
                float(row["ci95"]) if row["ci95"] else None,
                row["value"],
                source,
                ci95_text=row["ci95"],
            )
            for row in csv.DictReader(file)
        )


@cache
def published_tables() -> Values:
    """Return the cells of Tables 3, 4 and A1-A7 as printed.

    The rows `mimic-chexpert` and `moco-cxr` are the largest value over the checkpoints of each cell.
    """
    return Values(
        one for table, name in TABLES.items() for one in read_values(PUBLISHED / f"{name}.csv", table)
    )


@cache
def published_results() -> Values:
    """Return the results that the authors stored with their code, of all thirteen checkpoints."""
    return read_values(PUBLISHED / "repo_results_tidy.csv", STORED)
