"""RunRecords: what is written is what is read."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores.bank import documents
from stores.bank.records import RunRecord, read_all
from stores.errors import BankError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.dictionaries(st.text(), PLAIN, max_size=3)


@given(st.text(), FIELDS, FIELDS, FIELDS, FIELDS, FIELDS)
@settings(deadline=None, max_examples=40)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    asked: dict,
    used: dict,
    metrics: dict,
    seconds: dict,
    failures: dict,
) -> None:
    bank = tmp_path_factory.mktemp("bank")
    record = RunRecord.now(
        kind=kind,
        asked=asked,
        used=used,
        metrics=metrics,
        seconds=seconds,
        failures=failures,
        versions={"a": "1"},
    )
    path = record.write(bank)
    assert path.parent == bank / "records"
    assert read_all(bank) == [record]


def record(**metrics: object) -> RunRecord:
    return RunRecord("probe", {}, {}, metrics, {}, created="2026-01-02T03:04:05.000006+00:00")


def test_numbers_of_numpy_and_other_values_become_plain() -> None:
    found = record(
        a=np.float32(0.5),
        b=np.arange(3),
        c=(1, 2),
        d=Path("x"),
        e=float("nan"),
        f={1: np.bool_(True)},
        g=np.inf,
    ).metrics
    assert found == {"a": 0.5, "b": [0, 1, 2], "c": [1, 2], "d": "x", "e": None, "f": {"1": True}, "g": None}


def test_records_are_read_in_order_and_writing_twice_keeps_one(tmp_path: Path) -> None:
    later, earlier = RunRecord.now("b", asked={}, used={}, metrics={}, seconds={}), record(accuracy=1)
    for each in (later, earlier, earlier):
        each.write(tmp_path)
    assert read_all(tmp_path) == [earlier, later]
    assert earlier.write(tmp_path).name.startswith("20260102T030405.000006Z-probe-")


def test_none_is_an_empty_list(tmp_path: Path) -> None:
    assert read_all(tmp_path) == []


def test_damaged_and_foreign_records_are_refused(tmp_path: Path) -> None:
    path = record(accuracy=0.25).write(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"0.25", b"0.95"))
    with pytest.raises(BankError, match="damaged"):
        read_all(tmp_path)
    path.write_bytes(documents.encode({**documents.decode(whole, path), "schema": 9}))
    with pytest.raises(BankError, match="schema version 9"):
        read_all(tmp_path)
