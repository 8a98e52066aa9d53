"""From embeddings to bytes: which rows are kept, and that bad ones leave their neighbours alone."""

from dataclasses import replace
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from stores.bank.encode import ROUNDING_LIMIT, encode
from stores.bank.keys import ChunkResult, Failure
from stores.bank.layout import FeatureLayout, Grid
from tests.stores.banks import embeddings, make_key

DIM = 16


def layout(rows: int = 10, chunk_rows: int = 64, dtype: str = "float16", dim: int = DIM) -> FeatureLayout:
    return FeatureLayout(Path("bank"), make_key("i", dtype=dtype), dim, Grid(rows, chunk_rows))


def encoded(values: np.ndarray, where: FeatureLayout, ok: np.ndarray | None = None) -> tuple:
    """(embedding, norm, status, failures) as decoded by numpy from the bytes."""
    ok = np.ones(len(values), bool) if ok is None else ok
    failures = tuple(Failure(int(row), "given", "by the caller") for row in np.flatnonzero(~ok))
    chunk = encode(ChunkResult(0, values, ok, failures), where)
    files = [bytes(data) for data in chunk.files.values()]
    for data in files:
        assert google_crc32c.value(data[:-4]) == int.from_bytes(data[-4:], "little")
    embedding, norm, status = (
        np.frombuffer(data[:-4], kind)
        for data, kind in zip(files[:3], (where.key.dtype, "<f4", "u1"), strict=True)
    )
    assert [len(data) for data in files[3:]] == [where.grid.chunk_rows * 32 + 4]
    return embedding.reshape(-1, where.dim), norm, status, chunk.failures


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_values_norms_and_padding(dtype: str) -> None:
    values = embeddings(10, DIM)
    embedding, norm, status, failures = encoded(values, layout(dtype=dtype))
    assert failures == ()
    np.testing.assert_array_equal(embedding[:10], values.astype(dtype))
    np.testing.assert_allclose(norm[:10], np.linalg.norm(values.astype(np.float64), axis=1), rtol=1e-7)
    assert np.isnan(embedding[10:]).all()
    assert np.isnan(norm[10:]).all()
    assert status.tolist() == [1] * 10 + [0] * 54


