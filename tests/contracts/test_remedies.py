"""The remedy of every message about damage works: run as it is written, it ends the message that named it.

A person who follows what the messages say gets to a bank that is sound, whatever was damaged and how, without
being sent from one command to another and back.
"""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stores.bank.layout import SIDE
from stores.bank.names import give
from stores.bank.reader import Bank
from tests.command import Ran, embank
from tests.stores.banks import flip

pytestmark = pytest.mark.slow

MODEL = "random/squeezenet1_1"
#: Every kind of file of a bank; FEATURE stands for the feature's folder.
KINDS = [
    "embank.json",
    "manifest.parquet",
    "zarr.json",
    ".embank/columns/label.npy",
    ".embank/columns/split.npy",
    ".embank/columns/columns.json",
    ".embank/FEATURE/key.json",
    ".embank/FEATURE/seal.json",
    ".embank/FEATURE/provenance.json",
    ".embank/FEATURE/certificate.json",
    ".embank/FEATURE/name.json",
    ".embank/FEATURE/markers/000001.json",
    "FEATURE/zarr.json",
    "FEATURE/embedding/zarr.json",
    "FEATURE/embedding/c/1/0",
    "FEATURE/norm/c/2",
    "FEATURE/status/c/0",
    "records/*embed*.json",
]
#: Several at once.
SETS = [
    ["manifest.parquet", ".embank/columns/label.npy"],
    ["manifest.parquet", ".embank/columns/*"],
    ["manifest.parquet", "FEATURE/embedding/c/1/0"],
    ["manifest.parquet", "embank.json"],
    ["manifest.parquet", "embank.json", ".embank/FEATURE/seal.json"],
    ["manifest.parquet", ".embank/FEATURE/seal.json", "FEATURE/embedding/c/1/0"],
    ["manifest.parquet", ".embank/FEATURE/seal.json", ".embank/FEATURE/key.json"],
    ["embank.json", ".embank/FEATURE/key.json"],
    ["embank.json", ".embank/FEATURE/seal.json", ".embank/FEATURE/key.json"],
    [".embank/FEATURE/key.json", ".embank/FEATURE/seal.json"],
    [".embank/FEATURE/key.json", ".embank/FEATURE/seal.json", ".embank/FEATURE/provenance.json"],
    [".embank/FEATURE/provenance.json", "FEATURE/embedding/c/1/0"],
    [".embank/FEATURE/seal.json", "FEATURE/embedding/c/1/0", ".embank/FEATURE/markers/000001.json"],
    [".embank/FEATURE/markers/*", "FEATURE/norm/c/*"],
    [".embank/FEATURE/*.json", ".embank/FEATURE/markers/*"],
    ["FEATURE/*/c/*", "FEATURE/*/c/*/*"],
    ["zarr.json", ".embank/FEATURE/seal.json"],
]


@dataclass(frozen=True)
class Case:
    """A bank, what it was made from, and where it would be made anew."""

    manifest: Path
    bank: Path

    @property
    def embed(self) -> list[str]:
        recipe = self.manifest.with_name("recipe.json")
        words = ["embed", self.manifest, "--model", MODEL, "--recipe", recipe, "--bank", self.bank]
        return [*map(str, words), "--device", "cpu", "--chunk-rows", "8", "--name", "control"]

    def commands(self, out: Path, provenance: bool = False) -> dict[str, list[str]]:
        """What reads a bank, by name; `search` by an image file needs to know how the features were made."""
        model, bank = ["--model", MODEL], str(self.bank)
        commands = {
            "verify": ["bank", "verify", bank],
            "export": ["bank", "export", bank, *model, "-o", str(out), "--overwrite"],
            "knn": ["knn", bank, *model, "-k", "1"],
            "fewshot": ["fewshot", bank, *model, "--n-way", "2", "--n-shot", "2", "--n-query", "2"],
            "probe": ["probe", bank, *model, "--values", "2", "--bootstrap", "0"],
            "audit": ["bank", "audit", bank, *model],
        }
        if provenance:
            image = str(next(self.manifest.parent.rglob("*.png")))
            commands["search"] = ["search", bank, *model, "--image", image]
        return commands


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("remedies")
    generator = np.random.default_rng(0)
    for i in range(24):
        split, label = ("train", "train", "val", "test")[i % 4], "ab"[i // 4 % 2]
        path = root / "images" / split / label / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 40), np.uint8)).save(path)
    (root / "recipe.json").write_text(json.dumps({"size": 32, "crop": 32}))
    words = ["manifest", "folder", root / "images", "--split-folders", "-o", root / "m.parquet"]
    assert embank(*words).code == 0
    case = Case(root / "m.parquet", root / "bank")
    assert embank(*case.embed, "--certify").code == 0
    return case


