"""Text as people see it: what is one value, what is missing, what stays as it is."""

import unicodedata
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.datasets._splits import by_group
from engine.datasets.dicom import _group
from stores.errors import ManifestError
from stores.manifest.manifest import Manifest
from stores.manifest.spellings import alike, key
from stores.manifest.tables import write_parquet
from stores.manifest.text import cell, clean, cleaned

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.text(
    st.sampled_from(list("aé\u0301e\u200b\ufeff \u00a0\u2009\t\nÅ\u212b\u1100\u1161ﬁ\U000e0001")), max_size=8
)
SEEN = (
    ("Ödem", "O\u0308dem"), ("Å", "\u212b"), ("가", "\u1100\u1161"), ("a b", "a\u00a0b"), ("a b", "a\u202fb"),
    ("a b", "a\u2007b"), ("ab", "a\u200bb"), ("ab", "\ufeffab"), ("ab", "a\u00adb"), ("ab", "ab\u200e"),
    ("ab", "a\u2060b"), ("ab", " ab\t"), ("ab", "ab\r\n"), ("e\u0301".encode().decode(), "\u00e9"),
)  # fmt: skip
DIFFERENT = (
    "ab",
    "a b",
    "a  b",
    "AB",
    "ﬁ",
    "fi",
    "a-b",
    "a–b",
    "Ab",
    "áb",
    "٠",
    "0",
    "\u0600",
    "葛\U000e0100",
)


@pytest.mark.parametrize(("one", "other"), SEEN)
def test_what_nobody_can_tell_apart_is_one_value(one: str, other: str) -> None:
    assert clean(one) == clean(other)


def test_what_can_be_seen_stays() -> None:
    assert len({clean(text) for text in DIFFERENT}) == len(DIFFERENT)


@given(st.lists(TEXT, min_size=1, max_size=8))
@settings(deadline=None, max_examples=80)
def test_columns_are_cleaned_as_single_texts_are(texts: list[str]) -> None:
    column = pa.chunked_array(
        [pa.array(texts[:3], pa.large_string()), pa.array(texts[3:], pa.large_string())]
    )
    found = cleaned(column).to_pylist()
    assert found == [clean(text) for text in texts]
    assert found == [clean(text) for text in found]
    for text in found:
        assert unicodedata.is_normalized("NFC", text) and not text.startswith(" ") and not text.endswith(" ")
        assert not {"\u200b", "\u200d", "\ufeff", "\u00a0", "\u202f"} & set(text)


def test_missing_words_are_missing_in_every_column_but_names() -> None:
    words = ["None", "NULL", "NaN", "NA", "-", "", "  ", "nan", "null", "<NA>", "N/A", "\u2014"]
    columns = ("label", "split", "group", "study", "view", "age")
    manifest = Manifest.from_columns(
        {"image_id": [*words[:5], *"123456", "\u2014"], "uri": [f"{i}.png" for i in range(len(words))]}
        | dict.fromkeys(columns, words),
        "/r",
    )
    for name in columns:
        assert manifest.column(name) == [""] * len(words)
        (note,) = [note for note in manifest.notes if note.startswith(f"column {name}: ")]
        assert note.startswith(f"column {name}: 11 cells are missing (")
    assert manifest.image_ids[:5] == words[:5]
    for word in ("no", "0", "nil", "--", "nano", "unknown", "-1", "none found", "N"):
        assert cell(word) == word


