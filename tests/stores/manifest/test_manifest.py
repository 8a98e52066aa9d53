"""Manifests: read as written, digests of the text alone, folders listed as they are."""

import csv
import hashlib
import io
import os
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores.errors import ManifestError, PathRefused, Refused
from stores.manifest.manifest import COLUMNS, Manifest
from stores.manifest.text import cell as read_cell
from stores.manifest.text import clean

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=6)
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@st.composite
def columns(draw: st.DrawFn) -> dict[str, list[str]]:
    """Columns that a manifest accepts, with the awkward texts that tables get wrong."""
    n = draw(st.integers(1, 5))
    awkward = st.sampled_from(["", "NA", "null", "00012", "1e5", " x ", "'", '"', ",", "=1+1", "True", "1.0"])
    texts = st.lists(TEXT | awkward, min_size=n, max_size=n)
    ids = st.lists(TEXT.filter(clean) | awkward.filter(clean), min_size=n, max_size=n, unique_by=clean)
    result = {"image_id": draw(ids), "uri": [f"d/{i}.png" for i in range(n)]}
    for name in draw(st.sets(st.sampled_from(COLUMNS[2:]))):
        cells = [
            text for text in draw(texts) if clean(text).lower() not in ("inf", "infinity", "+inf", "-inf")
        ]
        result[name] = cells + [""] * (n - len(cells))
    for name in draw(st.lists(st.sampled_from(["age", "sex", "note, long", '"']), max_size=2, unique=True)):
        result[name] = draw(st.lists(UNICODE | awkward, min_size=n, max_size=n))
    return result


def expected(cells: dict[str, list[str]]) -> dict[str, list[str]]:
    """What a manifest of these columns holds: the known ones in their order, absent ones empty, text clean.

    What clean text is, `tests/stores/manifest/test_text.py` says by values of its own.
    """
    n = len(cells["uri"])
    keep = {"image_id": clean, "uri": str}
    cells = {name: list(map(keep.get(name, read_cell), column)) for name, column in cells.items()}
    known = {name: cells.get(name, [""] * n) for name in COLUMNS}
    return known | {name: column for name, column in cells.items() if name not in COLUMNS}


# Reading and writing