@pytest.fixture(scope="module")
def truth(made: Case) -> Ran:
    return embank(*made.commands(made.bank.with_name("out"))["knn"], "--json")


@pytest.fixture
def case(made: Case, tmp_path: Path) -> Iterator[Case]:
    yield Case(made.manifest, Path(shutil.copytree(made.bank, tmp_path / "bank")))


def spoil(bank: Path, pattern: str, how: str) -> None:
    feature = next(path.parent.parent.name for path in bank.glob("*/embedding/c"))
    found = [path for path in bank.glob(pattern.replace("FEATURE", feature)) if path.is_file()]
    assert found or pattern.endswith("/*"), pattern
    for path in found:
        if how == "remove":
            path.unlink()
        elif how == "truncate":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        else:
            flip(path)


def remedies(ran: Ran, case: Case) -> list[list[str]]:
    """The commands that a message names, in its order, as a person would complete them."""
    lines = [line for line in (ran.out + ran.err).splitlines() if "remedy:" in line]
    assert lines, f"no remedy in: {ran.out}{ran.err}"
    commands: list[list[str]] = []
    for line in lines:
        for text in re.findall(r"`embank ([^`]+)`", line):
            words = completed(shlex.split(text), case)
            if words not in commands:
                commands.append(words)
        if "into a new bank" in line and not commands:
            commands.append(["new"])
    assert commands, f"nothing to do in: {lines}"
    return commands


def completed(words: list[str], case: Case) -> list[str]:
    filled = {"MANIFEST": str(case.manifest), "NAME": "control"}
    words = [filled.get(word, word) for word in words]
    if words == ["embed"]:
        return case.embed
    if words[0] == "bank" and len(words) == 2:
        return [*words, str(case.bank)]
    return words


def follow(words: list[str], case: Case, seen: list[str], depth: int = 0) -> None:
    """Run a command; where it fails, run what its message names, then the command again."""
    if words == ["new"]:
        shutil.rmtree(case.bank)  # the bank at the same place, so that the first command finds it
        words = case.embed
    ran = embank(*words)
    if ran.code == 0:
        return
    assert ran.code in (1, 2), ran.err
    message = " ".join(words) + "\n" + ran.out + ran.err
    assert message not in seen, "a circle:\n" + "\n".join([*seen, message])
    assert depth < 5, "no end:\n" + "\n".join(seen)
    seen.append(message)
    for command in remedies(ran, case):
        follow(command, case, seen, depth + 1)
    follow(words, case, seen, depth + 1)


def check_all(case: Case, tmp_path: Path, truth: Ran, provenance: bool = False) -> int:
    """Follow the remedies of every command on copies of a damaged bank; how many failed at first."""
    failed: list[str] = []
    done: dict[str, Case] = {}
    out = tmp_path / "out"
    for name, words in case.commands(out, provenance).items():
        ran = embank(*words)
        if ran.code == 0:
            continue
        failed.append(name)
        first = repr(remedies(ran, case))
        if first not in done:  # commands that send one the same way share it
            copy = tmp_path / f"copy{len(done)}"
            shutil.copytree(case.bank, copy / "bank")
            done[first] = Case(case.manifest, copy / "bank")
        there = done[first]
        follow(there.commands(out, provenance)[name], there, [])
    direct = Path(shutil.copytree(case.bank, tmp_path / "direct" / "bank"))
    done["repair"] = Case(case.manifest, direct)
    follow(["bank", "repair", str(direct), "--device", "cpu"], done["repair"], [])
    for there in done.values():
        for name, words in there.commands(out, provenance).items():
            if name in ("verify", *failed):
                follow(words, there, [])
        found = embank(*there.commands(out)["knn"], "--json").json
        assert found["test"] == truth.json["test"]
        assert found["model"] in ("control", MODEL)
    return len(failed)


