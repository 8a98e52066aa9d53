"""Keys and names: any difference in what made a feature leads to another array."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.bank.keys import FeatureKey, check_schema
from stores.bank.layout import Grid, default_chunk_rows, is_feature_name
from stores.bank.reader import Bank
from stores.errors import BankError
from tests.stores.banks import fill, make_bank, make_key

TEXT = st.text(max_size=20)
KEYS = st.builds(
    FeatureKey,
    model=TEXT,
    weights=TEXT,
    architecture=TEXT,
    recipe=TEXT,
    precision=TEXT,
    decoder=TEXT,
    layer=TEXT,
    images=TEXT,
    dtype=st.sampled_from(["float16", "float32"]),
)
IDENTIFYING = [field.name for field in fields(FeatureKey) if field.name != "model"]


@given(KEYS, st.sampled_from(IDENTIFYING), TEXT)
def test_any_field_changes_the_digest_and_the_directory(key: FeatureKey, field: str, value: str) -> None:
    values = {"dtype": "float32" if key.dtype == "float16" else "float16", "schema": key.schema + 1}
    other = replace(key, **{field: values.get(field, value)})
    if other == key:
        return
    assert other.digest != key.digest
    assert other.name != key.name


@given(KEYS, TEXT)
def test_the_slug_is_a_name_only(key: FeatureKey, model: str) -> None:
    assert replace(key, model=model).digest == key.digest


@given(KEYS)
def test_names_are_plain_directory_names_and_keys_survive_json(key: FeatureKey) -> None:
    assert is_feature_name(key.name)
    assert "/" not in key.name
    assert FeatureKey.from_dict(key.to_dict()) == key


def test_fields_do_not_run_into_each_other() -> None:
    assert (
        make_key("i", weights="ab", architecture="c").digest
        != make_key("i", weights="a", architecture="bc").digest
    )


def test_a_bank_keeps_features_of_different_keys_apart(tmp_path: Path) -> None:
    bank = make_bank(tmp_path / "bank", rows=70)
    first = bank.features("torchvision/resnet18").array.copy()
    fill(bank, make_key(bank.image_digest, precision="bf16"), 24, seed=1)
    assert len(bank.list()) == 2
    names = [info.name for info in bank.list()]
    with pytest.raises(BankError, match="could be any of"):
        bank.features("torchvision/resnet18")
    arrays = [bank.features(name).array for name in names]
    assert sum((array[0] == first[0]).all() for array in arrays) == 1


@pytest.mark.parametrize("body", [{}, {"extra": 1}])
def test_keys_of_other_fields_are_refused(body: dict[str, int]) -> None:
    with pytest.raises(BankError, match="fields"):
        FeatureKey.from_dict(body)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(BankError, match="float64"):
        make_key("i", dtype="float64")


@pytest.mark.parametrize(
    ("version", "remedy"), [(2, "newer embank"), (0, "new bank"), (True, ""), ("1", ""), (None, "")]
)
def test_other_schema_versions_are_refused(version: object, remedy: str) -> None:
    with pytest.raises(BankError, match="schema version") as caught:
        check_schema(version, "bank")
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(1, 64), (4096, 64), (4097, 128), (224_316, 4096), (1_048_576, 16384), (1_000_000_000, 16384)],
)
def test_default_chunk_rows(rows: int, expected: int) -> None:
    assert default_chunk_rows(rows) == expected


@given(st.integers(1, 500), st.integers(1, 70))
def test_chunks_cover_all_rows_once(rows: int, chunk_rows: int) -> None:
    grid = Grid(rows, chunk_rows)
    covered = [row for index in range(grid.chunks) for row in range(*grid.bounds(index))]
    assert covered == list(range(rows))
    with pytest.raises(IndexError):
        grid.bounds(grid.chunks)


def test_opening_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="not a bank"):
        Bank.open(tmp_path)
