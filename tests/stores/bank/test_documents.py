"""Sealed JSON: no single flipped bit passes."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.bank import documents
from stores.errors import BankError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
HERE = Path("document.json")


@given(st.dictionaries(st.text().filter(lambda name: name != "sha256"), VALUES, max_size=4))
def test_round_trip(body: dict[str, object]) -> None:
    data = documents.encode(body)
    assert documents.decode(data, HERE) == body
    assert json.loads(data)["sha256"]


def test_every_single_bit_flip_is_found() -> None:
    data = documents.encode({"schema": 1, "text": "naïve", "numbers": [1, 2.5, 1e300, -0.0], "none": None})
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(documents.BrokenDocument):
            documents.decode(bytes(damaged), HERE)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\n",
        lambda data: b" " + data,
        lambda data: data.replace(b'"a":1', b'"a":1.0'),
        lambda data: data.replace(b'"a":1', b'"a":1,"a":1'),
        lambda data: b"[" * 100_000,
        lambda data: b"null\n",
        lambda data: b'{"sha256":[]}\n',
        lambda data: b"\xff\xfe",
    ],
)
def test_other_bytes_of_the_same_meaning_are_refused(spoil: object) -> None:
    data = documents.encode({"a": 1})
    with pytest.raises(BankError, match="damaged"):
        documents.decode(spoil(data), HERE)  # type: ignore[operator]


def test_nan_and_the_reserved_name_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        documents.encode({"a": float("nan")})
    with pytest.raises(ValueError, match="reserved"):
        documents.encode({"sha256": "x"})


def test_a_missing_document_is_none_or_an_error(tmp_path: Path) -> None:
    assert documents.read_if_there(tmp_path / "none.json") is None
    with pytest.raises(BankError, match="No such file"):
        documents.read(tmp_path / "none.json")
