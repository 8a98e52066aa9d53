"""Controls against scikit-learn and numpy, and the marks of what is below them."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    log_loss,
    roc_auc_score,
)
from sklearn.preprocessing import StandardScaler, label_binarize

from engine.errors import Refused
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.controls import evaluate as module
from engine.evals.controls.cases import case_of, permuted
from engine.evals.controls.columns import MOST_CATEGORIES, metadata_of, standardised
from engine.evals.controls.evaluate import controls_of
from engine.evals.controls.images import statistics_of
from engine.evals.controls.scores import Control, Controls, Scores
from engine.evals.controls.untrained import control_slug
from engine.evals.fewshot import evaluate as fewshot
from engine.evals.neighbours import knn
from engine.evals.neighbours.knn import knn_from_bank
from engine.evals.neighbours.options import ClassifyOptions, KnnOptions
from engine.evals.probe import evaluate as probe
from engine.evals.probe.bank import BankProbe, probes_from_bank
from engine.evals.probe.options import Options, Policies, ProbeOptions, SplitOptions
from engine.evals.probe.stratify import Stratify
from engine.kernels.intervals.cluster_robust import ClusterInterval
from stores.bank.reader import Bank
from stores.bank.records import read_all
from tests.command import embank
from tests.control_banks import FAILED, KNOWING, NOISE, ROWS, UNTRAINED, make_control_bank, table
from tests.engine.evals.invariance_banks import MODEL, build

CPU = Compute()
FITTING = ProbeOptions(C=(1.0,), bootstrap=0)
LABEL = np.arange(ROWS) // 2 % 3
PART = np.arange(ROWS) // 2 % 4  # 0 and 1 train, 2 validation, 3 test
OK = ~np.isin(np.arange(ROWS), FAILED)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_control_bank(tmp_path_factory.mktemp("controls"))


@pytest.fixture(scope="module")
def probed(bank: Bank) -> dict[str, dict[str, Any]]:
    """The report of a probe of the noise, and its controls by name."""
    (report,) = probes_from_bank(bank.path, [NOISE], BankProbe(controls=True), FITTING)
    return {"report": report, **{control["name"]: control for control in report["controls"]}}


# Guesses


def test_majority_and_chance_are_scikit_learns_dummies(probed: dict[str, dict[str, Any]]) -> None:
    learned, test = OK & (PART < 3), OK & (PART == 3)
    x = np.zeros((ROWS, 1))
    dummy = DummyClassifier(strategy="prior").fit(x[learned], LABEL[learned])
    predicted, shares = dummy.predict(x[test]), dummy.predict_proba(x[test])
    majority, truth = probed["majority_class"], LABEL[test]
    assert majority["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert majority["mean_per_class_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert majority["auroc"] == roc_auc_score(truth, shares, multi_class="ovr") == 0.5
    assert majority["log_loss"] == pytest.approx(log_loss(truth, shares))
    binary = label_binarize(truth, classes=[0, 1, 2])
    assert majority["average_precision"] == pytest.approx(average_precision_score(binary, shares))
    uniform, chance = np.full_like(shares, 1 / 3), probed["chance"]
    assert chance["log_loss"] == pytest.approx(log_loss(truth, uniform))
    assert (chance["accuracy"], chance["mean_per_class_accuracy"]) == pytest.approx((1 / 3, 1 / 3))
    assert (chance["images"], chance["auroc"]) == (test.sum(), 0.5)


def test_strata_are_the_models_alone(bank: Bank, probed: dict[str, dict[str, Any]]) -> None:
    wanted = BankProbe(controls=True, strata=(Stratify.parse("Site"),))
    (report,) = probes_from_bank(bank.path, [NOISE], wanted, FITTING)
    assert report["strata"] and report["controls"] == probed["report"]["controls"]


def test_a_class_that_is_not_learned_is_never_guessed() -> None:
    labels, split = np.array([0, 0, 0, 1, 1, 2] * 4), np.array(["train"] * 12 + ["test"] * 12)
    split[(labels == 2) & (split == "train")] = "other"
    x = np.random.default_rng(0).normal(size=(24, 3))
    features, options = Features.from_arrays(x, labels, splits=split), ClassifyOptions(k=(1,))
    result = knn.evaluate(features, options, CPU)
    of = controls_of("knn", features, options, result, CPU).controls
    controls = {one.name: one for one in of.controls}
    majority, chance = controls["majority_class"].scores, controls["chance"].scores
    assert majority is not None and chance is not None
    assert majority.metrics["accuracy"] == 0.5
    assert majority.metrics["mean_per_class_accuracy"] == pytest.approx(1 / 3)
    assert chance.metrics["accuracy"] == pytest.approx(10 / 12 / 2)
    assert chance.metrics["mean_per_class_accuracy"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert controls["image_statistics"].reason.startswith("Arrays have no images")
    assert controls["untrained"].reason.startswith("Arrays have no architecture")


# Metadata


def expected_metadata() -> np.ndarray:
    """Sites one-hot, ages in deviations from the mean with categories of known and missing, by pandas."""
    frame = table()
    age = pd.to_numeric(frame["Patient_Age"].str.rstrip("Y"))
    z = ((age - age.mean()) / age.std(ddof=0)).fillna(0)
    columns = [z, age.notna(), age.isna(), *(frame["Site"] == site for site in ("north", "south", ""))]
    return np.stack([column.to_numpy(np.float64) for column in columns], axis=1)


def test_metadata_are_ages_and_one_hot_sites(bank: Bank) -> None:
    features, names = metadata_of(Features.from_bank(bank, NOISE), ("label",))
    assert names == ("Patient_Age", "Site")
    expected = expected_metadata()
    assert features.array.shape == expected.shape
    own, theirs = (sorted(np.round(x.T.astype(np.float64), 4).tolist()) for x in (features.array, expected))
    assert own == theirs
    _, names = metadata_of(Features.from_bank(bank, NOISE, label="Site"), ("Site",))
    assert names == ("Patient_Age",)


def test_a_probe_of_metadata_is_scikit_learns(probed: dict[str, dict[str, Any]]) -> None:
    learned, test = OK & (PART < 3), OK & (PART == 3)
    x = StandardScaler().fit(expected_metadata()[learned]).transform(expected_metadata())
    oracle = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x[learned], LABEL[learned])
    metadata = probed["metadata"]
    expected = log_loss(LABEL[test], oracle.predict_proba(x[test]))
    assert metadata["log_loss"] == pytest.approx(expected, rel=1e-4)
    assert metadata["accuracy"] == oracle.score(x[test], LABEL[test]) == 1.0
    assert metadata["detail"] == "columns Patient_Age, Site"


def test_rare_categories_share_one_and_no_column_is_refused() -> None:
    sites = [f"site {row % 70}" for row in range(300)]
    x = np.zeros((300, 2))
    features, _ = metadata_of(Features.from_arrays(x, None, findings={"site": sites}), ())
    assert features.array.shape == (300, MOST_CATEGORIES)
    assert (features.array.sum(axis=1) == 1).all() and features.array.sum(axis=0).max() == 7 * 4 + 4 - 4
    with pytest.raises(Refused, match="No column has a view"):
        metadata_of(Features.from_arrays(x, None), ())


def test_standardised_columns_have_mean_0_and_constant_ones_are_0() -> None:
    values = np.random.default_rng(0).normal(3, 2, (50, 3))
    values[:, 1] = 0.1
    values[4] = np.nan
    rows = np.isfinite(values).all(axis=1)
    scaled = standardised(values, rows)
    expected = StandardScaler().fit_transform(values[rows])
    assert scaled[rows][:, [0, 2]] == pytest.approx(expected[:, [0, 2]])
    assert (scaled[:, 1] == 0).all() and (scaled[4] == 0).all()


# Shuffled labels


def test_labels_are_permuted_within_parts_alone() -> None:
    codes = np.random.default_rng(0).integers(0, 9, 60)
    parts = [np.arange(0, 25), np.arange(30, 50)]
    mixed, again, other = (permuted(codes, parts, seed) for seed in (3, 3, 4))
    assert mixed.tolist() == again.tolist() != other.tolist()
    for rows in parts:
        assert sorted(mixed[rows]) == sorted(codes[rows]) and mixed[rows].tolist() != codes[rows].tolist()
    outside = np.setdiff1d(np.arange(60), np.concatenate(parts))
    assert (mixed[outside] == codes[outside]).all()


def test_shuffled_labels_are_near_chance_where_the_model_knows_them(bank: Bank) -> None:
    options = KnnOptions(k=(5,))
    report = knn_from_bank(bank.path, KNOWING, options, controls=True)
    shuffled = next(one for one in report["controls"] if one["name"] == "shuffled_labels")
    assert report["test"]["accuracy"] > 0.9
    assert shuffled["range"]["accuracy"]["low"] < shuffled["accuracy"] < shuffled["range"]["accuracy"]["high"]
    assert 0.2 < shuffled["accuracy"] < 0.5 and shuffled["repeats"] == 5
    assert "difference" not in shuffled


@pytest.mark.parametrize("findings", [(), ("edema", "oedema")])
def test_a_probe_learns_shuffled_labels_and_is_tested_on_its_own(
    bank: Bank, findings: tuple[str, ...]
) -> None:
    features, options = Features.from_bank(bank, KNOWING), Options.of(FITTING, findings=findings)
    result = probe.evaluate(features, options, CPU)
    shuffled = case_of("probe", features, options, result, CPU).shuffled(0)
    names = findings or ("label",)
    before = np.stack([features.column(name).codes for name in names], axis=1)
    after = np.stack([shuffled.column(name).codes for name in names], axis=1)
    for part in ("train", "val"):
        rows = getattr(result.parts, part)
        assert sorted(before[rows].tolist()) == sorted(after[rows].tolist()), "an image's findings together"
        assert (before[rows] != after[rows]).any()
    assert (before[result.parts.test] == after[result.parts.test]).all()


# Untrained networks


def test_the_untrained_network_is_the_feature_in_the_bank(bank: Bank) -> None:
    options = KnnOptions(k=(5,))
    report = knn_from_bank(bank.path, KNOWING, options, controls=True)
    untrained = report["controls"][0]
    own = knn_from_bank(bank.path, UNTRAINED, options)
    assert untrained["name"] == "untrained" and untrained["detail"] == UNTRAINED
    for metric in ("accuracy", "mean_per_class_accuracy", "auroc"):
        assert untrained[metric] == own["test"][metric]
    difference = report["test"]["accuracy"] - own["test"]["accuracy"]
    assert untrained["difference"]["accuracy"] == pytest.approx(difference)


def test_a_missing_untrained_network_is_named_with_its_command(probed: dict[str, dict[str, Any]]) -> None:
    missing = probed["untrained"]
    assert missing["reason"].startswith("The bank has no untrained network of torchvision/resnet18")
    assert "`embank embed " in missing["remedy"] and "--model random/resnet18 --bank " in missing["remedy"]


def test_slugs_of_untrained_networks_mean_the_same_architecture() -> None:
    from engine.models.catalog.lookup import find

    for architecture in ("torchvision/resnet50+same", "timm/tf_efficientnet_lite0", "timm/vit_tiny+cls"):
        entry = find(control_slug(architecture))
        assert entry.architecture == architecture and entry.row.source.label == "drawn from a seed"
    assert control_slug("transformers/dinov2") == ""


# What follows


def test_a_model_below_its_metadata_is_marked_everywhere(
    bank: Bank, probed: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = probed["report"]
    first = report["validity"][0]
    assert (first["code"], first["severity"]) == ("below_control", "error")
    assert "below metadata alone in accuracy" in first["sentence"]
    below = {one["metric"]: one["control"] for one in report["below_control"]}
    assert below["accuracy"] == below["auroc"] == "metadata"
    record = next(one for one in read_all(bank.path) if one.kind == "probe")
    assert record.metrics["below_control"] == report["below_control"]
    monkeypatch.setenv("COLUMNS", "80")
    words = ("--bootstrap", 0, "--values", 1, "--c-min", 1, "--c-max", 1, "--device", "cpu")
    ran = embank("probe", bank.path, "--model", NOISE, "--model", KNOWING, "--controls", *words)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    table = lines[lines.index(f"{NOISE}, label: controls") :]
    assert lines[0].startswith("error: ") and max(map(len, table)) <= 80
    value = f"{report['test']['accuracy']:.4g}†"
    assert sum(value in line for line in lines) == 2, "the probe's table and that of the controls"
    assert "† below a control: no evidence for the model." in lines
    listed = embank("records", "ls", bank.path, "--kind", "probe").out
    assert f"{report['test']['accuracy']:.3f}†" in " ".join(listed.split()) and "† below a control" in listed
    compared = embank("compare", bank.path, "--evaluation", "probe", "--resamples", 20)
    assert "†" in next(line for line in compared.out.splitlines() if line.startswith(NOISE))
    document = embank("compare", bank.path, "--evaluation", "probe", "--resamples", 20, "--json").json
    standing = {model["model"]: model["below_control"] for model in document["models"]}
    assert standing[NOISE] == "metadata"


@pytest.mark.parametrize(
    ("metric", "value", "below"),
    [
        ("accuracy", 0.49, "chance"),
        ("accuracy", 0.5, ""),
        ("accuracy", 0.51, ""),
        ("log_loss", 0.71, "chance"),
        ("log_loss", 0.69, ""),
        ("auroc", 0.1, ""),
        ("accuracy", np.nan, ""),
    ],
)
def test_below_is_worse_than_the_best_control(metric: str, value: float, below: str) -> None:
    chance = Scores({"accuracy": 0.5, "log_loss": 0.7, "auroc": np.nan}, 9)
    lower = Scores({"accuracy": 0.4, "log_loss": 0.9}, 9)
    of = (Control("metadata", reason="none"), Control("majority_class", lower), Control("chance", chance))
    controls = Controls(Scores({metric: value}, 9), of)
    assert [one.control for one in controls.below] == [below] * bool(below)
    assert [one.code for one in controls.validity] == ["below_control"] * bool(below)


def test_findings_have_controls_of_their_own(bank: Bank) -> None:
    wanted = BankProbe(("edema", "oedema"), True, Policies(), controls=True)
    (report,) = probes_from_bank(bank.path, [KNOWING], wanted, FITTING)
    controls = {one["name"]: one for one in report["controls"]}
    for name in ("metadata", "shuffled_labels", "majority_class", "untrained"):
        assert [one["label"] for one in controls[name]["findings"]] == ["edema", "oedema"]
        mean = np.mean([one["auroc"] for one in controls[name]["findings"]])
        assert controls[name]["auroc"] == pytest.approx(mean)
    own = {one["label"]: one["test"]["auroc"] for one in report["findings"]}
    for finding in ("edema", "oedema"):
        best = max(
            next(one["auroc"] for one in control["findings"] if one["label"] == finding)
            for control in controls.values()
            if "reason" not in control
        )
        marked = ("auroc", finding) in {(b["metric"], b["finding"]) for b in report["below_control"]}
        assert marked == (own[finding] < best - 1e-12)


def test_the_difference_of_few_shot_is_that_of_paired_results(bank: Bank) -> None:
    options = fewshot.Options(n_way=3, n_shot=2, n_query=3, episodes=30, split=None)
    several = [Features.from_bank(bank, model) for model in (KNOWING, UNTRAINED)]
    ours, theirs = fewshot.evaluate_together(several, options, [CPU, CPU])
    controls = controls_of("fewshot", several[0], options, ours, CPU).controls.controls
    assert [one.name for one in controls][-1] == "chance"
    untrained, expected = controls[0], ours.minus(theirs)
    assert untrained.difference is not None and untrained.scores is not None
    assert untrained.scores.metrics["accuracy"] == theirs.accuracy
    value, interval = untrained.difference
    assert value == pytest.approx(expected.mean)
    assert (interval.low, interval.high) == pytest.approx((expected.patients.low, expected.patients.high))


@pytest.mark.parametrize(
    ("value", "low", "codes"),
    [(0.1, -0.01, ["not_told_from_control"]), (0.1, 0.01, []), (-0.1, -0.2, []), (0.1, np.nan, [])],
)
def test_a_difference_that_may_be_none_is_a_warning(value: float, low: float, codes: list[str]) -> None:
    interval = ClusterInterval(low, low + 0.2, 9)
    control = Control("metadata", Scores({}, 9), difference=(value, interval))
    issues = Controls(Scores({}, 9), (control,)).validity
    assert [one.code for one in issues] == codes
    assert not issues or "metadata alone (+0.100, 95 % -0.010 to +0.190)" in issues[0].sentence


@pytest.mark.gpu
def test_controls_of_a_gpu_are_those_of_the_cpu(bank: Bank) -> None:
    features, options = Features.from_bank(bank, KNOWING), ClassifyOptions(k=(5,))
    by_device = []
    for compute in (CPU, Compute("cuda:0", backend="array")):
        result = knn.evaluate(features, options, compute)
        by_device.append(controls_of("knn", features, options, result, compute).to_dict())
    assert by_device[0]["below_control"] == by_device[1]["below_control"]
    for ours, theirs in zip(*(of["controls"] for of in by_device), strict=True):
        assert ours.get("accuracy") == theirs.get("accuracy")
        assert ours.get("auroc") == pytest.approx(theirs.get("auroc"), abs=1e-9)


def test_the_studys_loop_has_controls(bank: Bank) -> None:
    options = ProbeOptions(mode="as-published", bootstrap=0)
    wanted = BankProbe(splits=SplitOptions(mode="as-published"), controls=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "REPEATS", 1)
        (report,) = probes_from_bank(bank.path, [KNOWING], wanted, options)
    assert {one["name"] for one in report["controls"] if "accuracy" in one} >= {"metadata", "untrained"}


def test_parts_are_the_models_own_where_they_were_cut(bank: Bank) -> None:
    features = Features.from_bank(bank, NOISE)
    splits = replace(Options().splits, test="nowhere", holdout=True)
    options = Options.of(FITTING, splits=splits)
    result = probe.evaluate(features, options, CPU)
    of = controls_of("probe", features, options, result, CPU).controls
    controls = {one.name: one for one in of.controls}
    for name in ("metadata", "shuffled_labels", "majority_class"):
        scores = controls[name].scores
        assert scores is not None and scores.images == len(result.parts.test)
    answers = controls["metadata"].scores.answers
    assert answers is not None and answers.rows.tolist() == result.parts.test.tolist()


def test_other_evaluations_have_none() -> None:
    features = Features.from_arrays(np.zeros((4, 2)), None)
    with pytest.raises(Refused, match="controls of search"):
        controls_of("search", features, None, None, CPU)


# Image statistics


@pytest.mark.slow
def test_image_statistics_are_read_once_and_then_belong_to_the_bank(tmp_path: Path) -> None:
    bank = build(tmp_path, 12, grey=4)
    features = Features.from_bank(bank)
    own = statistics_of(features, 1)
    with Image.open(tmp_path / "images" / "007.png") as picture:
        grey = np.asarray(picture.convert("L"))
    assert own.values[7][:4] == pytest.approx([*grey.shape, grey.mean(), grey.std()])
    assert np.isfinite(own.values).all() and own.file is not None
    assert not (tmp_path / "bank" / ".embank" / "statistics").exists(), "nothing is written by reading"
    options = KnnOptions(k=(1,))
    first = knn_from_bank(bank.path, MODEL, options, leave_one_out=True, controls=True)
    shutil.rmtree(tmp_path / "images")
    again = knn_from_bank(bank.path, MODEL, options, leave_one_out=True, controls=True)
    assert first["controls"] == again["controls"] and "accuracy" in first["controls"][1]
    for file in (tmp_path / "bank" / ".embank" / "statistics").glob("*.arrays"):
        file.unlink()
    gone = knn_from_bank(bank.path, MODEL, options, leave_one_out=True, controls=True)["controls"][1]
    assert gone["name"] == "image_statistics" and str(tmp_path / "images") in gone["reason"]