@pytest.mark.parametrize(
    ("spoil", "code", "codes32"),
    [
        ({3: np.nan}, "non_finite", "non_finite"),
        ({3: np.inf}, "non_finite", "non_finite"),
        ({0: -np.inf, 5: np.nan}, "non_finite", "non_finite"),
        ({3: 7e4}, "overflow", None),
        ({3: -7e4}, "overflow", None),
        ({3: 65519.0}, None, None),  # Rounds down to 65504, the largest float16.
        ({3: 65520.0}, "overflow", None),
        (dict.fromkeys(range(DIM), 3e38), "overflow", "overflow"),  # The norm exceeds float32.
        ({i: (1 + i) * 1e-8 for i in range(DIM)}, "underflow", None),
        ({i: (1 + i) * 1e-11 for i in range(DIM)}, "underflow", None),
        ({i: (1 + i) * 1e-5 for i in range(DIM)}, None, None),
        (dict.fromkeys(range(DIM), 1e-9), "underflow", "degenerate"),  # The first thing lost is the numbers.
        (dict.fromkeys(range(DIM), 0.0), "degenerate", "degenerate"),
        ({i: (-1) ** i * 0.0 for i in range(DIM)}, "degenerate", "degenerate"),
        (dict.fromkeys(range(DIM), 0.5), "degenerate", "degenerate"),
        (dict.fromkeys(range(DIM), -3.0), "degenerate", "degenerate"),
        (dict.fromkeys(range(DIM), np.nan), "non_finite", "non_finite"),
        (dict.fromkeys(range(DIM), np.inf), "non_finite", "non_finite"),
        ({**dict.fromkeys(range(DIM), 0.0), 7: 0.25}, None, None),  # All but one channel are dead.
        ({**dict.fromkeys(range(DIM), 0.5), 7: 0.75}, None, None),
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_bad_rows_fail_and_their_neighbours_do_not_change(
    spoil: dict[int, float], code: str | None, codes32: str | None, dtype: str
) -> None:
    values = embeddings(10, DIM)
    clean = encoded(values, layout(dtype=dtype))
    for column, value in spoil.items():
        values[4, column] = value
    embedding, norm, status, failures = encoded(values, layout(dtype=dtype))
    wanted = code if dtype == "float16" else codes32
    others = np.arange(10) != 4
    np.testing.assert_array_equal(embedding[:10][others], clean[0][:10][others])
    np.testing.assert_array_equal(norm[:10][others], clean[1][:10][others])
    assert status[:10][others].tolist() == [1] * 9
    assert [(f.row, f.code) for f in failures] == ([] if wanted is None else [(4, wanted)])
    assert status[4] == (1 if wanted is None else 2)
    assert np.isnan(embedding[4]).all() == (wanted is not None)
    assert np.isnan(norm[4]) == (wanted is not None)


@pytest.mark.parametrize(
    ("dim", "values", "codes"),
    [
        (1, [0.5, 0.0, -2.0], {1: "degenerate"}),
        (2, [[0.5, 0.5], [0.5, 0.25], [0.0, 0.0]], {0: "degenerate", 2: "degenerate"}),
    ],
)
def test_few_dimensions(dim: int, values: list, codes: dict[int, str]) -> None:
    """A feature of one dimension is constant over its dimensions, and as good as its value."""
    array = np.asarray(values, np.float32).reshape(3, dim)
    status, failures = encoded(array, layout(rows=3, dim=dim))[2:]
    assert {f.row: f.code for f in failures} == codes
    assert status[:3].tolist() == [2 if row in codes else 1 for row in range(3)]


def test_the_rounding_limit_is_relative_to_the_row() -> None:
    generator = np.random.default_rng(1)
    for scale in 10.0 ** generator.uniform(-9, 3, 200):
        values = (scale * generator.normal(size=(1, DIM))).astype(np.float32)
        exact = values.astype(np.float64)
        lost = np.linalg.norm(exact - values.astype(np.float16).astype(np.float64)) / np.linalg.norm(exact)
        status = encoded(values, layout(rows=1))[2][0]
        assert status == (2 if lost > ROUNDING_LIMIT else 1)


def test_many_blocks_equal_row_by_row() -> None:
    values = embeddings(1500, DIM)
    ok = np.ones(1500, bool)
    ok[[0, 511, 512, 1499]] = False
    values[700, 3] = np.nan
    embedding, norm, status, failures = encoded(values, layout(1500, 2048), ok)
    assert [f.row for f in failures] == [0, 511, 512, 700, 1499]
    assert np.flatnonzero(status[:1500] == 2).tolist() == [0, 511, 512, 700, 1499]
    for row in (1, 510, 513, 699, 1023, 1024, 1498):
        one = encoded(values[row : row + 1], layout(1))
        np.testing.assert_array_equal(one[0][0], embedding[row])
        assert one[1][0] == norm[row]


def test_the_same_result_gives_the_same_bytes_wherever_it_lies_in_memory() -> None:
    values = embeddings(10, DIM)
    wide = np.zeros((10, DIM + 1), np.float32)
    wide[:, 1:] = values
    ok = np.ones(10, bool)
    first = encode(ChunkResult(0, values, ok), layout())
    second = encode(ChunkResult(0, wide[:, 1:], ok), layout())
    assert [bytes(data) for data in first.files.values()] == [bytes(data) for data in second.files.values()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding": np.zeros((9, DIM), np.float32)}, "needs float32"),
        ({"embedding": np.zeros((10, DIM + 1), np.float32)}, "needs float32"),
        ({"embedding": np.zeros((10, DIM), np.float64)}, "needs float32"),
        ({"ok": np.ones(9, bool)}, "needs ok"),
        ({"ok": np.ones(10, np.uint8)}, "needs ok"),
        ({"ok": np.arange(10) != 3}, "exactly one failure"),
        ({"failures": (Failure(3, "corrupt", ""),)}, "exactly one failure"),
    ],
)
def test_contradictory_results_are_refused(change: dict, message: str) -> None:
    parts = {"index": 0, "embedding": np.zeros((10, DIM), np.float32), "ok": np.ones(10, bool)}
    with pytest.raises(ValueError, match=message):
        encode(ChunkResult(**{**parts, **change}), layout())


@pytest.mark.parametrize(("version", "status"), [(1, 1), (2, 2)])
def test_the_first_layout_takes_constant_rows_as_it_did(version: int, status: int) -> None:
    """A repair of such a feature must give its seal's bytes again."""
    where = replace(layout(), version=version)
    values = embeddings(10, DIM)
    values[4] = 0.5
    chunk = encode(ChunkResult(0, values, np.ones(10, bool)), where)
    stored = np.frombuffer(chunk.files[where.chunk_file("status", 0)], np.uint8)
    assert stored[4] == status
    assert (stored[[0, 3, 5, 9]] == 1).all()
