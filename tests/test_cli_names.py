"""Names on the command line: what is embedded under one is shown by it everywhere; rm, rename and prune."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from engine.commands.checking import by_model
from stores.bank.reader import Bank
from stores.bank.records import read_all
from stores.maintenance.verify import verify
from tests.command import Ran, embank

SLUG = "torchvision/resnet18"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("names")
    generator = np.random.default_rng(0)
    for i in range(24):
        path = root / "images" / ("train", "train", "val", "test")[i % 4] / "ab"[i // 4 % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 40, 3), np.uint8)).save(path)
    (root / "recipe.json").write_text(json.dumps({"size": 32, "crop": 32}))
    words = ["manifest", "folder", root / "images", "--split-folders", "-o", root / "m.parquet"]
    assert embank(*words).code == 0
    for seed, name in enumerate(("ssl", "imagenet")):
        torch.manual_seed(seed)
        torch.save(models.resnet18().state_dict(), root / f"{name}.pth")
    return root / "m.parquet"


def embed(manifest: Path, bank: Path, *more: object, model: str = SLUG) -> Ran:
    words = [
        "embed",
        manifest,
        "--model",
        model,
        "--recipe",
        manifest.with_name("recipe.json"),
        "--bank",
        bank,
    ]
    return embank(*words, "--device", "cpu", "--dtype", "float32", *more)


@pytest.fixture(scope="module")
def bank(manifest: Path) -> Path:
    """Two checkpoints of one architecture: one that the user named, one not."""
    path = manifest.with_name("bank")
    made = embed(
        manifest, path, "--weights", manifest.with_name("ssl.pth"), "--name", "self-supervised", "--json"
    )
    assert made.code == 0, made.err
    assert (made.json["model"], made.json["name"], made.json["title"]) == (
        SLUG,
        "self-supervised",
        "self-supervised",
    )
    other = embed(manifest, path, "--weights", f"{SLUG}={manifest.with_name('imagenet.pth')}", "--json")
    assert other.code == 0, other.err
    assert (other.json["model"], other.json["name"]) == (SLUG, None)
    assert other.json["title"].startswith(f"{SLUG}@")
    return path


def titles(bank: Path) -> list[str]:
    return [info.title for info in Bank.open(bank).list()]


def runs(bank: Path, manifest: Path, model: str, out: Path) -> dict[str, list[object]]:
    image = next(manifest.parent.rglob("*.png"))
    name = ["--model", model]
    return {
        "knn": ["knn", bank, *name, "-k", 1],
        "fewshot": ["fewshot", bank, *name, "--n-way", 2, "--n-shot", 2, "--n-query", 2, "--episodes", 10],
        "probe": ["probe", bank, *name, "--values", 2, "--bootstrap", 0, "-o", out / "probe.png"],
        "audit": ["bank", "audit", bank, *name, "--sheet", out / "audit.png"],
        "search": ["search", bank, *name, "--image", image, "-k", 3, "-o", out / "search.png"],
        "saliency": ["saliency", bank, *name, "--images", 1, "--size", 20, "--stride", 16, "--device", "cpu"],
        "invariance": [
            *(
                "invariance",
                bank,
                *name,
                "--transform",
                "Rotate",
                "--views",
                2,
                "--images",
                4,
                "--device",
                "cpu",
            ),
        ],
    }


@pytest.mark.slow
@pytest.mark.parametrize("what", ["knn", "fewshot", "probe", "audit", "search", "saliency", "invariance"])
def test_every_evaluation_says_which_checkpoint(
    what: str, bank: Path, manifest: Path, tmp_path: Path
) -> None:
    shown = set()
    for title in titles(bank):
        words = runs(bank, manifest, title, tmp_path)[what]
        if what == "invariance":
            from engine.kernels.transforms import TRANSFORMS

            words[words.index("Rotate")] = next(iter(TRANSFORMS))
        ran = embank(*words, "--json")
        assert ran.code == 0, ran.err
        assert ran.json["model"] == title
        printed = embank(*words)
        assert printed.code == 0, printed.err
        assert title in " ".join((printed.out + printed.err).split())
        (last,) = read_all(bank)[-1:]
        assert last.asked["model"] in (title, Bank.open(bank).features(title).name)
        shown.add(ran.json["model"])
    assert len(shown) == 2


@pytest.mark.slow
def test_pairs_of_models_are_told_apart(bank: Path, manifest: Path, tmp_path: Path) -> None:
    first, second = titles(bank)
    words = runs(bank, manifest, first, tmp_path)
    for what in ("fewshot", "probe"):
        results = embank(*words[what], "--model", second, "--json").json
        assert [each["model"] for each in results] == [first, second]
    (paired,) = embank(*words["fewshot"], "--model", second, "--json").json[0]["paired"]
    assert paired["model"] == second


@pytest.mark.slow
def test_a_slug_that_fits_both_says_in_what_they_differ(bank: Path, manifest: Path, tmp_path: Path) -> None:
    for words in runs(bank, manifest, SLUG, tmp_path).values():
        ran = embank(*words)
        assert ran.code == 2
        assert "weights ssl.pth" in ran.err
        assert "weights imagenet.pth" in ran.err


@pytest.mark.slow
def test_ls_and_show_and_export(bank: Path, tmp_path: Path) -> None:
    listed = embank("bank", "ls", bank, "--json").json
    assert sorted(each["title"] for each in listed) == sorted(titles(bank))
    assert "self-supervised" in embank("bank", "ls", bank).out
    assert "(self-supervised)" in embank("bank", "show", bank, "--model", "self").out
    (shown,) = embank("bank", "show", bank, "--model", "self", "--json").json["features"]
    assert shown["title"] == "self-supervised"
    assert embank("bank", "verify", bank, "--model", "self").code == 0
    assert embank("bank", "export", bank, "--model", "self", "-o", tmp_path / "out").code == 0
    about = json.loads((tmp_path / "out" / "feature.json").read_text())
    assert (about["title"], about["key"]["model"]) == ("self-supervised", SLUG)


def test_a_name_that_is_taken_changes_nothing(bank: Path, manifest: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in bank.rglob("*") if path.is_file()}
    ran = embed(manifest, bank, "--name", "self-supervised", model="random/squeezenet1_1")
    assert ran.code == 2
    assert "taken" in ran.err
    assert {path: path.stat().st_mtime_ns for path in bank.rglob("*") if path.is_file()} == before
    refused = embed(manifest, tmp_path / "new", "--name", "a/b", model="random/squeezenet1_1")
    assert refused.code == 2
    assert not (tmp_path / "new").exists()


def test_rename(bank: Path) -> None:
    old = titles(bank)
    (title,) = [each for each in old if "@" in each]
    ran = embank("bank", "rename", bank, title, "supervised", "--json")
    assert (ran.code, ran.json["title"], ran.json["before"]) == (0, "supervised", title)
    assert sorted(titles(bank)) == ["self-supervised", "supervised"]
    assert embank("knn", bank, "--model", "supervised", "-k", 1, "--json").json["model"] == "supervised"
    assert embank("bank", "rename", bank, "supervised", "self-supervised").code == 2
    assert embank("bank", "rename", bank, "nothing", "x").code == 2
    assert sorted(titles(bank)) == ["self-supervised", "supervised"]


@pytest.mark.parametrize(
    ("words", "slugs", "expected"),
    [
        ([], ["a/x", "b/y"], [None, None]),
        (["1.pth", "2.pth"], ["a/x", "b/y"], ["1.pth", "2.pth"]),
        (["b/y=2.pth"], ["a/x", "b/y"], [None, "2.pth"]),
        (["b/y=2.pth", "a/x=1=1.pth"], ["a/x", "b/y"], ["1=1.pth", "2.pth"]),
        (["odd=name.pth"], ["a/x"], ["odd=name.pth"]),
    ],
)
def test_whose_weights(words: list[str], slugs: list[str], expected: list[str | None]) -> None:
    assert by_model("--weights", "file", words, slugs) == expected


@pytest.mark.parametrize(
    "words",
    [["1.pth"], ["b/y=2.pth", "1.pth"], ["b/y=2.pth", "b/y=3.pth"], ["c/z=3.pth"], ["b/y="], ["1", "2", "3"]],
)
def test_weights_of_nobody_are_refused(words: list[str]) -> None:
    from stores.errors import Refused

    with pytest.raises(Refused, match="--weights"):
        by_model("--weights", "file", words, ["a/x", "b/y"])


@pytest.mark.slow
def test_weights_beside_a_model_that_has_its_own(manifest: Path, tmp_path: Path) -> None:
    ran = embed(
        manifest,
        tmp_path / "bank",
        "--model",
        SLUG,
        "--weights",
        f"{SLUG}={manifest.with_name('ssl.pth')}",
        "--name",
        f"{SLUG}=mine",
        "--json",
        model="random/squeezenet1_1",
    )
    assert ran.code == 0, ran.err
    names = [(each["model"], each["name"]) for each in ran.json]
    assert names == [("random/squeezenet1_1", None), (SLUG, "mine")]
    alone = embed(manifest, tmp_path / "alone", model="random/squeezenet1_1")
    assert alone.code == 0
    first = Bank.open(tmp_path / "bank").features("random/squeezenet1_1").array
    np.testing.assert_array_equal(first, Bank.open(tmp_path / "alone").features().array)


class Terminal:
    """Standard input at which somebody sits and answers."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self, *_: object) -> str:
        return self.answer + "\n"


