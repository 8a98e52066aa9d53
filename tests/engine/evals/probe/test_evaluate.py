"""probe on arrays: scikit-learn's scaler, classifier and metrics, put together by hand, are the oracle."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from engine.errors import Refused
from engine.evals.probe.evaluate import ProbeOptions, probe
from engine.evals.probe.selection import grid
from tests.said import said

C = grid(1e-3, 1e2, 6)
PART = np.arange(240) % 4
PARTS = {"train": PART < 2, "val": PART == 2, "test": PART == 3}
BACKENDS = ["batched", "sklearn"]


def data(classes: int = 3, seed: int = 0, apart: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """240 rows of 8 features of different scales, noisy enough that strengths differ."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, 240)
    features = rng.normal(0, 1, (240, 8)) + apart * np.eye(8)[labels]
    return (features * np.geomspace(0.1, 30, 8) + 5).astype(np.float32), labels


def fitted(
    x: np.ndarray, y: np.ndarray, C: float, weight: str | None
) -> tuple[StandardScaler, LogisticRegression]:
    scaler = StandardScaler().fit(x.astype(np.float64))
    model = LogisticRegression(C=C, tol=1e-10, max_iter=20_000, class_weight=weight)
    return scaler, model.fit(scaler.transform(x.astype(np.float64)), y)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("weight", ["none", "balanced"])
