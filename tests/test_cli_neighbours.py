"""knn, search and bank audit from the command line: one small bank with planted copies and a bad file."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

import cli
from stores.bank.reader import Bank
from stores.bank.records import read_all
from tests.command import embank

MODEL = "random/resnet18"
IMAGES = 60


def picture(seed: int, kind: int) -> np.ndarray:
    """Stripes of one of three directions, with noise."""
    y, x = np.mgrid[:40, :40]
    stripes = np.sin((x, y, x + y)[kind] / 2.0) * 60 + 128
    noise = np.random.default_rng(seed).normal(0, 25, (40, 40, 3))
    return (stripes[..., None] + noise).clip(0, 255).astype(np.uint8)


def build(root: Path, rows: list[tuple[str, str, str, str]], model: tuple[object, ...] = (MODEL,)) -> Path:
    """Manifest and bank of the rows (uri, label, split, group)."""
    with (root / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("uri", "label", "split", "group"), *rows])
    (root / "recipe.json").write_text(json.dumps({"size": 32, "crop": 32}))
    columns = [word for name in ("label", "split", "group") for word in (f"--{name}", name)]
    made = embank("manifest", "table", root / "table.csv", *columns, "--root", root, "-o", root / "m.parquet")
    assert made.code == 0, made.err
    words = ("--model", *model, "--recipe", root / "recipe.json", "--device", "cpu", "--max-failed", 1)
    ran = embank("embed", root / "m.parquet", "--bank", root / "bank", *words)
    assert ran.code == 0, ran.err
    return root / "bank"


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images of three classes, two a patient; a copy of image 4 in the other split; a broken file."""
    root = tmp_path_factory.mktemp("neighbours")
    rows = []
    for i in range(IMAGES):
        name, kind = f"{i:02}.png", i % 3
        Image.fromarray(picture(i, kind)).save(root / name)
        label = "" if i == 8 else ("=first", "second", "third")[kind]
        rows.append((name, label, "test" if i % 4 == 3 else "train", f"patient {i // 2}"))
    shutil.copy(root / "04.png", root / "copy.png")
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    rows += [("copy.png", "second", "test", "patient 99"), ("broken.png", "second", "train", "patient 98")]
    return build(root, rows)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One class, no splits, no groups."""
    root = tmp_path_factory.mktemp("plain")
    for i in range(6):
        Image.fromarray(picture(i, 0)).save(root / f"{i}.png")
    return build(root, [(f"{i}.png", "only", "", "") for i in range(6)])


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file is broken."""
    root = tmp_path_factory.mktemp("broken")
    rows = []
    for i in range(4):
        (root / f"{i}.png").write_bytes(b"")
        rows.append((f"{i}.png", "ab"[i % 2], ("train", "test")[i // 2], "p"))
    return build(root, rows)


def arrays(bank: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """float64 features of usable rows, labels, splits, rows."""
    store = Bank.open(bank)
    features = store.features(MODEL)
    rows = np.flatnonzero(features.ok & (features.labels >= 0))
    return (
        features.array[rows].astype(np.float64),
        features.labels[rows],
        store.column("split")[0][rows],
        rows,
    )


def test_knn_equals_scikit_learn(bank: Path) -> None:
    ran = embank("knn", bank, "--model", MODEL, "--k", 5, "--k", 1, "--k", 9, "--json")
    found = ran.json
    assert {"model", "test", "seconds"} <= set(found)
    assert {"accuracy", "mean_per_class_accuracy", "auroc"} <= set(found["test"])
    assert [one["k"] for one in found["by_k"]] == [5, 1, 9]
    assert found["masked"] == {"failed": 1, "unlabelled": 1}
    x, y, split, _ = arrays(bank)
    train = split == Bank.open(bank).column("split")[1].index("train")
    for one in found["by_k"]:
        oracle = KNeighborsClassifier(
            one["k"], metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07)
        ).fit(x[train], y[train])
        assert one["accuracy"] == pytest.approx(oracle.score(x[~train], y[~train]))
        expected = roc_auc_score(y[~train], oracle.predict_proba(x[~train]), multi_class="ovr")
        assert one["auroc"] == pytest.approx(expected, abs=1e-9)
    assert found["test_images"] == (~train).sum()


def test_knn_backends_and_euclidean(bank: Path) -> None:
    words = ("knn", bank, "--model", MODEL, "--k", 3, "--distance", "euclidean", "--json")
    array, faiss = (embank(*words, "--backend", backend).json for backend in ("array", "faiss"))
    assert (array["backend"], faiss["backend"]) == ("array", "faiss")
    assert array["test"] == faiss["test"]
    assert array["weights"] == "uniform"


def test_knn_leave_one_out_and_group_disjoint(bank: Path) -> None:
    words = ("knn", bank, "--model", MODEL, "--k", 1, "--leave-one-out", "--json")
    alone, apart = embank(*words, "--no-group-disjoint").json, embank(*words).json
    x, y, _, rows = arrays(bank)
    groups = Bank.open(bank).column("group")[0][rows]
    similarity = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (
        x / np.linalg.norm(x, axis=1, keepdims=True)
    ).T
    for found, allowed in ((alone, ~np.eye(len(x), dtype=bool)), (apart, groups[:, None] != groups)):
        nearest = np.where(allowed, similarity, -np.inf).argmax(axis=1)
        assert found["test"]["accuracy"] == pytest.approx((y[nearest] == y).mean())
    assert alone["train_images"] == alone["test_images"] == len(x)


def test_knn_keeps_a_record_and_prints_a_table(bank: Path) -> None:
    ran = embank("knn", bank, "--model", MODEL)
    assert ran.code == 0
    assert "AUROC" in ran.out and "1 failed, 1 unlabelled" in ran.out
    record = next(r for r in reversed(read_all(bank)) if r.kind == "knn")
    assert record.failures == {"failed": 1, "unlabelled": 1}
    assert record.asked["k"] == []
    assert [one["k"] for one in record.metrics["by_k"]] == [20, 1, 5, 10]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--k", 999), "k = 999"),
        (("--k", 0), "k = 0"),
        (("--test-split", "val"), "train"),
        (("--test-split", "train"), "both parts"),
        (("--temperature", 0), "temperature = 0"),
        (("--distance", "euclidean", "--weights", "temperature"), "euclidean"),
        (("--backend", "magic"), "magic"),
        (("--model", "random/resnet50"), "random/resnet50"),
    ],
)
def test_knn_refuses(bank: Path, words: tuple[object, ...], says: str) -> None:
    ran = embank("knn", bank, "--model", MODEL, *words)
    assert ran.code == 2
    assert says in ran.err


def test_what_cannot_be_evaluated_is_refused(plain: Path, broken: Path) -> None:
    for words, says in (
        ((plain, "--leave-one-out"), "1 class"),
        ((plain,), "--leave-one-out"),
        ((broken,), "2 failed"),
        ((broken, "--leave-one-out"), "4 failed"),
    ):
        ran = embank("knn", *words, "--model", MODEL)
        assert ran.code == 2, words
        assert says in ran.err
        assert "remedy:" in ran.err
    assert "0 of 4" in embank("bank", "audit", broken, "--model", MODEL).err
    ran = embank("search", broken, "--model", MODEL, "--id", "0.png")
    assert (ran.code, "empty" in ran.err) == (2, True)


def test_group_disjoint_without_groups_is_refused(tmp_path: Path) -> None:
    for i in range(6):
        Image.fromarray(picture(i, i % 2)).save(tmp_path / f"{i}.png")
    bank = build(tmp_path, [(f"{i}.png", "ab"[i % 2], "", "") for i in range(6)])
    ran = embank("knn", bank, "--model", MODEL, "--leave-one-out", "--group-disjoint", "--k", 1)
    assert (ran.code, "No image that takes part has a group" in ran.err) == (2, True)
    assert embank("knn", bank, "--model", MODEL, "--leave-one-out", "--k", 1).code == 0


def test_search_by_id(bank: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    words = ("search", bank, "--model", MODEL, "--id", "04.png", "-k", 7, "-o", sheet)
    found = embank(*words, "--json").json
    first = found["neighbours"][0]
    assert (first["rank"], first["image_id"], first["split"]) == (1, "copy.png", "test")
    assert first["distance"] == pytest.approx(0, abs=1e-12)
    assert "04.png" not in [each["image_id"] for each in found["neighbours"]]
    distances = [each["distance"] for each in found["neighbours"]]
    assert distances == sorted(distances) and len(distances) == 7
    assert (found["images"], found["masked"], found["unreadable"]) == (60, 1, 0)
    with Image.open(sheet) as drawn:
        assert drawn.format == "PNG"
    assert "copy.png" in embank(*words).out


@pytest.mark.slow
def test_search_by_image_knows_the_image_itself(bank: Path, tmp_path: Path) -> None:
    """From a copy elsewhere, with the bank's own images gone: only that file is read."""
    copied = tmp_path / "elsewhere.png"
    shutil.copy(bank.parent / "11.png", copied)
    (bank.parent / "11.png").rename(bank.parent / "11.gone")
    try:
        words = ("search", bank, "--model", MODEL, "--image", copied, "-k", 3, "--json")
        kept = embank(*words, "--keep-query", "-o", tmp_path / "sheet.png").json
        apart = embank(*words).json
        said = embank(*words[:-1]).out
    finally:
        (bank.parent / "11.gone").rename(bank.parent / "11.png")
    assert kept["neighbours"][0]["image_id"] == "11.png"
    assert kept["neighbours"][0]["distance"] == pytest.approx(0, abs=1e-6)
    assert kept["unreadable"] == 1  # its own tile is grey, the search went on
    for found in (kept, apart):
        (same,) = found["query"]["in_bank"]
        assert (same["image_id"], same["row"], same["label"]) == ("11.png", 11, "third")
    assert [n["row"] for n in apart["neighbours"][:2]] == [n["row"] for n in kept["neighbours"][1:]]
    assert "11.png (row 11): not listed" in said


@pytest.mark.slow
def test_a_query_twice_in_the_bank_is_not_its_own_neighbour(bank: Path, tmp_path: Path) -> None:
    copied = tmp_path / "other name.png"
    shutil.copy(bank.parent / "04.png", copied)
    found = embank("search", bank, "--model", MODEL, "--image", copied, "-k", 3, "--json").json
    assert [each["image_id"] for each in found["query"]["in_bank"]] == ["04.png", "copy.png"]
    assert not {"04.png", "copy.png"} & {each["image_id"] for each in found["neighbours"]}
    own = embank("search", bank, "--model", MODEL, "--id", "04.png", "-k", 3, "--keep-query", "--json").json
    assert {each["image_id"] for each in own["neighbours"][:2]} == {"04.png", "copy.png"}
    Image.fromarray(picture(999, 1)).save(copied)
    new = embank("search", bank, "--model", MODEL, "--image", copied, "-k", 60, "--json").json
    assert new["query"]["in_bank"] == [] and new["images"] == 61


@pytest.mark.slow
def test_a_bank_without_contents_knows_its_files_by_their_place(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stores.bank.reader import FeatureSet

    monkeypatch.setattr(FeatureSet, "contents", np.zeros((62, 32), np.uint8))
    words = ("search", bank, "--model", MODEL, "-k", 3, "--json", "--image")
    found = embank(*words, bank.parent / "11.png").json
    assert [each["image_id"] for each in found["query"]["in_bank"]] == ["11.png"]
    shutil.copy(bank.parent / "11.png", tmp_path / "11.png")
    assert embank(*words, tmp_path / "11.png").json["query"]["in_bank"] == []


def test_search_with_an_approximate_index(bank: Path) -> None:
    words = ("search", bank, "--model", MODEL, "--id", "04.png", "-k", 5)
    found = embank(*words, "--index", "ivf", "--json").json
    assert found["neighbours"][0]["image_id"] == "copy.png"
    assert found["lists"] == 1  # so few images make one list, and a search of it is exhaustive
    assert found["recall_at_5"] == 1
    assert found["recall_measured_on"] == 60
    import faiss

    if not hasattr(faiss, "GpuIndexCagra"):
        ran = embank(*words, "--index", "cagra")
        assert (ran.code, "cuVS" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "No query"),
        (("--id", "04.png", "--image", "x.png"), "Two queries"),
        (("--id", "nobody"), "'nobody'"),
        (("--id", "broken.png"), "no embedding"),
        (("--id", "04.png", "-k", 61), "k = 61"),
        (("--image", "absent.png"), "missing"),
        (("--id", "04.png", "-o", "cli.py/s.png"), "cli.py is not a folder"),
    ],
)
def test_search_refuses(bank: Path, words: tuple[object, ...], says: str) -> None:
    ran = embank("search", bank, "--model", MODEL, *words)
    assert ran.code == 2
    assert says in ran.err


def test_audit_finds_what_was_planted(bank: Path, tmp_path: Path) -> None:
    table, sheet = tmp_path / "pairs.csv", tmp_path / "pairs.png"
    words = ("bank", "audit", bank, "--model", MODEL, "--threshold", 0.9999999)
    found = embank(*words, "-o", table, "--sheet", sheet, "--json").json
    assert (found["pairs"], found["across_splits"], found["listed"]) == (1, 1, 1)
    assert (found["same_label"], found["different_label"]) == (1, 0)
    assert (found["same_group"], found["different_group"]) == (0, 1)
    assert found["identical"] == {"groups": 1, "images": 2, "groups_across_splits": 1}
    # Patients of two images, of which one is in the test part: rows (2, 3), (6, 7), ...
    assert found["groups"] == {
        "total": 32, "across_splits": 15, "images_of_these": 30, "across_splits_by_spelling": 0,
        "between": {"test - train": 15},
    }  # fmt: skip
    assert found["masked"] == 1
    with table.open(newline="") as file:
        (pair,) = csv.DictReader(file)
    assert (pair["image_id_a"], pair["image_id_b"], pair["row_b"]) == ("04.png", "copy.png", "60")
    assert pair["similarity"] == "1.000000000"
    assert Image.open(sheet).format == "PNG"
    assert "across splits" in embank(*words).out


def test_audit_csv_is_safe_in_a_spreadsheet(bank: Path, tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    words = ("bank", "audit", bank, "--model", MODEL, "--threshold", 0.01, "--max-pairs", 40, "-o", table)
    found = embank(*words, "--json").json
    assert (found["listed"], found["pairs"] > 40) == (40, True)
    with table.open(newline="") as file:
        labels = {row[side] for row in csv.DictReader(file) for side in ("label_a", "label_b")}
    assert labels <= {"'=first", "second", "third", ""}
    assert "'=first" in labels


@pytest.mark.slow
def test_search_by_image_wants_the_very_weights(tmp_path: Path) -> None:
    import torch
    from torchvision.models import squeezenet1_1

    model = "torchvision/squeezenet1_1"
    files = [tmp_path / "own.pth", tmp_path / "other.pth", tmp_path / "moved.pth"]
    for seed, file in enumerate(files[:2]):
        torch.manual_seed(seed)
        torch.save(squeezenet1_1().state_dict(), file)
    for i in range(3):
        Image.fromarray(picture(i, i)).save(tmp_path / f"{i}.png")
    rows = [(f"{i}.png", "ab"[i % 2], "", "") for i in range(3)]
    bank = build(tmp_path, rows, (model, "--weights", files[0]))
    words = (
        "search",
        bank,
        "--model",
        model,
        "--image",
        tmp_path / "2.png",
        "-k",
        1,
        "--json",
        "--keep-query",
    )
    assert embank(*words).json["neighbours"][0]["image_id"] == "2.png"
    files[0].rename(files[2])
    gone, other = embank(*words), embank(*words, "--weights", files[1])
    assert (gone.code, other.code) == (2, 2)
    assert "own.pth" in gone.err and "--weights FILE" in gone.err
    assert "were made with" in other.err
    assert embank(*words, "--weights", files[2]).json["neighbours"][0]["image_id"] == "2.png"


@pytest.mark.parametrize("threshold", [0, -1, 1.5, "nan"])
def test_audit_refuses_thresholds_outside(bank: Path, threshold: object) -> None:
    ran = embank("bank", "audit", bank, "--model", MODEL, "--threshold", threshold)
    assert (ran.code, "threshold" in ran.err) == (2, True)


def test_a_small_knn_imports_no_heavy_library(bank: Path) -> None:
    import subprocess

    code = (
        "import sys, cli; sys.argv = ['embank', *sys.argv[1:]]\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = 'torch', 'pandas', 'scipy', 'sklearn', 'zarr', 'faiss', 'numpy.ma'\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    words = ["knn", str(bank), "--model", MODEL, "--device", "cpu", "--k", "1"]
    root = Path(cli.__file__).parent
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=root)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
