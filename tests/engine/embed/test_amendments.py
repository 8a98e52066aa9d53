"""A few deep images among usual ones: rules for them alone, with the key of the feature as it is."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from engine.embed.certify import certify
from engine.embed.inputs import InputChecks
from engine.embed.repair import repair
from engine.embed.restore import restore
from engine.embed.run import EmbedOptions, EmbedReport, embed
from engine.errors import Refused
from engine.models import ModelSpec, resolve
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.bank import documents
from stores.bank.layout import SIDE
from stores.bank.reader import Bank
from stores.maintenance.verify import verify
from stores.manifest.manifest import Manifest
from tests.command import embank
from tests.corpus.images import tiff

pytestmark = pytest.mark.slow

SMALL = Recipe(size=32, crop=32)
CPU = Runtime(device="cpu", precision="fp32", threads=1)
OPTIONS = EmbedOptions(decoder="reference", batch_size=4, chunk_rows=3, dtype="float32")
#: Names in the manifest's order; of two chunks.
NAMES = ("a.png", "deep.png", "int.tiff", "z.png")


@cache
def _resolved() -> ModelSpec:
    return resolve("random/squeezenet1_1", recipe=SMALL)


def model(*deep: str, depth: str = "refuse") -> ModelSpec:
    return replace(_resolved(), recipe=replace(SMALL, depth=depth, deep=deep))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    (root / "x").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "z"):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(root / "x" / f"{name}.png")
    deep = rng.integers(0, 65536, (40, 40, 3)).astype(np.uint16)
    (root / "x" / "deep.png").write_bytes(imagecodecs.png_encode(deep))
    (root / "x" / "int.tiff").write_bytes(tiff(rng.integers(-900, 900, (40, 40)).astype(np.int16)))
    return root


def run(folder: Path, bank: Path, spec: ModelSpec, **checks: Any) -> EmbedReport:
    manifest = Manifest.from_folder(folder)
    found = embed(manifest, [spec], bank, runtime=CPU, options=OPTIONS, checks=InputChecks(**checks))
    return found[0]


def rows(bank: Path, feature: str) -> np.ndarray:
    return np.array(Bank.open(bank).features(feature).array)


def reasons(bank: Path) -> list[str]:
    found = Bank.open(bank)
    return [failure.code for failure in found.features(found.list()[0].name).failures()]


def provenance(bank: Path) -> dict[str, Any]:
    found = Bank.open(bank)
    return found.provenance(found.list()[0].name)


def test_a_rule_gives_deep_rows_alone_an_embedding(folder: Path, tmp_path: Path) -> None:
    before = run(folder, tmp_path / "bank", model())
    assert (before.ok, before.failed, before.failures) == (2, 2, {"depth": 2})
    old = rows(tmp_path / "bank", before.feature)
    after = run(folder, tmp_path / "bank", model("scale"))
    assert (after.feature, after.key) == (before.feature, before.key)
    assert (after.ok, after.failed, after.embedded) == (3, 1, 2)
    new = rows(tmp_path / "bank", after.feature)
    np.testing.assert_array_equal(new[[0, 3]], old[[0, 3]])
    # What `--depth scale` makes of the same row in a feature of its own.
    other = run(folder, tmp_path / "other", model(depth="scale"))
    assert other.key != after.key
    np.testing.assert_array_equal(new[1], rows(tmp_path / "other", other.feature)[1])
    assert new[1].any()
    assert verify(tmp_path / "bank").ok
    # Nothing is tried twice, with the rule or without.
    for again in (model("scale"), model()):
        assert run(folder, tmp_path / "bank", again).embedded == 0
    assert provenance(tmp_path / "bank")["recipe"]["deep"] == ["scale"]
    assert "amending" not in provenance(tmp_path / "bank")


def test_a_fresh_bank_is_the_same(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "one", model())
    one = run(folder, tmp_path / "one", model("scale", "window:-900,900"))
    two = run(folder, tmp_path / "two", model("scale", "window:-900,900"))
    assert (one.ok, one.feature) == (two.ok, two.feature)
    assert one.ok == 4
    np.testing.assert_array_equal(rows(tmp_path / "one", one.feature), rows(tmp_path / "two", two.feature))


def test_rules_are_added_and_never_changed(folder: Path, tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    run(folder, bank, model("scale"))
    files = {path: path.read_bytes() for path in sorted(bank.rglob("*")) if path.is_file()}
    with pytest.raises(Refused, match="none is changed") as error:
        run(folder, bank, model("window:0,900"))
    assert {path: path.read_bytes() for path in sorted(bank.rglob("*")) if path.is_file()} == files
    # The remedy, in its own words.
    assert "--deep scale --deep window:0,900" in error.value.remedy
    found = run(folder, bank, model("scale", "window:0,900"))
    assert (found.ok, found.embedded) == (4, 1)
    assert run(folder, bank, model("scale")).embedded == 0  # a beginning of the feature's rules
    assert provenance(bank)["recipe"]["deep"] == ["scale", "window:0,900"]


def test_the_rules_of_a_feature_hold_where_they_are_not_given(folder: Path, tmp_path: Path) -> None:
    """A repair, an encoder for evaluations, a certificate, and the same command without the option."""
    bank = tmp_path / "bank"
    made = run(folder, bank, model("scale", "window:-900,900"))
    old = rows(bank, made.feature)
    assert restore(Bank.open(bank), made.feature, device="cpu").spec == model("scale", "window:-900,900")
    for chunk in (bank / made.feature / "embedding" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"damaged")
    assert not verify(bank).ok
    report = repair(bank, device="cpu")
    assert report["ok"], report
    np.testing.assert_array_equal(rows(bank, made.feature), old)
    noted = run(folder, bank, model())
    assert any("--deep scale --deep window:-900,900" in note for note in noted.notes)
    proof = certify(
        Manifest.from_folder(folder), model(), bank, runtime=CPU, options=OPTIONS, feature=made.feature
    )
    assert proof["n"] == 4
    assert proof["pixels"]["passed"]


def test_a_stopped_amendment_goes_on(folder: Path, tmp_path: Path) -> None:
    """The rule is recorded before its rows; who comes next finds what is left, given the rule or not."""
    bank = tmp_path / "bank"
    made = run(folder, bank, model())
    path = bank / SIDE / made.feature / "provenance.json"
    body = documents.read_if_there(path)
    assert body is not None
    body["recipe"]["deep"], body["amending"] = ["scale"], True
    documents.replace(path, body, tmp_path / "new")
    assert (run(folder, bank, model()).ok, reasons(bank)) == (3, ["depth"])
    assert "amending" not in provenance(bank)


def test_the_certificate_has_a_truth_of_other_readers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, bank = model("scale", "window:-900,900"), tmp_path / "bank"
    run(folder, bank, spec)

    def certified() -> dict[str, Any]:
        return certify(Manifest.from_folder(folder), spec, bank, runtime=CPU, options=OPTIONS)

    sound = certified()
    assert sound["deep"] == {"images": 2, "independent": 2, "readers": {"imagecodecs": 1, "tifffile": 1}}
    assert sound["pixels"]["passed"]
    assert sound["embedding"]["min_cosine"] > 1 - 1e-6
    # A fault of the code that run and reference share.
    from engine.decode import deep

    right = deep.to_image
    monkeypatch.setattr(deep, "to_image", lambda *a: Image.eval(right(*a), lambda v: v // 2))
    wrong = certified()
    assert not wrong["pixels"]["passed"]
    assert wrong["embedding"]["min_cosine"] < sound["embedding"]["min_cosine"]
    # Without the packages that is not seen, and said.
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("imagecodecs", "tifffile") else find(name)
    )
    assert certified()["deep"] == {"images": 2, "independent": 0, "readers": {}}


def test_the_command_line(folder: Path, tmp_path: Path) -> None:
    manifest, bank = tmp_path / "m.parquet", tmp_path / "bank"
    Manifest.from_folder(folder).write(manifest)
    recipe = tmp_path / "small.json"
    recipe.write_text(json.dumps(SMALL.to_dict()))
    words = ("embed", manifest, "--root", folder, "--model", "random/squeezenet1_1", "--bank", bank)
    words += ("--recipe", recipe, "--device", "cpu", "--threads", 1, "--json", "--dtype", "float32")
    words += ("--max-failed", 1)
    before = embank(*words).json
    listed = embank("bank", "show", bank, "--failures", "--json").json["features"][0]["failures"]
    said = {failure["row"]: failure["detail"] for failure in listed}
    assert said[1].startswith(
        "16 bits a channel; `embank embed --deep scale` or `embank embed --deep window:LOW,HIGH` shows"
    )
    assert said[2].startswith("signed samples; `embank embed --deep window:LOW,HIGH` shows it")
    after = embank(*words, "--deep", "scale", "--deep", "window:-900,900").json
    assert (after["ok"], after["key"]) == (4, before["key"])
    shown = embank("bank", "show", bank)
    assert "'deep': ['scale', 'window:-900,900']" in shown.out
    refused = embank(*words, "--deep", "voi")
    assert refused.code == 2
    assert "--deep scale --deep window:-900,900 --deep voi" in refused.err