def test_the_whole_way_is_scikit_learns(backend: str, classes: int, weight: str) -> None:
    x, y = data(classes)
    weighted = None if weight == "none" else weight
    train, val, test = PARTS.values()
    options = ProbeOptions(C=C, backend=backend, class_weight=weight, select="log-loss", bootstrap=0)
    found = probe(x, y, **PARTS, options=options)
    losses = []
    for each in C:
        scaler, model = fitted(x[train], y[train], each, weighted)
        losses.append(
            oracle.log_loss(y[val], model.predict_proba(scaler.transform(x[val].astype(np.float64))))
        )
    np.testing.assert_allclose(found.sweep.val_score, losses, rtol=1e-4)
    assert found.best_C == C[int(np.argmin(losses))]
    scaler, model = fitted(x[train | val], y[train | val], found.best_C, weighted)
    expected = model.predict_proba(scaler.transform(x[test].astype(np.float64)))
    np.testing.assert_allclose(found.probabilities, expected, atol=5e-4)
    headline = found.test.headline
    assert headline["accuracy"] == pytest.approx(oracle.accuracy_score(y[test], expected.argmax(1)))
    assert headline["mean_per_class_accuracy"] == pytest.approx(
        oracle.balanced_accuracy_score(y[test], expected.argmax(1))
    )
    area = oracle.roc_auc_score(y[test], expected[:, 1] if classes == 2 else expected, multi_class="ovr")
    assert headline["auroc"] == pytest.approx(area, abs=2e-3)
    assert headline["log_loss"] == pytest.approx(oracle.log_loss(y[test], expected), rel=1e-3)
    assert found.converged
    # Coefficients are for the features as given.
    z = x[test].astype(np.float64) @ found.refit.fits.coef[0].T + found.refit.fits.intercept[0]
    np.testing.assert_allclose(
        z, model.decision_function(scaler.transform(x[test])).reshape(z.shape), atol=5e-3
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_standardising_it_is_scikit_learns_too(backend: str) -> None:
    x, y = data()
    x = x / np.float32(30)
    options = ProbeOptions(C=C, standardise=False, backend=backend, bootstrap=0)
    found = probe(x, y, **PARTS, options=options)
    both = PARTS["train"] | PARTS["val"]
    model = LogisticRegression(C=found.best_C, tol=1e-10, max_iter=20_000).fit(
        x[both].astype(np.float64), y[both]
    )
    np.testing.assert_allclose(
        found.probabilities, model.predict_proba(x[PARTS["test"]].astype(np.float64)), atol=1e-3
    )


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_order_of_rows_names_of_classes_and_scale_of_features_do_not_matter(seed: int) -> None:
    x, y = data(seed=seed)
    options = ProbeOptions(C=C, bootstrap=0)
    rows = np.random.default_rng(seed).permutation(240)
    names = np.array([7, 41, 300])
    plain = probe(x, y, **PARTS, options=options)
    moved = probe(
        x[rows] * 4 + 1, names[y[rows]], **{name: part[rows] for name, part in PARTS.items()}, options=options
    )
    assert moved.task.classes == ("7", "41", "300")
    assert moved.best_C == plain.best_C
    there = np.argsort(rows)[plain.task.parts.test]
    at = np.searchsorted(moved.task.parts.test, there)
    np.testing.assert_allclose(moved.probabilities[at], plain.probabilities, atol=1e-3)


@pytest.mark.parametrize("select", ["accuracy", "auroc"])
def test_of_equal_scores_the_better_log_loss_wins_and_a_flat_grid_is_said(select: str) -> None:
    """Classes far apart: the strongest regularisation ranks them right, but hardly tells them apart."""
    x, y = data(apart=20.0)
    train, val, _ = PARTS.values()
    found = probe(x, y, **PARTS, options=ProbeOptions(C=C, bootstrap=0, select=select))
    losses = []
    for each in C:
        scaler, model = fitted(x[train], y[train], each, None)
        losses.append(
            oracle.log_loss(y[val], model.predict_proba(scaler.transform(x[val].astype(np.float64))))
        )
    np.testing.assert_allclose(found.sweep.val_log_loss, losses, rtol=1e-3)
    perfect = found.sweep.val_score == 1.0
    assert perfect.sum() > 1 and perfect[1:].all()
    assert found.best_C == C[int(np.where(perfect, losses, np.inf).argmin())] != np.array(C)[perfect].min()
    flat = f"Validation {select} is the same for all 6 values of C: chosen by log loss"
    assert found.sweep.flat == found.to_dict()["flat"] == (flat in said(found)) == bool(perfect.all())


def test_a_classifier_that_must_be_constant_is_said_to_be() -> None:
    x, y = data(2)
    found = probe(np.ones_like(x), y, **PARTS, options=ProbeOptions(C=C, bootstrap=0, select="auroc"))
    assert found.sweep.constant.all() and found.sweep.flat
    assert "Every fit scores all validation images alike: a constant classifier" in said(found)


def test_validation_is_cut_from_train_by_patient() -> None:
    x, y = data()
    groups = np.arange(240) // 4
    test = np.arange(240) >= 180
    found = probe(x, y, train=~test, test=test, groups=groups, options=ProbeOptions(C=C, bootstrap=20))
    parts = found.task.parts
    assert not set(groups[parts.train]) & set(groups[parts.val])
    assert len(parts.train) + len(parts.val) == 180 and 0.15 < len(parts.val) / 180 < 0.25
    assert any("Validation" in note for note in found.notes)
    assert found.intervals["accuracy"].groups == len(np.unique(groups[test]))
    low, high = found.intervals["accuracy"].low, found.intervals["accuracy"].high
    assert low <= found.test.headline["accuracy"] <= high


def test_rows_that_are_not_finite_and_rows_without_label_are_masked_and_counted() -> None:
    x, y = data()
    options = ProbeOptions(C=C, bootstrap=0)
    part = np.concatenate([PART, [0, 2, 3, 0, 3]])
    junk = np.concatenate([x, np.full((3, 8), np.nan, np.float32), x[:2]])
    junk[240, 1:], junk[241, 1:] = 0, np.inf
    labels = np.concatenate([y.astype(float), [0, 1, 2, np.nan, -1]])
    found = probe(junk, labels, train=part < 2, val=part == 2, test=part == 3, options=options)
    assert dict(found.task.parts.masked) == {"failed": 3, "unlabelled": 2}
    np.testing.assert_array_equal(found.probabilities, probe(x, y, **PARTS, options=options).probabilities)


def test_a_class_missing_in_train_is_wrong_in_test_and_said() -> None:
    """The missing class lies between the others, and these keep their own columns."""
    x, y = data()
    options = ProbeOptions(C=C, bootstrap=20)
    whole = probe(x, y, **PARTS, options=options)
    names = np.array([0, 2, 3])[y]
    lost = np.flatnonzero(PARTS["test"])[:12]
    names[lost] = 1
    found = probe(x, names, **PARTS, options=options)
    np.testing.assert_array_equal(found.probabilities[:, [0, 2, 3]], whole.probabilities)
    assert (found.probabilities[:, 1] == 0).all()
    right = whole.probabilities.argmax(axis=1) == y[PARTS["test"]]
    assert found.test.headline["accuracy"] == pytest.approx(right[12:].sum() / 60)
    assert math.isnan(found.test.class_auroc[1]) and math.isnan(found.test.headline["log_loss"])
    assert any("'1'" in sentence and "wrong" in sentence for sentence in said(found))


def test_a_class_that_only_validation_has_is_learnt_by_the_refit() -> None:
    x, y = data()
    y[np.flatnonzero(PARTS["val"])[:15]] = 9
    found = probe(x, y, **PARTS, options=ProbeOptions(C=C, bootstrap=0))
    assert found.refit.known.tolist() == [0, 1, 2, 3]
    assert found.sweep.val_score.max() <= 45 / 60
    assert any("Train has no image of '9'" in sentence for sentence in said(found))
    with pytest.raises(Refused, match="No log-loss on the 60 validation images: 15 rows"):
        probe(x, y, **PARTS, options=ProbeOptions(C=C, select="log-loss"))


def test_a_validation_part_without_a_class() -> None:
    x, y = data()
    val = PARTS["val"] & (y != 2)
    found = probe(
        x, y, train=PARTS["train"], val=val, test=PARTS["test"], options=ProbeOptions(C=C, select="auroc")
    )
    assert any("Validation has no image of '2'" in sentence for sentence in said(found))
    assert any("2 of 3 classes" in note for note in found.notes)
    with pytest.raises(Refused, match="No auroc"):
        probe(
            x, y, train=PARTS["train"], val=val & (y == 1), test=PARTS["test"],
            options=ProbeOptions(C=C, select="auroc"),
        )  # fmt: skip


def test_constant_features_are_counted_and_change_nothing() -> None:
    x, y = data()
    options = ProbeOptions(C=C, bootstrap=0)
    wider = np.concatenate([x, np.full((240, 2), 3.25, np.float32)], axis=1)
    found = probe(wider, y, **PARTS, options=options)
    assert any("2 of 10 features are constant" in sentence for sentence in said(found))
    np.testing.assert_allclose(
        found.probabilities, probe(x, y, **PARTS, options=options).probabilities, atol=5e-4
    )


def test_more_features_than_rows_is_fine_and_said() -> None:
    x, y = data()
    wide = np.random.default_rng(0).normal(size=(240, 300)).astype(np.float32)
    wide[:, :8] += x
    found = probe(wide, y, **PARTS, options=ProbeOptions(C=C, bootstrap=0))
    (one,) = [one for one in found.validity if one.code == "more_dimensions_than_images"]
    assert one.sentence.startswith("300 features and 120 train images") and one.severity == "note"
    assert found.converged


def test_an_end_of_the_grid_is_said() -> None:
    x, y = data()
    found = probe(x, y, **PARTS, options=ProbeOptions(C=(1e-7, 1e-6), select="log-loss", bootstrap=0))
    assert any("largest of the grid" in sentence for sentence in said(found))


def test_the_weakest_regularisation_of_more_features_than_images_is_a_warning() -> None:
    """Also the end of the grid: both are notes where all values of C score the same."""
    x, y = data()
    wide = np.random.default_rng(0).normal(size=(240, 300)).astype(np.float32)
    wide[:, :8] += x
    options = ProbeOptions(C=(1e-6, 1e-5, 1.0), bootstrap=0)
    found = probe(wide, y, **PARTS, options=options)
    assert found.best_C == 1.0 and not found.sweep.flat
    severity = {one.code: one.severity for one in found.validity}
    assert severity["more_dimensions_than_images"] == severity["grid_edge"] == "warning"
    (edge,) = [one for one in found.validity if one.code == "grid_edge"]
    assert (edge.value, edge.remedy) == (1.0, "widen the grid with --c-max")
    wide[:, :4] = 90.0 * np.eye(4)[y]
    found = probe(wide, y, **PARTS, options=ProbeOptions(C=(1.0, 10.0), bootstrap=0))
    assert found.sweep.flat and len({*found.sweep.val_score}) == 1
    severity = {one.code: one.severity for one in found.validity}
    assert severity["more_dimensions_than_images"] == severity["grid_edge"] == "note"
    assert severity["flat_selection"] == "warning"


def test_the_result_as_plain_values() -> None:
    x, y = data()
    found = probe(x, y, **PARTS, options=ProbeOptions(C=C, bootstrap=30)).to_dict()
    assert {"test", "best_C", "val_score", "converged", "objective"} <= set(found)
    assert found["weight_decay"] == 1 / found["best_C"]
    assert found["val_score"] == max(found["sweep"]["val_score"])
    assert found["images"] == {"train": 120, "val": 60, "test": 60}
    assert all(len(each) == len(C) for each in found["sweep"].values())
    assert set(found["test"]["intervals"]) == {
        "accuracy", "mean_per_class_accuracy", "auroc", "average_precision", "log_loss", "calibration_error"
    }  # fmt: skip
    assert sum(map(sum, found["test"]["confusion_matrix"])) == 60


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": np.zeros(240)}, "1 class"),
        ({"labels": np.full(240, np.nan)}, "No label"),
        ({"labels": np.full(240, 0.5)}, "whole numbers"),
        ({"features": np.full((240, 8), np.nan)}, "failed"),
        ({"test": PARTS["train"]}, "120 rows in two parts"),
        ({"test": np.zeros(240, bool)}, "test"),
        ({"val": np.zeros(7, bool)}, "7, 240 rows"),
    ],
)
def test_refused_with_numbers(change: dict, says: str) -> None:
    x, y = data()
    with pytest.raises(Refused, match=says):
        probe(**{"features": x, "labels": y, **PARTS, "options": ProbeOptions(C=C), **change})


@pytest.mark.parametrize(
    "change",
    [{"select": "f1"}, {"class_weight": "mine"}, {"bootstrap": -1}, {"mode": "paper"}, {"backend": "magic"}],
)
def test_unknown_options_are_refused(change: dict) -> None:
    x, y = data()
    with pytest.raises(Refused, match=str(next(iter(change.values())))):
        probe(x, y, **PARTS, options=ProbeOptions(**change))


@pytest.mark.slow
@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives() -> None:
    x, y = data()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        here, there = (
            probe(x, y, **PARTS, options=ProbeOptions(C=C, bootstrap=0, device=device))
            for device in ("cpu", "cuda:0")
        )
    np.testing.assert_allclose(there.probabilities, here.probabilities, atol=1e-3)
    assert there.best_C == here.best_C
