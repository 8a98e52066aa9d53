"""Calibration, operating points and strata of a probe: scikit-learn's own fits are the oracle."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn import metrics as oracle
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import embank
from engine.errors import Refused
from engine.evals.probe.evaluate import ProbeOptions, probe
from engine.evals.probe.stratify import Stratify

N = 600
PART = np.arange(N) % 3
PARTS = {"train": PART == 0, "val": PART == 1, "test": PART == 2}
PATIENTS = np.arange(N) // 6


def data(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """600 rows of 6 features that overlap."""
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, N)
    return (rng.normal(0, 1.5, (N, 6)) + np.eye(6)[labels]).astype(np.float32), labels


def predicted(x: np.ndarray, y: np.ndarray, rows: np.ndarray, C: float) -> np.ndarray:
    """Probabilities of all rows by scikit-learn's fit on some."""
    scaler = StandardScaler().fit(x[rows])
    model = LogisticRegression(C=C, tol=1e-10, max_iter=20_000).fit(scaler.transform(x[rows]), y[rows])
    return model.predict_proba(scaler.transform(x))


@pytest.mark.parametrize("classes", [2, 3])
def test_the_temperature_is_of_the_fit_on_train_and_measured_on_both(classes: int) -> None:
    x, y = data(classes)
    train, val, test = PARTS.values()
    found = probe(x, y, **PARTS, options=ProbeOptions(C=(0.003,), bootstrap=0)).calibration
    alone, refit = predicted(x, y, train, 0.003), predicted(x, y, train | val, 0.003)

    def powered(p: np.ndarray, value: float) -> np.ndarray:
        p = p ** (1 / value)
        return p / p.sum(axis=1, keepdims=True)

    best = minimize_scalar(
        lambda v: oracle.log_loss(y[val], powered(alone[val], math.exp(v))), bounds=(-4, 4), method="bounded"
    )
    assert found.temperature == pytest.approx(math.exp(best.x), rel=2e-3)
    assert found.images == val.sum() and not found.reason
    for sides, p, rows in (
        (found.test, refit, test),
        (found.train_fit, alone, test),
        (found.validation, alone, val),
    ):
        for scores, q in zip(sides, (p[rows], powered(p[rows], found.temperature)), strict=True):
            assert scores.log_loss == pytest.approx(oracle.log_loss(y[rows], q), rel=1e-3)
            theirs = q[:, 1] if classes == 2 else q
            assert scores.brier == pytest.approx(oracle.brier_score_loss(y[rows], theirs), rel=1e-3)
    before, after = found.validation
    assert after.log_loss < before.log_loss


def test_the_threshold_of_the_validation_part_is_applied_to_test() -> None:
    x, y = data(2)
    train, val, test = PARTS.values()
    options = ProbeOptions(C=(0.1,), bootstrap=20, specificity=0.8)
    found = probe(x, y, **PARTS, groups=PATIENTS, options=options).operating
    assert found is not None and found.interval is not None
    alone, refit = predicted(x, y, train, 0.1)[:, 1], predicted(x, y, train | val, 0.1)[:, 1]
    fpr, tpr, thresholds = oracle.roc_curve(y[val], alone[val])
    assert found.chosen.threshold == pytest.approx(thresholds[np.argmax(tpr - fpr)], abs=1e-4)
    called = refit[test] >= found.chosen.threshold
    (tn, fp), (fn, tp) = oracle.confusion_matrix(y[test], called)
    expected = {
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "ppv": tp / (tp + fp),
        "npv": tn / (tn + fn),
    }
    assert {name: own.value for name, own in found.test.items()} == pytest.approx(expected)
    fpr, tpr, _ = oracle.roc_curve(y[test], refit[test], drop_intermediate=False)
    assert found.sensitivity.sensitivity == pytest.approx(tpr[fpr <= 0.2 + 1e-9].max())
    assert found.interval.low <= found.sensitivity.sensitivity <= found.interval.high
    assert probe(*data(3), **PARTS, options=ProbeOptions(C=(0.1,), bootstrap=0)).operating is None


def features(**columns: object) -> "embank.Features":
    x, y = data(2)
    splits = np.array(["train", "val", "test"])[PART]
    return embank.Features.from_arrays(x, y, groups=PATIENTS, splits=splits, findings=columns)


