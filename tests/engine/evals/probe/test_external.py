"""Tests on other banks: a probe of concatenated arrays, whose test split is the other bank, is the oracle."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from engine.errors import Refused
from engine.evals.common.features import Features
from engine.evals.probe.bank import BankProbe, probes_from_bank
from engine.evals.probe.evaluate import ProbeOptions, probe
from engine.evals.probe.external import External, _leakage
from engine.evals.probe.matrix import probe_matrix
from engine.evals.probe.selection import grid
from engine.evals.probe.targets import Policies
from stores.bank.keys import ChunkResult
from stores.bank.reader import Bank
from stores.bank.records import read_all
from stores.bank.writer import FeatureWriter, open_or_create
from stores.manifest.manifest import Manifest
from tests.one_by_one import OneByOne
from tests.probe_banks import FIRST, fill_with, make_probe_bank
from tests.stores.banks import make_key

OPTIONS = ProbeOptions(C=grid(1e-2, 1e1, 3), bootstrap=20)
OTHER = 60


def make_other(root: Path, labels: Sequence[str], patient: str = "elsewhere", **key: str) -> Bank:
    """60 images of 20 patients with the given labels, in turn, and a model as the probe bank's first."""
    every = np.arange(OTHER)
    frame = pd.DataFrame(
        {
            "image_id": [f"other {row}" for row in every],
            "uri": [f"other {row}.png" for row in every],
            "label": [labels[row % len(labels)] for row in every],
            "split": [("train", "test", "test")[row // 3 % 3] for row in every],
            "group": [f"{patient} {row // 3}" for row in every],
            "oedema": [("0.0", "1.0")[row // 2 % 2] for row in every],
        }
    )
    bank = open_or_create(root, Manifest.from_frame(frame, root.parent / "images"), chunk_rows=64)
    features = np.random.default_rng(7).normal(size=(OTHER, 12)).astype(np.float32)
    features[every, every % len(labels)] += 1.0
    fill_with(bank, replace(make_key(bank.image_digest, model=FIRST), **key), features, (2, 30))
    return bank


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_probe_bank(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """With a class that the source lacks, one that it has, and none of its third."""
    return make_other(tmp_path_factory.mktemp("other") / "b", ("pear", "apple", "kiwi", ""))


def external(source: Bank, *banks: Bank, split: str | None = None, **wanted: object) -> list:
    asked = BankProbe(external=External(tuple(str(bank.path) for bank in banks), split), **wanted)
    (entry,) = probes_from_bank(source.path, [FIRST], asked, OPTIONS)
    return [entry, *entry["external"]]


def texts(bank: Bank, column: str) -> np.ndarray:
    codes, names = bank.column(column)
    return np.array([*names, ""], object)[codes]


@pytest.mark.parametrize("split", [None, "test"])
def test_it_is_the_test_part_of_the_banks_put_together(source: Bank, other: Bank, split: str | None) -> None:
    entry, test = external(source, other, split=split)
    banks = (source, other)
    where = np.repeat([0, 1], [source.rows, OTHER])
    splits = np.concatenate([texts(bank, "split") for bank in banks])
    tested = (where == 1) & ((splits == "test") | (split is None))
    expected = probe(
        np.concatenate([bank.features(FIRST).array for bank in banks]),
        np.concatenate([texts(bank, "label") for bank in banks]),
        train=(where == 0) & (splits == "train"),
        val=(where == 0) & (splits == "val"),
        test=tested,
        groups=np.concatenate([texts(bank, "group") for bank in banks]),
        ok=np.concatenate([bank.features(FIRST).ok for bank in banks]),
        options=OPTIONS,
    )
    assert test["n"] == len(expected.task.parts.test) < tested.sum()
    assert entry["best_C"] == expected.best_C
    for name, metric in expected.metrics().items():
        np.testing.assert_allclose(test["test"][name], metric.value, rtol=1e-6)
        interval = test["test"]["intervals"][name]
        np.testing.assert_allclose([interval.get("low"), interval.get("high")], [metric.low, metric.high])
    assert test["feature"] == other.features(FIRST).name
    assert sorted(test["classes"]) == ["apple", "kiwi", "pear", "zebra"]


def test_a_class_of_one_side_is_an_issue_and_the_record_has_it(source: Bank, other: Bank) -> None:
    entry, test = external(source, other)
    said = [one["sentence"] for one in entry["validity"] if one["subject"] == str(other.path)]
    assert "Test has images of 'kiwi', but no part trained on has: they count as wrong" in said
    assert "Test has no image of 'zebra': means over classes leave it out" in said
    kiwi = test["test"]["per_class"][test["classes"].index("kiwi")]
    assert kiwi["accuracy"] == 0 and kiwi["images"] > 0
    record = read_all(source.path)[-1]
    assert record.metrics["external"][0]["test"]["accuracy"] == test["test"]["accuracy"]
    assert record.asked["external_validation"] == {"banks": [str(other.path)], "split": None}


def test_patients_of_both_banks_are_an_issue(source: Bank, other: Bank, tmp_path: Path) -> None:
    same = make_other(tmp_path / "same", ("pear", "apple", "zebra"), patient="patient")
    entry, *_ = external(source, same, other)
    sentences = {
        one["subject"]: one["sentence"] for one in entry["validity"] if one["code"] == "patients_across_parts"
    }
    learned = set(texts(source, "group")[np.isin(texts(source, "split"), ("train", "val"))])
    usable = same.features(FIRST).ok & (same.features(FIRST).labels >= 0)
    both = sum(name in learned for name in texts(same, "group")[usable])
    assert list(sentences) == [str(same.path)]
    assert sentences[str(same.path)].startswith(f"{both} of {usable.sum()} test images")


def test_findings_are_tested_by_name(source: Bank, other: Bank) -> None:
    both = {"labels": ("oedema",), "policies": Policies()}
    _, alone = external(source, other, **both)
    entry, among = external(source, other, multi_label=True, **both)
    assert (alone["label"], among["label"], among["n"]) == ("oedema", "oedema", OTHER - 2)
    if entry["findings"][0]["best_C"] == entry["best_C"]:
        assert among["test"]["auroc"] == alone["test"]["auroc"]


def test_workers_test_the_same(source: Bank, other: Bank) -> None:
    asked = BankProbe(external=External((str(other.path),)))
    here, there = (
        probes_from_bank(source.path, [FIRST], asked, OPTIONS, executor=executor)[0]["external"]
        for executor in (None, OneByOne())
    )
    assert repr(here) == repr(there)


def test_a_matrix_has_every_pair(source: Bank, tmp_path: Path) -> None:
    second = make_other(tmp_path / "second", ("pear", "apple", "zebra"))
    asked = BankProbe(external=External((str(second.path),)))
    first, back = probe_matrix(source.path, [FIRST], asked, OPTIONS)
    assert (first["bank"], back["bank"]) == (str(source.path), str(second.path))
    _, there = external(source, second)
    _, here = external(second, source)
    assert repr([*first["external"], *back["external"]]) == repr([there, here])
    assert read_all(second.path)[-1].metrics["external"][0]["bank"] == str(source.path)
    with pytest.raises(Refused, match="one bank"):
        probe_matrix(source.path, [FIRST], BankProbe(), OPTIONS)


@pytest.mark.parametrize(
    ("key", "labels", "says"),
    [
        ({"weights": "f" * 64}, ("pear", "apple"), "weights ffffffffffff instead of"),
        ({"precision": "bf16", "layer": "early"}, ("pear", "apple"), "precision bf16 .*, layer early"),
        ({"model": "timm/unlike", "weights": "f" * 64}, ("pear", "apple"), "has timm/unlike, and not"),
        ({}, ("kiwi", "plum"), "'kiwi', 'plum', and 'apple', 'pear', 'zebra' were learned"),
    ],
)
def test_what_cannot_be_tested_is_refused(
    source: Bank, tmp_path: Path, key: dict[str, str], labels: tuple[str, ...], says: str
) -> None:
    before = len(read_all(source.path))
    with pytest.raises(Refused, match=says):
        external(source, make_other(tmp_path / "bad", labels, **key))
    assert len(read_all(source.path)) == before


def test_banks_and_splits_that_make_no_sense_are_refused(source: Bank, other: Bank) -> None:
    for banks, says in (((source,), "named before"), ((other, other), "named before")):
        with pytest.raises(Refused, match=says):
            external(source, *banks)
    with pytest.raises(Refused, match="has test \\(39\\), train"):
        external(source, other, split="exam")
    with pytest.raises(Refused, match="as-published"):
        asked = BankProbe(external=External((str(other.path),)))
        probes_from_bank(source.path, [FIRST], asked, ProbeOptions(mode="as-published", bootstrap=0))


def test_images_made_from_files_that_were_learned_from_are_counted(source: Bank, tmp_path: Path) -> None:
    """By the SHA-256 that the bank keeps of each file."""
    contents = np.random.default_rng(0).integers(1, 255, (OTHER, 32), np.uint8)
    features = []
    for place, used in (("a", contents), ("b", np.concatenate([contents[:5], contents[5:] ^ 1]))):
        frame = pd.DataFrame({"image_id": [f"{place}{row}" for row in range(OTHER)], "label": "apple"})
        frame["uri"] = frame["image_id"] + ".png"
        bank = open_or_create(tmp_path / place, Manifest.from_frame(frame, tmp_path), chunk_rows=64)
        with FeatureWriter(bank, make_key(bank.image_digest), 2) as writer:
            ok = np.ones(OTHER, np.bool_)
            writer.commit(ChunkResult(0, np.ones((OTHER, 2), np.float32), ok, (), used))
            writer.seal()
        features.append(Features.from_bank(bank))
    rows = np.arange(OTHER)
    issues = list(_leakage(features[0], rows[:4], features[1], rows, "there"))
    (files,) = (one for one in issues if one.code == "duplicates_across_parts")
    assert (files.value, files.remedy) == (4, "leave them out of there")
