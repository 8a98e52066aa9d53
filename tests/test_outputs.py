"""Outputs: endings, folders, what is replaced and what never is, and who drew a picture."""

import contextlib
import csv
import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stores.errors import Refused
from stores.manifest.manifest import Manifest
from stores.outputs import (
    PICTURES,
    TABLES,
    Images,
    bank_above,
    check_file,
    check_manifest,
    is_bank,
    written_by,
)
from stores.table_files import write_table
from tests.command import Ran, embank
from tests.stores.banks import make_bank
from tests.studies import MODEL, make_study


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("outputs"), 16)


@pytest.fixture(autouse=True)
def work(tmp_path: Path) -> Iterator[Path]:
    with contextlib.chdir(tmp_path):
        yield tmp_path


DRAWERS = {
    "probe": ("probe", "-o", "--values 2 --bootstrap 0 --device cpu"),
    "search": ("search", "-o", "--id c0/00.png -k 3"),
    "bank audit": ("bank audit", "--sheet", "--threshold 0.5"),
    "bank scatter": ("bank scatter", "-o", ""),
    "invariance": ("invariance", "-o", "--transform rotation --views 4 --images 4 --device cpu"),
    "figure": ("invariance", "--figure", "--transform rotation --views 4 --images 4 --device cpu"),
}


def draw(root: Path, drawer: str, out: object, *more: object) -> Ran:
    command, option, words = DRAWERS[drawer]
    return embank(*command.split(), root / "bank", "--model", MODEL, *words.split(), option, out, *more)


@pytest.mark.slow
@pytest.mark.parametrize("drawer", DRAWERS)
def test_pictures_honour_their_ending_and_make_folders(root: Path, drawer: str, work: Path) -> None:
    for ending in PICTURES:
        out = work / "new" / ending[1:] / f"picture{ending.upper() if ending == '.png' else ending}"
        ran = draw(root, drawer, out)
        assert ran.code == 0, ran.err
        data = out.read_bytes()
        if ending == ".png":
            with Image.open(out) as image:
                assert (image.format, image.size > (100, 100)) == ("PNG", True)
                assert image.text["Software"] == f"embank {DRAWERS[drawer][0]}"
        elif ending == ".svg":
            assert ElementTree.fromstring(data).tag == "{http://www.w3.org/2000/svg}svg"
        else:
            assert data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF")
        assert written_by(out, DRAWERS[drawer][0]) and not written_by(out, "another")
        # Its own picture is replaced; another's, once it is not that any more, only by force.
        assert draw(root, drawer, out).code == 0
        out.write_bytes(b"mine")
        refused = draw(root, drawer, out)
        assert (refused.code, "--force" in refused.err, out.read_bytes()) == (2, True, b"mine")
        assert draw(root, drawer, out, "--force").code == 0
        assert out.read_bytes() != b"mine"


def test_a_picture_of_another_command_is_not_replaced(root: Path) -> None:
    assert draw(root, "search", "one.png").code == 0
    before = Path("one.png").read_bytes()
    assert draw(root, "bank audit", "one.png").code == 2
    assert Path("one.png").read_bytes() == before
    assert draw(root, "bank audit", "one.png", "--force").code == 0


def test_an_svg_of_pixels_holds_them(root: Path) -> None:
    import base64
    import io
    import re

    assert draw(root, "search", "s.svg").code == 0
    assert draw(root, "search", "s.png").code == 0
    (data,) = re.findall(rb"base64,([^\"]+)\"", Path("s.svg").read_bytes())
    with Image.open(io.BytesIO(base64.b64decode(data))) as inner, Image.open("s.png") as whole:
        assert np.array_equal(np.asarray(inner), np.asarray(whole))


def test_audit_tables(root: Path) -> None:
    words = ("bank", "audit", root / "bank", "--model", MODEL, "--threshold", 0.5, "--max-pairs", 7)
    found = {}
    for ending in TABLES:
        ran = embank(*words, "-o", f"new/pairs{ending}", "--json")
        assert (ran.code, ran.json["listed"]) == (0, 7), ran.err
        assert embank(*words, "-o", f"new/pairs{ending}").code == 2
        assert embank(*words, "-o", f"new/pairs{ending}", "--force").code == 0
    with Path("new/pairs.csv").open(newline="") as file:
        found["csv"] = list(csv.DictReader(file))
    found["json"] = json.loads(Path("new/pairs.json").read_text())
    found["parquet"] = pq.read_table("new/pairs.parquet").to_pylist()
    assert found["json"] == found["parquet"]
    for text, plain in zip(found["csv"], found["json"], strict=True):
        assert {name: cell for name, cell in text.items() if name != "similarity"} == {
            name: str(cell) for name, cell in plain.items() if name != "similarity"
        }
        assert float(text["similarity"]) == pytest.approx(plain["similarity"], abs=1e-9)
    lines = Path("new/pairs.tex").read_text().splitlines()
    assert lines[0].startswith(r"\begin{tabular}") and lines[-1] == r"\end{tabular}"
    body = [line for line in lines if line.endswith(r"\\")]
    assert len(body) == 8 and {line.count(" & ") for line in body} == {len(found["json"][0]) - 1}