@pytest.mark.slow
@given(columns())
@settings(deadline=None, max_examples=60)
def test_csv_and_parquet_give_back_every_cell(cells: dict[str, list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with (root / "in.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)  # its own line ends, CRLF
            writer.writerow(cells)
            writer.writerows(zip(*cells.values(), strict=True))
        pq.write_table(pa.table(cells), root / "in.parquet")
        found = [Manifest.read(root / "in.csv"), Manifest.read(root / "in.parquet")]
        found[0].write(root / "out.parquet")
        found[1].write(root / "out.csv")
        found += [Manifest.read(root / "out.parquet"), Manifest.read(root / "out.csv")]
        for manifest in found:
            assert manifest.table.to_pydict() == expected(cells)
            assert list(manifest.table.to_pydict()) == list(expected(cells))
            assert manifest.digest == found[0].digest
            assert manifest.image_digest == found[0].image_digest
            assert manifest.root == root


def test_line_ends_inside_cells_survive_csv(tmp_path: Path) -> None:
    notes = ["a\rb", "\r", "a\nb", "a\r\nb", '"', "", "\x00"]
    uris = [f"{i}.png" for i in range(len(notes))]
    Manifest.from_columns({"uri": uris, "note": notes}, tmp_path).write(tmp_path / "m.csv")
    assert Manifest.read(tmp_path / "m.csv").column("note") == [text.strip() for text in notes]


def test_frame_is_text(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image_id,uri,age\n00012,a.png,1e5\nNA,b.png,\n")
    frame = Manifest.read(tmp_path / "m.csv").frame
    assert [*frame["image_id"], *frame["age"], *frame["label"]] == ["00012", "NA", "1e5", "", "", ""]
    assert all(pd.api.types.is_string_dtype(frame[name]) for name in frame)


def test_same_manifest_same_bytes(tmp_path: Path) -> None:
    manifest = Manifest.from_columns({"uri": ["a.png", "b.png"], "label": ["x", "y"]}, tmp_path)
    manifest.write(tmp_path / "a.parquet")
    Manifest.read(tmp_path / "a.parquet").write(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"], (
        "no temporary file stays"
    )


def test_root_moves_with_the_file(tmp_path: Path) -> None:
    images, moved = tmp_path / "here" / "images", tmp_path / "there"
    images.mkdir(parents=True)
    Manifest.from_columns({"uri": ["a.png"]}, images).write(tmp_path / "here" / "m.parquet")
    assert Manifest.read(tmp_path / "here" / "m.parquet").root == images
    (tmp_path / "here").rename(moved)
    assert Manifest.read(moved / "m.parquet").root == moved / "images"
    assert str(tmp_path).encode() not in (moved / "m.parquet").read_bytes()
    assert Manifest.read(moved / "m.parquet", root=tmp_path).root == tmp_path


def test_root_that_shares_nothing_is_absolute(tmp_path: Path) -> None:
    Manifest.from_columns({"uri": ["a.png"]}, "/nowhere-else/images").write(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet").root == Path("/nowhere-else/images")


def test_csv_outside_the_root_is_refused(tmp_path: Path) -> None:
    manifest = Manifest.from_columns({"uri": ["a.png"]}, tmp_path / "images")
    with pytest.raises(Refused, match="keeps no root"):
        manifest.write(tmp_path / "m.csv")
    with pytest.raises(Refused, match="can be written to"):
        manifest.write(tmp_path / "absent" / "m.parquet")
    assert list(tmp_path.iterdir()) == []


def test_plain_pandas_reads_what_is_written(tmp_path: Path) -> None:
    Manifest.from_columns({"uri": ["a.png"], "age": ["07"]}, tmp_path).write(tmp_path / "m.parquet")
    frame = pd.read_parquet(tmp_path / "m.parquet")
    assert frame.to_dict("list") == expected({"image_id": ["a.png"], "uri": ["a.png"], "age": ["07"]})


def test_columns_take_roles(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Path,Finding,Patient,Fold\na.png,x,7,train\nb.png,y,8,test\n")
    manifest = Manifest.from_table(
        tmp_path / "t.csv", uri="Path", id="Path", label="Finding", group="Patient", split="Fold"
    )
    assert manifest.table.to_pydict() == expected(
        {
            "image_id": ["a.png", "b.png"],
            "uri": ["a.png", "b.png"],
            "label": ["x", "y"],
            "split": ["train", "test"],
            "group": ["7", "8"],
        }
    )
    with pytest.raises(ManifestError, match="no column 'Nope'"):
        Manifest.from_table(tmp_path / "t.csv", uri="Nope")
    (tmp_path / "u.csv").write_text("Path,uri\na.png,b.png\n")
    with pytest.raises(ManifestError, match="there is a column `uri` already"):
        Manifest.from_table(tmp_path / "u.csv", uri="Path")


# Typed columns


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([1, None, -3]), ["1", "", "-3"]),
        (pa.array([1.0, float("nan"), -3.0]), ["1", "", "-3"]),
        (pa.array([0.1, None, 2.0]), ["0.1", "", "2"]),
        (pa.array(np.array([0.1, 1, 2], np.float32)), ["0.1", "1", "2"]),
        (pa.array([2**60, 2**53 + 1, 0]), ["1152921504606846976", "9007199254740993", "0"]),
        (pa.array([True, False, None]), ["true", "false", ""]),
        (pa.array(["x", None, "x"]).dictionary_encode(), ["x", "", "x"]),
        (pa.array(["x", "N", None], pa.string_view()), ["x", "N", ""]),
        (pa.nulls(3), ["", "", ""]),
        (pa.array([0, 1, 2], pa.date32()), ["1970-01-01", "1970-01-02", "1970-01-03"]),
    ],
)
def test_typed_columns_become_text(column: pa.Array, texts: list[str], tmp_path: Path) -> None:
    table = pa.table({"uri": ["a", "b", "c"], "label": column, "extra": column})
    pq.write_table(table, tmp_path / "m.parquet")
    manifest = Manifest.read(tmp_path / "m.parquet")
    assert manifest.column("label") == texts
    assert manifest.column("extra") == texts
    typed = not (pa.types.is_null(column.type) or "string" in str(column.type))
    assert len(manifest.notes) == (2 if typed else 0), "conversions are stated"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"uri": ["a"], "image_id": [12.0]}, "A float is no name"),
        ({"uri": [1.0]}, "A float is no name"),
        ({"uri": ["a"], "label": [float("inf")]}, "infinite label"),
        ({"uri": ["a"], "extra": [[1, 2]]}, "type list"),
        ({"uri": ["a"], "extra": [b"\xff"]}, "type binary"),
        ({"uri": [None]}, "is empty"),
        ({"image_id": ["a"]}, "no column 'uri'"),
    ],
)
def test_columns_without_a_text_form_are_refused(table: dict, message: str, tmp_path: Path) -> None:
    pq.write_table(pa.table(table), tmp_path / "m.parquet")
    with pytest.raises((ManifestError, PathRefused), match=message):
        Manifest.read(tmp_path / "m.parquet")


def test_invalid_utf8_in_parquet_is_refused(tmp_path: Path) -> None:
    bad = pa.array([b"\xff\xfe"]).view(pa.string())
    pq.write_table(pa.table({"uri": bad}), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="cannot be read as Parquet"):
        Manifest.read(tmp_path / "m.parquet")


