"""Where a bank's images are: one rule, put to every command that opens them, by what the commands give."""

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine import runtime
from engine.decode.source import Limits
from engine.embed.restore import Provenance, images_of, restore
from engine.errors import BankError, Refused
from engine.evals.common.image_inputs import open_images
from engine.recipes import Recipe
from engine.report.sheets import pictures_of
from engine.runtime import device_like
from stores.bank import documents
from stores.bank.layout import SIDE
from stores.bank.reader import Bank
from stores.manifest.manifest import Manifest
from tests.command import embank

pytestmark = pytest.mark.slow

MODEL = "random/squeezenet1_1"  # the quickest to draw, load and run
OTHER = "random/shufflenet_v2_x0_5"  # which the banks have no feature of
COUNT = 10
SALIENCY = ("--images", 1, "--stride", 10, "--threads", 1)


def draw(folder: Path, seed: int) -> Path:
    """Pictures by the same names, others for each seed."""
    generator = np.random.default_rng(seed)
    for i in range(COUNT):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 44, 3), np.uint8)).save(path)
    return folder


def make(project: Path, *, hashed: bool, images: str = "images", bank: str = "bank") -> Path:
    """A folder with pictures and a bank of them: where commands start to disagree once it is moved."""
    folder = draw(project / images, 1)
    (project / "recipe.json").write_text('{"size": 32, "crop": 32}')
    listed = embank("manifest", "folder", folder, "-o", project / "m.parquet", *["--hash"] * hashed)
    assert listed.code == 0, listed.err
    words = ("--model", MODEL, "--recipe", project / "recipe.json", "--device", "cpu", "--threads", 1)
    more = ("--bank", project / bank, "--chunk-rows", 4, "--batch-size", 4)
    made = embank("embed", project / "m.parquet", *words, *more)
    assert made.code == 0, made.err
    return project / bank


Outcome = tuple[int, Any]


def _ended(ran: Any, give: Callable[[], Any]) -> Outcome:
    return (0, give()) if ran.code == 0 else (ran.code, ran.err)


def invariance(bank: Path, *more: object) -> Outcome:
    words = ("--transform", "rotation", "--views", 3, "--images", 2, "--json")
    ran = embank("invariance", bank, "--model", MODEL, *words, *more)
    return _ended(ran, lambda: (ran.json["reference_parity"], ran.json["failed"]))


def saliency(bank: Path, *more: object) -> Outcome:
    ran = embank("saliency", bank, "--model", MODEL, *SALIENCY, "--json", *more)
    return _ended(ran, lambda: [(i["attentive_diffusion"], i["map"]) for i in ran.json["items"]])


def saliency_of_another(bank: Path, *more: object) -> Outcome:
    words = ("--model", OTHER, "--recipe", bank.parent / "another.json")
    words[-1].write_text('{"size": 32, "crop": 32}')  # at its own size it would take most of the time
    ran = embank("saliency", bank, *words, *SALIENCY, "--json", *more)
    return _ended(ran, lambda: [(i["attentive_diffusion"], i["map"]) for i in ran.json["items"]])


def search(bank: Path, *more: object) -> Outcome:
    sheet = bank.parent / "search.png"
    ran = embank("search", bank, "--model", MODEL, "--id", "a/0.png", "-k", 3, "-o", sheet, *more)
    return _ended(ran, lambda: hashlib.sha256(sheet.read_bytes()).hexdigest())


def audit(bank: Path, *more: object) -> Outcome:
    sheet = bank.parent / "audit.png"
    ran = embank("bank", "audit", bank, "--model", MODEL, "--threshold", 0.01, "--sheet", sheet, *more)
    return _ended(ran, lambda: hashlib.sha256(sheet.read_bytes()).hexdigest())


def repair(bank: Path, *more: object) -> Outcome:
    (chunk,) = bank.glob("*/embedding/c/1/0")
    chunk.unlink()
    ran = embank("bank", "repair", bank, *more)
    return _ended(ran, lambda: hashlib.sha256(chunk.read_bytes()).hexdigest())


