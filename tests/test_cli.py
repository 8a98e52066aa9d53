"""The command-line contract: JSON keys, exit codes, messages with value, rule and remedy."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cli
from stores.bank.reader import Bank
from stores.bank.records import read_all
from stores.manifest.manifest import Manifest
from tests.command import Ran, embank

MODEL = "random/squeezenet1_1"
RECIPE = {"size": 40, "crop": 32}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli") / "images"
    generator = np.random.default_rng(0)
    for i in range(80):
        path = root / f"class{i % 2}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (48, 60, 3), np.uint8)).save(path)
    (root.parent / "recipe.json").write_text(json.dumps(RECIPE))
    return root


@pytest.fixture(scope="module")
def manifest(images: Path) -> Path:
    path = images.parent / "m.parquet"
    assert embank("manifest", "folder", images, "-o", path).code == 0
    return path


def embed(manifest: Path, bank: Path, *more: object) -> Ran:
    recipe = manifest.with_name("recipe.json")
    return embank(
        "embed",
        manifest,
        "--model",
        MODEL,
        "--recipe",
        recipe,
        "--bank",
        bank,
        "--device",
        "cpu",
        *more,
    )


@pytest.fixture(scope="module")
def bank(manifest: Path) -> Path:
    path = manifest.with_name("bank")
    assert embed(manifest, path).code == 0
    return path


def test_other_labels_for_the_same_features(manifest: Path, bank: Path, tmp_path: Path) -> None:
    frame = Manifest.read(manifest).frame.iloc[:60]
    frame["label"] = [("ill", "well")[row // 30] for row in range(60)]
    frame.to_parquet(tmp_path / "m.parquet")
    ran = embank("bank", "relabel", bank, tmp_path / "m.parquet", "-o", tmp_path / "new", "--json")
    assert ran.code == 0, ran.err
    told = {name: ran.json[name] for name in ("rows", "named", "in_order", "classes", "unlabelled")}
    counts = {"ill": 30, "well": 30}
    assert told == {"rows": 80, "named": 60, "in_order": True, "classes": counts, "unlabelled": 20}
    asked = ["--model", MODEL, "--n-way", 2, "--n-shot", 5, "--n-query", 5, "--json"]
    found = embank("fewshot", tmp_path / "new", *asked).json
    assert (found["images"], found["unlabelled"]) == (60, 20)
    (record,) = [each for each in read_all(tmp_path / "new") if each.kind == "relabel"]
    assert record.used["source_manifest_digest"] == Bank.open(bank).manifest_digest
    assert record.used["manifest_digest"] == Bank.open(tmp_path / "new").manifest_digest
    # The new bank is one as any other: more is embedded into it from its own manifest.
    own, recipe = tmp_path / "new" / "manifest.parquet", manifest.with_name("recipe.json")
    words = [
        "--model",
        MODEL,
        "--recipe",
        recipe,
        "--bank",
        tmp_path / "new",
        "--device",
        "cpu",
    ]
    more = embank("embed", own, *words, "--json")
    assert (more.code, more.json["embedded"]) == (0, 0), more.err


def test_manifest_json(images: Path, tmp_path: Path) -> None:
    ran = embank("manifest", "folder", images, "-o", tmp_path / "m.parquet", "--json")
    assert ran.json["rows"] == 80
    assert ran.json["classes"] == ["class0", "class1"]
    assert len(ran.json["digest"]) == 64


def test_manifest_from_a_csv_table(images: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("path,finding\nclass0/00.png,a\nclass1/01.png,b\n")
    ran = embank(
        "manifest",
        "table",
        table,
        "--uri",
        "path",
        "--label",
        "finding",
        "--root",
        images,
        "-o",
        tmp_path / "m.parquet",
        "--json",
    )
    assert (ran.json["rows"], ran.json["classes"]) == (2, ["a", "b"])
    assert embank("manifest", "check", tmp_path / "m.parquet").code == 0


def test_embed_json_has_the_contract_keys(manifest: Path, tmp_path: Path) -> None:
    ran = embed(manifest, tmp_path / "bank", "--json", "--certify")
    found = ran.json
    assert {"bank", "key", "model", "rows", "ok", "failed", "seconds", "img_per_s", "stages"} <= set(found)
    assert (found["rows"], found["ok"], found["failed"]) == (80, 80, 0)
    assert set(found["stages"]) == {"decode", "encode", "commit"}
    assert found["certificate"]["embedding"]["min_cosine"] > 0.9999
    assert found["certificate"]["pixels"]["mean"] < 0.5
    shown = embank("bank", "show", tmp_path / "bank", "--json").json
    assert shown["features"][0]["certificate"]["n"] == 64


@pytest.mark.slow
def test_several_models_give_a_list(manifest: Path, tmp_path: Path) -> None:
    ran = embed(manifest, tmp_path / "bank", "--model", "random/squeezenet1_0", "--json")
    assert [one["model"] for one in ran.json] == [MODEL, "random/squeezenet1_0"]


def test_fewshot_json_has_the_contract_keys(bank: Path) -> None:
    words = (
        "fewshot",
        bank,
        "--model",
        MODEL,
        "--n-way",
        2,
        "--n-shot",
        5,
        "--episodes",
        30,
    )
    found = embank(*words, "--json").json
    assert {"model", "n_way", "n_shot", "n_query", "episodes", "seed", "accuracy", "ci95", "seconds"} <= set(
        found
    )
    again = embank(*words, "--json").json
    assert found["accuracy"] == again["accuracy"]


def test_verify_finds_damage_and_repair_mends_it(manifest: Path, tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    embed(manifest, bank)
    assert embank("bank", "verify", bank, "--json").json["ok"] is True
    (chunk,) = bank.glob("*/embedding/c/1/0")
    data = bytearray(chunk.read_bytes())
    data[1000] ^= 4
    chunk.write_bytes(data)
    found = embank("bank", "verify", bank, "--json")
    assert found.code == 1
    assert len(found.json["damaged"]) == 1
    refused = embank("fewshot", bank, "--model", MODEL, "--n-way", 2)
    assert refused.code == 2
    assert "bank repair" in refused.err
    mended = embank("bank", "repair", bank, "--json")
    assert (mended.code, mended.json["recomputed"]) == (0, 1)
    data[1000] ^= 4
    assert chunk.read_bytes() == bytes(data)


def test_export_gives_the_contract_files(bank: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert embank("bank", "export", bank, "--model", MODEL, "-o", out, "--format", "npy").code == 0
    embeddings, status = np.load(out / "embeddings.npy"), np.load(out / "status.npy")
    assert (embeddings.shape, embeddings.dtype, status.dtype) == ((80, 512), np.float32, np.uint8)
    assert (status == 1).all()
    assert (out / "manifest.parquet").exists()
    assert embank("bank", "export", bank, "-o", out, "--format", "npy").code == 2  # never overwrites unasked


def test_ls_and_show_for_people(bank: Path) -> None:
    assert "random-squeezenet1_1" in embank("bank", "ls", bank).out
    assert "recipe" in embank("bank", "show", bank, "--failures").out


@pytest.mark.slow
def test_too_many_failed_rows_exit_with_one(images: Path, tmp_path: Path) -> None:
    root = tmp_path / "images"
    for i, path in enumerate(sorted(images.rglob("*.png"))):
        target = root / path.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"" if i < 3 else path.read_bytes())
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    embank("manifest", "folder", root, "-o", tmp_path / "m.parquet")
    ran = embed(tmp_path / "m.parquet", tmp_path / "bank", "--json")
    assert (ran.code, ran.json["failed"], ran.json["failures"]) == (1, 3, {"empty": 3})
    assert embed(tmp_path / "m.parquet", tmp_path / "bank", "--max-failed", "0.05").code == 0
    assert "row 0: empty" in embank("bank", "show", tmp_path / "bank", "--failures").out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("embed", "missing.parquet", "--model", MODEL, "--bank", "b"), "missing.parquet"),
        (("bank", "verify", "nowhere"), "nowhere"),
        (("models", "show", "no-such-model"), "no-such-model"),
        (("datasets", "show", "no-such-set"), "no-such-set"),
    ],
)
def test_refusals_exit_with_two_and_say_what_to_do(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        ran = embank(*words)
    assert ran.code == 2
    assert says in ran.err
    assert "remedy:" in ran.err
    assert not list(tmp_path.iterdir())


def test_another_manifest_is_refused_and_changes_nothing(bank: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    embank("manifest", "folder", images / "class0", "-o", tmp_path / "m.parquet")
    before = sorted(p for p in bank.rglob("*"))
    ran = embed(tmp_path / "m.parquet", bank)
    assert ran.code == 2
    assert sorted(p for p in bank.rglob("*")) == before


def test_bad_option_values_exit_with_two(manifest: Path, tmp_path: Path) -> None:
    assert embed(manifest, tmp_path / "b", "--decoder", "magic").code == 2
    assert embed(manifest, tmp_path / "b", "--precision", "fp16").code == 2
    assert embed(manifest, tmp_path / "b", "--model", MODEL).code == 2
    assert not (tmp_path / "b").exists()


def test_doctor_knows_this_machine() -> None:
    found = embank("doctor", "--json").json
    names = {f["name"]: f for f in found["findings"]}
    assert {"gpu", "driver", "dali", "faiss", "cuml", "dask", "image codecs", "disk", "memory"} <= set(names)
    assert "kvikio" in names
    assert found["ok"] is True
    for finding in found["findings"]:
        assert finding["status"] == "ok" or finding["detail"]


def test_catalogues(tmp_path: Path) -> None:
    assert "efficientnet-lite0" in embank("models", "list").out
    assert embank("models", "show", MODEL, "--json").json["dim"] == 512
    assert {row["name"] for row in embank("datasets", "list", "--json").json} >= {"digits", "tiles"}


@pytest.mark.slow
def test_sigterm_leaves_a_resumable_bank(images: Path, tmp_path: Path) -> None:
    """A real process, a real signal: exit 130, and the next run finishes."""
    manifest = tmp_path / "m.parquet"
    assert embank("manifest", "folder", images / "class0", "-o", manifest).code == 0
    words = [
        "embed",
        manifest,
        "--model",
        "random/resnet50",
        "--bank",
        tmp_path / "bank",
        "--batch-size",
        "4",
        "--threads",  # of one, 40 images take longer than it is waited for below
        "1",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(cli.__file__).parent,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "bank" / ".embank").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command to resume" in err
    assert embank(*words, "--json").json["ok"] == 40
