"""The learning curve of a finetuning: losses, score and learning rate at each validation."""

import csv
import io
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from itertools import pairwise
from math import isfinite, nan

from stores.json_types import Json, JsonObject


@dataclass(frozen=True)
class CurvePoint:
    """One validation.

    Attributes:
        step: updates of the weights before it.
        lr: learning rate of the last of these updates.
        train_loss: mean loss of the updates since the previous validation; NaN before the first update.
        val_loss: mean loss of the validation images; NaN where they are none.
        val_score: the score by which the best weights are chosen; NaN where it is undefined.
    """

    step: int
    lr: float
    train_loss: float
    val_loss: float
    val_score: float

    def to_dict(self) -> JsonObject:
        """Return all fields; None where a number is not finite, which JSON cannot say."""
        values = (value if isfinite(value) else None for value in astuple(self))
        return dict(zip(COLUMNS, values, strict=True))


#: Columns of the table, in order.
COLUMNS = tuple(field.name for field in fields(CurvePoint))


@dataclass(frozen=True)
class Curve:
    """All validations of a finetuning, in order of their steps."""

    points: tuple[CurvePoint, ...] = ()

    def __post_init__(self) -> None:
        steps = [point.step for point in self.points]
        if any(step < 0 for step in steps) or any(a >= b for a, b in pairwise(steps)):
            raise ValueError(f"steps {steps[:5]} ... of a learning curve do not rise from 0 or above")

    def with_point(self, point: CurvePoint) -> "Curve":
        """Return the curve with one more validation at its end. Raises ValueError: its step is no later."""
        return Curve((*self.points, point))

    def to_dict(self) -> JsonObject:
        """Return `{points: [{step, lr, train_loss, val_loss, val_score}, ...]}`."""
        return {"points": [point.to_dict() for point in self.points]}

    @classmethod
    def from_dict(cls, body: Mapping[str, Json]) -> "Curve":
        """Read what `to_dict` returned; None becomes NaN.

        Raises:
            ValueError: a field is missing or is no number, or the steps do not rise.
        """
        points = body.get("points")
        if not isinstance(points, list):
            raise ValueError("a learning curve has a list of points")
        return cls(tuple(_point(point) for point in points))

    def to_csv(self) -> str:
        """Return a table with a row for each validation; reading its numbers gives the same bits."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([repr(value) for value in astuple(point)] for point in self.points)
        return text.getvalue()

    @classmethod
    def from_csv(cls, text: str) -> "Curve":
        """Read what `to_csv` returned.

        Raises:
            ValueError: it is another table, or a value is no number.
        """
        header, *rows = list(csv.reader(io.StringIO(text))) or [[]]
        if tuple(header) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
            raise ValueError(f"a learning curve has the columns {', '.join(COLUMNS)}")
        return cls(tuple(CurvePoint(int(step), *map(float, values)) for step, *values in rows))


def _point(body: Json) -> CurvePoint:
    if not isinstance(body, Mapping) or not set(COLUMNS) <= set(body):
        raise ValueError(f"a point of a learning curve has {', '.join(COLUMNS)}")
    step = body["step"]
    if not isinstance(step, int) or isinstance(step, bool):
        raise ValueError(f"step {step!r} of a learning curve is no whole number")
    return CurvePoint(step, *(_number(body[name]) for name in COLUMNS[1:]))


def _number(value: Json) -> float:
    if value is None:
        return nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} of a learning curve is no number")
    return float(value)