COMMANDS = (invariance, saliency, saliency_of_another, search, audit, repair)


def outcomes(bank: Path, *more: object) -> list[Outcome]:
    """What each command gives, on a bank that it finds as it was."""
    before = bank.with_name(bank.name + ".before")
    bank.rename(before)
    done = []
    for command in COMMANDS:
        shutil.copytree(before, bank)
        done.append(command(bank, *more))
        shutil.rmtree(bank)
    before.rename(bank)
    return done


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "hashed"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A bank at its place, and what the commands give there."""
    project = tmp_path_factory.mktemp("made") / "project"
    bank = make(project, hashed=request.param)
    expected = outcomes(bank)
    assert all(code == 0 for code, _ in expected), expected
    return {"project": project, "hashed": request.param, "expected": expected}


@pytest.fixture
def project(made: dict[str, Any], tmp_path: Path) -> Any:
    """The made project at its place, for the test to move about; put back afterwards."""
    keep = tmp_path / "keep"
    shutil.copytree(made["project"], keep)
    yield made["project"]
    shutil.rmtree(made["project"], ignore_errors=True)
    shutil.copytree(keep, made["project"])


def refused(done: list[Outcome], *said: str) -> None:
    """All commands refuse, in the same words, with a remedy."""
    flat = [" ".join(text.split()) for _, text in done]
    texts = {re.sub(r"Damaged as before: chunk \d+ of \S+\. ", "", text) for text in flat}
    assert {code for code, _ in done} == {2}, done
    assert len(texts) == 1, texts
    (text,) = texts
    for words in said:
        assert words in text, text


def same(done: list[Outcome], made: dict[str, Any]) -> None:
    for command, now, then in zip(COMMANDS, done, made["expected"], strict=True):
        assert now == then, command.__name__


def test_images_that_have_moved_are_asked_for(made: dict[str, Any], project: Path, tmp_path: Path) -> None:
    (project / "images").rename(tmp_path / "moved")
    refused(outcomes(project / "bank"), "any more", "--root")
    same(outcomes(project / "bank", "--root", tmp_path / "moved"), made)


def test_a_copied_bank_means_the_images_that_it_was_made_from(
    made: dict[str, Any], project: Path, tmp_path: Path
) -> None:
    """Although other pictures by the same names lie where its relative root now leads."""
    draw(tmp_path / "away" / "images", 2)
    shutil.copytree(project / "bank", tmp_path / "away" / "bank")
    assert Bank.open(tmp_path / "away" / "bank").manifest().root == tmp_path / "away" / "images"
    same(outcomes(tmp_path / "away" / "bank"), made)


def test_a_copied_bank_never_takes_other_pictures(
    made: dict[str, Any], project: Path, tmp_path: Path
) -> None:
    draw(tmp_path / "away" / "images", 2)
    shutil.copytree(project / "bank", tmp_path / "away" / "bank")
    (project / "images").rename(tmp_path / "moved")
    refused(outcomes(tmp_path / "away" / "bank"), "are others by their SHA-256", "--root")
    same(outcomes(tmp_path / "away" / "bank", "--root", tmp_path / "moved"), made)


def test_bank_and_images_moved_together(made: dict[str, Any], project: Path, tmp_path: Path) -> None:
    """Digests prove that the images are the bank's, those of the manifest or those kept with the features."""
    (tmp_path / "new").mkdir()
    for name in ("bank", "images"):
        (project / name).rename(tmp_path / "new" / name)
    bank, images = tmp_path / "new" / "bank", tmp_path / "new" / "images"
    same(outcomes(bank), made)
    same(outcomes(bank, "--root", images), made)


