"""A bank that an earlier version made (layout 1): it opens, verifies, resumes and gives the same numbers.

`tests/data/bank-v1` was made by commit 7171899: twelve pictures, one of them unusable, chunks of four rows,
an untrained ShuffleNet by seed 3. Its float16 feature is finished; its float32 one stopped after two chunks.
"""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.embed.run import EmbedOptions, EmbedReport, InputChecks, embed
from engine.models import resolve
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.bank.reader import Bank, FeatureSet
from stores.bank.records import read_all, record_files
from stores.maintenance.verify import verify
from stores.manifest.manifest import Manifest
from tests.command import embank
from tests.said import said

FINISHED = "random-shufflenet_v2_x0_5.f59e468deb92"
BEGUN = "random-shufflenet_v2_x0_5.8cdc04dcdc33"
#: SHA-256 of chunk files as that version wrote them, by sha256sum.
CHUNKS = {
    "embedding/c/0/0": "6fa573ca1cc48898ec07c696e170cfb28abb63add54c708e41b9099be97e92d2",
    "embedding/c/1/0": "86ce5f3195952732f45af1bf420618c3d5f60f6b3e5ced640379c4977dea1352",
    "embedding/c/2/0": "c1561ab8a607b6500129a10a62f28c769b4f81fe84c367fb6cd9a073342b1135",
    "norm/c/1": "598633b072cacb59f0fa86763b0ec347af968640be015bd43bba10b478cd92bb",
    "status/c/0": "11b41b4d807e4c634bff03d72f2435f0239a5ecc6ffc57e3238c9a26e70ea4cc",
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    shutil.copytree(Path(__file__).parents[1] / "data" / "bank-v1", tmp_path / "study")
    return tmp_path / "study"


@pytest.fixture
def features(study: Path) -> FeatureSet:
    return Bank.open(study / "bank").features(FINISHED)


def _embed(
    study: Path, dtype: str, checks: InputChecks | None = None, manifest: Manifest | None = None
) -> EmbedReport:
    spec = resolve("random/shufflenet_v2_x0_5", recipe=replace(Recipe(), size=32, crop=32), seed=3)
    options = EmbedOptions(chunk_rows=4, batch_size=4, dtype=dtype)
    manifest = manifest or Manifest.read(study / "m.parquet", root=study / "images")
    runtime = Runtime.resolve("cpu", seed=3)
    (report,) = embed(manifest, [spec], study / "bank", runtime=runtime, options=options, checks=checks)
    return report


def test_it_opens_and_verifies(study: Path, features: FeatureSet) -> None:
    assert verify(study / "bank").ok
    assert (features.info.ok, features.info.failed, features.info.pending) == (11, 1, 0)
    assert [(f.row, f.code) for f in features.failures()] == [(1, "unknown_format")]
    assert not features.contents.any()
    finite = np.isfinite(np.asarray(features.array, np.float64)).all(axis=1)
    assert np.flatnonzero(~finite).tolist() == [1]


def test_its_numbers_are_those_of_then(study: Path) -> None:
    bank = study / "bank"
    words = ("--n-way", 2, "--n-shot", 2, "--n-query", 2, "--episodes", 100, "--json")
    found = embank("fewshot", bank, "--model", FINISHED, *words).json
    assert (found["accuracy"], found["ci95"]) == (0.69, 0.04881155683655338)
    assert found["episodes_digest"] == "090fb339eba095841da7203feaa53dfc90f9c0c0fca7daae3bb62a80d5252893"
    found = embank("knn", bank, "--model", FINISHED, "--leave-one-out", "-k", 3, "--json").json["test"]
    assert found["accuracy"] == 0.7272727272727273
    assert found["mean_per_class_accuracy"] == 0.7333333333333334
    assert found["auroc"] == 0.7833333333333333


def test_a_finished_feature_is_not_computed_again(study: Path) -> None:
    report = _embed(study, "float16")
    assert (report.embedded, report.ok, report.failed) == (0, 11, 1)
    for name, digest in CHUNKS.items():
        assert hashlib.sha256((study / "bank" / FINISHED / name).read_bytes()).hexdigest() == digest


def test_the_folder_listed_anew_goes_on_in_it(study: Path) -> None:
    """Its ids were the uris without suffix; now they are the uris."""
    before = Bank.open(study / "bank")
    report = _embed(study, "float16", manifest=Manifest.from_folder(study / "images"))
    assert (report.embedded, report.ok) == (0, 11)
    assert report.notes == (
        "The manifest names the bank's images otherwise (such as 'c0/00.png', in the bank 'c0/00'): they are "
        "matched by uri, and keep the bank's ids",
    )
    assert Bank.open(study / "bank") == before


def test_a_begun_feature_goes_on_in_its_own_layout(study: Path, features: FeatureSet) -> None:
    report = _embed(study, "float32")
    assert (report.embedded, report.ok) == (4, 11)
    assert sorted(path.name for path in (study / "bank" / BEGUN).iterdir() if path.is_dir()) == [
        "embedding",
        "norm",
        "status",
    ]
    assert verify(study / "bank").ok
    finished = Bank.open(study / "bank").features(BEGUN)
    np.testing.assert_allclose(
        np.asarray(finished.array, np.float64), np.asarray(features.array, np.float64), rtol=2e-3, atol=1e-6
    )


def test_a_failed_row_can_be_tried_again(study: Path, features: FeatureSet) -> None:
    before = np.array(features.array)
    shutil.copy(study / "images" / "c0" / "04.png", study / "images" / "c0" / "02.png")
    report = _embed(study, "float16", InputChecks(retry_failed=True))
    assert (report.embedded, report.ok) == (1, 12)
    after = np.array(Bank.open(study / "bank").features(FINISHED).array)
    np.testing.assert_array_equal(np.delete(after, 1, 0), np.delete(before, 1, 0))
    np.testing.assert_allclose(after[1].astype(float), after[2].astype(float), rtol=2e-3)
    assert verify(study / "bank").ok


@pytest.mark.slow
def test_another_model_keeps_contents(study: Path) -> None:
    spec = resolve("random/resnet18", recipe=replace(Recipe(), size=32, crop=32))
    manifest = Manifest.read(study / "m.parquet", root=study / "images")
    embed(manifest, [spec], study / "bank", runtime=Runtime.resolve("cpu"))
    assert Bank.open(study / "bank").features("random/resnet18").contents.any(axis=1).all()


def test_a_damaged_chunk_is_put_back_or_left(study: Path) -> None:
    """Another kind of processor may round otherwise: then the repair says so and changes nothing."""
    path = study / "bank" / FINISHED / "embedding/c/1/0"
    good = path.read_bytes()
    path.write_bytes(good[:100] + b"\xff" + good[101:])
    damaged = path.read_bytes()
    ran = embank("bank", "repair", study / "bank", "--root", study / "images")
    assert (ran.code, path.read_bytes()) in ((0, good), (2, damaged)), ran.err


def test_it_is_relabelled_in_its_own_layout(study: Path) -> None:
    ran = embank("bank", "relabel", study / "bank", study / "m.parquet", "-o", study / "new", "--json")
    assert ran.code == 0, ran.err
    assert verify(study / "new").ok
    assert not (study / "new" / FINISHED / "content").exists()


# `tests/data/bank-v2` and its `results` were made by commit 5813819: 36 pictures of 18 patients, an untrained
# ResNet-18 by seed 3, and what five evaluations printed, without seconds.

LATER = Path(__file__).parents[1] / "data" / "bank-v2"
MODEL = "random/resnet18"
EVALUATIONS = {
    "fewshot": ("--n-way", 3, "--n-shot", 2, "--n-query", 2, "--episodes", 50),
    "knn": ("-k", 3, "-k", 1),
    "probe": ("--values", 5),
    "invariance": ("--transform", "hue", "--transform", "rotation", "--views", 4, "--images", 12),
    "saliency": ("--images", 2, "--stride", 8),
}
#: Words that have another name since.
RENAMED = {"lockstep": "batched"}


def _assert_equal(now: Any, then: Any, rel: float, where: str = "") -> None:
    """All that was printed then is printed now, floats within a relative difference."""
    if isinstance(then, dict):
        for name, value in then.items():
            _assert_equal(now[name], value, rel, f"{where}.{name}")
    elif isinstance(then, list):
        assert len(now) == len(then), where
        for place, (value, former) in enumerate(zip(now, then, strict=True)):
            _assert_equal(value, former, rel, f"{where}[{place}]")
    elif isinstance(then, float):
        assert now == (then if rel == 0 else pytest.approx(then, rel=rel, abs=rel)), where
    else:
        assert now == RENAMED.get(then, then), where


@pytest.mark.parametrize(
    ("kind", "rel"),
    [
        ("fewshot", 0),
        ("knn", 0),
        # Products of matrices are rounded differently on other processors.
        ("probe", 1e-4),
        pytest.param("invariance", 1e-3, marks=pytest.mark.slow),
        pytest.param("saliency", 1e-3, marks=pytest.mark.slow),
    ],
)
def test_evaluations_give_what_they_gave_then(kind: str, rel: float, tmp_path: Path) -> None:
    shutil.copytree(LATER, tmp_path / "study")
    bank = tmp_path / "study" / "bank"
    assert verify(bank).ok
    opens_images = kind in ("invariance", "saliency")
    root = ("--root", tmp_path / "study" / "images") if opens_images else ()
    now = embank(kind, bank, "--model", MODEL, *root, *EVALUATIONS[kind], "--json")
    assert now.code == 0, now.err
    then = json.loads((LATER / "results" / f"{kind}.json").read_text())
    if kind == "knn":  # so few products are numpy's now; the neighbours are the same
        assert (then.pop("backend"), now.json["backend"]) == ("faiss", "array")
    if kind == "probe":  # what were notes then are issues of validity now
        assert set(then.pop("notes")) <= {*now.json["notes"], *said(now.json)}
    _assert_equal(now.json, then, rel)
    assert verify(bank).ok


def test_records_of_then_are_read_and_list_no_validity(tmp_path: Path) -> None:
    shutil.copytree(LATER / "bank", tmp_path / "bank")
    before = read_all(tmp_path / "bank")
    assert before and all(record.validity is None for record in before)
    assert all("validity" not in record.to_dict() for record in before)
    for path in record_files(tmp_path / "bank"):
        ran = embank("records", "show", tmp_path / "bank", path.name.removesuffix(".json"))
        assert ran.code == 0, ran.err
