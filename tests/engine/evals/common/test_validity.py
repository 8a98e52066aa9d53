"""Every check of validity: features and parts that trigger it, and others that do not."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.evals.common import feature_quality
from engine.evals.common.feature_quality import FeatureQuality, quality_of, unsaved
from engine.evals.common.features import Features
from engine.evals.common.validity import CODES, SEVERITIES, ValidityIssue, combined, issue
from engine.evals.common.validity_checks import class_issues, issues_of_features, patient_issues
from stores.bank.records import read_all, record_files
from stores.bank.writer import open_or_create
from stores.manifest.manifest import Manifest
from tests.probe_banks import fill_with
from tests.stores.banks import make_key

ROWS, DIM = 90, 60
TRAIN, VAL, TEST = np.arange(0, 50), np.arange(50, 65), np.arange(65, ROWS)
PARTS = {"train": TRAIN, "val": VAL, "test": TEST}
PATIENTS = [f"p{row}" for row in range(ROWS)]


def matrix(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(ROWS, DIM)).astype(np.float32)


def check(
    x: np.ndarray, parts: dict[str, np.ndarray] | None = None, groups: Any = PATIENTS, **more: Any
) -> dict[str, ValidityIssue]:
    """Return the issues by code; each has one of its own."""
    features = Features.from_arrays(x, None, groups=groups, **more)
    issues = list(issues_of_features(features, PARTS if parts is None else parts))
    return {one.code: one for one in issues}


def test_features_in_order_have_no_issue() -> None:
    assert check(matrix()) == {}
    assert check(matrix().astype(np.float16), {"images": np.arange(ROWS)}) == {}


def test_failed_rows_are_a_warning_beyond_one_in_a_hundred() -> None:
    x = np.concatenate([matrix(seed) for seed in range(3)])
    x[:2] = np.nan
    assert "failed_rows" not in check(x, {"images": np.arange(9)}, None)
    x[2] = np.inf
    found = check(x, {"images": np.arange(9)}, None)["failed_rows"]
    assert (found.value, found.severity) == (pytest.approx(3 / 270), "warning")
    assert found.sentence == "3 of 270 images have no embedding"


def test_embeddings_that_pass_for_finite_and_are_not_are_an_error() -> None:
    x = matrix()
    x[4, 0] = np.inf
    found = check(x, ok=np.ones(ROWS, bool))
    assert (found["not_finite_rows"].value, found["not_finite_rows"].severity) == (1, "error")
    assert "not_finite_rows" not in check(x)


@pytest.mark.parametrize(("noise", "collapsed"), [(0.0, True), (5e-4, True), (5e-3, False)])
def test_collapsed_features_hardly_differ(noise: float, collapsed: bool) -> None:
    direction = np.random.default_rng(1).normal(size=DIM)
    x = direction / np.linalg.norm(direction) + matrix().astype(np.float64) * noise / np.sqrt(DIM)
    found = check(x)
    assert ("collapsed_features" in found) == collapsed
    if collapsed:
        expected = np.sqrt(x.var(axis=0).sum() / (x**2).sum(axis=1).mean())
        assert found["collapsed_features"].value == pytest.approx(expected, abs=1e-9)
        assert found["collapsed_features"].severity == "error"
    assert "low_effective_rank" not in found, "said once"


def test_zeros_have_collapsed() -> None:
    assert check(np.zeros((ROWS, DIM)))["collapsed_features"].value == 0


@pytest.mark.parametrize(("count", "severity"), [(1, "note"), (30, "note"), (31, "warning")])
def test_constant_dimensions_are_a_warning_if_they_are_most(count: int, severity: str) -> None:
    x = matrix()
    x[:, :count] = 0.25
    found = check(x)["constant_dimensions"]
    assert (found.value, found.severity) == (count, severity)
    assert found.sentence == f"{count} of {DIM} dimensions have one value for all images"


def test_a_low_effective_rank_is_that_of_the_covariance() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(ROWS, 2)) @ rng.normal(size=(2, DIM)) + 1e-3 * matrix()
    values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    shares = values / values.sum()
    found = check(x)["low_effective_rank"]
    assert found.value == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-9)
    assert 1 < float(found.value) < 3
    assert "low_effective_rank" not in check(matrix()[:, :4]), "few dimensions cannot span more"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=3, max_size=60), st.sampled_from(["f2", "f4"]))
def test_duplicates_are_the_rows_that_numpy_finds_equal(which: list[int], dtype: str) -> None:
    base = np.random.default_rng(0).normal(size=(31, 5)).astype(dtype)
    x = base[which]
    quality = FeatureQuality.of(x, np.ones(len(x), bool))
    _, inverse, counts = np.unique(np.array(which), return_inverse=True, return_counts=True)
    assert sorted(quality.duplicates[:, 0].tolist()) == np.flatnonzero(counts[inverse] > 1).tolist()
    by_set: dict[int, set[int]] = {}
    for row, number in quality.duplicates.tolist():
        by_set.setdefault(number, set()).add(which[row])
    assert all(len(values) == 1 for values in by_set.values()) and len(by_set) == (counts > 1).sum()
    issues = issues_of_features(Features.from_arrays(x, None), {"images": np.arange(len(x))})
    repeated = [one for one in issues if one.code == "duplicate_rows"]
    assert [one.value for one in repeated] == ([int((counts - 1).sum())] if (counts > 1).any() else [])


def test_equal_images_in_two_parts_are_an_error_and_near_ones_a_warning() -> None:
    x = matrix()
    x[66], x[67], x[51] = x[3], x[3], x[9]
    x[70] = x[52] + np.random.default_rng(4).normal(0, 0.01, DIM)
    features = Features.from_arrays(x, None, groups=PATIENTS)
    issues = list(issues_of_features(features, PARTS))
    assert [(one.code, one.value, one.severity) for one in issues] == [
        ("duplicates_across_parts", 2, "error"),
        ("duplicates_across_parts", 1, "error"),
        ("duplicate_rows", 1, "warning"),
        ("near_duplicates_across_parts", 1, "warning"),
    ]
    assert issues[0].sentence == "2 of 25 test images have the embedding of a train or val image"
    assert issues[1].sentence == "1 of 15 val images have the embedding of a train image"
    assert issues[3].sentence.startswith("1 of 25 test images are nearly the same as a train or val image")
    within = check(x, {"images": np.arange(ROWS)})
    assert set(within) == {"duplicate_rows"} and within["duplicate_rows"].value == 3
    assert set(check(x, {"train": TRAIN[10:], "test": TEST[6:]})) == set()


@pytest.mark.parametrize(
    ("reason", "x"),
    [
        ("too few effective dimensions", matrix()[:, :5]),
        ("too many pairs", np.repeat(matrix()[:45], 2, axis=0) + 1e-3 * matrix(1)),
        ("too many images", matrix()),
    ],
)
def test_pairs_that_are_not_compared_are_said(
    reason: str, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_quality, "MOST_PAIRS", 40)
    if reason == "too many images":
        monkeypatch.setattr(feature_quality, "PAIR_PRODUCTS", ROWS**2 * DIM // 2 - 1)
    found = check(x)["near_duplicates_not_checked"]
    assert (found.severity, found.sentence.partition(": ")[2]) == ("note", reason)
    assert "near_duplicates_not_checked" not in check(x, {"images": np.arange(ROWS)})


def test_patients_in_two_parts_are_an_error_unless_the_evaluation_keeps_them_apart() -> None:
    groups = list(PATIENTS)
    groups[65] = groups[66] = "p0"
    groups[80] = "P 1"
    groups[0], groups[1] = "p0", "p 1"
    found = check(matrix(), groups=groups)["patients_across_parts"]
    features = Features.from_arrays(matrix(), None, groups=groups)
    both, spelt = issues_of_features(features, PARTS)
    assert (both.value, both.severity, spelt.value, spelt.severity) == (2, "error", 1, "warning")
    assert both.sentence == "2 of 25 test images belong to a patient (group) of train or val images"
    assert found == spelt and "differ only in case" in spelt.sentence
    assert list(issues_of_features(features, PARTS, patients_apart=True)) == []
    assert list(issues_of_features(features, {"images": np.arange(ROWS)})) == []
    assert set(check(matrix(), groups=None)) == {"patients_unknown"}
    codes, names = features.texts("group")
    assert list(patient_issues({"train": TRAIN[2:], "test": TEST}, codes, names)) == []


def test_small_and_missing_classes_are_named() -> None:
    train, val, test = (
        np.repeat([0, 1, 2], 10),
        np.repeat([0, 1], 10),
        np.repeat([0, 1, 2, 3], [10, 10, 9, 2]),
    )
    issues = list(class_issues({"train": train, "val": val, "test": test}, list("abcd")))
    assert [(one.code, one.value, one.sentence) for one in issues] == [
        ("missing_classes", 1, "Validation has no image of 'c': C is chosen without"),
        (
            "missing_classes", 1,
            "Test has images of 'd', but no part trained on has: they count as wrong",
        ),
        ("small_classes", 2, "Classes of fewer than 10 test images: 'c' (9), 'd' (2)"),
    ]  # fmt: skip
    assert list(class_issues({"train": train, "test": train})) == []
    (alone,) = class_issues({"images": np.array([7] * 3 + [8] * 10)})
    assert alone.sentence == "Classes of fewer than 10 images: 7 (3)"


def test_an_issue_of_the_evaluation_replaces_a_general_one_and_errors_come_first() -> None:
    own, note = issue("patients_unknown", "own"), issue("duplicate_rows", "few", 1)
    error = issue("collapsed_features", "all equal", 0.0)
    general = issue("patients_unknown", "general")
    assert combined([own, own], [note, general, error]) == (error, own, note)
    assert combined([]) == ()


def test_the_table_of_codes_is_complete_and_the_page_explains_each_with_its_severity() -> None:
    page = (Path(__file__).parents[4] / "docs/explanation/validity.md").read_text()
    for code, known in CODES.items():
        assert known.severity in SEVERITIES and known.rule and known.remedy
        assert f"| `{code}` | {known.severity} |" in page
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == len(CODES)


# The bank keeps what was measured


def bank_of(root: Path, x: np.ndarray) -> str:
    frame = pd.DataFrame({
        "uri": [f"{row}.png" for row in range(ROWS)],
        "label": ["ab"[row % 2] for row in range(ROWS)],
        "group": PATIENTS,
    })  # fmt: skip
    bank = open_or_create(root / "bank", Manifest.from_frame(frame, root), chunk_rows=32)
    fill_with(bank, make_key(bank.image_digest, model="random/x"), x, (7,))
    return str(bank.path)


def test_measures_are_taken_once_and_a_damaged_copy_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.evals.fewshot.bank import fewshot_from_bank
    from engine.evals.fewshot.options import Protocol

    x = matrix()
    x[20] = x[21]
    bank, protocol = bank_of(tmp_path, x), Protocol(n_way=2, n_shot=2, n_query=2, episodes=3)
    monkeypatch.setattr(feature_quality, "_measured", {})
    first = quality_of(Features.from_bank(bank))
    folder = Path(bank) / ".embank" / "statistics"
    assert not folder.exists(), "measuring writes nothing"
    report = fewshot_from_bank(bank, "random/x", protocol)
    assert [one["code"] for one in report["validity"]] == ["failed_rows", "duplicate_rows"]
    (file,) = [path for path in folder.iterdir() if not path.name.startswith("image-ids")]
    assert unsaved(Features.from_bank(bank)) == ()
    assert list(read_all(bank)[0].validity or ()) == report["validity"]

    def measured_again(*_: Any) -> FeatureQuality:
        raise AssertionError("it is in the bank")

    feature_quality._measured.clear()
    with monkeypatch.context() as patch:
        patch.setattr(FeatureQuality, "of", measured_again)
        again = quality_of(Features.from_bank(bank))
    for name, value in vars(first).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    assert again.duplicates.tolist() == [[20, 0], [21, 0]] and again.images == ROWS - 1
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    feature_quality._measured.clear()
    assert quality_of(Features.from_bank(bank)).effective_rank == first.effective_rank
    before = file.read_bytes()
    fewshot_from_bank(bank, "random/x", protocol)
    assert file.read_bytes() != before, "and kept again"


def test_issues_are_printed_before_the_numbers_by_the_command_and_of_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.command import embank

    monkeypatch.setenv("COLUMNS", "80")
    x = matrix()
    x[20] = x[21]
    bank = bank_of(tmp_path, x)
    words = ("fewshot", bank, "--model", "random/x", "--n-shot", 13, "--n-query", 10, "--episodes", 3)
    lines = embank(*words).out.splitlines()
    assert lines[:4] == [
        "warning: 2 of 2 classes drawn have fewer than twice the 23 images of an episode",
        "('b' has 44)",
        "warning: 1 of 90 images have no embedding",
        "warning: 1 of 89 images have the embedding of another one",
    ]
    assert "accuracy" in lines[4] and max(map(len, lines[:4])) <= 80
    shown = embank("records", "show", bank, record_files(Path(bank))[0].name.removesuffix(".json"))
    assert shown.out.index(lines[2]) < shown.out.index("accuracy")
    document = embank(*words, "--json").json
    assert [one["code"] for one in document["validity"]] == ["small_pools", "failed_rows", "duplicate_rows"]


def test_a_chunk_that_cannot_be_read_is_said_and_not_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.evals.common import validity_checks
    from stores.errors import MachineFault

    def broken(_: Features) -> FeatureQuality:
        raise MachineFault("The disk went away", "It stays", "plug it in")

    monkeypatch.setattr(validity_checks, "quality_of", broken)
    found = check(matrix())["features_not_checked"]
    assert found.sentence == "The features were not checked: The disk went away"