@pytest.mark.slow
def test_rm_asks_and_without_a_terminal_refuses(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = tmp_path / "bank"
    assert embed(manifest, bank, "--name", "mine", model="random/squeezenet1_1").code == 0
    assert embed(manifest, bank, "--seed", 7, "--name", "other", model="random/squeezenet1_1").code == 0
    refused = embank("bank", "rm", bank, "mine")
    assert refused.code == 2
    assert "--yes" in refused.err
    monkeypatch.setattr("sys.stdin", Terminal("n"))
    assert embank("bank", "rm", bank, "mine").code == 2
    assert sorted(titles(bank)) == ["mine", "other"]
    assert embank("bank", "rm", bank, "random/squeezenet1_1", "--yes").code == 2, "it fits both"
    monkeypatch.setattr("sys.stdin", Terminal("y"))
    assert embank("bank", "rm", bank, "mine").code == 0
    assert titles(bank) == ["other"]
    gone = embank("bank", "rm", bank, "other", "--yes", "--json")
    assert (gone.code, gone.json["title"]) == (0, "other")
    assert titles(bank) == []
    assert verify(bank).ok
    assert [each.kind for each in read_all(bank)] == ["embed", "embed"]
    again = embed(manifest, bank, "--json", model="random/squeezenet1_1")
    assert (again.code, again.json["embedded"], again.json["name"]) == (0, 24, None)


@pytest.mark.slow
def test_prune(bank: Path, manifest: Path, tmp_path: Path) -> None:
    words = runs(bank, manifest, "self-supervised", tmp_path)["saliency"]
    assert embank(*words, "--json").code == 0
    assert embank("bank", "prune", bank, "--max-size", "1GB", "--json").json["removed_bytes"] == 0
    assert embank("bank", "prune", bank, "--max-size", "big").code == 2
    told = embank("bank", "prune", bank, "--json").json
    assert told["removed"]["saliency"]["files"] >= 1
    assert "MiB removed" in embank("bank", "prune", bank).out
    assert embank(*words, "--json").json["computed"] == 1, "it is made again"
    assert verify(bank).ok
