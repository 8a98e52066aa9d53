"""Every table of the corpus is read literally, or refused with a message that says where and what to do."""

from pathlib import Path

import pytest

from stores.errors import ManifestError, PathRefused
from stores.manifest.manifest import Manifest
from tests.corpus.tables import GROUPS, Case

CASES = [pytest.param(case, id=f"{group}-{case.name}") for group, cases in GROUPS.items() for case in cases]


def test_the_corpus_has_both_classes() -> None:
    cases = [case for cases in GROUPS.values() for case in cases]
    assert all(bool(case.says) != bool(case.rows) for case in cases)
    assert sum(bool(case.says) for case in cases) > 30


@pytest.mark.parametrize("case", CASES)
def test_table_is_in_its_class(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(case.data)
    if case.rows:
        manifest = Manifest.read(path)
        names = ("image_id", "uri", "label")
        assert list(zip(*(manifest.column(name) for name in names), strict=True)) == list(case.rows)
        assert manifest.root == tmp_path
        return
    with pytest.raises(PathRefused if case.path else ManifestError) as caught:
        Manifest.read(path)
    message = str(caught.value)
    for text in case.says:
        assert text in message
    assert "Remedy: " in message
    assert message.isprintable(), "a message shows no control character of the data"
    assert type(caught.value) is (PathRefused if case.path else ManifestError)


def test_parquet_obeys_the_same_uri_policy(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"uri": ["a.png", "../b.png", "/c.png"]}), tmp_path / "m.parquet")
    with pytest.raises(PathRefused, match=r"2 uris refused: row 1: '\.\./b\.png' climbs.*row 2: '/c\.png'"):
        Manifest.read(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet", allow_outside=True).uris == ["a.png", "../b.png", "/c.png"]


def test_leaving_the_root_is_all_that_can_be_allowed(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("uri\nhttp://example.org/a.png\n")
    with pytest.raises(PathRefused, match="scheme"):
        Manifest.read(path, allow_outside=True)


def test_many_refused_uris_are_counted_and_few_shown(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("uri\n" + "".join(f"../{i}.png\n" for i in range(1000)))
    with pytest.raises(PathRefused) as caught:
        Manifest.read(path)
    assert "1000 uris refused" in str(caught.value)
    assert "and 997 more" in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.slow
def test_blocks_keep_rows_and_lines_apart(tmp_path: Path) -> None:
    """More rows than one reading block, with an error behind it."""
    path = tmp_path / "m.csv"
    count = 70_000
    good = "image_id,uri\n" + "".join(f"{i:05d},d/{i}.png\n" for i in range(count))
    path.write_text(good)
    manifest = Manifest.read(path)
    assert len(manifest) == count
    assert manifest.image_ids[65_535:65_538] == ["65535", "65536", "65537"]
    assert manifest.uris[-1] == f"d/{count - 1}.png"
    path.write_text(good + "x\n")
    with pytest.raises(ManifestError, match=f"line {count + 2}"):
        Manifest.read(path)


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_what_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "missing.csv" if kind == "missing" else tmp_path
    with pytest.raises(ManifestError, match="embank manifest folder"):
        Manifest.read(path)
