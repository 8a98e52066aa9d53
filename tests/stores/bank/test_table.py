"""A bank and a feature as an interpreter shows them: the counts, no embedding read, and never an error."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from stores.bank.layout import SIDE
from stores.bank.names import give
from stores.bank.reader import Bank
from stores.bank.seal import seal_path
from stores.bank.table import plain
from stores.bank.writer import FeatureWriter, open_or_create
from tests.stores.banks import chunk_result, fill, make_bank, make_key, make_manifest

ROWS, DIM = 300, 32
NAMES = ["feature", "rows", "dim", "ok", "failed", "pending", "dtype", "state"]


class Cells(HTMLParser):
    """Cells of a table, row by row, as a browser reads them; and the tags met."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        self._inside = tag in ("td", "th")
        if self._inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return make_bank(tmp_path / "bank", ROWS, DIM)


def test_features_are_a_table(bank: Bank) -> None:
    key = make_key(bank.image_digest, model="timm/vit", dtype="float32")
    with FeatureWriter(bank, key, 7) as writer:
        writer.commit(chunk_result(0, 0, 64, 7))
    lines = repr(bank).splitlines()
    assert lines[0] == f"Bank {bank.path}: 300 images, 2 features"
    assert [line.split() for line in lines[1:]] == [
        NAMES,
        ["timm/vit", "300", "7", "61", "3", "236", "float32", "unfinished"],
        ["torchvision/resnet18", "300", "32", "289", "11", "0", "float16", "finished"],
    ]
    assert Cells(bank._repr_html_()).rows == [line.split() for line in lines[1:]]
    assert repr(bank.features("torchvision/resnet18")) == (
        f"FeatureSet(torchvision/resnet18 in {bank.path}: 300 x 32 float16, 289 ok, 11 failed, 0 pending)"
    )


def test_no_chunk_is_read(bank: Bank) -> None:
    before, features = repr(bank), bank.features()
    shown = repr(features)
    chunks = [path for path in bank.path.glob("*/*/c/**/*") if path.is_file()]
    for chunk in chunks:
        chunk.unlink()
    assert chunks
    assert (repr(bank), repr(features)) == (before, shown)


def test_an_empty_bank_says_so(tmp_path: Path) -> None:
    bank = open_or_create(tmp_path / "bank", make_manifest(tmp_path, 1), chunk_rows=64)
    assert repr(bank) == f"Bank {bank.path}: 1 image, 0 features"
    assert "<table" not in bank._repr_html_()


def test_a_damaged_feature_hides_no_other(bank: Bank) -> None:
    fill(bank, make_key(bank.image_digest, model="timm/vit"), 5)
    name = bank.select("timm/vit")[0]
    seal_path(bank.path, name).write_bytes(b"{}")
    lines = repr(bank).splitlines()
    damaged = next(line for line in lines if line.startswith("timm/vit"))
    assert damaged.endswith("seal.json is damaged")
    assert lines[-1].split()[-1] == "finished" and "289" in lines[-1]
    assert len(Cells(bank._repr_html_()).rows) == 3


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        ("gone", "it is no longer there"),
        ("file", "it is no longer there"),
        ("names", "cannot be listed"),
        ("keys", "key.json is damaged"),
    ],
)
def test_a_bank_spoilt_after_it_was_opened_is_still_shown(
    bank: Bank, harm: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = bank.features()
    if harm == "keys":
        for path in (bank.path / SIDE).glob("*/key.json"):
            path.write_bytes(b"\xff")
            path.with_name("seal.json").unlink()
    elif harm == "names":
        monkeypatch.setattr("stores.backends.local.LocalBackend.names", refusing)
    else:
        bank.path.rename(bank.path.with_name("elsewhere"))
        if harm == "file":
            bank.path.write_bytes(b"no bank")
    for text in (repr(bank), bank._repr_html_()):
        assert f"Bank {bank.path}: 300 images" in text and says in text
    assert "289 ok" in repr(features)


def refusing(self: object, path: object) -> list[str]:
    raise PermissionError(13, "Permission denied", str(path))


def test_markup_in_a_name_is_text(tmp_path: Path) -> None:
    bank = make_bank(tmp_path / "<b>&" / "bank", 70, 4)
    give(bank.path, {bank.select()[0]: 'A <script>alert(1)<\\script> & "co"'})
    read = Cells(bank._repr_html_())
    assert read.rows[1][0] == 'A <script>alert(1)<\\script> & "co"'
    assert read.tags == {"div", "p", "table", "thead", "tbody", "tr", "th", "td"}


def test_no_terminal_obeys_what_is_shown() -> None:
    assert plain("a\x1b[31m\n\u202eb\udc80 é") == "a\\x1b[31m\\n\\u202eb\\udc80 é"
    assert len(plain("x" * 10_000)) < 1000


def test_only_the_first_hundred_are_read(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        fill(bank, make_key(bank.image_digest, model=f"timm/vit{seed}"), 2, seed)
    monkeypatch.setattr("stores.bank.table._MOST", 2)
    lines = repr(bank).splitlines()
    assert "4 features" in lines[0] and len(lines) == 5 and lines[-1] == "and 2 more"
    assert np.char.count(lines, "finished").sum() == 2