def test_a_frame_is_taken_as_it_stands(tmp_path: Path) -> None:
    frame = pd.DataFrame({"uri": ["a", "b"], "label": [1.0, np.nan], "image_id": ["00", "NA"]}, index=[7, 7])
    manifest = Manifest.from_frame(frame, tmp_path)
    assert manifest.image_ids == ["00", "NA"]
    assert manifest.column("label") == ["1", ""]
    with pytest.raises(ManifestError, match="unique names"):
        Manifest.from_frame(pd.DataFrame([["a", "b"]], columns=["uri", "uri"]), tmp_path)
    with pytest.raises(ManifestError, match="does not convert"):
        Manifest.from_frame(pd.DataFrame({"uri": ["a", "b"], "x": ["1", 2]}), tmp_path)


# Labels, codes and digests


def test_missing_labels_are_counted_not_dropped(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri,label\na,x\nb,nan\nc,\nd,N\ne,x\n")
    manifest = Manifest.read(tmp_path / "m.csv")
    assert (len(manifest), manifest.unlabelled, manifest.classes) == (5, 2, {"N": 1, "x": 2})
    codes, vocabulary = manifest.codes("label")
    assert (codes.dtype, codes.tolist(), vocabulary) == (np.int32, [1, -1, -1, 0, 1], ["N", "x"])
    assert manifest.has("label") and not manifest.has("group") and not manifest.has("absent")
    with pytest.raises(ManifestError, match="no column 'absent'"):
        manifest.column("absent")


def plain_digest(purpose: bytes, table: dict[str, list[str]]) -> str:
    """The documented encoding, written out cell by cell."""
    out = io.BytesIO()
    n = len(next(iter(table.values())))
    out.write(struct.pack("<Q", len(purpose)) + purpose + struct.pack("<QQ", len(table), n))
    for name, cells in table.items():
        out.write(struct.pack("<Q", len(name.encode())) + name.encode())
        for cell in cells:
            out.write(struct.pack("<q", len(cell.encode())))
        for cell in cells:
            out.write(cell.encode())
    return hashlib.sha256(out.getvalue()).hexdigest()


@given(columns())
@settings(deadline=None, max_examples=60)
def test_digest_is_the_documented_one(cells: dict[str, list[str]]) -> None:
    manifest = Manifest.from_columns(cells, "/r")
    table = expected(cells)
    assert manifest.digest == plain_digest(b"embank manifest 1", table)
    images = {name: table[name] for name in ("image_id", "uri")}
    assert manifest.image_digest == plain_digest(b"embank images 1", images)


@pytest.mark.slow
@given(columns(), columns())
@settings(deadline=None, max_examples=60)
def test_digests_differ_exactly_where_tables_do(one: dict[str, list[str]], two: dict[str, list[str]]) -> None:
    first, second = Manifest.from_columns(one, "/r"), Manifest.from_columns(two, "/s")
    same = list(expected(one).items()) == list(expected(two).items())
    assert (first.digest == second.digest) == same
    shifted = {name: cells[::-1] for name, cells in one.items()}
    again = Manifest.from_columns(shifted, "/r")
    assert (again.digest == first.digest) == (expected(shifted) == expected(one))


def test_text_cannot_wander_between_cells() -> None:
    def digest(one: list[str], two: list[str]) -> str:
        return Manifest.from_columns({"uri": ["u", "v"], "one": one, "two": two}, "/r").digest

    digests = {digest(["ab", ""], ["", ""]), digest(["a", "b"], ["", ""]), digest(["a", ""], ["b", ""])}
    assert len(digests) == 3


def test_digest_of_a_sliced_and_chunked_column() -> None:
    column = pa.chunked_array(
        [pa.array(["x", "a", "b"]).slice(1), pa.array([], pa.string()), pa.array(["c"])]
    )
    frame = pa.table({"uri": column})
    path = io.BytesIO()
    pq.write_table(frame, path, row_group_size=1)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "m.parquet").write_bytes(path.getvalue())
        read = Manifest.read(Path(folder) / "m.parquet")
    whole = Manifest.from_columns({"uri": ["a", "b", "c"]}, "/")
    assert read.digest == whole.digest
    longer = Manifest.from_columns({"uri": ["before", "a", "b", "c", "after"]}, "/")
    assert Manifest(longer.table.slice(1, 3), Path("/")).digest == whole.digest


def test_image_digest_follows_ids_paths_and_content_only() -> None:
    base = {"image_id": ["1", "2"], "uri": ["a", "b"]}

    def digest(**more: list[str]) -> str:
        return Manifest.from_columns(base | more, "/r").image_digest

    assert digest() == digest(label=["x", "y"], split=["train", ""], age=["1", "2"])
    assert digest() == digest(sha256=["", ""])
    found = {digest(), digest(image_id=["1", "3"]), digest(uri=["a", "c"]), digest(sha256=["ab" * 32, ""])}
    assert len(found) == 4
    upper = Manifest.from_columns(base | {"sha256": ["AB" * 32, ""]}, "/r")
    assert upper.image_digest == digest(sha256=["ab" * 32, ""])
    assert upper.sha256s == ["ab" * 32, ""]