def test_strata_are_tested_apart() -> None:
    place = np.where(PATIENTS % 2, "AP", "PA").astype(object)
    place[PATIENTS == 3] = ""
    place[PATIENTS == 5] = "rare"
    table = features(seen=place, age=[str(20 + row % 60) for row in range(N)])
    strata = (Stratify("seen"), Stratify.parse("age:30,50"))
    result = embank.evaluate("probe", table, C=(0.1,), bootstrap=100, strata=strata)
    view, age = result.to_dict()["strata"]
    assert view["missing"] == 2 and [own["stratum"] for own in view["strata"]] == ["AP", "PA", "rare"]
    assert [own["stratum"] for own in age["strata"]] == ["below 30", "30 to 50", "50 or more"]
    rows, p = result.outcome.task.parts.test, result.outcome.probabilities
    y = data(2)[1][rows]
    for stratum in view["strata"][:2]:
        own = place[rows] == stratum["stratum"]
        assert stratum["images"] == own.sum() and stratum["patients"] == len(set(PATIENTS[rows][own]))
        assert stratum["accuracy"] == pytest.approx(oracle.accuracy_score(y[own], p[own].argmax(1)))
        assert stratum["auroc"] == pytest.approx(oracle.roc_auc_score(y[own], p[own, 1]))
        interval = stratum["intervals"]["auroc"]
        assert interval["low"] < stratum["auroc"] < interval["high"]
    assert "fewer than 10" in view["strata"][2]["reason"] and "auroc" not in view["strata"][2]
    first, second = (own["accuracy"] for own in view["strata"][:2])
    gap = view["gaps"]["accuracy"]
    assert gap["value"] == pytest.approx(abs(first - second)) and gap["strata"] == 2
    assert gap["low"] < gap["value"] < gap["high"]


def test_a_stratum_of_one_class_has_no_auroc_and_no_part_in_its_gap() -> None:
    y = data(2)[1]
    table = features(sick=[str(label) for label in y])
    (strata,) = embank.evaluate(
        "probe", table, C=(0.1,), bootstrap=10, strata=(Stratify("sick"),)
    ).outcome.strata
    for stratum in strata.strata:
        assert math.isnan(stratum.metrics["auroc"].value) and stratum.metrics["auroc"].reason
        assert not math.isnan(stratum.metrics["accuracy"].value)
    assert math.isnan(strata.gaps["auroc"].value) and "needs two" in strata.gaps["auroc"].reason
    assert strata.gaps["accuracy"].value >= 0


def test_strata_that_cannot_be_made_are_refused() -> None:
    table = features(seen=["AP"] * N, many=[str(row) for row in range(N)])
    for by, words in ((Stratify.parse("seen:1,2"), "holds 'AP'"), (Stratify("many"), "200 values")):
        with pytest.raises(Refused, match=words) as refused:
            embank.evaluate("probe", table, C=(0.1,), bootstrap=0, strata=(by,))
        assert "--strata" in refused.value.remedy
    with pytest.raises(Refused, match="ascending"):
        Stratify.parse("age:60,40")
    with pytest.raises(Refused, match="once"):
        embank.evaluate("probe", table, C=(0.1,), strata=(Stratify("seen"), Stratify("seen")))
    assert Stratify.parse("a:b") == Stratify("a:b") and Stratify.parse("a:1").word == "a:1"


def test_the_order_of_the_grid_does_not_matter() -> None:
    x, y = data(3)
    grid = (0.1, 1e-3, 1e-5)
    found = [
        probe(x, y, **PARTS, options=ProbeOptions(C=C, bootstrap=0, select="log-loss"))
        for C in (grid, grid[::-1])
    ]
    assert found[0].best_C == found[1].best_C
    temperatures = [one.calibration.temperature for one in found]
    assert temperatures[0] == pytest.approx(temperatures[1], rel=1e-3)
    alone = predicted(x, y, PARTS["train"], found[0].best_C)[PARTS["val"]]
    loss = found[0].calibration.validation[0].log_loss
    assert loss == pytest.approx(oracle.log_loss(y[PARTS["val"]], alone), rel=1e-3)


def test_means_over_other_classes_are_not_compared() -> None:
    x, y = data(3)
    place = np.where(y == 2, "a", np.where(np.arange(N) // 6 % 2, "a", "b"))
    splits = np.array(["train", "val", "test"])[PART]
    table = embank.Features.from_arrays(x, y, groups=PATIENTS, splits=splits, findings={"place": place})
    result = embank.evaluate("probe", table, C=(0.1,), bootstrap=20, strata=(Stratify("place"),))
    (strata,) = result.outcome.strata
    assert "2 of 3 classes" in strata.strata[1].metrics["auroc"].reason
    assert not math.isnan(strata.strata[1].metrics["auroc"].value)
    assert strata.gaps["accuracy"].strata == 2
    for name in ("auroc", "mean_per_class_accuracy"):
        assert strata.gaps[name].strata == 1 and math.isnan(strata.gaps[name].value)
