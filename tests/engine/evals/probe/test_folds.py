"""Cross-validation: the manifest's folds, scikit-learn's classifier on them, and plain means over them."""

from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as oracle
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from engine.errors import Refused
from engine.evals.catalogue import evaluate
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.comparison.evaluate import compare
from engine.evals.probe.bank import BankProbe, probes_from_bank
from engine.evals.probe.evaluate import ProbeOptions
from engine.evals.probe.external import External
from engine.evals.probe.fold_options import Folds
from engine.evals.probe.fold_result import FoldsResult
from engine.evals.probe.folds import fold_of_rows
from engine.evals.probe.lowshot import LowShot
from engine.evals.probe.options import Options, Policies, SplitOptions
from engine.evals.probe.parts import Columns
from engine.evals.probe.selection import grid
from stores.bank.predictions import read_predictions
from stores.bank.reader import Bank
from stores.bank.records import read_all, record_files
from stores.bank.writer import open_or_create
from stores.manifest.manifest import Manifest
from stores.manifest.split import CutOptions, split_manifest
from tests.one_by_one import OneByOne
from tests.probe_banks import FIRST, SECOND, fill_with, make_probe_bank
from tests.stores.banks import make_key

C = grid(1e-2, 1e1, 3)
OPTIONS = ProbeOptions(C=C, bootstrap=20)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_probe_bank(tmp_path_factory.mktemp("folds"))


def texts(bank: Bank, column: str) -> np.ndarray:
    codes, names = bank.column(column)
    return np.array([*names, ""], object)[codes]


def manifest_folds(bank: Bank, folds: int, seed: int) -> np.ndarray:
    """What `embank manifest split --folds` writes for the images of a bank."""
    cut = split_manifest(bank.manifest(), CutOptions(folds=folds, seed=seed, replace=True))
    return np.array(cut.manifest.column("fold"), int)


def crossed(bank: Bank, folds: int, repeats: int = 1, **options: Any) -> FoldsResult:
    settings = Options(C=C, bootstrap=20, folds=Folds(folds, repeats), **options)
    result = evaluate("probe", Features.from_bank(bank, FIRST), Compute(), **vars(settings))
    assert isinstance(result.outcome, FoldsResult)
    return result.outcome


def test_the_folds_are_the_manifest_s_and_every_image_is_tested_once_a_repeat(bank: Bank) -> None:
    found = crossed(bank, 4, repeats=2)
    usable = np.flatnonzero(bank.features(FIRST).ok & (texts(bank, "label") != ""))
    for repeat in (0, 1):
        own = found.repeat == repeat
        np.testing.assert_array_equal(found.rows[own], usable)
        np.testing.assert_array_equal(found.fold[own], manifest_folds(bank, 4, repeat)[usable])
    assert found.repeat.tolist() == sorted(found.repeat)
    assert (found.fold[found.repeat == 0] != found.fold[found.repeat == 1]).any()
    patients = texts(bank, "group")
    for one in found.by_fold:
        parts = one.result.task.parts
        of = [set(patients[rows]) for rows in (parts.train, parts.val, parts.test)]
        assert not (of[0] & of[1] or of[0] & of[2] or of[1] & of[2])
        np.testing.assert_array_equal(np.sort(np.concatenate([parts.refit, parts.test])), usable)