TORN = ["manifest.parquet", "embank.json", ".embank/FEATURE/seal.json", "FEATURE/norm/c/2"]


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *((kind, how) for kind in KINDS for how in ("flip", "remove")),
        *((kind, "truncate") for kind in TORN),
    ],
)
def test_one_file(kind: str, how: str, case: Case, tmp_path: Path, truth: Ran) -> None:
    spoil(case.bank, kind, how)
    failed = check_all(case, tmp_path, truth, "provenance" in kind)
    beside = how == "remove" and kind.endswith(("certificate.json", "name.json", "*.json"))
    assert failed or beside


@pytest.mark.parametrize(
    ("kinds", "how"),
    [
        *((kinds, "flip") for kinds in SETS[::2]),
        *(pytest.param(kinds, "flip", marks=pytest.mark.thorough) for kinds in SETS[1::2]),
        *((kinds, "remove") for kinds in SETS[::6]),
        *(pytest.param(kinds, "remove", marks=pytest.mark.thorough) for kinds in SETS[3::6]),
    ],
    ids=lambda each: each if isinstance(each, str) else "+".join(each),
)
def test_several_files(kinds: list[str], how: str, case: Case, tmp_path: Path, truth: Ran) -> None:
    for kind in kinds:
        spoil(case.bank, kind, how)
    assert check_all(case, tmp_path, truth, any("provenance" in kind for kind in kinds))


@pytest.mark.parametrize(
    "kind",
    [
        "manifest.parquet",
        "embank.json",
        ".embank/FEATURE/key.json",
        "FEATURE/norm/c/0",
        "FEATURE/norm/zarr.json",
        ".embank/FEATURE/markers/000000.json",
    ],
)
def test_a_feature_that_is_not_finished(kind: str, case: Case, tmp_path: Path, truth: Ran) -> None:
    """As a killed run leaves it: the last chunk, the seal and what says how it was made are not there yet."""
    feature = Bank.open(case.bank).features().name
    for path in (case.bank / SIDE / feature).glob("*.json"):
        if path.name not in ("key.json", "name.json"):
            path.unlink()
    (case.bank / SIDE / feature / "markers" / "000002.json").unlink()
    assert embank("bank", "repair", case.bank).code == 0  # the bank's own list of what is finished
    assert embank("bank", "verify", case.bank).code == 0
    spoil(case.bank, kind, "flip")
    assert check_all(case, tmp_path, truth) > 1


def test_embedding_puts_back_the_manifest_too(case: Case) -> None:
    (case.bank / "manifest.parquet").unlink()
    flip(case.bank / SIDE / "columns" / "label.npy")
    assert embank(*case.embed).code == 0
    follow(case.commands(case.bank.with_name("out"))["fewshot"], case, [])
    assert embank("bank", "verify", case.bank).code == 0


def test_another_manifest_is_not_put_back(case: Case, tmp_path: Path) -> None:
    (case.bank / "manifest.parquet").write_bytes(b"torn")
    other = tmp_path / "other.csv"
    text = ["image_id,uri,label", "x,train/a/00.png,a"]
    other.write_text("\n".join(text) + "\n")
    before = {path: path.read_bytes() for path in case.bank.rglob("*") if path.is_file()}
    ran = embank("bank", "repair", case.bank, "--manifest", other)
    assert ran.code == 2
    assert "other images" in ran.err
    assert {path: path.read_bytes() for path in case.bank.rglob("*") if path.is_file()} == before


def test_a_repair_without_the_manifest_ends_with_1_and_says_what_heals(case: Case) -> None:
    (case.bank / "manifest.parquet").unlink()
    export = embank(*case.commands(case.bank.with_name("out"))["export"])
    assert export.code == 2
    assert f"`embank bank repair {case.bank} --manifest MANIFEST`" in export.err
    ran = embank("bank", "repair", case.bank)
    assert ran.code == 1
    assert f"`embank bank repair {case.bank} --manifest MANIFEST`" in ran.out
    told = embank("bank", "repair", case.bank, "--json").json
    assert [each["path"] for each in told["remaining"]] == ["manifest.parquet"]
    mended = embank("bank", "repair", case.bank, "--manifest", case.manifest, "--json")
    assert (mended.code, mended.json["ok"], mended.json["remaining"]) == (0, True, [])


def test_a_name_that_is_lost_is_given_again(case: Case) -> None:
    feature = Bank.open(case.bank).features("control").name
    flip(case.bank / SIDE / feature / "name.json")
    assert embank("knn", case.bank, "--model", "control", "-k", "1").code == 2
    follow(["bank", "verify", str(case.bank)], case, [])
    give(case.bank, {feature: "control"})
    assert Bank.open(case.bank).features("control").name == feature
