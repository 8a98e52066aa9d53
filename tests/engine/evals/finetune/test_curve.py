"""Learning curves round trip exactly, as CSV and as JSON, undefined numbers included."""

import csv
import io
import json
from math import inf, isnan, nan, nextafter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.evals.finetune.curve import COLUMNS, Curve, CurvePoint

_NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def _curves(draw: st.DrawFn) -> Curve:
    steps = sorted(draw(st.sets(st.integers(0, 10**9), max_size=6)))
    return Curve(tuple(CurvePoint(step, *(draw(_NUMBERS) for _ in range(4))) for step in steps))


def _bits(curve: Curve) -> list[tuple[int, ...]]:
    """Give each number as text that tells all floats apart, also -0.0; there is one NaN."""
    return [
        (p.step, *(float.hex(value) for value in (p.lr, p.train_loss, p.val_loss, p.val_score)))
        for p in curve.points
    ]


@given(_curves())
def test_a_csv_file_gives_the_same_bits(curve: Curve) -> None:
    assert _bits(Curve.from_csv(curve.to_csv())) == _bits(curve)


def test_the_csv_is_read_by_pythons_own_reader() -> None:
    third = nextafter(1 / 3, 1)
    curve = Curve((CurvePoint(0, 0.01, nan, 1.5, 0.25), CurvePoint(200, third, 0.1, 1e-300, 0.5)))
    rows = list(csv.DictReader(io.StringIO(curve.to_csv())))
    assert tuple(rows[0]) == COLUMNS == ("step", "lr", "train_loss", "val_loss", "val_score")
    assert [row["step"] for row in rows] == ["0", "200"]
    assert isnan(float(rows[0]["train_loss"]))
    assert (float(rows[1]["lr"]), float(rows[1]["val_loss"])) == (third, 1e-300)


def test_json_has_null_where_a_number_is_not_finite() -> None:
    curve = Curve((CurvePoint(0, 0.01, nan, inf, 0.1 + 0.2),))
    text = json.dumps(curve.to_dict(), allow_nan=False)
    assert json.loads(text)["points"] == [
        {"step": 0, "lr": 0.01, "train_loss": None, "val_loss": None, "val_score": 0.30000000000000004}
    ]
    (point,) = Curve.from_dict(json.loads(text)).points
    assert isnan(point.train_loss)
    assert isnan(point.val_loss)
    assert (point.step, point.lr, point.val_score) == (0, 0.01, 0.1 + 0.2)


def test_a_point_is_added_at_the_end_only() -> None:
    curve = Curve().with_point(CurvePoint(5, 0.1, 1.0, 1.0, 0.5))
    assert [p.step for p in curve.with_point(CurvePoint(6, 0.1, 1.0, 1.0, 0.5)).points] == [5, 6]
    with pytest.raises(ValueError, match="do not rise"):
        curve.with_point(CurvePoint(5, 0.1, 1.0, 1.0, 0.5))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"points": {}},
        {"points": [1]},
        {"points": [{"step": 1}]},
        {"points": [{"step": 1.5, "lr": 1, "train_loss": 1, "val_loss": 1, "val_score": 1}]},
        {"points": [{"step": 1, "lr": "1", "train_loss": 1, "val_loss": 1, "val_score": 1}]},
        {"points": [{"step": -1, "lr": 1, "train_loss": 1, "val_loss": 1, "val_score": 1}]},
    ],
)
def test_another_document_is_no_curve(body: dict) -> None:
    with pytest.raises(ValueError, match="learning curve"):
        Curve.from_dict(body)


@pytest.mark.parametrize("text", ["", "step,lr\n1,2\n", ",".join(COLUMNS) + "\n1,2\n"])
def test_another_table_is_no_curve(text: str) -> None:
    with pytest.raises(ValueError, match="learning curve"):
        Curve.from_csv(text)