@pytest.mark.parametrize("seed", range(3))
def test_classes_are_as_even_as_scikit_learn_s(seed: int) -> None:
    """Unequal patients and classes; no patient in two folds, classes within a patient's images of even."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(90), rng.integers(1, 6, 90))
    label = rng.choice(3, 90, p=[0.6, 0.3, 0.1])[patient]
    features = Features.from_arrays(np.zeros((len(label), 1)), label, groups=patient)
    folds = fold_of_rows(Columns.of(features), label, ("a", "b", "c"), 5, seed)
    assert all(len(set(folds[patient == one])) == 1 for one in range(90))
    kfold = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    theirs = np.empty(len(label), int)
    for fold, (_, tested) in enumerate(kfold.split(label, label, patient)):
        theirs[tested] = fold
    table, reference = (
        np.array([np.bincount(label[of == fold], minlength=3) for fold in range(5)]) for of in (folds, theirs)
    )
    assert (np.ptp(table, axis=0) <= np.bincount(patient).max()).all()
    assert table.std(axis=0).sum() <= reference.std(axis=0).sum() + 1


@pytest.fixture(scope="module")
def by_hand(bank: Bank) -> tuple[FoldsResult, np.ndarray, np.ndarray]:
    """A cross-validation; truth and probabilities that scikit-learn gives at the same C, by fold."""
    found = crossed(bank, 3)
    x = np.asarray(bank.features(FIRST).array, np.float64)
    y = texts(bank, "label")
    folds, scores = manifest_folds(bank, 3, 0), np.full((len(y), 3), np.nan)
    usable = bank.features(FIRST).ok & (y != "")
    for one in found.by_fold:
        learned, tested = usable & (folds != one.fold), usable & (folds == one.fold)
        scaler = StandardScaler().fit(x[learned])
        model = LogisticRegression(C=one.result.best_C, tol=1e-10, max_iter=20_000)
        model.fit(scaler.transform(x[learned]), y[learned])
        scores[tested] = model.predict_proba(scaler.transform(x[tested]))
    return found, y[usable], scores[usable]


def test_probabilities_and_pooled_metrics_are_scikit_learn_s(by_hand: tuple[Any, ...]) -> None:
    found, truth, scores = by_hand
    np.testing.assert_allclose(found.probabilities, scores, atol=1e-4)
    names = np.array(["apple", "pear", "zebra"])
    pooled = {name: metric.value for name, metric in found.metrics().items()}
    predicted = names[scores.argmax(axis=1)]
    assert pooled["accuracy"] == pytest.approx(oracle.accuracy_score(truth, predicted))
    assert pooled["mean_per_class_accuracy"] == pytest.approx(
        oracle.balanced_accuracy_score(truth, predicted)
    )
    area = oracle.roc_auc_score(truth, scores, multi_class="ovr", average="macro")
    assert pooled["auroc"] == pytest.approx(area, abs=1e-3)
    assert pooled["log_loss"] == pytest.approx(oracle.log_loss(truth, scores), abs=1e-4)


def test_means_and_deviations_over_folds_are_a_plain_loop_s(by_hand: tuple[Any, ...]) -> None:
    """The standard error by Nadeau and Bengio; test over train images is 1 / (k - 1) for k folds."""
    found, truth, scores = by_hand
    names = np.array(["apple", "pear", "zebra"])
    values = [
        oracle.accuracy_score(truth[found.fold == fold], names[scores[found.fold == fold].argmax(axis=1)])
        for fold in range(3)
    ]
    over = found.over_folds()["accuracy"]
    assert (over.mean, over.sd) == (pytest.approx(mean(values)), pytest.approx(stdev(values)))
    assert over.standard_error == pytest.approx(((1 / 3 + 1 / 2) * stdev(values) ** 2) ** 0.5)


def test_c_is_chosen_on_a_part_of_what_is_learned_from(bank: Bank) -> None:
    for one in crossed(bank, 3).by_fold:
        parts = one.result.task.parts
        share = len(parts.val) / len(parts.refit)
        assert 0.1 < share < 0.3
        assert one.result.best_C in C


def test_a_patient_s_predictions_of_all_repeats_are_resampled_together(bank: Bank) -> None:
    patients = set(texts(bank, "group")[crossed(bank, 3).rows])
    for repeats in (1, 2):
        assert crossed(bank, 3, repeats).intervals["accuracy"].groups == len(patients)
    lonely = Features.from_arrays(np.random.default_rng(0).normal(size=(60, 3)), ["a", "b", "c"] * 20)
    result = evaluate("probe", lonely, Compute(), C=C, bootstrap=20, folds=Folds(3, 2))
    assert result.outcome.intervals["accuracy"].groups == 60
    assert "patients_unknown" in {one.code for one in result.validity}


def test_the_record_has_the_folds_and_each_prediction(bank: Bank) -> None:
    asked = BankProbe(folds=Folds(3, 2))
    first, second = probes_from_bank(bank.path, [FIRST, SECOND], asked, OPTIONS)
    record = read_all(bank.path)[-2]
    assert record.asked["cross_validation"] == {"folds": 3, "repeats": 2}
    assert record.metrics["folds"] == first["folds"] and second["folds"] != first["folds"]
    assert [(one["repeat"], one["fold"]) for one in first["folds"]["by_fold"]] == [
        (repeat, fold) for repeat in (0, 1) for fold in range(3)
    ]
    assert record.used["splits"]["images"]["rows"] == first["images"]["tested"]
    table = read_predictions(bank.path, sorted(record_files(bank.path), key=str)[-2].stem).to_pandas()
    assert len(table) == 2 * first["images"]["tested"] == len(table[["image_id", "repeat"]].drop_duplicates())
    accuracy = (table["truth"] == table["predicted"]).mean()
    assert accuracy == pytest.approx(first["test"]["accuracy"])


def test_arrays_give_what_the_bank_gives(bank: Bank) -> None:
    columns = [texts(bank, name) for name in ("label", "group")]
    x = np.array(bank.features(FIRST).array)
    features = Features.from_arrays(x, columns[0], groups=columns[1], ok=bank.features(FIRST).ok)
    mine = evaluate("probe", features, Compute(), C=C, bootstrap=20, folds=Folds(3)).outcome
    theirs = crossed(bank, 3)
    assert repr((mine.to_dict()["folds"], mine.to_dict()["test"])) == repr(
        (theirs.to_dict()["folds"], theirs.to_dict()["test"])
    )


def test_models_are_compared_by_patients_over_their_folds(bank: Bank) -> None:
    asked = BankProbe(folds=Folds(3, 2))
    first, second = probes_from_bank(bank.path, [FIRST, SECOND], asked, OPTIONS)
    found = compare(bank.path, "probe", metric="accuracy", resamples=200)
    patients = set(texts(bank, "group")[crossed(bank, 3).rows])
    assert (found.setting.units, found.setting.unit) == (len(patients), "patients")
    difference = first["test"]["accuracy"] - second["test"]["accuracy"]
    assert abs(found.pairs[0].difference) == pytest.approx(abs(difference))


def test_an_image_without_a_patient_is_one_unit_of_a_comparison(tmp_path: Path) -> None:
    """However often it was tested."""
    rows = np.arange(40)
    frame = pd.DataFrame(
        {"image_id": [f"image {row}" for row in rows], "label": np.where(rows % 2, "a", "b")}
    )
    frame["uri"] = frame["image_id"] + ".png"
    bank = open_or_create(tmp_path / "bank", Manifest.from_frame(frame, tmp_path), chunk_rows=64)
    for seed, model in enumerate((FIRST, SECOND)):
        features = np.random.default_rng(seed).normal(size=(40, 3)).astype(np.float32)
        fill_with(bank, make_key(bank.image_digest, model=model), features)
    probes_from_bank(bank.path, [FIRST, SECOND], BankProbe(folds=Folds(2, 3)), OPTIONS)
    found = compare(bank.path, "probe", metric="accuracy", resamples=100)
    assert (found.setting.units, found.setting.unit) == (40, "images")


def test_workers_give_the_same(bank: Bank) -> None:
    asked = BankProbe(("oedema",), policies=Policies(), folds=Folds(2))
    here, there = (
        probes_from_bank(bank.path, [FIRST], asked, OPTIONS, executor=executor)[0]
        for executor in (None, OneByOne())
    )
    assert repr((here["folds"], here["test"])) == repr((there["folds"], there["test"]))


@pytest.mark.parametrize(
    ("wanted", "options", "says"),
    [
        ({"folds": Folds(81)}, {}, "81 of 80 patients"),
        ({"folds": Folds(2), "splits": SplitOptions(test="val", val="test")}, {}, "--val-split"),
        ({"folds": Folds(2), "splits": SplitOptions(holdout=True)}, {}, "--holdout"),
        ({"folds": Folds(2), "low_shot": LowShot((1,))}, {}, "--low-shot"),
        ({"folds": Folds(2)}, {"mode": "as-published"}, "as-published"),
    ],
)
def test_refused(bank: Bank, wanted: dict[str, Any], options: dict[str, Any], says: str) -> None:
    before = len(read_all(bank.path))
    with pytest.raises(Refused, match=says):
        probes_from_bank(bank.path, [FIRST], BankProbe(**wanted), ProbeOptions(**options))
    assert len(read_all(bank.path)) == before


def test_options_that_contradict_folds_are_refused() -> None:
    for wanted in ({"multi_label": True}, {"external": External(("other.bank",))}):
        with pytest.raises(Refused, match="--folds with"):
            BankProbe(folds=Folds(2), **wanted)
    for values in ((1, 1), (2, 0)):
        with pytest.raises(Refused):
            Folds(*values)