# Folders


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    files = (
        "cat/1.png", "cat/1.jpg", "cat/2.JPEG", "cat/deep/3.tiff", "dog/1.webp", "top.bmp", "dog/é.jp2",
        "cat/.hidden.png", ".git/x.png", "dog/notes.txt", "dog/README", "dog/scan.dcm", "a.b/x.png",
        "Zebra/1.png",
    )  # fmt: skip
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def test_folder_is_listed_in_byte_order_under_its_uris(tree: Path) -> None:
    manifest = Manifest.from_folder(tree)
    rows = list(zip(manifest.image_ids, manifest.uris, manifest.column("label"), strict=True))
    assert rows == [
        ("Zebra/1.png", "Zebra/1.png", "Zebra"),
        ("a.b/x.png", "a.b/x.png", "a.b"),
        ("cat/1.jpg", "cat/1.jpg", "cat"),
        ("cat/1.png", "cat/1.png", "cat"),
        ("cat/2.JPEG", "cat/2.JPEG", "cat"),
        ("cat/deep/3.tiff", "cat/deep/3.tiff", "cat"),
        ("dog/1.webp", "dog/1.webp", "dog"),
        ("dog/é.jp2", "dog/é.jp2", "dog"),
        ("top.bmp", "top.bmp", ""),
    ]
    assert [uri.encode() for uri in manifest.uris] == sorted(uri.encode() for uri in manifest.uris)
    assert manifest.notes == (
        "2 skipped: hidden",
        "1 skipped: not an image (.dcm)",
        "1 skipped: not an image (.txt)",
        "1 skipped: not an image (no suffix)",
    )


def test_files_are_hashed(tree: Path) -> None:
    (tree / "cat" / "pipe.png").unlink(missing_ok=True)
    os.mkfifo(tree / "cat" / "pipe.png")
    seen: list[tuple[int, int]] = []
    manifest = Manifest.from_folder(tree, hash_files=True, progress=lambda *now: seen.append(now))
    by_uri = dict(zip(manifest.uris, manifest.sha256s or [], strict=True))
    assert by_uri.pop("cat/pipe.png") == ""
    assert by_uri == {uri: hashlib.sha256((tree / uri).read_bytes()).hexdigest() for uri in by_uri}
    assert seen[-1] == (10, 10)
    assert "1 files could not be hashed" in manifest.notes


def test_split_folders_are_an_explicit_wish(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "Validation/cat/2.png", "test/dog/3.png", "test/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    guessed = Manifest.from_folder(tmp_path)
    assert set(guessed.column("label")) == {"train", "Validation", "test"}
    assert not guessed.has("split")
    assert "look like splits" in guessed.notes[-1]
    manifest = Manifest.from_folder(tmp_path, split_folders=True)
    parts = zip(manifest.column("split"), manifest.column("label"), strict=True)
    assert dict(zip(manifest.uris, parts, strict=True)) == {
        "train/cat/1.png": ("train", "cat"),
        "Validation/cat/2.png": ("val", "cat"),
        "test/dog/3.png": ("test", "dog"),
        "test/4.png": ("test", ""),
    }
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "5.png").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"'other/5\.png' lies in no split folder"):
        Manifest.from_folder(tmp_path, split_folders=True)


def test_links_are_listed_but_not_entered(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for folder in (root / "cat", elsewhere):
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes(b"")
    (root / "cat" / "dangling.png").symlink_to("nowhere")
    (root / "linked").symlink_to(elsewhere)
    (root / "cat" / "up").symlink_to("..")
    manifest = Manifest.from_folder(root)
    assert manifest.uris == ["cat/1.png", "cat/dangling.png"]
    assert manifest.notes == ("2 skipped: link to a folder",)
    followed = Manifest.from_folder(root, follow_links=True)
    assert followed.uris == ["cat/1.png", "cat/dangling.png", "linked/1.png"]
    assert followed.notes == ("1 skipped: link to a folder above",)


def test_folder_without_images_and_bad_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(ManifestError, match=r"holds no image \(skipped: 1 not an image \(\.txt\)\)"):
        Manifest.from_folder(tmp_path)
    with pytest.raises(ManifestError, match="a folder"):
        Manifest.from_folder(tmp_path / "x.txt")
    (tmp_path / "a\u202eb.png").write_bytes(b"")
    with pytest.raises(PathRefused, match="direction"):
        Manifest.from_folder(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))).write_bytes(b"")
    with pytest.raises(PathRefused, match="not UTF-8"):
        Manifest.from_folder(tmp_path)