def test_headers_are_cleaned_and_asked_for_so(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\u200buri, Finding\u200b,Pat\u00a0ID\na.png,x,1\n", "utf-8")
    pq.write_table(
        pa.table({"uri\ufeff": ["a.png"], "Finding ": ["x"], "Pat\u00a0ID": ["1"]}), tmp_path / "t.parquet"
    )
    frame = pd.DataFrame({"uri ": ["a.png"], "Finding\u200b": ["x"], "Pat\u00a0ID": ["1"]})
    for name in ("t.csv", "t.parquet"):
        for asked in ("Finding", "Finding\u200b"):
            manifest = Manifest.from_table(tmp_path / name, label=asked, group="Pat ID")
            assert (manifest.column("label"), manifest.column("group")) == (["x"], ["1"])
            assert manifest.notes[0].startswith("header: ")
    assert Manifest.from_frame(frame, tmp_path).table.column_names[-2:] == ["Finding", "Pat ID"]
    (tmp_path / "t.csv").write_text("uri,label,label\u200b\na.png,x,y\n", "utf-8")
    with pytest.raises(ManifestError, match="more than once"):
        Manifest.read(tmp_path / "t.csv")
    with pytest.raises(ManifestError, match="unique names"):
        Manifest.from_frame(pd.DataFrame({"uri": ["a"], "x": ["1"], "x ": ["2"]}), tmp_path)


def test_paths_stay_as_they_are_and_ids_do_not(tmp_path: Path) -> None:
    uris = ["e\u0301.png", "a\u00a0b.png", "c.png "]
    for uri in uris:
        (tmp_path / uri).write_bytes(b"x")
    (tmp_path / "t.csv").write_text("uri\n" + "\n".join(uris) + "\n", "utf-8")
    for manifest in (Manifest.read(tmp_path / "t.csv"), Manifest.from_columns({"uri": uris}, tmp_path)):
        assert manifest.uris == uris
        assert all((manifest.root / uri).exists() for uri in manifest.uris)
        assert manifest.image_ids == ["\u00e9.png", "a b.png", "c.png"]
        assert any(note.startswith("column uri: 3 paths") for note in manifest.notes)
    with pytest.raises(ManifestError, match="stand more than once"):
        Manifest.from_columns({"image_id": ["1", "1\u200b"], "uri": ["a", "b"]}, tmp_path)
    with pytest.raises(ManifestError, match="is empty"):
        Manifest.from_columns({"uri": ["a.png", " \u00a0"]}, tmp_path)


def test_what_embank_wrote_is_read_as_it_is_and_what_others_wrote_is_not(tmp_path: Path) -> None:
    """Else the manifest of a bank that an earlier version made would not be the one that was promised."""
    cells = {"image_id": ["1 ", "2"], "uri": ["a", "b"], "label": ["None", "NA"], "split": ["valid", "Train"]}
    empty = {name: ["", ""] for name in ("group", "study", "view")}
    table = pa.table({name: pa.array(c, pa.large_string()) for name, c in (cells | empty).items()})
    write_parquet(tmp_path / "m.parquet", table, tmp_path)
    manifest = Manifest.read(tmp_path / "m.parquet")
    assert manifest.table.to_pydict() == cells | empty and manifest.notes == ()
    pq.write_table(pq.read_table(tmp_path / "m.parquet"), tmp_path / "edited.parquet")
    for found in (
        Manifest.read(tmp_path / "edited.parquet"),
        Manifest.from_table(tmp_path / "m.parquet", uri="uri"),
    ):
        assert (found.image_ids, found.column("label")) == (["1", "2"], ["", ""])
        assert found.column("split") == ["val", "train"]
        assert found.as_made(manifest.digest).digest == manifest.digest
        assert found.as_made("0" * 64) is found


def test_clean_tables_are_left_alone() -> None:
    columns = {
        "uri": ["a.png", "é.png"],
        "label": ["x", "Ödem"],
        "split": ["train", "holdout"],
        "note": ["a b", "1.0"],
    }
    manifest = Manifest.from_columns(columns, "/r")
    assert manifest.notes == () and manifest.before is None


def test_builders_put_what_looks_the_same_on_one_side() -> None:
    names = [f"p{i}" for i in range(200)]
    sides = by_group(pd.Series(names), 0, 0.5)
    assert set(sides) == {"train", "test"}
    assert (by_group(pd.Series([f" {name}\u200b" for name in names]), 0, 0.5) == sides).all()
    assert _group("123\u200b", "hashed", "salt") == _group("123", "hashed", "salt") != ""
    assert _group("None", "hashed", "salt") == _group(" ", "plain", "") == ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("7", "007"),
        ("7", "7.0"),
        ("007.0", "7"),
        ("P12", "p0012"),
        ("Normal", "NORMAL"),
        ("0", "0.0"),
        ("ß", "SS"),
    ],
)
def test_spellings_of_one_value(one: str, other: str) -> None:
    assert key(one) == key(other)


def test_other_values_are_no_spellings() -> None:
    values = ["1", "10", "100", "1.5", "1.50x", "0.5", "5", "10.05", "1.0.1", "1.1", "", "", "a0", "a"]
    assert alike(values) == []
    assert alike(["x", "a1", "X", "A01", "y", "a1.0"]) == [[0, 2], [1, 3, 5]]
