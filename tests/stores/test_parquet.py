"""Parquet files written without pyarrow are what pyarrow and pandas read."""

import io

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores.parquet import Coded, Texts, encode


@pytest.mark.parametrize("rows", [0, 1, 8, 9, 65_536, 65_537])
@pytest.mark.parametrize("names", [1, 2, 3, 300])
def test_every_kind_of_column_is_read_back(rows: int, names: int) -> None:
    generator = np.random.default_rng(rows + names)
    texts = [f"nä {i}" for i in range(names)]
    codes = generator.integers(0, names, rows)
    columns = {
        "float64": generator.normal(size=rows),
        "float32": generator.normal(size=rows).astype(np.float32),
        "float16": generator.normal(size=rows).astype(np.float16),
        "int64": generator.integers(-(2**60), 2**60, rows),
        "int32": generator.integers(-9, 9, rows).astype(np.int32),
        "uint8": generator.integers(0, 255, rows).astype(np.uint8),
        "bool": generator.random(rows) < 0.5,
        "coded": Coded(codes, texts),
        "text": [f"{i} é" for i in range(rows)],
    }
    data = encode(columns)
    table = pq.read_table(io.BytesIO(data))
    assert table.column_names == list(columns) and table.num_rows == rows
    for name in ("float64", "float32", "int64", "int32", "uint8", "bool"):
        np.testing.assert_array_equal(table.column(name).to_numpy(), columns[name])
    np.testing.assert_array_equal(table.column("float16").to_numpy(), columns["float16"].astype(np.float32))
    assert table.column("coded").to_pylist() == [texts[code] for code in codes]
    assert table.column("text").to_pylist() == columns["text"]
    if rows == 9:
        assert pd.read_parquet(io.BytesIO(data)).shape == (9, len(columns))


def test_what_is_no_number_stays_so() -> None:
    table = pq.read_table(io.BytesIO(encode({"x": np.array([np.nan, np.inf, -0.0])})))
    values = table.column("x").to_numpy()
    assert np.isnan(values[0]) and values[1] == np.inf and np.signbit(values[2])
    assert table.column("x").null_count == 0


def test_more_columns_than_a_short_list_has() -> None:
    columns = {f"score.{i}": np.arange(3) + i for i in range(40)}
    assert pq.read_table(io.BytesIO(encode(columns))).column("score.39").to_pylist() == [39, 40, 41]


def test_columns_that_do_not_belong_together_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"columns of \[2, 3\] rows"):
        encode({"a": np.zeros(2), "b": np.zeros(3)})
    with pytest.raises(ValueError, match="complex"):
        encode({"a": np.zeros(2, complex)})


@given(st.lists(st.text(), max_size=20), st.lists(st.integers(0, 19), max_size=30))
@settings(deadline=None, max_examples=60)
def test_texts_are_kept_and_taken(texts: list[str], places: list[int]) -> None:
    """Surrogates, which are no Unicode, become escapes."""
    clean = [text.encode("utf-8", "backslashreplace").decode() for text in texts]
    stored = Texts.of(texts)
    assert list(stored) == clean
    rows = np.array([place for place in places if place < len(texts)], np.intp)
    taken = stored.take(rows)
    assert list(taken) == [clean[row] for row in rows]
    if texts:
        with pytest.raises(IndexError):
            stored[len(texts)]
    table = pq.read_table(io.BytesIO(encode({"text": taken})))
    assert table.column("text").to_pylist() == list(taken)


def test_texts_of_one_length_are_taken_by_another_way() -> None:
    stored = Texts.of([f"{i:04d}" for i in range(50)])
    assert list(stored.take(np.array([7, 49, 7]))) == ["0007", "0049", "0007"]
