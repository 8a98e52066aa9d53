"""embank invariance from the command line, on a small bank."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stores.bank.reader import Bank
from stores.bank.records import read_all
from tests.command import embank
from tests.engine.evals.invariance_banks import MODEL, build


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return build(tmp_path_factory.mktemp("cli"), 24)


@pytest.mark.slow
def test_one_transform_as_json_with_sheet_and_figure(bank: Bank, tmp_path: Path) -> None:
    sheet, figure = tmp_path / "sheet.png", tmp_path / "figure.png"
    words = (
        "invariance",
        bank.path,
        "--model",
        MODEL,
        "--transform",
        "rotation",
        "--views",
        8,
        "--images",
        10,
    )
    ran = embank(*words, "-o", sheet, "--figure", figure, "--json")
    assert ran.code == 0, ran.err
    assert {"model", "transform", "cosine", "ci95", "baseline", "n"} <= set(ran.json)
    assert (ran.json["transform"], ran.json["n"], ran.json["views"]) == ("rotation", 10, 7)
    with Image.open(sheet) as drawn:
        pixels = np.asarray(drawn)
    # Five strips of an image and seven views; the upper left tile is the image of the least cosine.
    head = pixels.shape[0] - 5 * (144 + 30 + 10) - 10
    assert 0 < head < 80 and pixels[head : head + 140, 10:150].std() > 10
    with Image.open(figure) as drawn:
        assert drawn.format == "PNG"

    svg, again = tmp_path / "figure.svg", tmp_path / "again.svg"
    assert embank(*words, "--figure", svg).code == 0
    record = embank("records", "ls", bank.path, "--kind", "invariance", "--json").json["records"][-1][
        "record"
    ]
    images = Path(bank.path).parent / "images"
    away = images.rename(images.with_name("away"))
    ran = embank("records", "show", bank.path, record, "-o", again)
    away.rename(images)
    assert ran.code == 0, ran.err
    assert svg.read_bytes() == again.read_bytes()  # the record's numbers are all it needs

    lost = embank(*words, "--root", tmp_path, "-o", sheet)  # features are kept, but there is nothing to draw
    assert (lost.code, "holds none" in lost.err) == (2, True)


@pytest.mark.slow
def test_all_transforms_give_a_list_and_leave_out_what_has_no_meaning(bank: Bank, tmp_path: Path) -> None:
    words = ("invariance", bank.path, "--model", MODEL, "--transform", "all", "--views", 16, "--images", 3)
    ran = embank(*words, "--json", "-o", tmp_path / "sheet.png", "--figure", tmp_path / "figure.png")
    assert ran.code == 0, ran.err
    assert len(ran.json) == 18
    for each in ran.json:
        assert each["cosine"] is each["mahalanobis"] is each["baseline"] is None  # three images are too few
        assert "rests on" in each["reason"] or "grey" in each["reason"]
    text = embank(*words)
    assert text.code == 0 and "condition number" in text.out and "posterize" in text.out
    assert "Mahalanobis" in text.out and text.out.count("undefined") >= 18 and "distance" not in text.out
    assert len([r for r in read_all(bank.path) if r.kind == "invariance"]) >= 36


def test_multi_view(bank: Bank, tmp_path: Path) -> None:
    words = ("invariance", bank.path, "--model", MODEL, "--multi-view")
    found = embank(*words, "--pair", "lateral,frontal", "--json").json
    assert {"model", "transform", "cosine", "ci95", "baseline", "n"} <= set(found)
    assert (found["transform"], found["n"]) == ("multi-view", 12)
    few = embank(*words, "--images", 5, "--json").json
    assert few["cosine"] is None and "5 pairs" in few["reason"]
    assert "multi-view" in embank(*words, "--images", 5).out
    listed = embank("records", "ls", bank.path, "--kind", "invariance", "--json").json["records"]
    drawn = embank("records", "show", bank.path, listed[-1]["record"], "-o", tmp_path / "a.png")
    assert (drawn.code, "has no figure" in drawn.err, list(tmp_path.iterdir())) == (2, True, [])
    (one,) = [each for each in listed if each["value"] == found["cosine"]]
    assert (one["metric"], one["text"].partition(":")[0]) == ("cosine", "multi-view")
    assert one["high"] - one["value"] == pytest.approx(found["ci95"])
    assert any(each["value"] is None and each["reason"] == few["reason"] for each in listed)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "at least one"),
        (("--transform", "turn"), "'turn'"),
        (("--transform", "rotation", "--shrinkage", "oas"), "'oas'"),
        (("--transform", "rotation", "--shrinkage", "none"), "Rank-deficient"),
        (("--transform", "rotation", "--batch-norm", "train"), "as-published"),
        (("--transform", "rotation", "--mode", "paper"), "'paper'"),
        (("--transform", "rotation", "--products", "float16"), "'float16'"),
        (("--transform", "translation", "--views", 20), "16 or 25"),
        (("--transform", "rotation", "--transform", "shear", "--views", 20), "20 views of shear"),
        (("--transform", "rotation", "--images", 25), "25 images"),
        (("--transform", "rotation", "--same-label"), "--multi-view"),
        (("--multi-view", "--transform", "rotation"), "--transform"),
        (("--multi-view", "--images", 13), "13 pairs of 12"),
        (("--multi-view", "--pair", "lateral"), "'lateral'"),
        (("--multi-view", "--shrinkage", "none"), "Rank-deficient"),
    ],
)
def test_refused(bank: Bank, words: tuple[object, ...], says: str) -> None:
    ran = embank("invariance", bank.path, "--model", MODEL, *words)
    assert ran.code == 2, ran.err
    assert says in ran.err and "remedy:" in ran.err


def test_starting_imports_neither_torch_nor_pandas(bank: Bank) -> None:
    code = "import cli, sys; print([m for m in ('torch', 'pandas', 'scipy') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert json.loads(done.stdout.replace("'", '"')) == []