def test_without_digests_the_message_names_the_folder_to_give(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bank of an early version, with a manifest without digests."""
    monkeypatch.setattr(
        "engine.embed.restore.contents_of_bank", lambda *_, **__: np.zeros((COUNT, 32), np.uint8)
    )
    (tmp_path / "project").rename(tmp_path / "new")
    moved = Bank.open(tmp_path / "new" / "bank")
    with pytest.raises(Refused, match="nothing recorded proves") as caught:
        images_of(moved, None)
    assert f"give --root {tmp_path / 'new' / 'images'}" in str(caught.value)


def test_a_folder_without_any_of_the_images_counts_as_missing(
    made: dict[str, Any], project: Path, tmp_path: Path
) -> None:
    (project / "images").rename(tmp_path / "moved")
    (project / "images" / "a").mkdir(parents=True)  # as where nothing is mounted
    refused(outcomes(project / "bank"), "any more", "--root")
    refused(outcomes(project / "bank", "--root", tmp_path), f"{tmp_path} holds none of the {COUNT} images")
    refused(outcomes(project / "bank", "--root", tmp_path / "no"), "is no folder", "--root")


# --- parts of the rule, by the source alone -----------------------------------------------------------


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return Bank.open(make(tmp_path / "project", hashed=False))


def name_of(bank: Bank) -> str:
    (name,) = [info.name for info in bank.list() if info.key.model == MODEL]
    return name


def rewrite(bank: Bank, **fields: Any) -> None:
    """Change fields of the provenance, as another run or version would have written them."""
    path = bank.path / SIDE / name_of(bank) / "provenance.json"
    body = {name: value for name, value in documents.read(path).items() if name not in ("digest", "sha256")}
    documents.replace(path, body | fields, bank.path / "tmp")


def test_a_bank_among_its_images_is_no_exception(tmp_path: Path) -> None:
    bank = make(tmp_path / "x", hashed=True, images=".", bank="bank")
    assert images_of(Bank.open(bank), None).root == tmp_path / "x"
    (tmp_path / "x").rename(tmp_path / "y")
    assert images_of(Bank.open(tmp_path / "y" / "bank"), None).root == tmp_path / "y"


def test_a_recorded_root_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "images", 1)
    assert embank("manifest", "folder", tmp_path / "images", "-o", tmp_path / "m.parquet").code == 0
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.json").write_text('{"size": 32, "crop": 32}')
    words = ("--model", MODEL, "--recipe", "recipe.json", "--device", "cpu", "--root", "images")
    assert embank("embed", "m.parquet", *words, "--bank", "bank").code == 0
    store = Bank.open("bank")
    assert Provenance.of(store, name_of(store)).root == tmp_path / "images"


def test_a_relative_root_of_an_early_bank_counts_where_the_manifest_says_the_same(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(bank, root="images")
    draw(tmp_path / "elsewhere" / "images", 2)
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "project" / "images").rename(tmp_path / "project" / "away")
    with pytest.raises(Refused, match="--root"):
        images_of(bank, name_of(bank))
    (tmp_path / "project" / "away").rename(tmp_path / "project" / "images")
    monkeypatch.chdir(tmp_path / "project")
    assert images_of(bank, name_of(bank)).root == tmp_path / "project" / "images"


def test_features_made_from_different_folders(bank: Bank, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "project" / "images", tmp_path / "second")
    words = ("--model", OTHER, "--device", "cpu", "--root", tmp_path / "second", "--max-pixels", 5000)
    project = tmp_path / "project"
    made = embank(
        "embed", project / "m.parquet", "--bank", bank.path, "--recipe", project / "recipe.json", *words
    )
    assert made.code == 0, made.err
    assert images_of(bank, name_of(bank)).root == project / "images"
    assert images_of(bank, bank.features(OTHER).name).root == tmp_path / "second"
    assert images_of(bank, bank.features(OTHER).name).limits.max_pixels == 5000
    with pytest.raises(Refused, match="different folders"):
        images_of(bank, None)
    assert images_of(bank, None, root=tmp_path / "second").root == tmp_path / "second"
    shutil.rmtree(tmp_path / "second")
    assert images_of(bank, None).root == project / "images"
    assert images_of(bank, None).limits == Limits()


def test_absolute_paths_need_no_root(tmp_path: Path) -> None:
    folder = draw(tmp_path / "images", 1)
    (tmp_path / "lists").mkdir()
    lines = [str(path) for path in sorted(folder.rglob("*.png"))]
    (tmp_path / "lists" / "m.csv").write_text("\n".join(["uri", *lines]) + "\n")
    (tmp_path / "recipe.json").write_text('{"size": 32, "crop": 32}')
    words = ("--model", MODEL, "--recipe", tmp_path / "recipe.json", "--device", "cpu", "--allow-outside")
    made = embank("embed", tmp_path / "lists" / "m.csv", *words, "--bank", tmp_path / "bank")
    assert made.code == 0, made.err
    shutil.rmtree(tmp_path / "lists")
    store = Bank.open(tmp_path / "bank")
    assert images_of(store, name_of(store)).read(0) == Path(lines[0]).read_bytes()


def test_a_manifest_whose_images_are_gone_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "images", 1)
    assert embank("manifest", "folder", tmp_path / "images", "-o", tmp_path / "m.parquet").code == 0
    (tmp_path / "images").rename(tmp_path / "moved")
    (tmp_path / "recipe.json").write_text('{"size": 32, "crop": 32}')
    words = ("saliency", tmp_path / "m.parquet", "--model", OTHER, "-o", tmp_path / "out", *SALIENCY)
    words += ("--recipe", tmp_path / "recipe.json")
    ran = embank(*words)
    assert (ran.code, "--root" in ran.err) == (2, True)
    assert not (tmp_path / "out").exists()
    assert embank(*words, "--root", tmp_path / "moved").code == 0


# --- limits and digests -------------------------------------------------------------------------------


def test_the_limit_on_pixels_holds_wherever_images_are_opened(tmp_path: Path) -> None:
    folder = draw(tmp_path / "images", 1)
    Image.new("RGB", (60, 60), "red").save(folder / "a" / "large.png")
    (tmp_path / "recipe.json").write_text('{"size": 32, "crop": 32}')
    assert embank("manifest", "folder", folder, "-o", tmp_path / "m.parquet").code == 0
    words = ("--model", MODEL, "--recipe", tmp_path / "recipe.json", "--device", "cpu", "--max-failed", 1)
    bank = tmp_path / "bank"
    assert embank("embed", tmp_path / "m.parquet", "--bank", bank, *words, "--max-pixels", 3000).code == 0
    store = Bank.open(bank)
    assert restore(store, name_of(store)).images.limits.max_pixels == 3000
    assert pictures_of(bank, MODEL).limits.max_pixels == 3000
    for model in (MODEL, OTHER):
        ran = embank("saliency", bank, "--model", model, "--id", "a/large.png", *SALIENCY[2:], "--json")
        assert ran.json["items"][0]["reason"] == "too_large"
    ran = embank("search", bank, "--model", MODEL, "--image", folder / "a" / "large.png")
    assert (ran.code, "too_large" in ran.err) == (2, True)
    assert embank("bank", "repair", bank).code == 0


def test_a_changed_file_is_not_shown(tmp_path: Path) -> None:
    bank = make(tmp_path / "project", hashed=True)
    Image.new("RGB", (44, 40), "red").save(tmp_path / "project" / "images" / "a" / "0.png")
    words = ("--model", MODEL, "--id", "a/0.png", "--json")
    for command in (("search", "-k", 3, "-o", tmp_path / "s.png"), ("saliency", *SALIENCY[2:])):
        ran = embank(command[0], bank, *words, *command[1:])
        assert (ran.code, "a/0.png" in ran.err) == (2, True), ran.err
    assert not (tmp_path / "s.png").exists()


# --- encoders -----------------------------------------------------------------------------------------


def test_sheets_take_the_full_name_of_a_feature(bank: Bank, tmp_path: Path) -> None:
    """Two features of one model: what the search could tell apart, its sheet can too."""
    project = tmp_path / "project"
    more = ("--recipe", project / "recipe.json", "--device", "cpu", "--dtype", "float32")
    assert embank("embed", project / "m.parquet", "--bank", bank.path, "--model", MODEL, *more).code == 0
    for info in bank.list():
        words = ("--model", info.name, "--id", "a/0.png", "-k", 3, "-o", tmp_path / "s.png")
        ran = embank("search", bank.path, *words)
        assert ran.code == 0, ran.err


def test_a_refused_sheet_leaves_no_record(bank: Bank, tmp_path: Path) -> None:
    (tmp_path / "project" / "images").rename(tmp_path / "moved")
    before = sorted(path for path in bank.path.rglob("*") if path.is_file())
    words = ("--model", MODEL)
    sheet = tmp_path / "s.png"
    assert embank("search", bank.path, *words, "--id", "a/0.png", "-k", 3, "-o", sheet).code == 2
    assert embank("bank", "audit", bank.path, *words, "--sheet", sheet).code == 2
    assert embank("saliency", bank.path, *words, *SALIENCY).code == 2
    assert embank("invariance", bank.path, *words, "--transform", "rotation", "--views", 3).code == 2
    # Files of the cache of checks may come and go.
    after = {path for path in bank.path.rglob("*") if path.is_file() and path.name != "stamps.json"}
    assert after <= set(before)


def test_saliency_with_moved_weights_keeps_the_bank_s_preprocessing(tmp_path: Path) -> None:
    from torchvision import models

    weights = tmp_path / "w.pth"
    torch.save(models.mnasnet0_5(weights=None).state_dict(), weights)
    draw(tmp_path / "images", 1)
    (tmp_path / "recipe.json").write_text('{"size": 36, "crop": 32}')
    assert embank("manifest", "folder", tmp_path / "images", "-o", tmp_path / "m.parquet").code == 0
    slug = "torchvision/mnasnet0_5"
    words = ("--model", slug, "--recipe", tmp_path / "recipe.json", "--device", "cpu", "--weights", weights)
    words += ("--dtype", "float32")
    bank = tmp_path / "bank"
    assert embank("embed", tmp_path / "m.parquet", "--bank", bank, *words).code == 0
    expected = open_images(bank, slug).spec
    assert (expected.recipe.size, expected.recipe.crop) == (36, 32)
    weights.rename(tmp_path / "moved.pth")
    with pytest.raises(Refused, match="--weights"):
        open_images(bank, slug)
    moved = open_images(bank, slug, weights=tmp_path / "moved.pth").spec
    assert (moved.recipe, moved.weights_sha256) == (expected.recipe, expected.weights_sha256)
    own = open_images(bank, slug, weights=tmp_path / "moved.pth", recipe=Recipe(size=40, crop=40)).spec
    assert (own.recipe.size, own.weights_sha256) == (40, expected.weights_sha256)
    torch.save(models.mnasnet0_5(weights=None).state_dict(), weights)
    other = open_images(bank, slug, weights=weights).spec
    assert other.weights_sha256 != expected.weights_sha256 and other.recipe.size != 36


@pytest.mark.parametrize(
    ("made_on", "devices", "here"),
    [
        ("cpu", 0, "cpu"),
        ("cpu", 4, "cpu"),
        ("cuda:0", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
        ("cuda:1", 1, "cuda:0"),
        ("cuda:7", 4, "cuda:0"),
        ("cuda:1", 0, "cpu"),
        ("cuda", 1, "cuda:0"),
    ],
)
def test_auto_is_the_device_of_the_bank_or_the_nearest_to_it(made_on: str, devices: int, here: str) -> None:
    assert device_like(made_on, devices) == here


@pytest.mark.parametrize(("devices", "here"), [(0, "cpu"), (1, "cuda:0"), (2, "cuda:1")])
def test_a_bank_made_on_a_second_gpu(
    bank: Bank, devices: int, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.devices, "_may_have_cuda", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    then = documents.read(bank.path / SIDE / name_of(bank) / "provenance.json")["runtime"]
    rewrite(bank, runtime={**then, "device": "cuda:1"})
    assert restore(bank, name_of(bank)).runtime.device == here
    assert restore(bank, name_of(bank), device="cpu").runtime.device == "cpu"


def test_a_bank_made_on_a_gpu_on_a_machine_without(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries and views go through the CPU; a repair, which must give the same bits, wants that said."""
    monkeypatch.setattr(runtime.devices, "device_count", lambda: 0)
    then = documents.read(bank.path / SIDE / name_of(bank) / "provenance.json")["runtime"]
    rewrite(bank, runtime={**then, "device": "cuda:1"})
    image = bank.path.parent / "images" / "a" / "0.png"
    ran = embank("search", bank.path, "--model", MODEL, "--image", image, "-k", 1, "--keep-query", "--json")
    assert ran.json["neighbours"][0]["image_id"] == "a/0.png"
    assert invariance(bank.path)[0] == 0
    (chunk,) = bank.path.glob("*/embedding/c/1/0")
    before = chunk.read_bytes()
    code, text = repair(bank.path)
    assert (code, "--device cpu" in text, bank.is_sealed(name_of(bank))) == (2, True, True)
    assert embank("bank", "repair", bank.path, "--device", "cpu").code == 0
    assert chunk.read_bytes() == before
    rewrite(bank, runtime={**then, "device": "cuda:1", "precision": "fp16"})
    with pytest.raises(Refused, match="a machine with a GPU"):
        restore(bank, name_of(bank))


def test_a_refused_repair_can_be_had_with_the_remedy(bank: Bank, tmp_path: Path) -> None:
    """It leaves the bank as it was, so that the second call knows what is damaged."""
    (tmp_path / "project" / "images").rename(tmp_path / "moved")
    (chunk,) = bank.path.glob("*/embedding/c/1/0")
    before = chunk.read_bytes()
    assert repair(bank.path)[0] == 2
    ran = embank("bank", "repair", bank.path, "--root", tmp_path / "moved", "--json")
    assert (ran.code, ran.json["recomputed"]) == (0, 1)
    assert chunk.read_bytes() == before


def test_a_repair_decodes_as_the_bank_was_decoded(bank: Bank) -> None:
    """Not as `auto` would here: another decoder makes another feature, beside the damaged one."""
    options = documents.read(bank.path / SIDE / name_of(bank) / "provenance.json")["options"]
    rewrite(bank, decoder="dali-mixed", options={**options, "decoder": "auto"})
    code, text = repair(bank.path)
    assert (code, len(bank.list())) == (2, 1), text


def test_provenance_that_contradicts_the_key_is_written_anew(bank: Bank) -> None:
    path = bank.path / SIDE / name_of(bank) / "provenance.json"
    rewrite(bank, decoder="dali-mixed")
    with pytest.raises(BankError, match="decoded the images") as caught:
        restore(bank, name_of(bank)).decoder(1)
    assert f"remove {path}" in caught.value.remedy
    path.unlink()
    project = bank.path.parent
    words = ("--model", MODEL, "--recipe", project / "recipe.json", "--device", "cpu", "--threads", 1)
    again = embank("embed", project / "m.parquet", *words, "--bank", bank.path, "--batch-size", 4)
    assert again.code == 0, again.err
    restored = restore(bank, name_of(bank))
    assert (restored.made.decoder, restored.options.decoder, restored.options.dct) == ("turbo",) * 2 + (
        False,
    )


def test_a_provenance_of_another_version_is_refused(bank: Bank) -> None:
    then = documents.read(bank.path / SIDE / name_of(bank) / "provenance.json")
    for fields in ({"options": {"colour": 1}}, {"root": None}, {"runtime": {**then["runtime"], "phase": 1}}):
        rewrite(bank, **fields)
        with pytest.raises(BankError, match=r"cannot be understood|does not say how"):
            Provenance.of(bank, name_of(bank))
        rewrite(bank, **{name: then[name] for name in fields})
    made = Provenance.of(bank, name_of(bank))
    assert (made.model, made.decoder, made.runtime.device) == (MODEL, "turbo", "cpu")
    assert made.options.chunk_rows == 4
    assert isinstance(bank.manifest(), Manifest)