def test_table_files_escape_what_their_format_gives_a_meaning(tmp_path: Path) -> None:
    columns = {"a_b": ["=1+1", "50 % & $5", "\\x{~^}"], "n": [1.5, float("nan"), -2.0]}
    for ending in TABLES:
        write_table(columns, tmp_path / f"t{ending}", digits=2)
    assert (tmp_path / "t.csv").read_text().splitlines()[1:3] == ["'=1+1,1.50", "50 % & $5,nan"]
    assert json.loads((tmp_path / "t.json").read_text())[1] == {"a_b": "50 % & $5", "n": None}
    assert pq.read_table(tmp_path / "t.parquet")["a_b"].to_pylist() == columns["a_b"]
    tex = (tmp_path / "t.tex").read_text()
    assert r"a\_b & n \\" in tex and r"50 \% \& \$5 & nan \\" in tex
    assert r"\textbackslash{}x\{\textasciitilde{}\textasciicircum{}\} & -2.00 \\" in tex


def test_manifests_are_replaced_by_force_only(root: Path) -> None:
    images = root / "images"
    table = Path("t.csv")
    table.write_text("path,finding\nc0/00.png,a\nc1/01.png,b\n")
    for words in (
        ("folder", images),
        ("table", table, "--uri", "path", "--root", images),
        ("build", "tiles", "tiles"),
    ):
        out = Path("new") / words[0] / "m.parquet"
        assert embank("manifest", *words, "-o", out).code == 0
        before = out.read_bytes()
        assert embank("manifest", *words, "-o", out).code == 2
        out.write_bytes(b"mine")
        assert embank("manifest", *words, "-o", out).code == 2 and out.read_bytes() == b"mine"
        assert embank("manifest", *words, "-o", out, "--force").code == 0 and out.read_bytes() == before
    own = images / "m.csv"
    try:
        assert embank("manifest", "folder", images, "-o", own).code == 0
        check_manifest(own, force=True, root=images)
        own.write_text("file,label\n")
        with pytest.raises(Refused, match="read by this command"):
            check_manifest(own, force=True, root=images)
    finally:
        own.unlink()


def test_an_export_is_replaced_by_force_under_both_names(root: Path) -> None:
    words = ("bank", "export", root / "bank", "-o", "new/out")
    assert embank(*words).code == 0
    assert embank(*words).code == 2
    assert embank(*words, "--force").code == embank(*words, "--overwrite").code == 0


@pytest.mark.slow
def test_maps_are_drawn_again_over_their_own(root: Path) -> None:
    source = (root / "m.parquet", "--model", MODEL, "--recipe", root / "recipe.json")
    small = ("--images", 1, "--stride", 10, "--threads", 1, "--device", "cpu")
    words = ("saliency", *source, *small, "-o", "new/maps")
    first, again = embank(*words, "--json"), embank(*words, "--json")
    assert (first.code, again.code, again.json["computed"]) == (0, 0, 0), first.err + again.err
    assert not is_bank(Path("new/maps"))
    (picture,) = Path("new/maps").glob("000-*.png")
    picture.write_bytes(b"mine")
    refused = embank(*words)
    assert (refused.code, picture.read_bytes()) == (2, b"mine")
    assert embank(*words, "--force").code == 0 and picture.read_bytes() != b"mine"


def test_force_never_replaces_an_image(root: Path, work: Path) -> None:
    images = root / "images"
    names = {"link.png": images / "c0" / "00.png"}
    (work / "link.png").symlink_to(names["link.png"])
    os.link(images / "c1" / "01.png", work / "second.png")
    manifest = Images.of(Manifest.read(root / "m.parquet"))
    for path in (images / "c0" / "00.png", work / "link.png", work / "second.png"):
        for force in (False, True):
            with pytest.raises(Refused, match="one of the images"):
                check_file(path, PICTURES, force=force, images=lambda: manifest)
    # An image that is a link to another name is found by force, where it could be replaced.
    (work / "blob.png").write_bytes(b"pixels")
    (work / "linked.png").symlink_to("blob.png")
    with pytest.raises(Refused, match="one of the images"):
        check_file(work / "blob.png", PICTURES, force=True, images=lambda: Images(work, ["linked.png"]))


def test_banks_are_known_with_and_without_their_run_document(tmp_path: Path) -> None:
    bank = make_bank(tmp_path / "bank", 80, 4).path
    assert bank_above(bank / "new" / "x.png") == bank_above(bank) == Path(bank).resolve()
    (tmp_path / "bank" / "embank.json").unlink()
    assert is_bank(tmp_path / "bank") and bank_above(tmp_path / "x.png") is None


def test_a_rerun_of_the_quickstart_meets_its_own_files_only(tmp_path: Path) -> None:
    (tmp_path / "digits.parquet").write_bytes(b"mine")
    ran = embank("quickstart", "--dir", tmp_path)
    assert (ran.code, "holds something else" in ran.err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["digits.parquet"]
